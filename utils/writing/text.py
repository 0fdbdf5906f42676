"""Text of others that is shown or stored: names of classes and files, values of configs.

A terminal obeys escape sequences, a reader believes lines, and a spreadsheet computes cells that begin as formulas do.
"""

import re
import shlex
import sys
from typing import Any

from utils.errors import EspalierError, each_error

_NOT_SHOWN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but tabs and the ends of lines
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"  # invisible ones, and those that turn the direction
    "\ud800-\udfff]"  # halves of characters, as in file names that are not UTF-8
)
_LINE_ENDS = re.compile(r"[\n\t]")
_NO_LINE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
_MESSAGE_LINE = re.compile(r"\n(?! )")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str) -> str:
    """Return a text with each control character as an escape sequence in letters; tabs and lines remain."""
    return _NOT_SHOWN.sub(_escaped, text)


def in_one_line(text: object) -> str:
    """Return a name as `visible` does, with ends of lines and tabs as escape sequences, too."""
    return _LINE_ENDS.sub(_escaped, visible(str(text)))


def storable(text: str) -> str:
    """Return a text as UTF-8 can store it: halves of characters, as in file names that are not UTF-8, are escaped."""
    return _HALF.sub(_escaped, text)


def is_one_line(name: str) -> bool:
    """Return whether a name can be a line of a text file: it has no control characters or halves of characters."""
    return not _NO_LINE.search(name)


def shell_word(word: object) -> str:
    """Return a word of a command line that is printed, quoted so that bash and zsh read it as it is.

    Control characters, and bytes of paths that are not UTF-8, become escape sequences between `$'` and `'`.
    """
    text = str(word)
    if is_one_line(text):
        return shlex.quote(text)
    codes = text.encode("utf-8", "surrogateescape")
    letters = (chr(code) if 32 <= code < 127 and chr(code) not in "'\\" else f"\\x{code:02x}" for code in codes)
    return f"$'{''.join(letters)}'"


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def indented(text: str) -> str:
    """Return a text as `visible` does, of which no later line can be taken for a message: each begins with blanks."""
    return _MESSAGE_LINE.sub("\n  ", visible(text))


def message_of(error: EspalierError) -> str:
    """Return the message of an error, each of its parts without lines that could be taken for another message."""
    text = str(error)
    for part in each_error(error):
        text = text.replace(str(part), _MESSAGE_LINE.sub(r"\\n", str(part)))
    return visible(text)


def write_out(text: str) -> None:
    """Write results to standard output."""
    sys.stdout.write(visible(text))


def cell(value: Any) -> Any:
    """Return the value of a cell of a CSV file: a text that a spreadsheet would compute gets a `'` before it.

    Numbers, also those that are written as text, are not changed. What UTF-8 cannot store is escaped, see `storable`.
    """
    if not isinstance(value, str):
        return value
    text = storable(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
