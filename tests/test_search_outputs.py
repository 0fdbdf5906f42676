"""Outputs of the commands never replace a file of a study; a broken study does not hide the others."""

import json
import shutil
import sqlite3

import pytest

from config import load_config
from search.__main__ import main
from search.study.folders import CONFIG
from search.study.journal import JOURNAL, Journal, create_journal

PLUGIN = """
from search.schedulers.halving import SuccessiveHalving

class Mine(SuccessiveHalving):
    pass
"""


def make_study(folder, **search):
    """A study with one candidate of one epoch, with the files that a search writes."""
    config = load_config("config/search/minimal.json")
    config["name"] = folder.name
    config["search"] = {"num_samples": 1, "objectives": ["max val_miou"]} | search
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps(config))
    create_journal(folder / JOURNAL)
    journal = Journal(folder / JOURNAL)
    journal.append("study.begin", environment={"command": ["-c", "x.json", "--plugin", "my plugin.py"]})
    journal.close()
    (folder / "candidates/00000").mkdir(parents=True)
    (folder / "candidates/00000/model_best.pth").write_text("weights")
    (folder / "best").mkdir()
    (folder / "best/result.json").write_text("{}")
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        "report STUDY --output STUDY/journal.sqlite",
        "report STUDY --output STUDY/config.json",
        "report STUDY --output STUDY/new.json",
        "report STUDY --output STUDY/candidates/00000/model_best.pth",
        "report STUDY --output STUDY/candidates/00000/report.html",
        "report STUDY --output STUDY/best/../journal.sqlite-wal",
        "report STUDY --output LINK/config.json",
        "report STUDY --output OTHER/journal.sqlite",
        "report STUDY --output COPY",
        "report STUDY --output STUDY",
        "report STUDY --output STUDY/missing/x.html",
        "export STUDY --csv STUDY/journal.sqlite",
        "export STUDY --csv STUDY/best/result.json",
        "export STUDY --csv COPY",
        "export STUDY --optuna sqlite:///STUDY/journal.sqlite",
        "export STUDY --optuna sqlite:///STUDY/candidates/x.db",
        "export STUDY --optuna sqlite:///STUDY/config.json",
        "export STUDY --optuna sqlite:///COPY",
        "export STUDY --optuna sqlite:///ELSEWHERE/journal.sqlite",
        "export STUDY --optuna sqlite:///:memory:",
        "export STUDY --csv x.csv --optuna sqlite:///STUDY/journal.sqlite",
    ],
)
def test_an_output_is_never_a_file_of_a_study(words, tmp_path, monkeypatch, capsys):
    study, other = make_study(tmp_path / "study"), make_study(tmp_path / "other")
    (tmp_path / "link").symlink_to(study)
    shutil.copy(study / JOURNAL, tmp_path / "copy.bak")
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    places = {
        "STUDY": study,
        "OTHER": other,
        "LINK": tmp_path / "link",
        "COPY": tmp_path / "copy.bak",
        "ELSEWHERE": tmp_path,
    }
    for name, path in places.items():
        words = words.replace(name, str(path))
    assert main(words.split()) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: --")
    assert message.count("\n") == 1
    assert contents(tmp_path) == before


def test_outputs_elsewhere_and_next_to_the_study_are_written_again(tmp_path, capsys):
    pytest.importorskip("optuna")
    study = make_study(tmp_path / "study")
    for _ in range(2):
        assert main(["report", str(study)]) == 0
        assert main(["export", str(study), "--csv", str(study / "all.csv")]) == 0
    assert main(["export", str(study), "--optuna", f"sqlite:///{study / 'optuna.db'}"]) == 0
    assert main(["export", str(study), "--optuna", f"sqlite:///{study / 'optuna.db'}"]) == 5
    assert 'it has a study "study" already' in capsys.readouterr().err
    assert {"report.html", "all.csv", "all_reports.csv", "optuna.db"} <= {path.name for path in study.iterdir()}


def test_several_studies_are_compared_in_a_file_that_is_named(tmp_path, capsys):
    studies = [str(make_study(tmp_path / name)) for name in ("one", "two")]
    assert main(["report", *studies]) == 2
    assert "Name it, e.g. --output compare.html." in capsys.readouterr().err
    assert main(["report", *studies, "--output", str(tmp_path / "compare.html")]) == 0
    assert "No study has results of val_miou yet." in (tmp_path / "compare.html").read_text()
    assert main(["report", *studies, "--output", f"{studies[0]}/journal.sqlite"]) == 2


def test_a_full_disk_is_an_error_of_one_line(tmp_path, monkeypatch, capsys):
    study = make_study(tmp_path / "study")

    def no_space(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.files.write_atomically", no_space)
    for words in (["report", str(study)], ["export", str(study), "--csv", str(tmp_path / "x.csv")]):
        assert main(words) == 5
        assert "it cannot be written (No space left on device). Free some space" in capsys.readouterr().err


def test_a_broken_study_does_not_hide_the_others(tmp_path, capsys):
    good, broken = make_study(tmp_path / "saved/good"), make_study(tmp_path / "saved/broken")
    with sqlite3.connect(broken / JOURNAL) as connection:
        connection.execute("UPDATE events SET data = '{'")
    connection.close()
    assert main(["list", str(tmp_path / "saved")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["good", "unfinished"]
    assert lines[2].startswith(f"Not shown: {broken}")
    assert "damaged" in lines[2]
    shutil.rmtree(good)
    assert main(["list", str(tmp_path / "saved")]) == 5
    assert "damaged" in capsys.readouterr().err


def test_commands_take_the_plugins_of_the_search(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("utils.plugins.loaded", {})
    plugin = tmp_path / "my_halving_of_a_test.py"
    plugin.write_text(PLUGIN)
    study = make_study(tmp_path / "study", scheduler={"type": "my_halving_of_a_test.Mine"})
    assert main(["best", str(study)]) == 2
    assert "The search was started with --plugin 'my plugin.py'. Name that here, too." in capsys.readouterr().err
    for words in (["list", str(tmp_path)], ["best", str(study)], ["export", str(study), "--csv", str(tmp_path / "x")]):
        assert main([*words, "--plugin", str(plugin)]) == 0
