"""Which of many estimated cells are worth training: fronts that are not dominated, the best, and the unexplored.

Dimensions: N cells, M objectives, E sides of a cell.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.architecture.cells.expansion import BATCH_SIZE, Elements, Expansion, Floats, Keys, Rows

_RARE = 5  # an operator is rare if a fifth of its fair share, or less, is used: the same for an input
_THRESHOLD, _THRESHOLD_OF_ONE_KIND = 8, 4


def pareto_front(values: ArrayLike, at_most: int | None = None, keys: Keys | None = None) -> Rows:
    """Return the rows that no other row dominates, the best in the first objective first.

    A row dominates another if it is at least as good in every objective and better in one: equal rows do not remove
    each other. Of cells with the same key the first in this order is returned.

    Args:
        values: (N, M) estimates of M objectives; more is better. A row with NaN is left out.
        at_most: How many rows are returned: those that are best in the first objective.
        keys: (N,) the same for equivalent cells, see `Expansion.keys`. They also decide between equal rows, so that
            the order of the rows does not.
    """
    costs = _costs(values)
    order = _ordered(costs, keys)
    costs = costs[order]
    places = _front_of_two(costs) if costs.shape[1] <= 2 else _front_of_many(costs, at_most)
    return order[places[:at_most]]


def best_of(scores: ArrayLike, at_most: int, keys: Keys | None = None) -> Rows:
    """Return the rows of the best scores, the best first: the choice of a search that has no second objective.

    Args:
        scores: (N,); more is better. NaN is left out.
        at_most: How many rows are returned.
        keys: (N,) as for `pareto_front`.
    """
    return _ordered(_costs(np.asarray(scores)[:, None]), keys)[:at_most]


@dataclass(frozen=True)
class RareElements:
    """The operators and inputs that the chosen cells use least.

    Attributes:
        operators: (O,) whether it is one.
        inputs: (I,) whether it is one; the farthest lookback first.
    """

    operators: NDArray[np.bool_]
    inputs: NDArray[np.bool_]

    @property
    def threshold(self) -> int:
        """The least points of a cell that is explored."""
        both = self.operators.any() and self.inputs.any()
        return _THRESHOLD if both else _THRESHOLD_OF_ONE_KIND

    def points(self, operators: Elements, inputs: Elements, used: "RareUse") -> Rows:
        """Return the points of each cell, (N,).

        Each use of a rare element gives 1, 2 more if it was explored no more than the mean of its kind so far, and 1
        more if its kind was explored less than the other.

        Args:
            operators: (N, E) of each side, all of them; -1 is absent.
            inputs: (N, E) of each side.
            used: How often the cells that are explored already use each element.
        """
        points = np.zeros(len(operators), dtype=np.int64)
        sums = used.operators[self.operators].sum(), used.inputs[self.inputs].sum()
        kinds = (self.operators, used.operators, operators), (self.inputs, used.inputs, inputs)
        for number, (is_rare, counts, elements) in enumerate(kinds):
            if not is_rare.any():
                continue
            values = 1 + 2 * (counts <= counts[is_rare].mean()) + int(sums[number] < sums[1 - number])
            # The last value is that of absent elements.
            points += np.append(np.where(is_rare, values, 0), 0)[elements].sum(axis=1)
        return points


@dataclass(frozen=True)
class RareUse:
    """How often operators (O,) and inputs (I,) are used."""

    operators: Rows
    inputs: Rows

    @classmethod
    def count(cls, operators: Elements, inputs: Elements, num_operators: int, num_inputs: int) -> "RareUse":
        """Return the uses in cells, given as for `RareElements.points`."""
        return cls(
            np.bincount(operators[operators >= 0], minlength=num_operators),
            np.bincount(inputs[inputs >= 0], minlength=num_inputs),
        )

    def __add__(self, other: "RareUse") -> "RareUse":
        return RareUse(self.operators + other.operators, self.inputs + other.inputs)

    def rare(self) -> RareElements:
        """Return the elements that are used less than a fifth as often as if all were used alike."""
        kinds = [counts < counts.sum() / (_RARE * max(len(counts), 1)) for counts in (self.operators, self.inputs)]
        return RareElements(*kinds)


def exploration_front(
    expansion: Expansion, values: ArrayLike, chosen: ArrayLike, at_most: int, rows: ArrayLike | None = None
) -> Rows:
    """Return cells with the elements that the chosen ones use least, none dominated by another of them.

    Cells are visited from the best to the worst in the first objective. One is taken if it has enough points (see
    `RareElements`) and none that was taken before dominates it.

    Args:
        expansion: The cells.
        values: (N, M) estimates of M objectives; more is better. A row with NaN is left out.
        chosen: Which of the N cells are trained in any case.
        at_most: How many are returned, as places among the N.
        rows: (N,) rows of the expansion to which the values belong; None if they belong to all.
    """
    costs, is_chosen = _costs(values), np.asarray(chosen, dtype=np.int64)
    own = np.arange(len(expansion)) if rows is None else np.asarray(rows, dtype=np.int64)
    places = _ordered(costs, None)
    places = places[~np.isin(places, is_chosen)]
    operators, inputs = _elements_of(expansion, own[places])
    of_chosen = _elements_of(expansion, own[is_chosen])
    # Inputs that no cell of this step can have are not rare.
    sizes = len(expansion.grammar.operators), 1 + max(inputs.max(initial=-1), of_chosen[1].max(initial=-1))
    rare = RareUse.count(*of_chosen, *sizes).rare()
    used = RareUse(np.zeros(sizes[0], dtype=np.int64), np.zeros(sizes[1], dtype=np.int64))
    taken: list[int] = []
    while len(places) and len(taken) < at_most:
        enough = np.flatnonzero(rare.points(operators, inputs, used) >= rare.threshold)
        if not len(enough):
            break
        first = int(enough[0])
        taken.append(int(places[first]))
        used += RareUse.count(operators[first], inputs[first], *sizes)
        rest = np.arange(first + 1, len(places))
        rest = rest[~_dominated(costs[places[first]], costs[places[rest]])]
        places, operators, inputs = places[rest], operators[rest], inputs[rest]
    return np.array(taken, dtype=np.int64)


def _elements_of(expansion: Expansion, rows: Rows) -> tuple[Elements, Elements]:
    starts = range(0, max(len(rows), 1), BATCH_SIZE)
    parts = [expansion.grammar.elements(expansion.codes(rows[start : start + BATCH_SIZE])) for start in starts]
    operators, inputs = zip(*parts, strict=True)
    return np.concatenate(operators), np.concatenate(inputs)


def _costs(values: ArrayLike) -> Floats:
    """Return (N, M) estimates of which less is better."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 2 or not numbers.shape[1]:
        raise ValueError(f"values have the shape {numbers.shape}: a row per cell and a column per objective is needed.")
    return -numbers


