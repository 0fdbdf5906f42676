"""Values of annotation files, checked, and the images that they name."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import DataError
from utils.files import read_json_object


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a file of annotations holds.

    Raises:
        DataError: It is damaged, or holds something else.
    """
    return read_json_object(path, lambda reason: DataError(f"{reason}. Export it again.", place=str(path)))


def is_count(value: object) -> bool:
    """Return whether a value is a whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def object_of(entry: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """Return the value of a key.

    Raises:
        ValueError: It is missing or of another kind.
    """
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"its {key} is {value!r}" if key in entry else f"it has no {key}")
    return value


def text_of(entry: Mapping[str, Any], key: str) -> str:
    """Return the text of a key, which is not empty.

    Raises:
        ValueError: It is missing or no text.
    """
    text = object_of(entry, key, str)
    if not text.strip():
        raise ValueError(f"its {key} is empty")
    return str(text)


def objects_of(content: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """Return the list of objects of a key.

    Raises:
        DataError: It is something else.
    """
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: {key} must be a list of objects. Export the file again.", place=str(path))
    return entries


def find_image(name: str, folder: Path, images: Path | None) -> Path:
    """Return the file of an image.

    Args:
        name: As the annotations have it; separators of Windows are understood.
        folder: Of the annotations; the image is looked for there, and in a folder `images` there or next to it.
        images: Folder that the user named: only there.

    Raises:
        ValueError: There is no such file.
    """
    path = Path(name.replace("\\", "/"))
    places = [images] if images is not None else [folder, folder / "images", folder.parent / "images"]
    for each in (path, Path(path.name)):
        for place in places:
            if os.path.isfile(place / each):
                return place / each
    where = " and ".join(map(str, places[:2]))
    raise ValueError(f"the image {name} is not in {where}; name the folder of the images with --images")
