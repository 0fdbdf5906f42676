"""Numbers, durations and values as the page shows them."""

import json
import math
from typing import Any

NOTHING = "\N{EN DASH}"
TIMES = " \N{MULTIPLICATION SIGN} "


def number(value: float) -> str:
    """Format a number, with thousands separators or four significant digits: `1,204`, `0.7312`, `3.2e-05`."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def value_text(value: Any) -> str:
    """Format any value: a dash for None, results with four decimals so that they line up, all but texts as JSON."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool | dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and 0.001 <= abs(value) < 100 and value != int(value):
        return f"{value:.4f}"
    return number(value) if isinstance(value, int | float) else str(value)


def hours(seconds: float) -> str:
    """Format a duration: `42 s`, `12 min`, `3.4 h`, `120 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 360_000 else f"{seconds / 3600:,.0f} h"
