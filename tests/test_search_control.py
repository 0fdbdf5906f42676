"""Commands that change a study, its continuation with more candidates, and its use from Python."""

import json
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

import search
from config import load_config
from search.__main__ import main
from search.study.commands import waiting_commands
from search.study.folders import create_study_folder, differences, find_studies, read_present_config, read_study_config
from search.study.journal import JOURNAL, Journal, read_events
from tests.test_search_journal import flip
from utils.errors import SearchError

ROOT = Path(__file__).resolve().parents[1]
LR = "optimizer.args.lr"


def space_file(folder, **search_options):
    """A search of a tiny network on the images of this repository."""
    config = {
        "$extends": str(ROOT / "config/people/quickstart.json"),
        "name": "tiny",
        "arch": {"type": "UNet", "args": {"channels": [4, 4]}},
        "optimizer": {"args": {"lr": {"$loguniform": [0.001, 0.01]}}},
        "train_loader": {"args": {"samples": 4, "resize": [16, 16]}},
        "valid_loader": {"args": {"samples": 2, "resize": [16, 16]}},
        "trainer": {"epochs": 1, "save_dir": str(folder), "tensorboard": False, "pictures": 0},
        "search": {"num_samples": 2, **search_options},
    }
    path = folder / "tiny.json"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    result = search.run(space_file(folder))
    return folder, result


@pytest.fixture
def copied(finished, tmp_path):
    """The folder of a finished study and its file, to be changed."""
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    file = space_file(folder)
    (study,) = find_studies(folder)
    config = json.loads((study / "config.json").read_text())
    config["trainer"]["save_dir"] = str(folder)
    (study / "config.json").write_text(json.dumps(config))
    return file, study


def test_a_search_runs_and_is_read_in_python(finished, tmp_path):
    folder, result = finished
    assert [each["candidate"] for each in result.candidates] == [0, 1]
    assert result.best is not None
    assert result.best["val_miou"] == max(each["val_miou"] for each in result.candidates)
    assert result.front == [result.best]
    assert len(result.curves) == 2
    again = search.load(result.folder)
    assert again.candidates == result.candidates
    again.to_csv(tmp_path / "candidates.csv")
    assert (tmp_path / "candidates.csv").read_text().count("\n") == 3
    assert find_studies(folder) == [result.folder]


@pytest.mark.parametrize("name", ["nowhere", "tiny"])
def test_a_folder_without_a_study_is_named(finished, name, capsys):
    with pytest.raises(SearchError, match=f"{name}: there is no study in it"):
        search.load(finished[0] / name)
    assert main(["--resume", str(finished[0] / name)]) == 5
    assert "there is no study in it" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["ad", "saved", "3"], ["saved"]])
def test_a_word_that_is_no_command_is_named(words, capsys):
    assert main(words) == 2
    assert f'"{words[0]}": is no command. Write one of list, best,' in capsys.readouterr().err


def test_a_loaded_config_is_searched_and_left_as_it_was(tmp_path):
    config = load_config(space_file(tmp_path))
    before = json.dumps(config)
    result = search.run(config, "search.num_samples=1")
    assert len(result.candidates) == 1
    assert json.dumps(config) == before


def test_more_candidates_continue_a_study(copied, capsys):
    file, study = copied
    assert main(["-c", str(file), "search.num_samples=3", "--resume", "auto"]) == 0
    assert "The study grows from 2 to 3 candidates" in "".join(capsys.readouterr())
    assert find_studies(file.parent) == [study]
    assert len(search.load(study).candidates) == 3
    reports = [event for event in read_events(study / JOURNAL) if event.name == "search.report"]
    assert len(reports) == 3, "the first two were not trained again"
    assert main(["-c", str(file), "search.num_samples=4", "--resume", str(study)]) == 0
    assert len(search.load(study).candidates) == 4


