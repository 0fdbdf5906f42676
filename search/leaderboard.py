"""Deprecated module path: import `search.results.leaderboard` instead."""

import warnings
from typing import Any

import search.results.leaderboard as _new


def __getattr__(name: str) -> Any:
    value = getattr(_new, name)  # first: Python asks for names that are not there, too
    warnings.warn(
        "search.leaderboard has moved: import search.results.leaderboard instead.", DeprecationWarning, stacklevel=2
    )
    return value
