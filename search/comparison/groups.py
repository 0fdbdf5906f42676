"""Runs that differ only in their seed as groups, the metric that ranks them, and the differences of their configs."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from config.markers import is_marker
from search.comparison.runs import ComparedRun
from search.results.importance import short_names
from search.results.record import Objective
from search.results.spread import Spread
from utils.errors import ConfigError

FACT_COLUMNS = ("labelled_megapixels", "params", "flops", "seconds", "epochs")
# Keys of a config that change no result: at its top, in the trainer, in a loader.
_IDLE = {"$schema", "name", "seed", "n_gpu", "visualization", "search"}
_IDLE_IN = {
    "trainer": {
        "save_dir", "verbosity", "tensorboard", "pictures", "histograms", "save_period", "save_every_steps",
        "save_every_minutes",
    },
    "args": {"n_workers", "cache_mb", "pin_memory"},
    "evaluation": {"batch_size", "n_workers", "cache_mb", "pin_memory"},
}  # fmt: skip
_PREFIXES = ("test_", "val_")
_CLASS_PREFIXES = ("iou_", "f1_")
_LONGEST_NAME = 60


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ only in their seed.

    Attributes:
        name: For people, another one for each group.
        runs: In the order in which they were named; at least one.
    """

    name: str
    runs: tuple[ComparedRun, ...]

    def spread(self, result: str) -> Spread:
        """Return a result by seed, ascending; of several runs of one seed their mean."""
        values: dict[int, list[float]] = {}
        for run in self.runs:
            if result in run.results:
                values.setdefault(run.seed, []).append(run.results[result])
        return Spread({seed: math.fsum(each) / len(each) for seed, each in sorted(values.items())})

    def fact(self, name: str) -> float | None:
        """Return the mean of a fact over the runs that have it; None if none has."""
        values = [run.facts[name] for run in self.runs if name in run.facts]
        return math.fsum(values) / len(values) if values else None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config of its first run, without seed, names, and settings that change no result."""
        return compared_config(self.runs[0].config)


def group_runs(runs: Sequence[ComparedRun]) -> list[RunGroup]:
    """Return the groups of runs of equal configs, or of the same condition of a study, in the order of the runs."""
    groups: dict[tuple[str, str], list[ComparedRun]] = {}
    for run in runs:
        key = (
            (run.name, run.condition)
            if run.condition
            else ("", json.dumps(compared_config(run.config), sort_keys=True))
        )
        groups.setdefault(key, []).append(run)
    members = [tuple(each) for each in groups.values()]
    return [RunGroup(name, each) for name, each in zip(_names(members), members, strict=True)]


def compared_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without its seed, names, and settings that change no result."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in _IDLE:
            continue
        found[key] = value
        if isinstance(value, Mapping):
            found[key] = section = {name: item for name, item in value.items() if name not in _IDLE_IN.get(key, ())}
            idle = _IDLE_IN["evaluation" if key in ("valid_loader", "test_loader") else "args"]
            if "loader" in key and isinstance(section.get("args"), Mapping):
                section["args"] = {name: item for name, item in section["args"].items() if name not in idle}
    return found


def differing_values(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Return the JSON paths at which configs differ, with the value of each; None if it has none."""
    flat = [flat_config(config) for config in configs]
    paths = dict.fromkeys(path for each in flat for path in each)
    rows = [(path, [each.get(path) for each in flat]) for path in paths]
    return [(path, values) for path, values in rows if len({json.dumps(value) for value in values}) > 1]


def flat_config(value: Any, path: str = "") -> dict[str, Any]:
    """Return each value that is no object by its path, a marker and a list as one."""
    if not isinstance(value, Mapping) or (path and (not value or is_marker(value))):
        return {path: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= flat_config(item, f"{path}.{key}" if path else str(key))
    return found


def _names(members: Sequence[tuple[ComparedRun, ...]]) -> list[str]:
    """Return a name for each group: that of its runs, for equal ones with the values that differ, or a number."""
    names = [each[0].name if each[0].condition in ("", each[0].name) else f"{each[0].condition}" for each in members]
    several = {each[0].name for each in members if each[0].condition and each[0].condition != each[0].name}
    if len({each[0].name for each in members}) > 1 and len(several) > 1:  # of several grid studies
        names = [
            f"{each[0].name}: {name}" if each[0].condition and name != each[0].name else name
            for each, name in zip(members, names, strict=True)
        ]
    for name, count in Counter(names).items():
        places = [place for place, each in enumerate(names) if each == name] if count > 1 else []
        differences = differing_values([compared_config(members[place][0].config) for place in places])
        short = short_names([path for path, _ in differences])
        for number, place in enumerate(places):
            texts = [f"{short[path]} {_value_text(values[number])}" for path, values in differences]
            text = f"{name}: {', '.join(texts)}"
            names[place] = text if texts and len(text) <= _LONGEST_NAME else f"{name} #{number + 1}"
    counts, seen = Counter(names), Counter[str]()
    for place, name in enumerate(names):
        if counts[name] > 1:
            seen[name] += 1
            names[place] = f"{name} #{seen[name]}"
    return names


def _value_text(value: Any) -> str:
    return "without" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def is_class_result(name: str) -> bool:
    """Return whether a result is that of a single class, such as `val_iou_person`."""
    return _base(name).startswith(_CLASS_PREFIXES)


def class_columns(groups: Sequence[RunGroup], prefix: str) -> list[tuple[str, str]]:
    """Return result and class of each result of a single class, in the order of their first occurrence.

    Args:
        groups: The groups.
        prefix: `test_` or `val_`.
    """
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.results)
    found = [name for name in names if name.startswith(prefix) and is_class_result(name)]
    return [(name, _base(name).partition("_")[2]) for name in found]


def shown_results(groups: Sequence[RunGroup], metric: Objective) -> list[str]:
    """Return the results that a table shows: the metric first, then those of whole data sets, of its data first."""
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.results)
    plain = [name for name in names if not is_class_result(name) and name.startswith(_PREFIXES)]
    own = metric.name.partition("_")[0]
    return list(dict.fromkeys([metric.name, *sorted(plain, key=lambda name: name.partition("_")[0] != own)]))


def choose_metric(groups: Sequence[RunGroup], asked: str | None) -> Objective:
    """Return the metric by which groups are compared.

    By default it is the metric that chose the best epochs, of the data of which more groups have it, or else test data.

    Args:
        groups: The groups.
        asked: A result such as `miou` or `val_miou`; None: the default.

    Raises:
        ConfigError: No group has a result of this name.
    """
    monitor = next((run.monitor for group in groups for run in group.runs if run.monitor is not None), None)
    names = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.results))
    if asked is not None:
        wanted = [asked] if asked.startswith(_PREFIXES) else [f"{prefix}{asked}" for prefix in _PREFIXES]
        found = [name for name in wanted if name in names]
        if not found:
            raise ConfigError(
                f'--metric "{asked}": no run has a result of this name. They have {", ".join(names) or "none"}. Name '
                "one of these."
            )
        candidates = found
    elif monitor is not None:
        candidates = [f"{prefix}{_base(monitor.name)}" for prefix in _PREFIXES]
    else:
        candidates = [name for name in names if not is_class_result(name)] or ["val_loss"]
    name = max(candidates, key=lambda name: sum(bool(group.spread(name).values) for group in groups))
    sign = monitor.sign if monitor is not None and _base(monitor.name) == _base(name) else -1 if "loss" in name else 1
    return Objective(name, sign)


def _base(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)), name)
