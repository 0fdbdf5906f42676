"""Which candidates are better."""

import math

import numpy as np
import pytest

from search.schedulers.ranking import (
    ParetoOrder,
    SingleObjectiveOrder,
    as_table,
    best_first,
    crowding_distances,
    non_dominated_ranks,
)

NAN, INF = math.nan, math.inf


def test_one_objective_is_descending_with_ties_by_number_and_nan_last():
    values = {0: (0.5,), 1: (NAN,), 2: (0.9,), 3: (-INF,), 4: (0.5,), 5: (INF,)}
    assert best_first(values) == [5, 2, 0, 4, 3, 1]


def test_several_objectives_are_ordered_by_front_then_crowding_then_number():
    # Front 0: (4,1) (3,2) (1,4); (2,3) is missing, so that (2,2) is dominated by (3,2) only: front 1, as is (1,3).
    # Spans are 3 and 3. Inner row (3,2): (4-1)/3 + (4-1)/3 = 2; the outer two are infinitely far.
    values = {0: (3.0, 2.0), 1: (2.0, 2.0), 2: (4.0, 1.0), 3: (1.0, 4.0), 4: (1.0, 3.0), 5: (1.0, 1.0)}
    assert non_dominated_ranks(as_table(list(values.values()), 2)).tolist() == [0, 1, 0, 0, 1, 2]
    assert best_first(values) == [2, 3, 0, 1, 4, 5]


def test_crowding_prefers_the_sparse_part_of_a_front():
    front = np.array([[0.0, 10.0], [1.0, 9.0], [2.0, 8.0], [10.0, 0.0]])
    # Row 1: (2-0)/10 + (10-8)/10 = 0.4; row 2: (10-1)/10 + (9-0)/10 = 1.8.
    assert crowding_distances(front) == pytest.approx([INF, 0.4, 1.8, INF])
    assert best_first(dict(enumerate(map(tuple, front)))) == [0, 3, 2, 1]


def test_equal_values_share_a_front_in_the_order_of_their_numbers():
    assert best_first({3: (1.0, 1.0), 1: (1.0, 1.0), 2: (1.0, 1.0)})[0] == 1


def test_failures_come_last_among_several_objectives():
    assert best_first({0: (NAN,), 1: (-INF, 0.0), 2: (1.0, 1.0)}) == [2, 1, 0]


def test_rows_beside_infinite_values_are_infinitely_far():
    rows = [(-INF, 5.0), (0.0, 4.0), (1.0, 3.0), (2.0, 2.0), (4.0, 0.0)]
    # Row 2: (2-0)/4 + (4-2)/5 = 0.9; row 3: (4-1)/4 + (3-0)/5 = 1.35.
    assert crowding_distances(as_table(rows, 2)) == pytest.approx([INF, INF, 0.9, 1.35, INF])
    assert best_first(dict(enumerate(rows))) == [0, 1, 4, 3, 2]


def brute_force_ranks(rows):
    """Peel off, one after the other, those that nothing left dominates."""
    left, ranks, rank = set(range(len(rows))), [0] * len(rows), 0
    while left:
        front = {i for i in left if not any((rows[j] >= rows[i]).all() and (rows[j] > rows[i]).any() for j in left)}
        for i in front:
            ranks[i] = rank
        left -= front
        rank += 1
    return ranks


@pytest.mark.parametrize("num_objectives", [2, 3])
def test_fronts_are_those_of_the_definition(num_objectives):
    rows = np.random.default_rng(3).integers(0, 6, (60, num_objectives)).astype(float)
    assert non_dominated_ranks(rows).tolist() == brute_force_ranks(rows)


def count_ahead_for_good(values, candidate):
    """By one objective whatever is ahead; by several whatever dominates."""
    if len(values[candidate]) == 1:
        return best_first(values).index(candidate)
    own, others = (
        as_table([values[candidate]], len(values[candidate])),
        as_table(list(values.values()), len(values[candidate])),
    )
    return int(((others >= own).all(axis=1) & (others > own).any(axis=1)).sum())


def equal(row, other):
    return all(
        value == same or (math.isnan(value) and math.isnan(same)) for value, same in zip(row, other, strict=True)
    )


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
def test_an_order_updated_one_by_one_is_the_order_of_all(num_objectives):
    chance = np.random.default_rng(num_objectives)
    rows = chance.choice([0.0, 1.0, 2.0, 3.0, 4.0, -INF, NAN, INF], (70, num_objectives))
    order_so_far = SingleObjectiveOrder() if num_objectives == 1 else ParetoOrder(num_objectives)
    values, waiting = {}, set()
    for candidate, row in zip(chance.permutation(70).tolist(), rows.tolist(), strict=True):
        order_so_far.add(candidate, tuple(row))
        values[candidate] = tuple(row)
        waiting.add(candidate)
        order = best_first(values)
        best = next(other for other in order if other in waiting)
        assert order_so_far.first_waiting() == best
        assert order_so_far.position(candidate) == order.index(candidate)
        same = [order.index(other) for other in values if equal(values[other], values[candidate])]
        assert order_so_far.tied_places(candidate) == (min(same), len(same) - 1)
        least = {other: count_ahead_for_good(values, other) for other in values}
        assert order_so_far.least_position(candidate) == least[candidate]
        limit = int(chance.integers(0, len(order) + 2))
        assert order_so_far.num_hopeful(limit) == sum(least[other] < limit for other in waiting)
        if chance.random() < 0.4:
            order_so_far.take(best)
            waiting.remove(best)
