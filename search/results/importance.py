"""Which of the searched values mattered: the share of the results' variance that each explains alone, or with another.

A search draws its values independently of each other and of what came of earlier draws. So the variance between the
groups of candidates that share a value estimates that value's first-order share (Sobol, 2001, section 4, equation for
S_i) directly, without a model fitted in between as fANOVA needs one (Hutter et al., 2014). Judged are ranks, not
values: a few diverged trainings would otherwise be all of the variance. Chance alone also parts groups; what it is
expected to explain is taken off (epsilon squared, Kelley, 1935).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.results.leaderboard import Row

FEWEST = 20  # candidates: below, shares are mostly chance
_BINS = 6  # groups of a value that is a number with many outcomes
_FEW = 12  # outcomes that are taken one by one
_PAIRED = 12  # values whose pairs are judged
NOT_DRAWN = "not drawn"


@dataclass(frozen=True)
class Importance:
    """What a searched value, or two together, explain.

    Attributes:
        paths: JSON path of the value; two for what they explain together beyond what each does alone.
        share: Of the variance of ranks, 0 to 1.
        chance: Share that groups drawn by lot would hardly exceed (three deviations of it).
        best_group: The value, or range of values, whose candidates came out best.
        best_rank: Mean rank of these as a share of all, 0 the best; 0.5 is no better than any.
    """

    paths: tuple[str, ...]
    share: float
    chance: float
    best_group: str
    best_rank: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more than chance may do."""
        return self.share > self.chance


@dataclass(frozen=True)
class Groups:
    """Candidates parted by a value.

    Attributes:
        codes: (N,) integer, the group of each candidate.
        labels: Of each group.
    """

    codes: NDArray[np.intp]
    labels: list[str]


def importances(rows: Sequence[Row]) -> tuple[list[Importance], str]:
    """Values, then pairs, that mattered, the most important first of each.

    Args:
        rows: A study's `leaderboard`.

    Returns:
        The list, and where it is empty a sentence that says why.
    """
    if len(rows) < FEWEST:
        return [], f"Importance needs {FEWEST} candidates with results; there are {len(rows)}."
    ranks = np.arange(len(rows)) / (len(rows) - 1)
    columns = columns_of([row.candidate.drawn for row in rows])
    groups = {path: parts for path, column in columns.items() if len((parts := group(column)).labels) > 1}
    if not groups:
        return [], "No value differs between the candidates."
    singles = sorted((_single(path, parts, ranks) for path, parts in groups.items()), key=lambda each: -each.share)
    chosen = {each.paths[0]: each.share for each in singles[:_PAIRED]}
    pairs = [_pair((one, two), (groups[one], groups[two]), ranks, chosen) for one, two in combinations(chosen, 2)]
    strong = sorted((pair for pair in pairs if pair.is_clear), key=lambda each: -each.share)
    return singles + strong[:5], ""


def columns_of(draws: Sequence[Sequence[tuple[str, Any]]]) -> dict[str, list[Any]]:
    """One list per path, a value per draw, None where the path was not drawn; paths in the order of the file."""
    columns: dict[str, list[Any]] = {path: [None] * len(draws) for path in ordered_paths(draws)}
    for place, drawn in enumerate(draws):
        for path, value in drawn:
            columns[path][place] = value
    return columns


def ordered_paths(draws: Sequence[Sequence[tuple[str, Any]]]) -> list[str]:
    """Every path, one that only some draws have behind the one that it follows there."""
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


def group(column: Sequence[Any]) -> Groups:
    """Part candidates by their value; numbers with many outcomes into bins that hold about as many each."""
    present = [value for value in column if value is not None]
    if all(is_number(value) for value in present) and len(set(present)) > _FEW:
        return _binned(column, np.unique(np.quantile(present, np.linspace(0, 1, _BINS + 1))))
    texts = [NOT_DRAWN if value is None else as_text(value) for value in column]
    labels = sorted(set(texts))
    places = {label: place for place, label in enumerate(labels)}
    return Groups(np.array([places[text] for text in texts], dtype=np.intp), labels)


def is_number(value: Any) -> bool:
    """Whether it is an int or float; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_text(value: Any) -> str:
    """Texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _binned(column: Sequence[Any], edges: NDArray[np.float64]) -> Groups:
    values = np.array([math.nan if value is None else value for value in column], dtype=float)
    codes = np.where(np.isnan(values), len(edges) - 1, np.searchsorted(edges[1:-1], values, side="right"))
    labels = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)] + [NOT_DRAWN]
    used, renumbered = np.unique(codes, return_inverse=True)
    return Groups(renumbered, [labels[code] for code in used])


def _single(path: str, parts: Groups, ranks: NDArray[np.float64]) -> Importance:
    return Importance((path,), _share(parts.codes, ranks), _chance(parts, ranks), *_best_group(parts, ranks))


def _pair(
    paths: tuple[str, str], parts: tuple[Groups, Groups], ranks: NDArray[np.float64], shares: dict[str, float]
) -> Importance:
    one, two = parts
    used, codes = np.unique(one.codes * len(two.labels) + two.codes, return_inverse=True)
    pairs = [divmod(int(code), len(two.labels)) for code in used]
    both = Groups(codes, [f"{one.labels[first]}, {two.labels[second]}" for first, second in pairs])
    beyond = _share(codes, ranks) - sum(shares[path] for path in paths)
    return Importance(paths, max(0.0, beyond), _chance(both, ranks), *_best_group(both, ranks))


def _share(codes: NDArray[np.intp], ranks: NDArray[np.float64]) -> float:
    """Epsilon squared: what the groups explain of the variance less what chance would."""
    counts = np.bincount(codes)
    if len(ranks) <= len(counts):
        return 0.0
    total = float(((ranks - ranks.mean()) ** 2).sum())
    means = np.bincount(codes, ranks) / counts
    between = float((counts * (means - ranks.mean()) ** 2).sum())
    within = (total - between) / (len(ranks) - len(counts))
    return max(0.0, (between - (len(counts) - 1) * within) / total)


def _chance(parts: Groups, ranks: NDArray[np.float64]) -> float:
    """Three deviations of the share of groups by lot, whose between-groups sum is nearly a chi-squared."""
    return 3 * math.sqrt(2 * (len(parts.labels) - 1)) / len(ranks)


def _best_group(parts: Groups, ranks: NDArray[np.float64]) -> tuple[str, float]:
    """The group of the lowest mean rank, among those with at least a twentieth of all candidates, or any."""
    counts = np.bincount(parts.codes)
    means = np.bincount(parts.codes, ranks) / counts
    if (counts * 20 >= len(ranks)).any():
        means[counts * 20 < len(ranks)] = np.inf
    best = int(means.argmin())
    return parts.labels[best], float(means[best])
