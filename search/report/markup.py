"""Pieces of HTML. Whatever is not `Safe` is escaped: names and reasons come from users and from exceptions."""

import html
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

NOTHING = "\N{EN DASH}"
TIMES = " \N{MULTIPLICATION SIGN} "


class Safe(str):
    """Text that is HTML already."""


class Quantity(str):
    """Text that stands to the right, as numbers do."""


def escape(value: object) -> Safe:
    """Text as HTML; what is `Safe` stays."""
    return value if isinstance(value, Safe) else Safe(html.escape(str(value)))


def tag(name: str, content: object = "", **attributes: object) -> Safe:
    """An element. An attribute `class_` is written `class`, `data_value` is written `data-value`."""
    written = "".join(
        f' {key.strip("_").replace("_", "-")}="{html.escape(str(value))}"' for key, value in attributes.items()
    )
    return Safe(f"<{name}{written}>{escape(content)}</{name}>")


def join(parts: Iterable[object], between: str = "") -> Safe:
    """Several pieces as one."""
    return Safe(between.join(escape(part) for part in parts))


def number(value: float) -> str:
    """Whole numbers with thousands apart, others to four significant digits: `1,204`, `0.7312`, `3.2e-05`."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def result(value: float) -> str:
    """A result of training: four decimals where that says something, so that columns line up."""
    return f"{value:.4f}" if 0.001 <= abs(value) < 100 and value != int(value) else number(value)


def shown(value: Any) -> str:
    """Any value of a configuration as text."""
    if isinstance(value, bool) or value is None or isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return number(value) if isinstance(value, int | float) else str(value)


def hours(seconds: float) -> Quantity:
    """`42 s`, `12 min`, `3.4 h`, `120 h`."""
    if seconds < 120:
        return Quantity(f"{seconds:.0f} s")
    if seconds < 7200:
        return Quantity(f"{seconds / 60:.0f} min")
    return Quantity(f"{seconds / 3600:,.1f} h" if seconds < 360_000 else f"{seconds / 3600:,.0f} h")


def cell(value: Any) -> Safe:
    """A table's cell: numbers to the right and sortable by their value, nothing as a dash."""
    if isinstance(value, Safe):
        return tag("td", value)
    if value is None or value == "":
        return tag("td", NOTHING, class_="none")
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = number(value) if isinstance(value, int) else result(value)
        return tag("td", text, class_="number", data_value=value)
    if isinstance(value, Quantity):
        return tag("td", value, class_="number")
    return tag("td", shown(value))


def table(headers: Sequence[object], rows: Iterable[Sequence[Any]], *, kind: str = "") -> Safe:
    """A table in a frame that scrolls where it is too wide or too high.

    Args:
        headers: Of each column.
        rows: Cells; `None` is drawn as a dash.
        kind: Classes of the table; with `sortable` a click on a header sorts.
    """
    cells = [[cell(value) for value in row] for row in rows]
    numbers = [any(row[column].startswith('<td class="number"') for row in cells) for column in range(len(headers))]
    names = zip(headers, numbers, strict=True)
    head = tag("thead", tag("tr", join(tag("th", name, scope="col", class_="number" * right) for name, right in names)))
    body = tag("tbody", join((tag("tr", join(row)) for row in cells), "\n"))
    return tag("div", tag("table", Safe(head + body), class_=kind), class_="frame")


def section(name: str, title: str, *content: object) -> Safe:
    """A chapter of the page with its anchor."""
    return tag("section", join([tag("h2", title), *content], "\n"), id=name)


def note(text: object) -> Safe:
    """A sentence of explanation."""
    return tag("p", text, class_="note") if text else Safe("")


def script_json(value: Any) -> Safe:
    """JSON that may stand in a script element: nothing in it ends the element, and what is not finite is null."""
    text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    return Safe(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
