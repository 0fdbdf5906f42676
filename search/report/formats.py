"""Numbers, durations, values and tables as the page shows them."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

NOTHING = "\N{EN DASH}"
TIMES = " \N{MULTIPLICATION SIGN} "


@dataclass(frozen=True)
class Cell:
    """A table's cell; the template escapes all of it.

    Attributes:
        text: Content.
        kind: CSS class of the cell: `number` is aligned to the right, `none` is a dash.
        style: CSS class of the text, or `code` for a JSON path.
        sort_value: Number to sort the column by, instead of the text.
        title: Tooltip of a `code`.
    """

    text: str
    kind: str = ""
    style: str = ""
    sort_value: float | None = None
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        headers: Of each column, aligned as its cells.
        rows: As many cells each.
    """

    headers: list[Cell]
    rows: list[list[Cell]]


def make_table(headers: Sequence[str | Cell], rows: Iterable[Sequence[Any]]) -> Table:
    """Make a table of plain values and finished cells.

    Numbers are aligned to the right and sorted by value; None and empty texts are shown as a dash.
    """
    cells = [[make_cell(value) for value in row] for row in rows]
    aligned = []
    for column, header in enumerate(headers):
        is_number = any(row[column].kind == "number" for row in cells)
        made = header if isinstance(header, Cell) else Cell(header)
        aligned.append(replace(made, kind="number" if is_number else ""))
    return Table(aligned, cells)


def make_cell(value: Any) -> Cell:
    """Return a plain value as a cell, and a cell as it is."""
    if isinstance(value, Cell):
        return value
    if value is None or value == "":
        return Cell(NOTHING, "none")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(number(value) if isinstance(value, int) else result_text(value), "number", sort_value=value)
    return Cell(value_text(value))


def path_cell(path: str, name: str = "") -> Cell:
    """Return a cell for a JSON path, shown under a shorter name if there is one."""
    return Cell(name or path, style="code", title=path)


def number(value: float) -> str:
    """Format a number, with thousands separators or four significant digits: `1,204`, `0.7312`, `3.2e-05`."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def result_text(value: float) -> str:
    """Format a result of training with four decimals if its size allows, so that columns line up."""
    return f"{value:.4f}" if 0.001 <= abs(value) < 100 and value != int(value) else number(value)


def value_text(value: Any) -> str:
    """Format any value of a configuration."""
    if isinstance(value, bool) or value is None or isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return number(value) if isinstance(value, int | float) else str(value)


def hours(seconds: float) -> str:
    """Format a duration: `42 s`, `12 min`, `3.4 h`, `120 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 360_000 else f"{seconds / 3600:,.0f} h"
