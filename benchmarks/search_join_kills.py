"""Kill and freeze processes that share a study, at random moments, and compare it with one that was left in peace.

`python benchmarks/search_join_kills.py --kills 100 [--processes 3] [--seed 0]`: each blow strikes the process that
leads, a member, a worker, a member with all that it has started, or all processes; one in five is SIGSTOP, followed by
SIGCONT after the others have taken the process for dead, the others are SIGKILL. A member that is dead is replaced. The
workers are those of the tests, whose curves follow from the config; several studies, one after the other, until all
blows are dealt. Every report must be in the journal once, with the decision and the curve of the study that was left in
peace.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.executors.base import Executor
from search.executors.serial import Serial
from search.joining.command import join_parser, run_join
from search.results.record import StudyRecord
from search.schedulers.halving import SuccessiveHalving
from search.study.folders import create_study_folder
from search.study.journal import JOURNAL, Journal, read_events
from search.study.settings import StudyParts
from search.study.study import Study, read
from tests.support.search_worker import run
from tests.support.without_times import without_times
from tests.test_search_killed import parts_of as parts_of_nine
from tests.test_search_study import CONFIG, EPOCHS, Space

ROOT = Path(__file__).resolve().parents[1]
CANDIDATES = 27
EPOCH_SECONDS = 0.3
PATIENCE = 2.0
WHO = ("leader", "member", "worker", "machine", "all")


@contextmanager
def slow_worker() -> Iterator[Callable[..., dict[str, Any]]]:
    """Yield the function of the tests, with epochs that take a while."""

    def work(task: dict[str, Any], report: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
        def slowly(message: dict[str, Any]) -> str:
            time.sleep(EPOCH_SECONDS if "epoch" in message else 0)
            return report(message)

        outcome: dict[str, Any] = run(task, slowly)
        return outcome

    yield work


def parts() -> StudyParts:
    """Return the parts of the study."""
    chance = random.Random(0)
    space = Space([round(chance.uniform(0.1, 0.95), 4) for _ in range(CANDIDATES)])
    scheduler = SuccessiveHalving(CANDIDATES, EPOCHS, grace_period=1, reduction_factor=3)
    made: StudyParts = replace(parts_of_nine("halving"), space=space, scheduler=scheduler, executor=Serial())
    return made


def join(words: list[str]) -> None:
    """Take part in a study, as `python -m search join` does."""

    def lead_study(folder: Path, executor: Executor, journal: Journal) -> None:
        Study(folder, parts(), worker="").run(executor=executor, journal=journal)

    worker, program = "benchmarks.search_join_kills:slow_worker", (sys.executable, __file__, "join")
    run_join(join_parser().parse_intermixed_args(words), lead_study, worker=worker, program=program)


def children_of(process: int) -> list[int]:
    """Return the processes that a process has started."""
    children = Path(f"/proc/{process}/task/{process}/children")
    with suppress(OSError):
        return [int(word) for word in children.read_text().split()]
    return []


def words_of(process: int) -> str:
    """Return the command line of a process."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text()
    return ""


class Blows:
    """Strikes processes that share a study.

    Args:
        folder: Folder of the study.
        count: Number of the members.
        chance: Decides whom, when, and how.
    """

    def __init__(self, folder: Path, count: int, chance: random.Random) -> None:
        self.folder, self.chance, self.log = folder, chance, folder / "members.log"
        self.members = [self.start() for _ in range(count)]
        self.frozen: list[tuple[float, list[int]]] = []

    def start(self) -> "subprocess.Popen[bytes]":
        """Start a member."""
        command = [sys.executable, __file__, "join", str(self.folder), "--patience", f"{PATIENCE:g}"]
        with open(self.log, "ab") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def victims(self, who: str) -> list[int]:
        """Return the processes that a blow strikes; none if there is no such process."""
        living = [each.pid for each in self.members if each.poll() is None]
        if not living:
            return []
        member = self.chance.choice(living)
        if who == "leader":
            return [child for each in living for child in children_of(each) if "--claim" in words_of(child)][:1]
        if who == "worker":
            workers = [child for child in children_of(member) if "spawn_main" in words_of(child)]
            return workers[:1]
        if who == "member":
            return [member]
        return [each for one in ([member] if who == "machine" else living) for each in (one, *children_of(one))]

    def strike(self) -> bool:
        """Strike, and return whether there was somebody to strike."""
        victims = self.victims(self.chance.choice(WHO))
        freezes = self.chance.random() < 0.2
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGSTOP if freezes else signal.SIGKILL)
        if freezes:
            self.frozen.append((time.monotonic() + self.chance.uniform(0.5, 3) * PATIENCE, victims))
        return bool(victims)

    def tend(self) -> None:
        """Wake up those that were frozen long enough, and replace those that are dead."""
        for when, victims in list(self.frozen):
            if time.monotonic() >= when:
                self.frozen.remove((when, victims))
                for victim in victims:
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGCONT)
        for number, member in enumerate(self.members):
            if member.poll() not in (None, 0):
                if member.returncode > 0:
                    raise SystemExit(
                        f"a member ended with exit code {member.returncode}:\n{self.log.read_text()[-3000:]}"
                    )
                self.members[number] = self.start()


def study_with_blows(folder: Path, count: int, blows: int, chance: random.Random) -> int:
    """Run a study with at most so many blows, and return their number."""
    world, dealt, next_blow = Blows(folder, count, chance), 0, time.monotonic() + chance.uniform(1, 5)
    while not all(member.poll() == 0 for member in world.members):
        world.tend()
        if dealt < blows and time.monotonic() >= next_blow:
            dealt += world.strike()
            next_blow = time.monotonic() + chance.uniform(0.5, 2.5) * PATIENCE
        time.sleep(0.1)
    return dealt


def differences(quiet: StudyRecord, struck: StudyRecord) -> list[str]:
    """Return what differs."""
    found = [] if struck.is_done else ["it is not done"]
    for left, right in zip(quiet.candidates, struck.candidates, strict=True):
        if without_times(left) != without_times(right):
            found.append(f"candidate {left.index}")
    found += [] if quiet.rungs == struck.rungs else ["the rungs"]
    for one, other in zip(quiet.retrained, struck.retrained, strict=True):
        if without_times(one) != without_times(other):
            found.append(f"the retraining of candidate {one.candidate}")
    return found


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["join"]:
        join(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, dealt, found = random.Random(arguments.seed), 0, []
    with tempfile.TemporaryDirectory() as scratch:
        quiet = create_study_folder(f"{scratch}/quiet", "sample", CONFIG)
        expected = Study(quiet, parts(), worker="tests.support.search_worker:worker").run()
        while dealt < arguments.kills:
            folder = create_study_folder(f"{scratch}/struck", "sample", CONFIG)
            started = time.monotonic()
            count = study_with_blows(folder, arguments.processes, arguments.kills - dealt, chance)
            dealt += count
            reports = [
                (e.candidate, e.data["epoch"]) for e in read_events(folder / JOURNAL) if e.name == "search.report"
            ]
            found += ["a report is there twice"] if len(set(reports)) < len(reports) else []
            found += differences(expected, read(folder, parts()))
            leaders = sum(event.name == "study.begin" for event in read_events(folder / JOURNAL))
            seconds = time.monotonic() - started
            print(f"{count} blows, {leaders} leaders, {len(reports)} reports, {seconds:.0f} s: {found or 'identical'}")
    print(f"{dealt} blows: {'identical' if not found else 'differs in ' + ', '.join(found)}")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