def test_what_differs_is_named_key_by_key(copied, capsys):
    file, study = copied
    changes = ["search.num_samples=3", "trainer.epochs=2", "search.scheduler=ASHA"]
    assert main(["-c", str(file), *changes, "--resume", str(study)]) != 0
    error = capsys.readouterr().err
    assert "trainer.epochs (1 there, 2 here)" in error
    assert "search.scheduler (only here)" in error
    assert "num_samples" not in error
    assert main(["-c", str(file), "search.num_samples=1", "--resume", str(study)]) != 0
    assert "search.num_samples asks for 1 candidates, and it has 2 already" in capsys.readouterr().err


def test_what_may_change_is_said(copied, caplog):
    file, study = copied
    options = ['search.retrain={"top": 1, "seeds": 1}', "search.budget.max_time=50"]
    assert main(["-c", str(file), *options, "--resume", "auto"]) == 0
    assert "continues with another search.budget (only here), search.retrain (only here)." in caplog.text
    assert find_studies(file.parent) == [study]
    assert len(search.load(study).retrained) == 1
    assert read_present_config(study)["search"]["budget"] == {"max_time": 50}
    caplog.clear()
    assert main(["--resume", str(study)]) == 0, "with the options of the newest session"
    assert "another" not in caplog.text
    assert len(search.load(study).retrained) == 1
    assert main(["-c", str(file), "--resume", "auto"]) == 0
    assert "continues with another search.budget (only there), search.retrain (only there)." in caplog.text
    assert search.load(study).retrained == []


def test_a_warm_start_without_a_study_is_refused_before_the_start(tmp_path, capsys):
    file = space_file(tmp_path, warm_start=str(tmp_path / "nothing"))
    assert main(["-c", str(file)]) == 2
    assert "search.warm_start: there is no study in" in capsys.readouterr().err
    assert find_studies(tmp_path) == []


def test_a_new_study_says_why_the_newest_is_not_continued(copied, caplog):
    file, study = copied
    assert main(["-c", str(file), "seed=5", "search.num_samples=1", "--resume", "auto"]) == 0
    said = caplog.text
    assert f"{study} is not continued: it differs in seed (only here). A new study begins." in said
    assert len(find_studies(file.parent)) == 2


def test_commands_wait_for_a_search_that_does_not_run(copied, capsys):
    _, study = copied
    assert main(["add", str(study), "1"]) == 0
    assert main(["enqueue", str(study), f"{LR}=0.005"]) == 0
    assert "The study does not run now; continue it:  python -m search --resume" in capsys.readouterr().out
    assert [command.name for command in waiting_commands(study)] == ["add", "enqueue"]
    assert main(["--resume", str(study)]) == 0
    result = search.load(study)
    assert 0.005 in [each[LR] for each in result.candidates]
    assert waiting_commands(study) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add", "0"], "add 0: must be 1 or more"),
        (["enqueue", f"{LR}=5"], LR),
        (["enqueue", "nonsense"], "must be PATH=VALUE"),
        (["enqueue", "optimizer.args.momentum=0.5"], "optimizer.args.momentum"),
        (["pause", "7"], "candidate 7 is not known"),
        (["stop", "0"], "candidate 0 is completed"),
        (["stop"], "no search runs in"),
        (["pause"], "no search runs in"),
    ],
)
def test_a_command_that_cannot_be_obeyed_is_refused(copied, capsys, words, message):
    _, study = copied
    assert main([words[0], str(study), *words[1:]]) != 0
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert waiting_commands(study) == []


def test_a_damaged_journal_is_repaired_by_a_command(copied, capsys):
    _, study = copied
    assert main(["repair", str(study)]) == 0
    assert "the journal is good" in capsys.readouterr().out
    flip(study, 6, random.Random(1))
    assert main(["best", str(study)]) != 0
    assert "python -m search repair" in capsys.readouterr().err
    assert main(["repair", str(study)]) == 0
    assert "The first 5 events remain" in capsys.readouterr().out
    assert main(["--resume", str(study)]) == 0
    assert len(search.load(study).candidates) == 2
    with sqlite3.connect(study / "journal.damaged1.sqlite") as stored:
        assert stored.execute("SELECT count(*) FROM events").fetchone()[0] > 5
    stored.close()


