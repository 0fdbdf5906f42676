"""The header of a `.ts` file: lines `@key value`, up to `@data`. Keys are not case-sensitive."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils.errors import DataError

KNOWN = (
    "problemname", "timestamps", "missing", "univariate", "dimension", "dimensions", "equallength", "serieslength",
    "classlabel", "targetlabel", "data",
)  # fmt: skip


@dataclass(frozen=True)
class TsHeader:
    """What a header promises.

    Attributes:
        has_labels: Whether every line ends in a class.
        classes: The classes that it lists; empty where it lists none.
        dimensions: Variables of a series; 0 where it does not say.
        length: Steps of every series; 0 where they differ or it does not say.
    """

    has_labels: bool
    classes: tuple[str, ...] = ()
    dimensions: int = 0
    length: int = 0


def read_header(lines: Iterable[str], path: Path) -> tuple[TsHeader, int]:
    """Read the lines up to `@data`.

    Returns:
        The header, and the number of the line behind it.

    Raises:
        DataError: A key is unknown or its value wrong, the file is of a kind that is not read, or `@data` is missing.
    """
    found: dict[str, list[str]] = {}
    for number, text in enumerate(lines, start=1):
        words = text.split()
        if not words or words[0].startswith(("#", "%")):
            continue
        key = words[0].removeprefix("@").lower()
        if not words[0].startswith("@") or key not in KNOWN:
            raise DataError(
                f"{path}, line {number}: {text.strip()[:40]!r} is no line of a header, which are @problemName, "
                "@timeStamps, @missing, @univariate, @dimensions, @equalLength, @seriesLength, @classLabel and @data. "
                "Correct it."
            )
        if key == "data":
            return _checked(found, path), number + 1
        found[key] = words[1:]
    raise DataError(f"{path} has no line @data: series follow that line. It is cut off, or no .ts file.")


def _checked(found: dict[str, list[str]], path: Path) -> TsHeader:
    if _flag(found, "timestamps", path):
        raise DataError(f"{path}: @timeStamps true: series with time stamps are not read. Save the values alone.")
    if "targetlabel" in found:
        raise DataError(f"{path}: @targetLabel: numbers to predict are not classes. Name a file with @classLabel.")
    dimensions = _count(found, "dimensions", path) or _count(found, "dimension", path)
    if _flag(found, "univariate", path):
        if dimensions > 1:
            raise DataError(f"{path}: @univariate true, but @dimensions {dimensions}. Correct one of them.")
        dimensions = 1
    label = found.get("classlabel", ["false"])
    has_labels = _flag({"classlabel": label[:1]}, "classlabel", path)
    length = _count(found, "serieslength", path) if _flag(found, "equallength", path) else 0
    return TsHeader(has_labels, tuple(label[1:]) if has_labels else (), dimensions, length)


def _flag(found: dict[str, list[str]], key: str, path: Path) -> bool:
    words = found.get(key, ["false"])
    if len(words) != 1 or words[0].lower() not in ("true", "false"):
        raise DataError(f"{path}: @{key} {' '.join(words)!r} must be true or false. Correct it.")
    return words[0].lower() == "true"


def _count(found: dict[str, list[str]], key: str, path: Path) -> int:
    words = found.get(key, ["0"])
    if len(words) != 1 or not words[0].isdecimal():
        raise DataError(f"{path}: @{key} {' '.join(words)!r} must be a whole number. Correct it.")
    return int(words[0])
