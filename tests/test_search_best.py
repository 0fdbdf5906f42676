"""The folder with the winner and the front, whatever interrupts its writing."""

import errno
import json
import logging
import os
import shlex
import shutil
import sys

import pytest

from search.cli.listing import best_text, list_text
from search.results.record import CandidateRecord, RetrainedRecord, StudyRecord
from search.study.best import read_front, require_retrained, write_best
from utils.errors import SearchError

POINTS = [(0.9, 300), (0.7, 100), (0.6, 200), (0.8, 200)]  # front: 0, 3, 1


def config_of(candidate):
    return {"name": "s", "seed": candidate, "trainer": {"epochs": 9}, "size": POINTS[candidate][1]}


def study_of(folder, points=POINTS, objectives=("max val_miou", "min params"), **options):
    study = StudyRecord("s", str(folder), {}, "ASHA", list(objectives), 9, is_done=True, **options)
    for index, (miou, params) in enumerate(points):
        run = f"candidates/{index:05d}"
        row = {"epoch": 2, "val_miou": miou, "epoch_seconds": 1.0}
        known = {"val_miou": miou, "params": params}
        record = CandidateRecord(index, index, [("size", params)], "completed", reports=[row], best_epoch=2, folder=run)
        record.facts = {"params": params}
        record.objectives = {text.split()[1]: known[text.split()[1]] for text in objectives}
        study.candidates.append(record)
        (folder / run).mkdir(parents=True, exist_ok=True)
        (folder / run / "model_best.pth").write_text(f"weights of {index}")
    return study


def retrained(epochs):
    return lambda config, seed: {**config, "seed": seed, "trainer": {**config["trainer"], "epochs": epochs}}


def write(study):
    return write_best(study, config_of, retrained_config=retrained(9))


def stored(folder):
    """Candidate of the config, of the result and of the weights, which belong together."""
    config, result = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "result"))
    weights = (folder / "model_best.pth").read_text()
    assert weights == f"weights of {result['candidate']}"
    assert config == config_of(result["candidate"])
    return result["candidate"]


def front_of(folder):
    return [stored(each.path) for each in read_front(folder)]


def test_one_objective_has_the_winner_only(tmp_path):
    assert write(study_of(tmp_path, objectives=["max val_miou"])) == 0
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == [
        "config.json",
        "model_best.pth",
        "result.json",
    ]
    result = json.loads((tmp_path / "best/result.json").read_text())
    assert list(result) == ["candidate", "objectives", "facts", "drawn", "retrained"]
    assert read_front(tmp_path) == []


def test_several_objectives_have_the_front_too(tmp_path):
    write(study_of(tmp_path))
    assert stored(tmp_path / "best") == 0
    assert front_of(tmp_path) == [0, 3, 1]
    result = json.loads((tmp_path / "best/1/result.json").read_text())
    assert result["objectives"] == {"val_miou": 0.8, "params": 200}
    assert (result["facts"], result["epoch"], result["drawn"]) == ({"params": 200}, 2, {"size": 200})


def test_a_retrained_winner_has_its_weights_and_the_front_those_of_the_search(tmp_path):
    study = study_of(tmp_path)
    reports = [{"epoch": 1, "val_miou": 0.95, "epoch_seconds": 1.0}]
    study.retrained = [RetrainedRecord(0, 1, 7, "completed", reports, {"test_miou": 0.9}, "retrained/a")]
    (tmp_path / "retrained/a/pictures").mkdir(parents=True)
    (tmp_path / "retrained/a/pictures/one.png").touch()
    (tmp_path / "retrained/a/model_best.pth").write_text("retrained")
    write_best(study, config_of, retrained_config=retrained(20))
    config = json.loads((tmp_path / "best/config.json").read_text())
    assert (config["seed"], config["trainer"]["epochs"]) == (7, 20)
    assert (tmp_path / "best/model_best.pth").read_text() == "retrained"
    assert (tmp_path / "best/pictures/one.png").exists()
    assert stored(tmp_path / "best/0") == 0


def test_a_front_that_has_changed_replaces_the_old_one(tmp_path):
    write(study_of(tmp_path))
    (tmp_path / "best/notes.txt").write_text("mine")
    write(study_of(tmp_path, [(0.9, 100), (0.7, 100)]))
    assert front_of(tmp_path) == [0]
    assert (tmp_path / "best/notes.txt").read_text() == "mine"


def test_a_front_member_without_a_checkpoint_is_said(tmp_path, caplog):
    study = study_of(tmp_path)
    (tmp_path / "candidates/00003/model_best.pth").unlink()
    with caplog.at_level(logging.WARNING):
        write(study)
    assert "Candidate 3 has no checkpoint" in caplog.text
    assert f"{tmp_path}/best/1 holds no weights" in caplog.text
    text = best_text(study)
    assert (
        "best/1, candidate 3: its checkpoint is missing, so that it has to be trained first.\npython train.py" in text
    )
    assert "best/1/model_best.pth" not in text


class Killed(BaseException):
    pass


CALLS = ("mkdir", "link", "rename", "replace", "rmdir", "unlink")


