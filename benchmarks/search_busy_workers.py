"""How busy a search keeps 16 workers, also while candidates save: `python benchmarks/search_busy_workers.py`.

The search and its processes are real; a worker sleeps for each epoch and each save, so two cores suffice. A worker is
busy from the moment it starts a task until it returns from it. Counted is the time from the first task of the worker
that was ready last, until the last candidate begins its first training, and, with the promotions, until the last job is
given; what comes then is the end of the study, where fewer jobs are left than there are workers.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.executors.processes import Processes
from search.results.record import parse_objectives
from search.schedulers.asha import ASHA
from search.schedulers.base import Scheduler
from search.schedulers.halving import Hyperband, SuccessiveHalving
from search.space.space import Space
from search.study.folders import create_study_folder
from search.study.journal import JOURNAL, read_events
from search.study.settings import StudyParts
from search.study.study import Study

WORKERS, CANDIDATES, MAX_EPOCHS, EPOCH_SECONDS = 16, 96, 27, 0.3
SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "ASHA promote": lambda: ASHA(CANDIDATES, MAX_EPOCHS, grace_period=3, reduction_factor=3, mode="promote"),
    "ASHA stop": lambda: ASHA(CANDIDATES, MAX_EPOCHS, grace_period=3, reduction_factor=3),
    "SuccessiveHalving": lambda: SuccessiveHalving(CANDIDATES, MAX_EPOCHS, grace_period=3, reduction_factor=3),
    "SuccessiveHalving, brackets of 27": lambda: SuccessiveHalving(
        CANDIDATES, MAX_EPOCHS, grace_period=3, reduction_factor=3, bracket_size=27
    ),
    "Hyperband": lambda: Hyperband(CANDIDATES, MAX_EPOCHS, reduction_factor=3),
}


@dataclass(frozen=True)
class Spans:
    """When each worker had a task, in Unix seconds: its begins and ends."""

    of: dict[int, list[tuple[float, float]]]

    def share(self, begin: float, end: float) -> float:
        """Return the share of the time of all workers with a task."""
        spans = [span for each in self.of.values() for span in each]
        return sum(max(0.0, min(last, end) - max(first, begin)) for first, last in spans) / (WORKERS * (end - begin))


@contextmanager
def worker() -> Iterator[Callable[..., dict[str, Any]]]:
    """A worker that sleeps in the place of a training."""
    yield sleep_through


def sleep_through(task: dict[str, Any], report: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """Report an epoch now and then, and save at the end of the job."""
    begin, config, done = time.time(), task["config"], task["reported"]
    if not done:
        report({"names": ["val_miou"]})
    decision = "continue"
    while decision == "continue" and done < MAX_EPOCHS:
        time.sleep(EPOCH_SECONDS)
        done += 1
        row = {"epoch": done, "val_miou": config["quality"] * (1 - 0.9**done)}
        decision = report({"epoch": done, "row": row, "seconds": EPOCH_SECONDS})
    time.sleep(config["save_seconds"])
    Path(task["folder"]).mkdir(parents=True, exist_ok=True)
    (Path(task["folder"]) / "model_best.pth").write_bytes(b"0")
    with (Path(task["logs"]) / f"spans-{task['worker']}").open("a") as file:
        file.write(f"{begin} {time.time()}\n")
    return {"status": "ended", "is_finished": decision == "continue", "bytes": 1}


def measure(scheduler: Scheduler, save_seconds: float) -> tuple[float, float, float, float]:
    """Run a study; return the two shares, and the seconds of the start and of the whole."""
    config = {
        "name": "busy",
        "quality": {"$uniform": [0.0, 1.0]},
        "save_seconds": save_seconds,
        "trainer": {"epochs": MAX_EPOCHS},
        "search": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = create_study_folder(temporary, "busy", config)
        parts = StudyParts(config, Space(config), scheduler, parse_objectives(["max val_miou"]), Processes(WORKERS))
        begin = time.time()
        Study(folder, parts, worker="benchmarks.search_busy_workers:worker").run()
        seconds = time.time() - begin
        lines = {int(path.name.split("-")[1]): path.read_text() for path in (folder / "workers").glob("spans-*")}
        split = {number: [line.split() for line in text.splitlines()] for number, text in lines.items()}
        spans = Spans({number: [(float(first), float(last)) for first, last in rows] for number, rows in split.items()})
        jobs = [event for event in read_events(folder / JOURNAL) if event.name == "search.job"]
    ready = max(min(first for first, _ in each) for each in spans.of.values())
    last_new = max(event.seconds for event in jobs if event.data["start"] == 0)
    last_job = max(event.seconds for event in jobs)
    return spans.share(ready, last_new), spans.share(ready, last_job), ready - begin, seconds


def main() -> None:
    """Print a row per scheduler and time of saving."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedulers", nargs="+", default=list(SCHEDULERS), choices=list(SCHEDULERS))
    names = parser.parse_args().schedulers
    print(
        "| scheduler | save | busy until the last draw | until the last job | start | whole |\n"
        "|---|---|---|---|---|---|"
    )
    for name in names:
        for save_seconds in (0.0, 2.0):
            drawn, given, start, whole = measure(SCHEDULERS[name](), save_seconds)
            row = f"{save_seconds:g} s | {drawn:.1%} | {given:.1%} | {start:.1f} s | {whole:.1f} s"
            print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
