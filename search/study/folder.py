"""The folder of a study: created once, found again, never used by two searches at a time."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.study.journal import JOURNAL
from utils.errors import SearchError
from utils.files import make_stamped_folder, write_text_atomically

CONFIG = "config.json"
# These keys of the search section may change when a study is resumed: they do not change its draws and decisions.
_FREE = ("executor", "budget", "max_epoch_time", "retrain")


def create(save_dir: str, name: str, config: Mapping[str, Any]) -> Path:
    """Create `<save_dir>/<name>/<YYYYmmdd_HHMMSS>` with the config of the space in it.

    Raises:
        SearchError: It cannot be created.
    """
    parent = Path(save_dir) / name
    try:
        folder = make_stamped_folder(parent)
        if folder is not None:
            write_text_atomically(folder / CONFIG, json.dumps(config, indent=2) + "\n")
            return folder
    except OSError as error:
        raise SearchError(
            f"trainer.save_dir: {parent} cannot be written ({error.strerror}). A study is stored below it. Name a "
            "folder that you may write to: trainer.save_dir=FOLDER."
        ) from error
    raise SearchError(f"{parent} holds a thousand studies of this second. Try again.")


def studies(parent: Path) -> list[Path]:
    """Return the studies in a folder or anywhere below it, newest first; only the folder itself if it is one."""
    if (parent / JOURNAL).is_file():
        return [parent]
    # The name of the folder is the time of its creation.
    return sorted((path.parent for path in parent.glob(f"*/**/{JOURNAL}")), key=lambda path: path.name, reverse=True)


def find(save_dir: str, name: str, config: Mapping[str, Any]) -> Path | None:
    """Return the newest study of the same space; None if there is none."""
    for folder in studies(Path(save_dir) / name):
        if not changed_keys(read_config(folder), config):
            return folder
    return None


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config of a study's space.

    Raises:
        SearchError: It is missing or damaged.
    """
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        return config
    except (OSError, ValueError) as error:
        raise SearchError(
            f"{folder}: its {CONFIG} cannot be read ({error}). It defines the space of the study. Put back a copy."
        ) from error


def changed_keys(stored: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return the top-level keys in which two spaces differ so that they are not the same search."""
    ours, theirs = (
        {**each, "search": {key: value for key, value in each.get("search", {}).items() if key not in _FREE}}
        for each in (stored, config)
    )
    return [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
