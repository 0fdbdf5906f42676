"""Deprecated module path: import `data_loader.images.preprocessing` instead."""

import warnings
from typing import Any

import data_loader.images.preprocessing as _new


def __getattr__(name: str) -> Any:
    warnings.warn(
        "data_loader.preprocessing has moved: import data_loader.images.preprocessing instead.",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(_new, name)
