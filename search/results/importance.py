"""The importance of searched values: the share of the results' variance that each explains alone, or with another.

A sampler that does not learn draws values independently of each other and of earlier results. So the variance between
the groups of candidates that share a value estimates the first-order share of that value (Sobol, 2001, section 4,
equation for S_i) directly, without the model that fANOVA needs (Hutter et al., 2014). With a sampler that learns, the
shares describe the candidates that it chose, not the space. The shares are of the variance of ranks instead of
values, since otherwise a few diverged trainings would be nearly all of the variance. Groups differ by chance, too; the
expected part of that is subtracted (epsilon squared, Kelley, 1935).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.results.leaderboard import LeaderboardRow

FEWEST = 20  # candidates: with fewer, shares are mostly chance
_BINS = 6  # groups of a number with many outcomes
_FEW = 12  # a number with at most this many outcomes has a group for each
_PAIRED = 12  # the most important values, whose pairs are examined
_STRONG_PAIRS = 5
NOT_DRAWN = "not drawn"


@dataclass(frozen=True)
class Importance:
    """The importance of one searched value, or of the interaction of two.

    Attributes:
        paths: JSON path of the value; two for the share of both together in excess of their shares alone.
        share: Of the variance of ranks, 0 to 1.
        chance: Share that random groups rarely exceed (three standard deviations).
        best_group: The value, or range of values, whose candidates have the best mean rank.
        best_rank: That mean rank as a share of all, 0 the best; 0.5 is average.
    """

    paths: tuple[str, ...]
    share: float
    chance: float
    best_group: str
    best_rank: float

    @property
    def is_single(self) -> bool:
        """Whether it is the importance of one value."""
        return len(self.paths) == 1

    @property
    def is_clear(self) -> bool:
        """Whether the share exceeds chance."""
        return self.share > self.chance


@dataclass(frozen=True)
class Groups:
    """Candidates grouped by a value.

    Attributes:
        codes: (N,) integer, the group of each candidate.
        labels: Name of each group.
    """

    codes: NDArray[np.intp]
    labels: list[str]


def importances(rows: Sequence[LeaderboardRow]) -> tuple[list[Importance], str]:
    """Return the importance of all values and of the clear pairs, each in descending order of share.

    Args:
        rows: A study's `leaderboard`.

    Returns:
        The list, and a sentence with the reason if the list is empty.
    """
    if len(rows) < FEWEST:
        return [], f"Importance needs {FEWEST} candidates with results; there are {len(rows)}."
    columns = columns_of([row.candidate.drawn for row in rows])
    groups = {path: found for path, column in columns.items() if len((found := group_by_value(column)).labels) > 1}
    if not groups:
        return [], "No value differs between the candidates."
    ranks = np.arange(len(rows)) / (len(rows) - 1)

    singles = [_importance((path,), each, ranks) for path, each in groups.items()]
    singles.sort(key=lambda each: -each.share)
    shares = {each.paths[0]: each.share for each in singles[:_PAIRED]}

    pairs = []
    for first, second in combinations(shares, 2):
        one, two = groups[first], groups[second]
        used, codes = np.unique(one.codes * len(two.labels) + two.codes, return_inverse=True)
        labels = [f"{one.labels[code // len(two.labels)]}, {two.labels[code % len(two.labels)]}" for code in used]
        pairs.append(_importance((first, second), Groups(codes, labels), ranks, shares[first] + shares[second]))
    clear = sorted((pair for pair in pairs if pair.is_clear), key=lambda each: -each.share)
    return singles + clear[:_STRONG_PAIRS], ""


def columns_of(draws: Sequence[Sequence[tuple[str, Any]]]) -> dict[str, list[Any]]:
    """Return one list per path, a value per draw, None if the path was not drawn; paths in the order of the file."""
    columns: dict[str, list[Any]] = {path: [None] * len(draws) for path in ordered_paths(draws)}
    for place, drawn in enumerate(draws):
        for path, value in drawn:
            columns[path][place] = value
    return columns


def ordered_paths(draws: Sequence[Sequence[tuple[str, Any]]]) -> list[str]:
    """Return every path; one that only some draws have is placed after its predecessor there."""
    paths: list[str] = []
    known: set[str] = set()
    for drawn in draws:
        before = -1
        for path, _ in drawn:
            if path not in known:
                known.add(path)
                paths.insert(before + 1, path)
            before = paths.index(path)
    return paths


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return the shortest unique end of each path that begins with a name: `lr`, `D_blocks.0.1`."""
    ends: dict[str, list[str]] = {}  # of each path, the shortest first
    counts: dict[str, int] = {}
    for path in paths:
        parts = path.split(".")
        starts = [place for place in range(len(parts) - 1, -1, -1) if place == 0 or not parts[place].isdecimal()]
        ends[path] = [".".join(parts[place:]) for place in starts]
        for end in ends[path]:
            counts[end] = counts.get(end, 0) + 1
    return {path: next(end for end in ends[path] if counts[end] == 1 or end == path) for path in paths}


def group_by_value(column: Sequence[Any]) -> Groups:
    """Group candidates by their value; numbers with many outcomes into bins of about equal size."""
    present = [value for value in column if value is not None]
    if not all(is_number(value) for value in present) or len(set(present)) <= _FEW:
        texts = [NOT_DRAWN if value is None else as_text(value) for value in column]
        labels = sorted(set(texts))
        places = {label: place for place, label in enumerate(labels)}
        return Groups(np.array([places[text] for text in texts], dtype=np.intp), labels)
    edges = np.unique(np.quantile(present, np.linspace(0, 1, _BINS + 1)))
    values = np.array([math.nan if value is None else value for value in column], dtype=float)
    codes = np.where(np.isnan(values), len(edges) - 1, np.searchsorted(edges[1:-1], values, side="right"))
    labels = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)] + [NOT_DRAWN]
    used, renumbered = np.unique(codes, return_inverse=True)
    return Groups(renumbered, [labels[code] for code in used])


def is_number(value: Any) -> bool:
    """Return whether a value is an int or float; a bool is not a number here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_text(value: Any) -> str:
    """Return a string unchanged, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _importance(
    paths: tuple[str, ...], groups: Groups, ranks: NDArray[np.float64], explained: float = 0.0
) -> Importance:
    """Return the importance of a grouping, less the share that is already explained by its values alone."""
    counts = np.bincount(groups.codes)
    means = np.bincount(groups.codes, ranks) / counts
    number, size = len(counts), len(ranks)
    share = 0.0
    if size > number:
        total = float(((ranks - ranks.mean()) ** 2).sum())
        between = float((counts * (means - ranks.mean()) ** 2).sum())
        within = (total - between) / (size - number)
        share = max(0.0, (between - (number - 1) * within) / total)
    # For random groups the sum between groups is nearly a chi-squared with number - 1 degrees of freedom, of variance
    # 2 (number - 1), in units of total / size.
    chance = 3 * math.sqrt(2 * (number - 1)) / size
    # A group with less than a twentieth of the candidates is the best only if there is no larger one.
    is_large = counts * 20 >= size
    best = int(np.where(is_large, means, np.inf).argmin() if is_large.any() else means.argmin())
    return Importance(paths, max(0.0, share - explained), chance, groups.labels[best], float(means[best]))
