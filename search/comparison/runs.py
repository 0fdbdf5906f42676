"""Trained runs as plain data, read from the files of their run folders."""

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from search.results.record import Objective
from utils.errors import SearchError
from utils.files import open_regular, read_json_object
from utils.runs.stored_tests import FORMAT, stored_results

CONFIG, ENVIRONMENT, RESULT, METRICS, LOG = "config.json", "environment.json", "result.json", "metrics.csv", "info.log"
SPLITS = ("test", "valid")
_MOST_LINE = 1_000_000  # characters of the log in memory
_EPOCH_LINE = re.compile(r"Epoch +(\d+)/\d+ .*?  (\d+(?:\.\d+)?) s(?:,|$)", re.MULTILINE)


@dataclass(frozen=True)
class StoredTest:
    """The records of a test in a run folder, see `utils.runs.stored_tests`.

    Attributes:
        folder: The run folder.
        split: `test` or `valid`.
        content: Of `results.json`.
    """

    folder: Path
    split: str
    content: Mapping[str, Any]

    @property
    def facts(self) -> dict[str, float]:
        """Parameters and FLOPs of the network, if they are known."""
        found = self.content.get("facts") or {}
        return {name: found[name] for name in ("params", "flops") if found.get(name) is not None}

    @property
    def shown(self) -> dict[str, Mapping[str, Any]]:
        """The facts of each sample that has files, by its key."""
        return {each["key"]: each for each in self.content.get("shown", ())}

    @property
    def scores(self) -> dict[str, float]:
        """The score of each sample by its key; those without a score are left out."""
        return {key: score for key, score in (self.content.get("scores") or {}).items() if score is not None}

    def check(self) -> None:
        """Read all of it, so that content that is no record of a test raises now: any error of Python."""
        _ = self.facts, self.shown, self.scores


@dataclass(frozen=True)
class ComparedRun:
    """One training.

    Attributes:
        name: Of its config, or of the study.
        folder: The run folder; None if it is not known.
        config: As it was asked for, without the values that follow from its data.
        seed: Of the training.
        condition: Of a grid study, or the name of another study; empty: runs of equal configs are a group.
        reports: A row per epoch: `epoch` and the results.
        monitor: By which the best epoch was chosen; None if none was.
        best_epoch: The best epoch; None if it is not known.
        results: `val_` results at the best epoch, and `test_` results.
        facts: `labelled_megapixels`, `params`, `flops`, `seconds` (of the training) and `epochs`, if they are known.
        tests: Records of its tests by split.
        is_finished: Whether the training has ended, other than by a failure.
        failure: Why the training of a candidate failed; empty if it did not.
        folds: Folds of the data, each with a network of its own: `results` and `seconds` are of all of them, everything
            else of the first; 1 without folds.
    """

    name: str
    folder: Path | None
    config: Mapping[str, Any]
    seed: int
    condition: str = ""
    reports: list[dict[str, float]] = field(default_factory=list)
    monitor: Objective | None = None
    best_epoch: int | None = None
    results: dict[str, float] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    tests: dict[str, StoredTest] = field(default_factory=dict)
    is_finished: bool = True
    failure: str = ""
    folds: int = 1


def is_run_folder(folder: Path) -> bool:
    """Return whether a folder is that of a run of train.py."""
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in (METRICS, RESULT, ENVIRONMENT))


