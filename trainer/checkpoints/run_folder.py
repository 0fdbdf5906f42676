"""The folder of one run: created once, never shared, found again."""

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from utils.errors import CheckpointError, ConfigError
from utils.files import folder_lock, make_stamped_folder, write_text_atomically

# Keys that may differ between a run and its continuation: they change how it runs, not its results.
RUNTIME_KEYS = {"n_workers", "num_workers", "pin_memory", "cache_mb"}
RUNTIME_PATHS = {
    "n_gpu",
    "visualization",
    "trainer.epochs",
    "trainer.early_stop",
    "trainer.save_dir",
    "trainer.save_period",
    "trainer.save_every_steps",
    "trainer.save_every_minutes",
    "trainer.max_time",
    "trainer.verbosity",
    "trainer.tensorboard",
    "trainer.histograms",
    "trainer.pictures",
}
RECORDS = ("config.json", "environment.json")
logger = logging.getLogger(__name__)


def create_run_folder(save_dir: str, name: str, named: Path | None = None) -> Path:
    """Create `<save_dir>/<name>/<YYYYmmdd_HHMMSS>`, with a number after it if two runs start in one second.

    Args:
        save_dir: Holds the runs of every name.
        name: Of the config.
        named: Create this folder instead. Records that a run left there which died before its first checkpoint are
            removed.

    Raises:
        ConfigError: The folder cannot be created, or already holds a run.
    """
    parent = Path(save_dir) / name if named is None else named
    try:
        if named is None:
            folder = make_stamped_folder(parent)
        else:
            named.mkdir(parents=True, exist_ok=True)
            folder = named
            if any(named.glob("*.pth")):
                raise ConfigError(f"{named} holds a run's checkpoints. Two runs never share a folder. Name another.")
            for record in RECORDS:
                (named / record).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"trainer.save_dir: {parent} cannot be written ({error.strerror}). Runs are saved below it. Name a folder "
            "that you may write to: trainer.save_dir=FOLDER."
        ) from error
    if folder is None:
        raise ConfigError(f"trainer.save_dir: {parent} holds a thousand runs of this second. Try again.")
    return folder


def lock_run_folder(folder: Path | None) -> AbstractContextManager[None]:
    """Lock a run's folder for a block, so that only one process trains there.

    Args:
        folder: The run's folder; None (a process that writes nothing) locks nothing.

    Raises:
        CheckpointError: Another process trains there.
    """
    return folder_lock(
        folder,
        lambda process: CheckpointError(
            f"{folder}: process {process} is training there. One process at a time can continue a run. Wait for its "
            "end, or start another run without --resume."
        ),
    )


def run_folders(config: Mapping[str, Any]) -> list[Path]:
    """Return the folders of the runs of a config's name that have a checkpoint, newest first."""
    parent = Path(config.get("trainer", {}).get("save_dir", "saved/")) / config["name"]
    folders = [path for path in parent.glob("*") if (path / "config.json").is_file() and any(path.glob("*.pth"))]
    return sorted(folders, reverse=True)


def asked_config(folder: Path) -> Mapping[str, Any]:
    """Return the config that a run was started with, before the run completed it from its data."""
    content = read_json(folder / "environment.json") or {}
    config: Mapping[str, Any] = content.get("asked", {})
    return config


def config_differences(left: Any, right: Any, path: str = "") -> list[str]:
    """Return the JSON paths at which two configs differ, except for keys that only say how to run."""
    if path in RUNTIME_PATHS:
        return []
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        found: list[str] = []
        for key in {**left, **right}:
            if key not in RUNTIME_KEYS:
                found += config_differences(left.get(key), right.get(key), f"{path}.{key}" if path else key)
        return found
    return [] if left == right else [path]


def write_json(path: Path, content: Any) -> None:
    """Write plain data as indented JSON, atomically."""
    write_text_atomically(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Return the plain data of a JSON file, None if the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
