"""The folder of a study: made once, never shared by two searches at a time, found again."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from search.study.journal import JOURNAL
from utils.errors import SearchError
from utils.files import folder_lock, make_stamped_folder, write_text_atomically

CONFIG = "config.json"
# What may change between two sessions of a study: how it runs, not what it draws and decides.
_FREE = ("executor", "budget", "max_epoch_time", "retrain")


def create(save_dir: str, name: str, config: Mapping[str, Any]) -> Path:
    """Make `<save_dir>/<name>/<YYYYmmdd_HHMMSS>` with the space in it.

    Raises:
        SearchError: It cannot be made.
    """
    parent = Path(save_dir) / name
    try:
        folder = make_stamped_folder(parent)
        if folder is not None:
            write_text_atomically(folder / CONFIG, json.dumps(config, indent=2) + "\n")
            return folder
    except OSError as error:
        raise SearchError(
            f"trainer.save_dir: {parent} cannot be written ({error.strerror}). A study is kept below it. Name a folder "
            "that you may write to: trainer.save_dir=FOLDER."
        ) from error
    raise SearchError(f"{parent} holds a thousand studies of this second. Try again.")


def studies(parent: Path) -> list[Path]:
    """The studies in a folder or anywhere below it, newest first; the folder itself where it is one."""
    if (parent / JOURNAL).is_file():
        return [parent]
    return sorted((path.parent for path in parent.glob(f"*/**/{JOURNAL}")), key=lambda path: path.name, reverse=True)


def find(save_dir: str, name: str, config: Mapping[str, Any]) -> Path | None:
    """The newest study of the same space; None where there is none."""
    for folder in studies(Path(save_dir) / name):
        if not differences(read_config(folder), config):
            return folder
    return None


def read_config(folder: Path) -> dict[str, Any]:
    """The space of a study.

    Raises:
        SearchError: It is missing or damaged.
    """
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        return config
    except (OSError, ValueError) as error:
        raise SearchError(
            f"{folder}: its {CONFIG} cannot be read ({error}). It says what is searched. Put back a copy of it."
        ) from error


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """Top-level keys in which two spaces differ so that they are not the same search."""
    ours, theirs = _binding(left), _binding(right)
    return [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]


def held(folder: Path) -> AbstractContextManager[None]:
    """Hold a study's folder for a block.

    Raises:
        SearchError: Another search works there.
    """
    return folder_lock(
        folder,
        lambda process: SearchError(
            f"{folder}: process {process} is searching there. A study goes on in one search at a time. Wait for its "
            "end, or start another one without --resume."
        ),
    )


def _binding(config: Mapping[str, Any]) -> dict[str, Any]:
    search = {key: value for key, value in config.get("search", {}).items() if key not in _FREE}
    return {**config, "search": search}