def read_run(folder: Path) -> ComparedRun:
    """Read a run folder, whether its training has ended or not.

    Raises:
        SearchError: A file is damaged, or holds something else than a run writes.
    """
    try:
        return _read_run(folder)
    except (LookupError, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise damaged_record(
            f"{folder}: its files hold something else than a run writes ({type(error).__name__}: {error})"
        ) from error


def _read_run(folder: Path) -> ComparedRun:
    complete = read_json_object(folder / CONFIG, damaged_record)
    environment, result = (read_json_object(folder / name, damaged_record) for name in (ENVIRONMENT, RESULT))
    asked = environment.get("asked")  # not in runs of earlier versions
    config = asked if isinstance(asked, Mapping) else complete
    reports = read_reports(folder / METRICS)
    monitor = _monitor_of(result, complete)
    best = result.get("best") or _best_row(reports, monitor) or (reports[-1] if reports else {})
    tests = {split: found for split in SPLITS if (found := read_test(folder, split)) is not None}
    results = {name: value for name, value in best.items() if name.startswith("val_") and value is not None}
    results |= {name: value for name, value in (result.get("test") or {}).items() if name.startswith("test_")}
    if "test" in tests:
        results |= {f"test_{name}": value for name, value in tests["test"].content["metrics"].items()}
    for split, prefix in (("test", "test_"), ("valid", "val_")):
        if split in tests:
            results |= class_results(tests[split], prefix, results)
    seconds = training_seconds(folder / LOG)
    facts: dict[str, float] = (
        {} if result.get("labelled_megapixels") is None else {"labelled_megapixels": result["labelled_megapixels"]}
    )
    for test in tests.values():
        facts |= test.facts
        test.check()
    facts |= {} if seconds is None else {"seconds": seconds}
    facts |= {"epochs": len(reports)} if reports else {}
    return ComparedRun(
        name=str(complete.get("name", folder.name)),
        folder=folder,
        config=config,
        seed=int(complete.get("seed") or 0),
        reports=reports,
        monitor=monitor,
        best_epoch=int(best["epoch"]) if best.get("epoch") is not None else None,
        results={name: float(value) for name, value in results.items() if _is_finite(value)},
        facts=facts,
        tests=tests,
        is_finished=bool(result),
    )


def read_test(folder: Path, split: str) -> StoredTest | None:
    """Read the records of a test in a run folder; None if there are none that this version can read.

    Raises:
        SearchError: They are damaged.
    """
    content = read_json_object(stored_results(folder, split), damaged_record)
    if not content or content.get("format_version", 0) > FORMAT:
        return None
    if not isinstance(content.get("metrics"), Mapping):
        raise damaged_record(f'{stored_results(folder, split)}: has no "metrics"')
    return StoredTest(folder, split, content)


def class_results(test: StoredTest, prefix: str, known: Mapping[str, float]) -> dict[str, float]:
    """Return the IoU of each class, of a classification its F1, if the results do not have it already."""
    name = "iou" if test.content.get("problem") != "classification" else "f1"
    found = {f"{prefix}{name}_{label}": values.get(name) for label, values in test.content["per_class"].items()}
    return {key: value for key, value in found.items() if key not in known and _is_finite(value)}


def read_reports(path: Path) -> list[dict[str, float]]:
    """Return the rows of a run's `metrics.csv`; an empty list if there is none.

    Raises:
        SearchError: It is damaged.
    """
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as file:
            return [
                {name: float(value) for name, value in row.items() if value not in ("", None)}
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise damaged_record(f"{path}: cannot be read ({error})") from None


def training_seconds(path: Path) -> float | None:
    """Return the seconds of all epochs by the log of a run, each as it was trained last; None if it says nothing."""
    seconds: dict[int, float] = {}
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with open(path, encoding="utf-8", errors="replace") as file:
            while line := file.readline(_MOST_LINE):
                seconds |= {int(epoch): float(value) for epoch, value in _EPOCH_LINE.findall(line)}
    except OSError:
        return None
    return math.fsum(seconds.values()) if seconds else None


def parse_monitor(text: Any) -> Objective | None:
    """Return a monitor such as "max val_miou" as an objective; None for "off" and anything else."""
    words = str(text or "").split()
    if len(words) != 2 or words[0] not in ("min", "max"):
        return None
    return Objective(words[1], 1 if words[0] == "max" else -1)


def _monitor_of(result: Mapping[str, Any], config: Mapping[str, Any]) -> Objective | None:
    trainer = config.get("trainer")
    asked = trainer.get("monitor") if isinstance(trainer, Mapping) else None
    return parse_monitor(result.get("monitor")) or parse_monitor(asked)


def _best_row(reports: list[dict[str, float]], monitor: Objective | None) -> dict[str, float]:
    """Return the best epoch of an unfinished run; empty if there is none."""
    if monitor is None:
        return {}
    known = [row for row in reports if math.isfinite(row.get(monitor.name, math.nan))]
    return max(known, key=lambda row: monitor.sign * row[monitor.name], default={})


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def damaged_record(reason: str) -> SearchError:
    """Return the error for a file of a run that cannot be read."""
    return SearchError(f"{reason}. It is a record of a run that is compared. Put back a copy, or leave the run out.")
