"""Deprecated module path: import `search.results.record` instead."""

import warnings
from typing import Any

import search.results.record as _new


def __getattr__(name: str) -> Any:
    value = getattr(_new, name)  # first: Python asks for names that are not there, too
    warnings.warn("search.record has moved: import search.results.record instead.", DeprecationWarning, stacklevel=2)
    return value
