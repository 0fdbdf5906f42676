"""The folder of one run: made once, never shared, found again."""

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from base.base_trainer import BaseTrainer, TrainResult
from base.callback import Callback
from utils.errors import CheckpointError, ConfigError
from utils.files import folder_lock, make_stamped_folder, write_text_atomically


def lock_run_folder(folder: Path | None) -> AbstractContextManager[None]:
    """Hold a run's folder for a block.

    Args:
        folder: The run's folder; None (of a process that writes nothing) holds nothing.

    Raises:
        CheckpointError: Another process trains there.
    """
    return folder_lock(
        folder,
        lambda process: CheckpointError(
            f"{folder}: process {process} is training there. A run goes on in one process at a time. Wait for its end, "
            "or start another run without --resume."
        ),
    )


# What may differ between a run and its going on: how it runs, not what it computes.
RUNTIME_KEYS = {"n_workers", "num_workers", "pin_memory", "cache_mb"}
_RUNTIME_TRAINER_KEYS = (
    "epochs",
    "early_stop",
    "save_dir",
    "save_period",
    "save_every_steps",
    "save_every_minutes",
    "max_time",
)
RUNTIME_PATHS = {"n_gpu", "visualization"} | {
    f"trainer.{key}" for key in (*_RUNTIME_TRAINER_KEYS, "verbosity", "tensorboard", "histograms", "pictures")
}
RECORDS = ("config.json", "environment.json")
logger = logging.getLogger(__name__)


def create_run_folder(save_dir: str, name: str, named: Path | None = None) -> Path:
    """Make `<save_dir>/<name>/<YYYYmmdd_HHMMSS>`, with a number behind it if two runs start in one second.

    Args:
        save_dir: Holds the runs of every name.
        name: Of the config.
        named: Make this folder instead. What a run left there that died before its first checkpoint goes.

    Raises:
        ConfigError: The folder cannot be made, or is a run's already.
    """
    parent = Path(save_dir) / name if named is None else named
    try:
        if named is not None:
            named.mkdir(parents=True, exist_ok=True)
            return _emptied(named)
        folder = make_stamped_folder(parent)
    except OSError as error:
        raise ConfigError(
            f"trainer.save_dir: {parent} cannot be written ({error.strerror}). Runs are kept below it. Name a folder "
            "that you may write to: trainer.save_dir=FOLDER."
        ) from error
    if folder is None:
        raise ConfigError(f"trainer.save_dir: {parent} holds a thousand runs of this second. Try again.")
    return folder


def _emptied(folder: Path) -> Path:
    if any(folder.glob("*.pth")):
        raise ConfigError(f"{folder} holds a run's checkpoints. Two runs never share a folder. Name another one.")
    for name in RECORDS:
        (folder / name).unlink(missing_ok=True)
    return folder


def run_folders(save_dir: str, name: str) -> list[Path]:
    """The runs of a name, newest first."""
    parent = Path(save_dir) / name
    return sorted((path for path in parent.glob("*") if (path / "config.json").is_file()), reverse=True)


def write_json(path: Path, content: Any) -> None:
    """Plain data as indented JSON, atomically."""
    write_text_atomically(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Plain data from JSON that `write_json` wrote; None where the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def differences(left: Any, right: Any, path: str = "") -> list[str]:
    """JSON paths at which two configs differ, apart from keys that only say how to run."""
    if path in RUNTIME_PATHS:
        return []
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        keys = [key for key in {**left, **right} if key not in RUNTIME_KEYS]
        parts = [differences(left.get(key), right.get(key), f"{path}.{key}" if path else key) for key in keys]
        return [difference for part in parts for difference in part]
    return [] if left == right else [path]


class RunRecords(Callback):
    """Writes what a run is (config.json, environment.json) and what came of it (result.json).

    Args:
        folder: The run's folder.
        config: The resolved config.
        environment: Versions, device, git commit, command.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        self.folder = folder
        self.config = config
        self.environment = environment

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Write config.json and environment.json, unless this run goes on in a folder that has them."""
        if not trainer.is_main_process:
            return
        for name, content in zip(RECORDS, (self.config, self.environment), strict=True):
            if not (self.folder / name).exists():
                write_json(self.folder / name, content)

    def on_fit_end(self, trainer: BaseTrainer, result: TrainResult) -> None:
        """Write result.json: best epoch and its results, keeping test results that stand there."""
        if not trainer.is_main_process:
            return
        path = self.folder / "result.json"
        earlier = read_json(path) or {}
        content = {
            "monitor": f"{trainer.monitor.mode} {trainer.monitor.name}".strip(),
            "best": result.best,
            "last": result.history[-1] if result.history else None,
            "epochs": result.epochs,
            "stopped": trainer.stop_reason,
            "checkpoint": result.checkpoint.name if result.checkpoint else None,
        }
        megapixels = getattr(getattr(trainer, "train_loader", None), "labelled_megapixels", None)
        if megapixels is not None:
            content["labelled_megapixels"] = megapixels
        write_json(path, {**content, **({"test": earlier["test"]} if "test" in earlier else {})})
