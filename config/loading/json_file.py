"""Strict JSON: what Python's parser lets pass (duplicate keys, NaN, overflowing numbers) is refused with its place."""

import json
import math
import re
from pathlib import Path
from typing import Any

from config.faults import closest, show
from utils.errors import ConfigError

MAX_DEPTH = 64
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|-?Infinity|NaN|-?\d[\d.eE+-]*')


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        ConfigError: The file is missing, unreadable or not strict JSON; syntax errors carry line and column.
    """
    value = parse_json(_read_text(path), str(path))
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: line 1 column 1: {show(value)} is not an object. Wrap the sections in {{ }}.")
    return value


def parse_json(text: str, source: str) -> Any:
    """Parse strict JSON; `source` names it in errors.

    Raises:
        ConfigError: With line and column.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise _located(source, text, error.pos, _explain(error)) from None
    except RecursionError:
        raise ConfigError(f"{source}: nested deeper than {MAX_DEPTH} levels. Flatten it.") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise ConfigError(f"{source}: {error}") from None
    _check_tokens(text, source)
    _check_values(value, source)
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(_missing_file(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason}). Give the path of a JSON file.") from None


def _missing_file(path: Path) -> str:
    siblings = [file.name for file in path.parent.glob("*.json")] if path.parent.is_dir() else []
    near = closest(path.name, siblings)
    hint = f"Did you mean {path.parent / near}?" if near else "Check the path."
    return f"{path}: no such file. {hint}"


def _located(source: str, text: str, position: int, message: str) -> ConfigError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return ConfigError(f"{source}: line {line} column {column}: {message}")


def _explain(error: json.JSONDecodeError) -> str:
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


def _check_tokens(text: str, source: str) -> None:
    """Find duplicate keys and numbers that are none, with their places; `text` is known to parse."""
    open_objects: list[set[str] | None] = []
    tokens = list(_TOKEN.finditer(text))
    for index, match in enumerate(tokens):
        token = match.group()
        if token in "{[":
            open_objects.append(set() if token == "{" else None)
        elif token in "}]":
            open_objects.pop()
        elif token.startswith('"'):
            keys = open_objects[-1] if open_objects else None
            is_key = keys is not None and index + 1 < len(tokens) and tokens[index + 1].group() == ":"
            if keys is not None and is_key:
                name = json.loads(token)
                if name in keys:
                    raise _located(source, text, match.start(), f'duplicate key "{name}". Keep one of the two.')
                keys.add(name)
        elif token[-1] in "Ny" or (token not in ",:" and not math.isfinite(float(token))):
            raise _located(source, text, match.start(), f"{token} is not a finite number. Use a finite one.")


def _check_values(value: Any, source: str, depth: int = 0) -> None:
    """Refuse what could not be written back or walked through."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"{source}: nested deeper than {MAX_DEPTH} levels. Flatten it.")
    if isinstance(value, str) and ("\0" in value or not _encodes(value)):
        raise ConfigError(f"{source}: the text {value!a} holds a character that no file can hold. Remove it.")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_values(key, source, depth)
            _check_values(item, source, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, source, depth + 1)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
