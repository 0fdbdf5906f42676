"""Deprecated module path: import `data_loader.images.preprocessing` instead."""

import warnings
from typing import Any

import data_loader.images.preprocessing as _new
from data_loader.common.options import ImageOptions


class _Preprocessing(_new.Preprocessing):
    """The same class with the former signature, in which each option is an argument."""

    def __init__(self, **options: Any) -> None:
        super().__init__(ImageOptions(**options))


def __getattr__(name: str) -> Any:
    value = _Preprocessing if name == "Preprocessing" else getattr(_new, name)
    warnings.warn(
        f"data_loader.preprocessing.{name} has moved: import it from data_loader.images.preprocessing instead"
        + (", and give it ImageOptions of data_loader.common.options." if name == "Preprocessing" else "."),
        DeprecationWarning,
        stacklevel=2,
    )
    return value
