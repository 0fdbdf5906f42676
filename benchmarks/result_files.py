"""The guard of the files that benchmarks write: only a file of the same kind is replaced or continued."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from utils.errors import ConfigError
from utils.writing.outputs import Originals, OutputKind, require_output
from utils.writing.text import message_of

Test = Callable[[str], bool]
"""Text of a file -> whether the benchmark has written it."""


def beginning(text: str) -> Test:
    """Return the test of a text that begins in a way."""
    return lambda content: content.startswith(text)


def json_object(*keys: str) -> Test:
    """Return the test of an object of JSON with these keys."""
    return lambda content: json.loads(content).keys() >= set(keys)


def json_values(*keys: str) -> Test:
    """Return the test of an object of JSON whose values, at least one, are objects with these keys."""

    def test(content: str) -> bool:
        values = json.loads(content).values()
        return bool(values) and all(value.keys() >= set(keys) for value in values)

    return test


def json_lines(*keys: str) -> Test:
    """Return the test of lines of JSON, the first of which is an object with these keys; the last may be cut off."""
    return lambda content: json_object(*keys)(content.partition("\n")[0])


def require_result_file(path: Path | None, test: Test, suffix: str = ".json") -> None:
    """End the program with an error if a file of `--output` must not be written, before anything is computed.

    Args:
        path: The file; None: there will be none.
        test: Whether an existing file is of this benchmark.
        suffix: The usual one.
    """

    def is_one(existing: Path) -> bool:
        try:
            return test(existing.read_text(encoding="utf-8"))
        except (ValueError, AttributeError, TypeError, LookupError, StopIteration, RecursionError):
            return False

    if path is not None:
        require_kind(path, OutputKind("a result of this benchmark", (suffix,), is_one), "--output")


def require_kind(path: Path, kind: OutputKind, option: str, originals: Originals | None = None) -> None:
    """End the program with an error if a file must not be written, see `require_output`."""
    try:
        require_output(path, option, kind, originals)
    except ConfigError as error:
        sys.stderr.write(f"error: {message_of(error)}\n")
        raise SystemExit(error.exit_code) from None
