"""Older ways to write a configuration, read as today's. Every old key is noted, for one warning.

Two public templates are meant: victoresque/pytorch-template and AntiAegis/Human-Segmentation-PyTorch.
"""

from typing import Any

from config.checking.sections import LOADER_SECTIONS
from config.faults import show
from utils.errors import ConfigError

# (old path, new path), in the order in which they are applied.
RENAMED_KEYS = (
    ("visualization.tensorboardX", "trainer.tensorboard"),
    ("visualization.tensorboard", "trainer.tensorboard"),
    ("trainer.save_freq", "trainer.save_period"),
    ("trainer.tensorboardX", "trainer.tensorboard"),
    ("arch.args.pretrained_backbone", "arch.args.weights"),
    *((f"{loader}.args.num_workers", f"{loader}.args.n_workers") for loader in LOADER_SECTIONS),
)
RENAMED_BACKBONES = {"mobilenetv2": "mobilenet_v2"}
MONITOR_AND_MODE = "trainer.monitor and trainer.monitor_mode"
HUMAN_SEGMENTATION = frozenset(
    {"trainer.monitor", MONITOR_AND_MODE, "trainer.save_freq", "trainer.tensorboardX", "visualization.tensorboardX"}
)
"""Notes that identify the dialect whose masks are binary."""

Tree = dict[str, Any]
Notes = dict[str, str]
"""Old key -> how it was read."""


def translate(tree: Tree, notes: Notes, file: str | None = None) -> None:
    """Rewrite old keys in place.

    Args:
        tree: The content of a file, before it is merged with others, or of several with an override.
        notes: Every old key is added.
        file: Named in errors; None after an override, which wins over the new name of its key.

    Raises:
        ConfigError: The file holds an old key and its new name, with different values.
    """
    for old, new in RENAMED_KEYS:
        _rename(tree, old, new, notes, file)
    visualization = _object_at(tree, "visualization")
    if isinstance(visualization.get("log_dir", 0), str | None):
        del visualization["log_dir"]
        notes["visualization.log_dir"] = "the run folder under trainer.save_dir"
        if not visualization:
            del tree["visualization"]
    trainer = _object_at(tree, "trainer")
    monitor = trainer.get("monitor")
    if isinstance(monitor, str):
        words = [f"val_{word[6:]}" if word.startswith("valid_") else word for word in monitor.split()]
        if words != monitor.split():
            notes["trainer.monitor"] = show(" ".join(words))
        trainer["monitor"] = " ".join(words)
        mode = trainer.get("monitor_mode")
        if mode in ("min", "max", "off"):
            trainer["monitor"] = "off" if mode == "off" else f"{mode} {words[-1] if words else ''}"
            del trainer["monitor_mode"]
            notes.pop("trainer.monitor", None)  # one note for both keys
            notes[MONITOR_AND_MODE] = show(trainer["monitor"])
    # Not False, which equals 0: the validation reports it.
    if trainer.get("early_stop") == 0 and trainer["early_stop"] is not False:
        trainer["early_stop"] = None
        notes["trainer.early_stop = 0"] = "trainer.early_stop = null"
    backbones = _object_at(tree, "arch.args")
    backbone = backbones.get("backbone")
    if isinstance(backbone, str) and backbone in RENAMED_BACKBONES and not _is_foreign(tree["arch"]):
        backbones["backbone"] = RENAMED_BACKBONES[backbone]
        notes[f"arch.args.backbone {show(backbone)}"] = show(backbones["backbone"])


def set_binary_masks(tree: Tree, notes: Notes) -> None:
    """Set `binary_masks` of the loaders: a file of the Human-Segmentation dialect means class 1 by a label above 0."""
    if _object_at(tree, "arch.args").get("num_classes") not in (1, 2):
        return
    for loader in LOADER_SECTIONS:
        section = _object_at(tree, loader)
        args = section.setdefault("args", {}) if section.get("type") == "SegmentationDataLoader" else None
        if isinstance(args, dict) and "binary_masks" not in args:
            args["binary_masks"] = True
            notes[f"{loader} (labels above 0 are class 1)"] = f"{loader}.args.binary_masks = true"


def _rename(tree: Tree, old: str, new: str, notes: Notes, file: str | None) -> None:
    """Move a value from its old path to its new one; values of a wrong type are left for the validation to report."""
    (old_place, _, old_key), (new_place, _, new_key) = old.rpartition("."), new.rpartition(".")
    source = _object_at(tree, old_place)
    if old_key not in source or (old_place.endswith(".args") and _is_foreign(tree[old_place.removesuffix(".args")])):
        return
    if old_place == new_place:
        target, value = source, source.pop(old_key)
    elif isinstance(source[old_key], bool) and isinstance(tree.get(new_place, {}), dict):
        target, value = tree.setdefault(new_place, {}), source.pop(old_key)
        if not source:
            del tree[old_place]
    else:
        return
    if file is not None and new_key in target and target[new_key] != value:
        raise ConfigError(
            f"{file}: {old} is {show(value)} and {new} is {show(target[new_key])}, two names of one thing. "
            f"Keep {new_key}."
        )
    target[new_key] = value
    notes[old] = new


def _object_at(tree: Tree, path: str) -> Tree:
    """Return the object at a path, or an empty one: wrong types are for the validation to report."""
    value: Any = tree
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _is_foreign(spec: Tree) -> bool:
    """Whether a spec names a class that is not of the registry, whose arguments have names of their own."""
    return "." in str(spec.get("type", ""))
