"""Numbers that describe cells of blocks, from which scores, times and latencies are predicted.

Dimensions: N cells, B blocks, O operators. Codes are those of `grammar.Grammar`.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.architecture.cells.expansion import Codes, Floats

# Andrea Falanti et al., arXiv:2212.06735, section on the time predictor. The value of an operator is its share of the
# time of the slowest one, see `dynamic_reindex`.
TIME_FEATURES = (
    "blocks",
    "cells",
    "value",
    "several lookbacks",
    "share of the value in blocks that read no block",
    "reads of blocks",
    "depth",
    "blocks joined to the output",
    "share of the value on the heaviest path",
)
"""The names of the columns of `time_features`."""


def dynamic_reindex(times: ArrayLike, empty_time: float) -> Floats:
    """Return the value of each operator, (O,): its time above that of the empty cell, and 1 for the largest.

    Args:
        times: (O,) seconds of the cell with the operator twice on the previous cell; NaN if it is unknown. Such an
            operator gets the mean of the others.
        empty_time: Seconds of the empty cell.
    """
    above: Floats = np.abs(np.asarray(times, dtype=np.float64) - empty_time)
    is_known = np.isfinite(above)
    largest = above[is_known].max(initial=0.0)
    if largest == 0:
        return np.ones(above.shape)  # nothing is known of their order
    values: Floats = above / largest
    values[~is_known] = values[is_known].mean()
    return values


def built_cells(lookbacks: Sequence[int], motifs: int, normal_cells: int) -> int:
    """Return how many cells of a network lie on a path to its output: M (N + 1) - 1 if the previous cell is read.

    Args:
        lookbacks: Which earlier cells each cell reads, as -1 and -2. If only -2 is read, every second cell is built.
        motifs: M, each of N normal cells and, but for the last, a reduction.
        normal_cells: N.
    """
    count = motifs * (normal_cells + 1) - 1
    needed = {count - 1}
    for place in range(count - 1, -1, -1):
        if place in needed:
            needed |= {place + each for each in lookbacks if place + each >= 0}
    return len(needed)


def time_features(codes: Codes, values: ArrayLike, lookbacks: int, *, motifs: int = 3, normal_cells: int = 2) -> Floats:
    """Return the nine numbers of each cell from which its time is predicted, (N, 9); all are 0 for the empty cell.

    Args:
        codes: (N, B, 4).
        values: (O,) of each operator, see `dynamic_reindex`.
        lookbacks: How many earlier cells can be read.
        motifs: Of the network.
        normal_cells: Of each motif of the network.
    """
    operator_values = np.append(np.asarray(values, dtype=np.float64), 0.0)  # absent ones read the last
    inputs, operators = codes[:, :, (0, 2)].astype(np.int64), codes[:, :, (1, 3)].astype(np.int64)
    is_there = operators[:, :, 0] >= 0
    side_values = operator_values[operators]
    block_values = side_values.sum(axis=2)
    reads_block = (inputs >= 0) & is_there[:, :, None]
    total = block_values.sum(axis=1)
    first_level = (block_values * ~reads_block.any(axis=2)).sum(axis=1)
    is_read_lookback = _lookbacks_read(inputs, is_there, lookbacks)
    unused = _unused(inputs, is_there).sum(axis=1)
    paths = _longest_paths(inputs, side_values).max(axis=1, initial=0.0)
    columns = [
        is_there.sum(axis=1),
        _cells_of_networks(is_read_lookback, motifs, normal_cells) * is_there.any(axis=1),
        total,
        is_read_lookback.sum(axis=1) > 1,
        _share(first_level, total),
        reads_block.sum(axis=(1, 2)),
        _depths(inputs, is_there).max(axis=1, initial=0),
        np.where(unused > 1, unused, 0),
        _share(paths, total),
    ]
    return np.stack([np.asarray(each, dtype=np.float64) for each in columns], axis=1)


def score_feature_names(operators: Sequence[str], lookbacks: int) -> tuple[str, ...]:
    """Return the names of the columns of `score_features`."""
    groups = ("", " on an earlier cell", " in a block joined to the output")
    counts = [f"{operator}{group}" for group in groups for operator in operators]
    reads = [f"reads of {-place}" for place in range(lookbacks, 0, -1)]
    return (*counts, *reads, "reads of blocks", "blocks", "joined to the output", "depth", "most blocks of one depth",
            "different operators", "blocks of equal sides")  # fmt: skip


def score_features(codes: Codes, num_operators: int, lookbacks: int) -> Floats:
    """Return numbers of each cell from which its score is predicted, (N, 3 O + lookbacks + 7).

    Equivalent cells have the same.

    Args:
        codes: (N, B, 4).
        num_operators: How many operators there are.
        lookbacks: How many earlier cells can be read.
    """
    inputs, operators = codes[:, :, (0, 2)].astype(np.int64), codes[:, :, (1, 3)].astype(np.int64)
    is_there = operators[:, :, 0] >= 0
    is_side = np.broadcast_to(is_there[:, :, None], operators.shape)
    unused, depths = _unused(inputs, is_there), _depths(inputs, is_there)
    counts = [
        _count(operators, which, num_operators)
        for which in (is_side, is_side & (inputs < 0), is_side & unused[:, :, None])
    ]
    reads = _count(inputs + lookbacks, is_side & (inputs < 0), lookbacks)
    levels = _count(depths - 1, is_there, codes.shape[1])
    equal_sides = is_there & (inputs[:, :, 0] == inputs[:, :, 1]) & (operators[:, :, 0] == operators[:, :, 1])
    single = [
        (is_side & (inputs >= 0)).sum(axis=(1, 2)),
        is_there.sum(axis=1),
        unused.sum(axis=1),
        depths.max(axis=1, initial=0),
        levels.max(axis=1, initial=0),
        (counts[0] > 0).sum(axis=1),
        equal_sides.sum(axis=1),
    ]
    return np.concatenate([*counts, reads, np.stack(single, axis=1).astype(np.float64)], axis=1)


def _share(part: Floats, total: Floats) -> Floats:
    return np.divide(part, total, out=np.zeros_like(total), where=total > 0)


def _count(numbers: NDArray[np.int64], which: NDArray[np.bool_], most: int) -> Floats:
    """Return (N, most): how often each number below `most` is among the chosen ones of each cell."""
    width = int(np.prod(numbers.shape[1:]))
    flat, chosen = numbers.reshape(-1, width), which.reshape(-1, width)
    rows = np.broadcast_to(np.arange(len(numbers))[:, None], flat.shape)
    places = (rows * most + flat)[chosen]
    return np.bincount(places, minlength=len(numbers) * most).reshape(len(numbers), most).astype(np.float64)


def _unused(inputs: NDArray[np.int64], is_there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (N, B): which blocks no other reads."""
    is_read = [((inputs == place) & is_there[:, :, None]).any(axis=(1, 2)) for place in range(is_there.shape[1])]
    unused: NDArray[np.bool_] = is_there & ~np.stack(is_read, axis=1)
    return unused


