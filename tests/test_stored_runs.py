"""A run and two studies that an earlier version wrote: they are resumed, tested, used and reported.

`stored/training_interrupted` was stopped by SIGTERM in its second epoch, `stored/study_interrupted` in the second epoch
of candidate 6. `training_finished.csv` and `study_finished` are the same runs of that version without interruption.
Numbers are compared with a tolerance: they differ a little between processors, and the epochs after the resume see
sharper crops than that version made.
"""

import csv
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from search.study.journal import JOURNAL, read_events

ROOT = Path(__file__).resolve().parents[1]
STORED = Path(__file__).resolve().parent / "stored"
PHOTO = "data/people/images/test/0005.jpg"
TOLERANCE = {"rel": 2e-3, "abs": 1e-2}


def unpacked(name, folder):
    with tarfile.open(STORED / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def run(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows_of(file):
    with file.open(newline="") as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The interrupted training, resumed."""
    folder = unpacked("training_interrupted", tmp_path_factory.mktemp("training"))
    run("train.py", "--resume", folder)
    return folder


def test_a_stored_training_is_resumed_in_the_middle_of_an_epoch(trained):
    rows, expected = rows_of(trained / "metrics.csv"), rows_of(STORED / "training_finished.csv")
    assert len(rows) == len(expected) == 2
    assert rows[0] == expected[0]  # read from the checkpoint
    assert rows[1] == pytest.approx(expected[1], **TOLERANCE)


@pytest.mark.slow
def test_a_stored_checkpoint_is_tested_and_used(tmp_path):
    checkpoint = unpacked("training_interrupted", tmp_path) / "model_best.pth"
    assert "miou" in run("test.py", "--resume", checkpoint)
    run("inference.py", "--resume", checkpoint, "--source", PHOTO, "--output", tmp_path / "out")
    assert [path.stem for path in (tmp_path / "out").iterdir()] == ["0005"]


def facts_of(folder, kinds):
    """Events without times, those of measured numbers apart."""
    return [
        (
            event.kind,
            event.candidate,
            {key: value for key, value in event.data.items() if key not in ("row", "seconds", "facts")},
        )
        for event in read_events(folder / JOURNAL)
        if event.kind in kinds
    ]


@pytest.mark.slow
def test_a_stored_study_is_continued_as_if_never_interrupted(tmp_path):
    folder, quiet = unpacked("study_interrupted", tmp_path), unpacked("study_finished", tmp_path)
    before = list(read_events(folder / JOURNAL))
    run("-m", "search", "--resume", folder)
    events = list(read_events(folder / JOURNAL))
    assert events[: len(before)] == before
    kinds = ("job", "draw", "refused", "report", "search_done", "retrain", "retrain_report", "retrain_done", "done")
    assert facts_of(folder, kinds) == facts_of(quiet, kinds)
    rows, expected = (
        [event.data["row"] for event in read_events(each / JOURNAL) if "row" in event.data] for each in (folder, quiet)
    )
    assert [row["val_miou"] for row in rows] == pytest.approx([row["val_miou"] for row in expected], **TOLERANCE)
    best = folder / "best"
    assert (best / "config.json").read_text() == (quiet / "best" / "config.json").read_text()
    assert (best / "model_best.pth").exists()


def test_a_stored_study_is_listed_and_reported(tmp_path):
    folder = unpacked("study_finished", tmp_path)
    listing = run("-m", "search", "list", folder)
    assert "0.4" in listing
    assert "arch.args.base_channels" in run("-m", "search", "best", folder)
    run("-m", "search", "report", folder)
    page = (folder / "report.html").read_text()
    assert "stored_study" in page
    assert not any(text in page for text in (">origin<", ">random<", "by their origin"))  # it does not say
