"""What a speed benchmark returns: our values and those of a peer, or of the machine's limit, round by round."""

import gc
import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

RESAMPLES = 2000


@dataclass(frozen=True)
class Comparison:
    """One row of a speed benchmark.

    Attributes:
        name: What was measured: `"video, overlay"`.
        unit: `"s"`, `"ms"`, `"frames/s"`, `"MB"`, ...
        ours: One value for each round.
        other: The values of the same rounds.
        other_name: `"Lightning"`, `"raw write and fsync"`, ...
        is_limit: Whether the other is the least that the machine needs, rather than a peer.
        bar: The ratio of ours to the other that is aimed at; None: none.
        higher_is_better: Whether a larger value is the better one; then the bar is the least ratio.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    other: tuple[float, ...]
    other_name: str
    is_limit: bool
    bar: float | None = None
    higher_is_better: bool = False

    @property
    def ratios(self) -> list[float]:
        """Ours to the other's, by round."""
        return [ours / other for ours, other in zip(self.ours, self.other, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the median ratio, by bootstrap over the rounds."""
        draw, ratios = random.Random(0), self.ratios
        medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
        return medians[round(0.025 * RESAMPLES)], medians[round(0.975 * RESAMPLES) - 1]

    @property
    def reaches_bar(self) -> bool | None:
        """Whether the median ratio is at the bar or better; None without one."""
        if self.bar is None:
            return None
        return self.ratio >= self.bar if self.higher_is_better else self.ratio <= self.bar

    def as_json(self) -> dict[str, Any]:
        """Return the attributes with the median ratio."""
        return {**asdict(self), "ratio": self.ratio, "interval": self.interval, "reaches_bar": self.reaches_bar}


def alternate(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, tuple[float, ...]]:
    """Run each case once in every round, in an order that is reversed from round to round; return their values.

    A first round, which loads and warms up what they need, is not counted.

    Args:
        cases: By name: each runs once and returns what it measured.
        rounds: Number of rounds that count.
    """
    values: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        order = list(cases) if number % 2 else list(cases)[::-1]
        for name in order:
            gc.collect()
            value = cases[name]()
            if number:
                values[name].append(value)
    return {name: tuple(measured) for name, measured in values.items()}


HEADER = ("what", "unit", "ours", "other", "", "ratio: median (least, largest; 95 % interval of the median)", "bar")


def as_table(rows: list[Comparison]) -> str:
    """Return the comparisons as a Markdown table."""
    cells = [HEADER, tuple("---" for _ in HEADER)]
    for row in rows:
        kind = "limit" if row.is_limit else "peer"
        (low, high), ratios, bar = row.interval, row.ratios, "-"
        if row.bar is not None:
            sign = ">=" if row.higher_is_better else "<="
            bar = f"{sign} {row.bar:g}: {'reached' if row.reaches_bar else 'missed'}"
        cells.append((
            row.name,
            row.unit,
            f"{statistics.median(row.ours):.4g}",
            f"{statistics.median(row.other):.4g}",
            f"{row.other_name} ({kind})",
            f"{row.ratio:.3f} ({min(ratios):.3f}, {max(ratios):.3f}; {low:.3f} to {high:.3f})",
            bar,
        ))  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
