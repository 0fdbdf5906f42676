"""Older ways to write a configuration, read as today's. Every old key that is met is noted, for one warning.

Two public templates are meant: victoresque/pytorch-template and AntiAegis/Human-Segmentation-PyTorch.
"""

from typing import Any

from config.faults import join_path, show
from utils.errors import ConfigError

LOADERS = ("data_loader", "train_loader", "valid_loader", "test_loader")
BACKBONES = {"mobilenetv2": "mobilenet_v2"}
MODES = ("min", "max")
MONITOR_AND_MODE = "trainer.monitor and trainer.monitor_mode"
HUMAN_SEGMENTATION = frozenset(
    {"trainer.monitor", MONITOR_AND_MODE, "trainer.save_freq", "trainer.tensorboardX", "visualization.tensorboardX"}
)
"""Notes that tell the dialect whose masks are binary."""

Tree = dict[str, Any]


class Translator:
    """Rewrites old keys in place.

    Attributes:
        notes: Old key -> how it was read.
        human_segmentation: Whether a file used keys of the Human-Segmentation dialect.
    """

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self.human_segmentation = False

    def translate_file(self, tree: Tree, file: str) -> None:
        """Translate what one file holds, before it is merged with others.

        Raises:
            ConfigError: The file holds an old key and its new name, with different values.
        """
        self._translate(tree, file)
        self.human_segmentation = not HUMAN_SEGMENTATION.isdisjoint(self.notes)

    def translate(self, tree: Tree) -> None:
        """Translate a tree whose old keys were just put there by an override: they win over their new names."""
        self._translate(tree, None)

    def binarise_masks(self, tree: Tree) -> None:
        """Files of the Human-Segmentation dialect mean class 1 by every label above 0: say so to the loaders."""
        arch = _section(tree, "arch")
        if not self.human_segmentation or _section(arch, "args").get("num_classes") not in (1, 2):
            return
        for loader in LOADERS:
            section = _section(tree, loader)
            args = section.setdefault("args", {}) if section.get("type") == "SegmentationDataLoader" else None
            if isinstance(args, dict) and "binary_masks" not in args:
                args["binary_masks"] = True
                self.notes[f"{loader} (labels above 0 are class 1)"] = f"{loader}.args.binary_masks = true"

    def warning(self, file: str) -> str | None:
        """One text that names every old key, or None where there was none."""
        if not self.notes:
            return None
        pairs = "; ".join(f"{old} -> {new}" for old, new in self.notes.items())
        return f"{file}: keys of an older dialect are read as today's: {pairs}. Rename them to silence this."

    def _translate(self, tree: Tree, file: str | None) -> None:
        self._visualization(tree, file)
        trainer = _section(tree, "trainer")
        for old, new in (("save_freq", "save_period"), ("tensorboardX", "tensorboard")):
            self._rename(trainer, old, new, "trainer", file)
        self._monitor(trainer)
        if trainer.get("early_stop") == 0 and trainer["early_stop"] is not False:
            trainer["early_stop"] = None
            self.notes["trainer.early_stop = 0"] = "trainer.early_stop = null"
        self._arch(tree, file)
        for loader in LOADERS:
            self._loader(_section(tree, loader), loader, file)

    def _rename(self, section: Tree, old: str, new: str, path: str, file: str | None) -> None:
        if old not in section:
            return
        value = section.pop(old)
        if file is not None and new in section and section[new] != value:
            raise ConfigError(
                f"{file}: {join_path(path, old)} is {show(value)} and {join_path(path, new)} is {show(section[new])}, "
                f"two names of one thing. Keep {new}."
            )
        section[new] = value
        self.notes[join_path(path, old)] = join_path(path, new)

    def _visualization(self, tree: Tree, file: str | None) -> None:
        section = _section(tree, "visualization")
        trainer = tree.get("trainer", {})
        if not section or not isinstance(trainer, dict):
            return
        for key in ("tensorboardX", "tensorboard"):
            if isinstance(section.get(key), bool):
                moved = {"visualization_tensorboard": section.pop(key), **trainer}
                self._rename(moved, "visualization_tensorboard", "tensorboard", "trainer", file)
                self.notes.pop("trainer.visualization_tensorboard")
                self.notes[f"visualization.{key}"] = "trainer.tensorboard"
                trainer = tree["trainer"] = moved
        if "log_dir" in section and isinstance(section["log_dir"], str | None):
            section.pop("log_dir")
            self.notes["visualization.log_dir"] = "the run folder under trainer.save_dir"
        if not section:
            tree.pop("visualization")

    def _monitor(self, trainer: Tree) -> None:
        monitor = trainer.get("monitor")
        if isinstance(monitor, str):
            words = [f"val_{word[6:]}" if word.startswith("valid_") else word for word in monitor.split()]
            if words != monitor.split():
                self.notes["trainer.monitor"] = show(" ".join(words))
            monitor = trainer["monitor"] = " ".join(words)
        mode = trainer.get("monitor_mode")
        if isinstance(monitor, str) and mode in (*MODES, "off"):
            name = monitor.split()[-1] if monitor.split() else ""
            trainer["monitor"] = "off" if mode == "off" else f"{mode} {name}"
            trainer.pop("monitor_mode")
            self.notes.pop("trainer.monitor", None)
            self.notes[MONITOR_AND_MODE] = show(trainer["monitor"])

    def _loader(self, section: Tree, loader: str, file: str | None) -> None:
        if not _is_foreign(section):
            self._rename(_section(section, "args"), "num_workers", "n_workers", f"{loader}.args", file)

    def _arch(self, tree: Tree, file: str | None) -> None:
        arch = _section(tree, "arch")
        args = _section(arch, "args")
        if _is_foreign(arch):
            return
        backbone = args.get("backbone")
        if isinstance(backbone, str) and backbone in BACKBONES:
            args["backbone"] = BACKBONES[backbone]
            self.notes[f"arch.args.backbone {show(backbone)}"] = show(args["backbone"])
        self._rename(args, "pretrained_backbone", "weights", "arch.args", file)


def _section(tree: Tree, key: str) -> Tree:
    """The object under `key`, or an empty one: wrong types are for the validation to report."""
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def _is_foreign(spec: Tree) -> bool:
    """Whether a spec names a class that is not of the registry, whose arguments have names of their own."""
    return "." in str(spec.get("type", ""))