def test_a_warm_start_takes_over_what_holds_here(copied, tmp_path):
    _, study = copied
    other = tmp_path / "other"
    other.mkdir()
    result = search.run(space_file(other, warm_start=str(study), num_samples=1))
    (event,) = [event for event in read_events(result.folder / JOURNAL) if event.name == "study.warm_started"]
    assert [each["is_unfinished"] for each in event.data["observations"]] == [True, True]
    narrower = space_file(other, warm_start=str(study), num_samples=1)
    result = search.run(narrower, f'{LR}={{"$loguniform": [0.001, 0.02]}}')
    (event,) = [event for event in read_events(result.folder / JOURNAL) if event.name == "study.warm_started"]
    assert event.data["observations"] == []


def test_a_warm_start_knows_which_results_violate_the_constraints(copied, tmp_path):
    _, study = copied
    (objective,) = search.load(study).record.objectives
    name = objective.split()[1]
    file = space_file(tmp_path, warm_start=str(study), num_samples=1, constraints=[f"{name} >= 1e9"])
    result = search.run(file)
    (event,) = [event for event in read_events(result.folder / JOURNAL) if event.name == "study.warm_started"]
    values = [value for each in event.data["observations"] for row in each["values"] for value in row]
    assert values
    assert all(value < -1e90 for value in values)


def test_differences_are_paths_with_both_values():
    stored = {"a": {"b": 1, "c": [1, 2]}, "search": {"num_samples": 3, "seed": 1}}
    config = {"a": {"b": 2, "c": [1, 2], "d": None}, "search": {"num_samples": 5, "seed": 1, "budget": {}}}
    assert differences(stored, config) == ["a.b (1 there, 2 here)", "a.d (only here)"]
    assert differences(stored, stored) == []


def test_the_options_of_a_study_are_those_of_its_newest_session(tmp_path):
    begun = {"name": "s", "search": {"num_samples": 3, "budget": {"epochs": 9}, "retrain": {"top": 2}}}
    folder = create_study_folder(str(tmp_path), "s", begun)
    assert read_present_config(folder) == begun
    journal = Journal(folder / JOURNAL)
    journal.append("study.begin", environment={})  # of an earlier version
    assert read_present_config(folder) == begun
    journal.append("study.begin", environment={}, options={"retrain": {"top": 1}, "num_samples": 7})
    journal.append("study.done")
    journal.close()
    assert read_present_config(folder) == {"name": "s", "search": {"num_samples": 3, "retrain": {"top": 1}}}
    assert read_study_config(folder) == begun


def test_the_config_of_a_study_is_that_of_its_beginning(copied):
    _, study = copied
    assert read_study_config(study)["search"]["num_samples"] == 2


@pytest.mark.parametrize("place", ["best", "candidates/00000", "."])
@pytest.mark.parametrize("damage", [None, {"name": "x"}, {"name": "x", "search": 5}])
def test_what_is_no_study_is_not_resumed(copied, capsys, place, damage):
    file, study = copied
    folder = study / place
    if damage is not None:
        (folder / "config.json").write_text(json.dumps(damage))
    elif place == ".":
        (folder / JOURNAL).unlink()
    for words in (["--resume", str(folder)], ["-c", str(file), "--resume", str(folder)]):
        assert main(words) in (2, 5)
        assert "Traceback" not in capsys.readouterr().err


def test_a_study_without_a_search_section_is_resumed(copied, tmp_path):
    file, _ = copied
    config = json.loads(file.read_text())
    del config["search"]
    config["name"] = "single"
    file.write_text(json.dumps(config))
    first = search.run(file)
    assert search.run(file, resume="auto").folder == first.folder
