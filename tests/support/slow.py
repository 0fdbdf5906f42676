"""Cases of a test of which only some run with `make test`, the others with `make slow`."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow_unless(is_quick: Callable[[Any], bool], cases: Iterable[Any]) -> list[Any]:
    """Mark the cases that are not quick; a plain tuple is several arguments of the test."""
    return [
        pytest.param(*(case if type(case) is tuple else (case,)), marks=() if is_quick(case) else pytest.mark.slow)
        for case in cases
    ]
