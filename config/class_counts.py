"""Losses that weigh classes by how often the training data shows them: what they ask for, and where it is kept.

The counts are written into the config of the run, and so of its checkpoints: a test needs no training data.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from config.faults import Faults
from config.resolve import resolve
from config.signatures import signature_of
from config.specs import Spec, nested_values, read_losses, read_spec
from utils.catalogue import Catalogue

NAME = "class_counts"


def needs_class_counts(config: Mapping[str, Any], catalogue: Catalogue) -> bool:
    """Whether a loss names a rule for its class weights, such as "balanced", and no counts to follow it by."""
    return any(_asking(config.get("loss"), catalogue))


def with_class_counts(config: Mapping[str, Any], catalogue: Catalogue, counts: Sequence[int]) -> dict[str, Any]:
    """The config with the counts written beside each rule."""
    complete = copy.deepcopy(dict(config))
    for spec in list(_asking(complete.get("loss"), catalogue)):
        _write(spec.args, counts)
    return complete


def carry_class_counts(saved: Any, asked: Any) -> Any:
    """The `loss` section that is asked for, with the counts that a checkpoint's has, where its rules have none."""
    counts = next((item[NAME] for item in _objects(saved) if item.get(NAME)), None)
    carried = copy.deepcopy(asked)
    if counts is not None:
        for item in _objects(carried):
            if isinstance(item.get("weight"), str) and item.get(NAME) is None:
                _write(item, counts)
    return carried


def _asking(section: Any, catalogue: Catalogue) -> Iterator[Spec]:
    faults = Faults()
    waiting = read_losses(section, faults)
    faults.raise_if_any()
    while waiting:
        spec = waiting.pop()
        for _, _, items in nested_values(spec, catalogue["loss"]):
            waiting += [nested for value, path in items if (nested := read_spec(value, path, faults)) is not None]
        if isinstance(spec.args.get("weight"), str) and spec.args.get(NAME) is None:
            target = resolve(spec.type, spec.path, "loss", catalogue["loss"])
            if NAME in signature_of(target).parameters:
                yield spec


def _objects(value: Any) -> Iterator[Any]:
    """Every object of a section, down to the innermost."""
    if isinstance(value, dict):
        yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _objects(item)


def _write(args: Any, counts: Sequence[int]) -> None:
    args[NAME] = list(counts)
