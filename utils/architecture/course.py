"""The architecture of a supernet after each epoch as a file: its text, and the same entries read from a checkpoint."""

import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.files import open_regular

CHECKPOINT_KEY = "architecture"


def default_learning_epoch(epochs: int) -> int:
    """Return the epoch, from 1, in which an architecture begins to learn by default: that after half of the epochs."""
    return epochs // 2 + 1


def course_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the content of architecture.json, a line per epoch.

    Args:
        entries: `{"epoch": 1, "steps": 0, "alpha": [[...]], "beta": [[[...]]], "genotype": {...}}` each, in the order
            of epochs.

    Raises:
        ValueError: A number is not finite.
    """
    lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in entries)
    return f'{{"epochs": [\n{lines}\n]}}\n'


def entries_of_checkpoint(path: Path) -> list[dict[str, Any]]:
    """Return the entries that a checkpoint of a supernet holds; none if it is missing, damaged, or of another network.

    Read without torch, and without running anything that the file names: tensors and classes are left out.

    Args:
        path: A checkpoint file.
    """
    try:
        with open_regular(path) as whole, zipfile.ZipFile(whole) as archive:
            (name,) = [each for each in archive.namelist() if each.endswith("/data.pkl")]
            with archive.open(name) as file:  # its end verifies the checksum of the archive
                content = _PlainUnpickler(file).load()
                file.read()
        entries = content[CHECKPOINT_KEY]["epochs"]
        return [dict(entry) for entry in entries]
    except Exception:  # damaged bytes can raise any error in an unpickler
        return []


class _LeftOut(dict[Any, Any]):
    """A placeholder for an object that is no plain data."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        """Take any state, and forget it."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _LeftOut

    def persistent_load(self, _: Any) -> Any:
        return _LeftOut()
