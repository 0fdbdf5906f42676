"""Limits on a configuration, by counting: a few lines may stand for more values than any machine holds."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.errors import ConfigError

MAX_BYTES = 4 * 2**20
MAX_FILES = 100  # that one file extends, each as often as it is read
MAX_VALUES = 200_000  # objects, lists, texts and numbers; with the names of 20,000 classes and their counts: 40,000
MAX_DEPTH = 64  # far below the depth at which Python refuses to copy
_MAX_DIGITS = 1000  # of a number; Python itself converts no whole number of more than 4300


def read_config_text(file: Path) -> str:
    """Return the text of a configuration file.

    Raises:
        ConfigError: It is no file, as a folder, a pipe or a device, or it is too large.
        OSError: It cannot be read.
        ValueError: It is not UTF-8, or there can be no such name.
    """
    if file.exists() and not os.path.isfile(file):
        kind = "a folder" if file.is_dir() else "a pipe or a device"
        raise ConfigError(f"{file}: is {kind}. A configuration is a file that can be read again. Name a JSON file.")
    with open(file, "rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{file}: is larger than {MAX_BYTES // 2**20} MB, the limit of a configuration. Name a file of settings."
        )
    return content.decode("utf-8-sig")  # some editors begin a file with a byte order mark


def require_few_files(file: Path, num_read: int) -> None:
    """Raise a `ConfigError` if a configuration is made of too many files."""
    if num_read > MAX_FILES:
        raise ConfigError(
            f"{file}: $extends reads more than {MAX_FILES} files, those that several files extend as often as they do. "
            "Extend fewer files, or write some of them as one."
        )


def require_short_number(text: str) -> str:
    """Return the text of a number.

    Raises:
        ValueError: It has too many digits.
    """
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits; at most {_MAX_DIGITS} are read. Shorten it")
    return text


class ValueCount:
    """Counts the values that a part of a configuration stands for, with every reference replaced.

    Args:
        definitions: The values of `$defs`.
        reference: The key of an object that stands for a definition: `$ref`, or `$var` of a search.
        most_repeated: `times` of a `$repeat` -> the largest number that it can be; None: a `$repeat` is an object.
        limit: Largest number of values.
    """

    def __init__(
        self,
        definitions: Mapping[str, Any],
        reference: str,
        most_repeated: Callable[[Any], int] | None = None,
        *,
        limit: int = MAX_VALUES,
    ) -> None:
        self._definitions = definitions
        self._reference = reference
        self._most_repeated = most_repeated
        self._limit = limit
        self._known: dict[str, tuple[int, int]] = {}  # name -> values and depth of its definition

    def require_few(self, value: Any, place: str) -> None:
        """Raise if a value is too large or nested too deep.

        Args:
            value: A configuration or a part of one.
            place: Of the value, for messages.

        Raises:
            ConfigError: With the limit.
        """
        count, depth = self._measure(value, 0, ())
        if depth > MAX_DEPTH:  # the count is not complete then
            raise ConfigError(
                f"{place}: nested deeper than {MAX_DEPTH} levels, each {self._reference} among them. Flatten it."
            )
        if count > self._limit:
            raise ConfigError(
                f"{place}: stands for more than {self._limit:,} values when each {self._reference} and $repeat in it "
                "is written out. Repeat fewer, or refer to fewer definitions."
            )

    def _measure(self, value: Any, level: int, open_names: Sequence[str]) -> tuple[int, int]:
        """Return how many values there are, which may be far above the limit, and how deep they are nested."""
        if level > MAX_DEPTH:
            return 1, level  # not followed any further
        if isinstance(value, list):
            return self._together(value, level, open_names)
        if not isinstance(value, Mapping):
            return 1, 0
        name = value.get(self._reference)
        others = [item for key, item in value.items() if key != self._reference] if self._reference in value else []
        if isinstance(name, str) and name in self._definitions and name not in open_names:
            if name not in self._known:
                self._known[name] = self._measure(self._definitions[name], level + 1, (*open_names, name))
            count, depth = self._known[name]
            more, deeper = self._together(others, level, open_names)
            return count + more, max(depth + 1, deeper)
        repeat = value.get("$repeat")
        if self._most_repeated is None or not isinstance(repeat, Mapping):
            return self._together(list(value.values()), level, open_names)
        count, depth = self._measure(repeat.get("of"), level + 1, open_names)
        others = [
            *(item for key, item in repeat.items() if key != "of"),
            *(value[key] for key in value if key != "$repeat"),
        ]
        more, deeper = self._together(others, level, open_names)
        return count * max(1, self._most_repeated(repeat.get("times"))) + more, max(depth + 1, deeper)

    def _together(self, values: Sequence[Any], level: int, open_names: Sequence[str]) -> tuple[int, int]:
        measured = [self._measure(value, level + 1, open_names) for value in values]
        return 1 + sum(count for count, _ in measured), 1 + max((depth for _, depth in measured), default=0)
