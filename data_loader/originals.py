"""The files of data that a config names: no result may be written over them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_loader.classification.sources import list_labelled
from data_loader.segmentation.pairs import list_pairs
from utils.errors import EspalierError

_PREFIX = "data_root"  # only lies before the names of a list: all kinds of files may be below it


def named_files(config: Mapping[str, Any]) -> list[Path]:
    """Return the files and folders that the loaders of a config name, and the images and masks of their lists.

    Args:
        config: Its sections that end in `loader` are read; a list that cannot be read is passed over.
    """
    found: dict[Path, None] = {}
    for key, section in config.items():
        if key.endswith("loader") and isinstance(section, Mapping) and isinstance(section.get("args"), Mapping):
            found |= dict.fromkeys(_named_in(section["args"]))
    return list(found)


def _named_in(arguments: Mapping[str, Any]) -> Iterator[Path]:
    for name, value in arguments.items():
        if isinstance(value, Mapping):  # a data set of its own class
            yield from _named_in(value)
        elif isinstance(value, str) and value and name != _PREFIX and "\0" not in value:
            yield Path(value)
            yield Path(str(arguments.get(_PREFIX) or ""), value)
    try:
        if isinstance(listed := arguments.get("pairs_file"), str):
            for pair in list_pairs(listed, arguments.get(_PREFIX)).entries:
                yield from (pair.image, pair.mask)
        if isinstance(listed := arguments.get("list_file"), str):
            yield from (file for file in list_labelled(listed, arguments.get(_PREFIX)).files if file is not None)
    except (EspalierError, OSError, TypeError, ValueError):
        return
