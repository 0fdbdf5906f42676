"""What list and best print."""

import shlex
import sqlite3

from config import load_config
from search.cli.listing import best_text, list_text, winner_commands
from search.cli.study_commands import read_study
from search.results.record import StudyRecord
from search.study.folders import create_study_folder, find_studies
from search.study.journal import JOURNAL, Journal, create_journal
from tests.support.study_samples import fixed_study, sample_study


def test_a_line_per_study():
    unfinished = StudyRecord("begun", "saved/begun", {}, "ASHA", ["max val_miou"], 9)
    lines = list_text([fixed_study(), unfinished]).splitlines()
    assert lines[0].split() == ["STUDY", "STATE", "CANDIDATES", "EPOCHS", "BEST", "FOLDER"]
    assert lines[1].split() == ["fixed", "done", "3", "3", "val_miou", "0.7", "saved/fixed"]
    assert lines[2].split() == ["begun", "unfinished", "0", "0", "-", "saved/begun"]


def test_no_studies():
    assert list_text([]) == "No studies here."


def test_best_says_what_was_drawn_and_how_to_use_it(tmp_path):
    folder = tmp_path / "my study"
    (folder / "best").mkdir(parents=True)
    for name in ("config.json", "model_best.pth"):
        (folder / "best" / name).touch()
    study = sample_study(40, objectives=("max val_miou", "min params"), folder=folder)
    text = best_text(study)
    winner = study.retrained[0].candidate
    assert f"candidate {winner} of" in text
    assert "optimizer.args.lr" in text
    assert "Pareto front" in text
    assert "±" in text
    assert f"python test.py --resume '{folder}/best/model_best.pth'" in text


def test_commands_name_plugins_and_a_split_that_has_data():
    study = fixed_study()
    study.plugins = ["my models.py", "other.py"]
    _, test, inference = (shlex.split(command) for command in winner_commands(study))
    assert test[-6:] == ["--split", "valid", "--plugin", "my models.py", "--plugin", "other.py"]
    assert inference[-4:] == ["--plugin", "my models.py", "--plugin", "other.py"]
    study.config["test_loader"] = {"type": "SegmentationDataLoader"}
    assert "--split" not in winner_commands(study)[1]


def test_plugins_are_those_of_the_command_that_started_the_study(tmp_path):
    config = load_config("config/search/minimal.json")
    folder = create_study_folder(str(tmp_path), "s", config)
    journal = Journal(folder / JOURNAL)
    command = ["search/__main__.py", "-c", "x.json", "--plugin", "my net.py", "optimizer.args.lr=1", "--plugin=b.py"]
    journal.append("study.begin", environment={"command": command})
    journal.close()
    assert read_study(folder).plugins == ["my net.py", "b.py"]


def test_best_of_an_unfinished_study_says_what_is_not_there_yet():
    assert "Not written yet: saved/fixed/best/config.json" in best_text(fixed_study())


def test_best_of_nothing():
    study = StudyRecord("begun", "saved/begun", {}, "ASHA", ["max val_miou"], 9)
    assert best_text(study) == "begun: no candidate has results yet."


def begun(folder, seconds):
    folder.mkdir(parents=True)
    create_journal(folder / JOURNAL)
    journal = Journal(folder / JOURNAL)
    journal.append("study.begin", environment={})
    journal.close()
    with sqlite3.connect(folder / JOURNAL) as connection:
        connection.execute("UPDATE events SET seconds = ?", (seconds,))
    connection.close()


def test_studies_are_ordered_by_their_first_events(tmp_path):
    for name, seconds in (("20250101_120000", 30.0), ("best_of_all", 10.0), ("20250101_120000_10", 20.0)):
        begun(tmp_path / "copies" / name, seconds)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / JOURNAL).write_bytes(b"no database")
    expected = ["20250101_120000", "20250101_120000_10", "best_of_all", "damaged"]
    assert [folder.name for folder in find_studies(tmp_path)] == expected
    assert find_studies(tmp_path / "damaged") == [tmp_path / "damaged"]
    assert find_studies(tmp_path / "nothing") == []
