"""Deprecated module path: import `data_loader.images.files` instead."""

import warnings
from typing import Any

import data_loader.images.files as _new


def __getattr__(name: str) -> Any:
    warnings.warn(
        "data_loader.pictures has moved: import data_loader.images.files instead.", DeprecationWarning, stacklevel=2
    )
    return getattr(_new, name)
