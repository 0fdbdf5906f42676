"""Deprecated module path: import `data_loader.images.files` instead, with `read_image` for `read_picture`."""

import warnings
from typing import Any

import data_loader.images.files as _new

_RENAMED = {"read_picture": "read_image", "picture_size": "image_size", "PICTURE_SUFFIXES": "IMAGE_SUFFIXES"}


def __getattr__(name: str) -> Any:
    renamed = _RENAMED.get(name, name)
    value = getattr(_new, renamed)
    warnings.warn(
        f"data_loader.pictures.{name} has moved: import {renamed} from data_loader.images.files instead.",
        DeprecationWarning,
        stacklevel=2,
    )
    return value