def _lookbacks_read(inputs: NDArray[np.int64], is_there: NDArray[np.bool_], lookbacks: int) -> NDArray[np.bool_]:
    """Return (N, lookbacks): whether the previous cell is read, the one before, ..."""
    reads = [((inputs == -back) & is_there[:, :, None]).any(axis=(1, 2)) for back in range(1, lookbacks + 1)]
    return np.stack(reads, axis=1)


def _cells_of_networks(is_read: NDArray[np.bool_], motifs: int, normal_cells: int) -> NDArray[np.int64]:
    patterns, place = np.unique(is_read, axis=0, return_inverse=True)
    counts = [built_cells([-1 - int(back) for back in np.flatnonzero(each)], motifs, normal_cells) for each in patterns]
    return np.array(counts, dtype=np.int64)[place.reshape(-1)]


def _longest_paths(inputs: NDArray[np.int64], values: Floats) -> Floats:
    """Return (N, B): of each block, the largest sum of values of its sides (N, B, 2) on a path that ends in it."""
    paths = np.zeros((values.shape[0], values.shape[1] + 1))  # the last is that of earlier cells
    rows = np.arange(len(values))
    for place, side in itertools.product(range(values.shape[1]), (0, 1)):
        source = np.where(inputs[:, place, side] >= 0, inputs[:, place, side], -1)
        paths[:, place] = np.maximum(paths[:, place], paths[rows, source] + values[:, place, side])
    return paths[:, :-1]


def _depths(inputs: NDArray[np.int64], is_there: NDArray[np.bool_]) -> NDArray[np.int64]:
    ones = np.broadcast_to(is_there[:, :, None], inputs.shape).astype(np.float64)
    return _longest_paths(inputs, ones).astype(np.int64)