def kill_at(monkeypatch, call):
    """Let the process die before the n-th change of a folder or file."""
    count = 0

    def dying(original):
        def change(*args, **kwargs):
            nonlocal count
            count += 1
            if count == call:
                raise Killed
            return original(*args, **kwargs)

        return change

    for name in CALLS:
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


@pytest.mark.parametrize("platform", [sys.platform, "win32"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_ones(tmp_path, platform):
    completed, killed = False, 0
    while not completed:
        killed += 1
        folder = tmp_path / f"{killed}"
        write(study_of(folder))
        (folder / "best/notes.txt").write_text("mine")
        study = study_of(folder, [*POINTS[:3], (0.95, 90)])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "platform", platform)
            kill_at(patch, killed)
            try:
                write(study)
                completed = True
            except Killed:
                pass
        if (folder / "best").exists():
            assert front_of(folder) in ([0, 3, 1], [3])
            assert stored(folder / "best") == front_of(folder)[0]
        else:  # between two renames, where folders cannot be exchanged: the next start puts the old one back
            assert platform == "win32"
            assert stored(folder / ".best.old") == 0
        write(study)
        assert front_of(folder) == [3]
        assert (folder / "best/notes.txt").read_text() == "mine"
        assert not list(folder.glob(".best*"))
    assert killed > 10


def test_without_links_weights_are_copied(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    write(study_of(tmp_path))
    assert front_of(tmp_path) == [0, 3, 1]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    study = study_of(tmp_path)
    write(study)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(SearchError, match=r"best: cannot be written \(No space left on device\).* Free some space"):
        write(study_of(tmp_path, [(0.9, 100), (0.7, 100)]))
    assert front_of(tmp_path) == [0, 3, 1]
    assert not list(tmp_path.glob(".best*"))


def test_a_damaged_result_is_named(tmp_path):
    write(study_of(tmp_path))
    (tmp_path / "best/1/result.json").write_text("{")
    with pytest.raises(SearchError, match=r"best/1/result.json: cannot be read .* Put back a copy"):
        read_front(tmp_path)
    (tmp_path / "best/1/result.json").write_text("{}")
    with pytest.raises(SearchError, match=r'best/1/result.json: its "candidate" is None, not a number'):
        read_front(tmp_path)


def test_commands_of_each_of_the_front_can_be_pasted(tmp_path):
    folder = tmp_path / "my study"
    study = study_of(folder)
    study.plugins = ["my net.py"]
    write(study)
    text = best_text(study)
    for place, candidate in enumerate([0, 3, 1]):
        assert f"\n\nbest/{place}, candidate {candidate}:\npython train.py" in text
        commands = [line for line in text.splitlines() if f"best/{place}/" in line]
        assert [shlex.split(line)[1] for line in commands] == ["train.py", "test.py", "inference.py"]
        assert all("--plugin 'my net.py'" in line for line in commands)
        assert shlex.split(commands[1])[3] == f"{folder}/best/{place}/model_best.pth"
        assert "--split valid" in commands[1]


@pytest.mark.parametrize(
    ("violations", "head"),
    [
        ((0.5, 0.0), "candidate 1 of 2, done\nIt keeps params <= 200."),
        ((0.5, 0.25), "No candidate keeps params <= 200. This one violates them least: by 25 % of the bounds."),
        ((float("inf"),) * 2, "No candidate keeps params <= 200, as far as its values are known."),
    ],
)
def test_constraints_are_part_of_what_is_said_of_the_winner(tmp_path, violations, head):
    study = study_of(tmp_path, [(0.9, 300), (0.7, 250)], ["max val_miou"], constraints=["params <= 200"])
    for candidate, violation in zip(study.candidates, violations, strict=True):
        candidate.violation = violation
    assert head in best_text(study)
    assert ("(violates constraints)" in list_text([study])) is (min(violations) > 0)


def again(candidate, seed, status):
    reason = "no space left on the device" if status == "failed" else ""
    reports = [{"epoch": 1, "val_miou": 0.9, "epoch_seconds": 1.0}] if status == "completed" else []
    folder = f"retrained/candidate{candidate}_seed{seed}"
    return RetrainedRecord(candidate, 1, seed, status, reports, folder=folder, reason=reason)


def test_failed_retrainings_are_told_with_the_weights_that_best_has(tmp_path):
    study = study_of(tmp_path, objectives=["max val_miou"])
    study.retrained = [again(0, 1, "failed"), again(0, 2, "failed")]
    write(study)
    assert stored(tmp_path / "best") == 0, "the weights of the search"
    text = best_text(study)
    assert "2 of 2 retrainings failed; the last reason: no space left on the device." in text
    assert "has the weights of the search, not of a retraining" in text
    with pytest.raises(SearchError, match=r"none of 2 retrainings has a result; .* has the weights that the search"):
        require_retrained(study)


def test_one_failed_retraining_of_several_is_no_error(tmp_path):
    study = study_of(tmp_path, objectives=["max val_miou"])
    study.retrained = [again(0, 1, "failed"), again(0, 2, "completed")]
    assert "1 of 2 retrainings failed" in best_text(study)
    assert "not of a retraining" not in best_text(study)
    require_retrained(study)
    study.retrained = []
    assert "retrainings failed" not in best_text(study)
    require_retrained(study)
