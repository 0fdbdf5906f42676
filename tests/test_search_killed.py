"""A search that is killed, its workers too, ends as one that was left in peace."""

import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from config.checking.sections import RetrainOptions
from search.executors.processes import Processes
from search.results.record import parse_objectives
from search.schedulers.asha import ASHA
from search.schedulers.halving import SuccessiveHalving
from search.study.folders import create_study_folder
from search.study.journal import JOURNAL, read_events
from search.study.settings import StudyParts
from search.study.study import Study, read
from tests.support.search_worker import WORKER
from tests.support.slow import slow_unless
from tests.support.without_times import without_times
from tests.test_search_study import CONFIG, EPOCHS, QUALITIES, Space

ROOT = Path(__file__).resolve().parents[1]
SCHEDULERS = {
    "halving": lambda: SuccessiveHalving(9, EPOCHS, grace_period=1, reduction_factor=3),
    "asha": lambda: ASHA(9, EPOCHS, grace_period=1, reduction_factor=3, mode="promote"),
}


def parts_of(scheduler, executor=None):
    retrain = RetrainOptions(top=1, seeds=1, epochs=EPOCHS)
    objectives = parse_objectives(["max val_miou"])
    parts = StudyParts(CONFIG, Space(QUALITIES), SCHEDULERS[scheduler](), objectives, retrain=retrain)
    return parts if executor is None else replace(parts, executor=executor)


class Killer:
    """Kills all workers at one event that is written, and at a later one the search, alone or with its workers."""

    def __init__(self, executor, worker_at, search_at, *, together):
        self.executor, self.worker_at, self.search_at, self.together = executor, worker_at, search_at, together
        self.events = 0

    def __call__(self, _event, _state):
        self.events += 1
        is_end = self.events == self.search_at
        if self.events == self.worker_at or (is_end and self.together):
            for worker in self.executor._pool:
                worker.process.kill()
        if is_end:
            os.kill(os.getpid(), signal.SIGKILL)


def session(folder, scheduler, workers, *, worker_at=0, search_at=0, together=False):
    """Work on a study until it ends, or until the killer comes."""
    executor = Processes(workers)
    killer = Killer(executor, worker_at, search_at, together=together)
    Study(folder, parts_of(scheduler, executor), worker=WORKER, watchers=[killer]).run()


def killed_at_random(folder, scheduler, workers, kills, seed):
    chance = random.Random(seed)
    for number in range(kills):
        program = "from tests.test_search_killed import *; session(Path(sys.argv[1]), {!r}, {}, **{})"
        kill = {"worker_at": chance.randint(2, 5), "search_at": chance.randint(6, 9), "together": number % 2 == 1}
        command = [sys.executable, "-c", program.format(scheduler, workers, kill), str(folder)]
        code = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert code.returncode == -signal.SIGKILL, code.stderr
    session(folder, scheduler, workers)
    return read(folder, parts_of(scheduler))


def decisions(folder):
    """What was decided of each candidate, in the order of its epochs."""
    told = {}
    for event in read_events(folder / JOURNAL):
        if event.name == "search.report":
            told.setdefault(event.candidate, []).append(
                (event.data["epoch"], event.data["decision"], event.data["row"])
            )
    return told


@pytest.mark.parametrize(
    ("scheduler", "workers"),
    slow_unless(lambda case: case == ("halving", 2), [("halving", 1), ("halving", 2), ("asha", 1)]),
)
def test_a_killed_search_ends_as_one_left_in_peace(tmp_path, scheduler, workers):
    quiet = create_study_folder(str(tmp_path / "quiet"), "sample", CONFIG)
    session(quiet, scheduler, workers)
    folder = create_study_folder(str(tmp_path / "killed"), "sample", CONFIG)
    record = killed_at_random(folder, scheduler, workers, kills=6, seed=workers)
    expected = read(quiet, parts_of(scheduler))
    assert len(record.sessions) > 6
    assert decisions(folder) == decisions(quiet)
    assert list(map(without_times, record.candidates)) == list(map(without_times, expected.candidates))
    assert record.rungs == expected.rungs
    assert list(map(without_times, record.retrained)) == list(map(without_times, expected.retrained))
    for name in ("config.json", "result.json"):
        assert (folder / "best" / name).read_text() == (quiet / "best" / name).read_text()


@pytest.mark.slow
def test_no_report_of_asha_on_two_workers_is_lost_or_repeated(tmp_path):
    folder = create_study_folder(str(tmp_path / "killed"), "sample", CONFIG)
    record = killed_at_random(folder, "asha", 2, kills=5, seed=5)
    quiet = create_study_folder(str(tmp_path / "quiet"), "sample", CONFIG)
    session(quiet, "asha", 2)
    expected = {each.index: without_times(each).reports for each in read(quiet, parts_of("asha")).candidates}
    assert record.is_done
    for candidate in record.candidates:
        epochs = [row["epoch"] for row in candidate.reports]
        assert epochs == list(range(1, len(epochs) + 1))
        shared = min(len(epochs), len(expected.get(candidate.index, [])))
        assert without_times(candidate).reports[:shared] == expected.get(candidate.index, [])[:shared]
