"""Faults of a configuration: collected, so that the user sees all of them at once, each with its JSON path.

A JSON path is written as an override is: `optimizer.args.lr`, `metrics.0.type`.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from utils.errors import ConfigError, EspalierError, each_error
from utils.writing.text import in_one_line

MAX_SHOWN_CHARACTERS = 80
MAX_SHOWN_NAMES = 40
MAX_FAULTS = 200


class Faults(list[str]):
    """The faults found so far; all of them make one error."""

    def add(self, path: str, message: str) -> None:
        """Add a fault at `path`; the same fault is listed once. An empty path: the message names it.

        Raises:
            ConfigError: There are so many that the file is no configuration.
        """
        text = f"{in_one_line(path)}: {message}" if path else message
        if text not in self:  # two checks may find the same fault
            self.append(text)
        if len(self) >= MAX_FAULTS:
            raise self.error()

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Turn an error of the block that the user can repair, and that names its path, into a fault."""
        try:
            yield
        except EspalierError as error:
            for part in each_error(error):
                self.add("", str(part))

    def error(self) -> ConfigError:
        """Return the error that lists every fault, one per line."""
        if len(self) == 1:
            return ConfigError(self[0])
        lines = "\n".join(f"  {message}" for message in self)
        return ConfigError(
            f"{len(self)} faults in the configuration:\n{lines}", [ConfigError(message) for message in self]
        )


def join_path(*parts: object) -> str:
    """Return `"loss.1.type"` for `join_path("loss", 1, "type")`; empty parts are left out."""
    return ".".join(str(part) for part in parts if part != "")


def show(value: object) -> str:
    """Return a value as JSON, cut if it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    text = in_one_line(text)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[: MAX_SHOWN_CHARACTERS - 3]}..."


def closest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that was most likely meant, letter case ignored; None if nothing is near."""
    # Without regard to case: difflib finds "adamw" and "AdamW" different in two of five letters.
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


_NOTHING = ("none", "nil", "nothing", "off", "no", "false")  # null in other languages, and in words


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Return `unknown key "epoch". Did you mean "epochs"? Known: ...`."""
    names = sorted(known)
    near = closest(name, names)
    suggestion = f' Did you mean "{near}"?' if near else ""
    if isinstance(name, str) and name.lower() in _NOTHING:
        suggestion = " Did you mean null, which leaves it out?"
    more = f" and {len(names) - MAX_SHOWN_NAMES} more" if len(names) > MAX_SHOWN_NAMES else ""
    return f"unknown {kind} {show(name)}.{suggestion} Known: {', '.join(names[:MAX_SHOWN_NAMES]) or 'none'}{more}."


def suggestion_in(message: str) -> str | None:
    """Return the name that a message of `unknown_name` suggests; None if it suggests none."""
    match = re.search(r': unknown \w+ ".*?"\. Did you mean "(.*?)"\? Known: ', message)
    return None if match is None else match.group(1)
