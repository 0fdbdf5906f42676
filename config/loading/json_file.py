"""Strict JSON: values that Python's parser lets pass (duplicate keys, NaN, overflowing numbers) are refused."""

import json
import math
import re
from pathlib import Path
from typing import Any

from config.faults import closest, show
from utils.errors import ConfigError

MAX_DEPTH = 64
UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def read_json_file(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        ConfigError: The file is missing, unreadable or not strict JSON; syntax errors carry line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        siblings = [file.name for file in path.parent.glob("*.json")] if path.parent.is_dir() else []
        near = closest(path.name, siblings)
        hint = f"Did you mean {path.parent / near}?" if near else "Check the path."
        raise ConfigError(f"{path}: no such file. {hint}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason}). Give the path of a JSON file.") from None
    value = parse_json(text, str(path))
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: line 1 column 1: {show(value)} is not an object. Wrap the sections in {{ }}.")
    return value


def parse_json(text: str, source: str) -> Any:
    """Parse strict JSON; `source` names it in errors.

    Raises:
        ConfigError: It is not JSON (with line and column), holds a key twice, a number that is not finite, a character
            that no file can hold, or is nested too deep.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_unique_keys, parse_constant=_finite, parse_float=_finite, parse_int=_finite
        )
        _check_values(value)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise ConfigError(f"{source}: {place}: {_explain_syntax(error)}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested deeper than {MAX_DEPTH} levels. Flatten it.") from None
    except ValueError as error:  # of the functions below, or an integer of more digits than Python converts
        raise ConfigError(f"{source}: {error}") from None
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f'duplicate key "{key}", {show(found[key])} and {show(value)}. Keep one of the two.')
        found[key] = value
    return found


def _finite(text: str) -> int | float:
    """Return the number that a JSON text is, a whole one as int."""
    number = int(text) if text.lstrip("-").isdecimal() else float(text)
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is not a finite number. Use a finite one.")
    return number


def _check_values(value: Any, depth: int = 0) -> None:
    """Raise if a value could not be written back or walked through."""
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, str) and UNSTORABLE.search(value):
        raise ValueError(f"the text {value!a} holds a character that no file can hold. Remove it.")
    for item in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_values(item, depth + 1)


def _explain_syntax(error: json.JSONDecodeError) -> str:
    rest = error.doc[error.pos :].lstrip()
    before = error.doc[: error.pos].rstrip()
    if not error.doc.strip():
        return "the file is empty. Start with {}."
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments. Remove it."
    if before.endswith(",") and rest[:1] in ("}", "]"):
        return f"a comma before {rest[0]}. Remove the comma."
    if rest.startswith("'"):
        return "single quotes. Use double quotes."
    if not rest:
        return "the file ends too early. Add the missing bracket or quote."
    return (
        f"{error.msg}, found {show(rest.split(maxsplit=1)[0][:20])}. Check the brackets, commas and quotes before it."
    )