def _ordered(costs: Floats, keys: Keys | None) -> Rows:
    """Return the rows without NaN by their costs, the first column first; of equivalent cells only the first."""
    rows = np.flatnonzero(~np.isnan(costs).any(axis=1))
    columns = [costs[rows, column] for column in range(costs.shape[1] - 1, -1, -1)]
    if keys is None:
        return rows[np.lexsort(columns)]
    rows = rows[np.lexsort([keys[rows], *columns])]
    _, first = np.unique(keys[rows], return_index=True)
    return rows[np.sort(first)]


def _front_of_two(costs: Floats) -> Rows:
    """Return the places that are not dominated of rows that are in the order of one or two costs."""
    if not len(costs):
        return np.empty(0, dtype=np.int64)
    first, second = costs[:, 0], costs[:, -1]
    starts = np.flatnonzero(np.append(True, first[1:] != first[:-1]))
    group = np.cumsum(np.append(0, first[1:] != first[:-1]))
    # Within a group of equal first costs the first row has the least second cost; of earlier groups, the least so far.
    least = second[starts]
    before = np.append(np.inf, np.minimum.accumulate(least)[:-1])
    is_front = second == least[group]
    is_front &= (second < before[group]) | (group == 0)
    return np.flatnonzero(is_front) if costs.shape[1] == 2 else np.flatnonzero(group == 0)


def _front_of_many(costs: Floats, at_most: int | None) -> Rows:
    """As `_front_of_two` for any number of costs: a row can only be dominated by an earlier one."""
    places, front = np.arange(len(costs)), list[int]()
    while len(places) and (at_most is None or len(front) < at_most):
        front.append(int(places[0]))
        places = places[1:]
        places = places[~_dominated(costs[front[-1]], costs[places])]
    return np.array(front, dtype=np.int64)


def _dominated(cost: Floats, others: Floats) -> NDArray[np.bool_]:
    return np.asarray((cost <= others).all(axis=1) & (cost < others).any(axis=1))
