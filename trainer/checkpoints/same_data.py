"""The data of a run that is resumed: where it lies is free to change, what it is is not."""

import math
from collections.abc import Mapping
from typing import Any

from base.base_data_loader import BaseDataLoader
from utils.errors import CheckpointError

_FAULTS_SHOWN = 3
# Arguments of loaders that only say where data lies: free to change if the samples are the same.
DATA_PLACES = {
    "folder",
    "pairs_file",
    "list_file",
    "images_file",
    "labels_file",
    "path",
    "data_root",
    "data_dir",
    "root",
}
# Values that a run learns from its data.
LEARNED = {"classes", "num_classes", "in_channels", "class_counts", "mean", "std", "scale"}
_LONGEST_VALUE = 80  # characters


def is_data_place(path: str) -> bool:
    """Return whether the value at a JSON path only says where data lies."""
    section, _, name = path.partition(".args.")
    return section in ("data_loader", "train_loader", "valid_loader", "test_loader") and (
        name in DATA_PLACES or name in ("args.root", "dataset.args.root")
    )


def identify_data(train_loader: BaseDataLoader, valid_loader: BaseDataLoader | None) -> dict[str, Any]:
    """Return what tells the samples of a run from other data, by split and as plain data for its checkpoints."""
    loaders = {"train": train_loader, "valid": valid_loader}
    return {split: loader.identity() for split, loader in loaders.items() if loader is not None}


def require_same_data(state: Mapping[str, Any] | None, config: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Raise an error if a run would continue with other data than it began with; where the data lies is free.

    Args:
        state: The checkpoint that the run continues from; None in a new run.
        config: The config, completed from the present data.
        data: From `identify_data`.

    Raises:
        CheckpointError: Classes, class counts or statistics are others, or number, names or classes of the samples.
    """
    if state is None:
        return
    found = _other_learned(state.get("config"), config)
    earlier = state.get("data") or {}  # none in a checkpoint of an earlier version
    for split, now in data.items():
        before = earlier.get(split)
        if before is None or before == now:
            continue
        if before["samples"] != now["samples"]:
            found.append(f"the {split} data has {now['samples']} samples, not {before['samples']}")
        elif before["digest"] and now["digest"]:
            found.append(f"names or classes of the samples of the {split} data are others")
    if found:
        raise CheckpointError(
            f"The data is not that of the checkpoint: {'; '.join(found[:_FAULTS_SHOWN])}. A run continues with the "
            "data that it began with, wherever it lies. Undo the change, or fine-tune: -c FILE --resume CHECKPOINT."
        )


def require_same_network(state: Mapping[str, Any] | None, config: Mapping[str, Any]) -> None:
    """Raise an error if a run would continue with another network, since a file that its config names has changed.

    Args:
        state: The checkpoint that the run continues from; None in a new run.
        config: The config, completed from the present files.

    Raises:
        CheckpointError: An argument of the network is another one.
    """
    before, now = (_network_arguments(each) for each in ((state or {}).get("config"), config))
    for name, value in before.items():
        if name in now and now[name] != value:
            raise CheckpointError(
                f"arch.args.{name} is not that of the checkpoint: a file that it names has changed since. A run "
                "continues with the network that it began with. Put back the file, or fine-tune: -c FILE --resume "
                "CHECKPOINT."
            )


def _network_arguments(config: Any) -> Mapping[str, Any]:
    arch = config.get("arch") if isinstance(config, Mapping) else None
    arguments = arch.get("args") if isinstance(arch, Mapping) else None
    return arguments if isinstance(arguments, Mapping) else {}


def _other_learned(before: Any, now: Any, path: str = "") -> list[str]:
    """Return a line for each value that a run learned from its data and that is another one in the second config."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [key for key in before if key in now]
        return [line for key in keys for line in _other_learned(before[key], now[key], f"{path}.{key}".strip("."))]
    if isinstance(before, list) and isinstance(now, list) and path.rpartition(".")[2] not in LEARNED:
        pairs = enumerate(zip(before, now, strict=False))
        return [line for index, (one, other) in pairs for line in _other_learned(one, other, f"{path}.{index}")]
    if path.rpartition(".")[2] not in LEARNED or None in (before, now) or _is_equal(before, now):
        return []
    return [f"{path} is {_shortened(now)}, not {_shortened(before)}"]


def _is_equal(one: Any, other: Any) -> bool:
    """Return whether two plain values are equal, numbers up to the rounding of another machine."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)
    return bool(one == other)


def _shortened(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
