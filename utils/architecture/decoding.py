"""From the architecture parameters of a supernet to a genotype, and back. Pure functions of arrays.

alpha: (E, 8) logits of the operations on the E edges of a cell, in the order of `cell_edges` and `OPERATIONS`.
beta: (L, 4, 3) logits of the moves: `beta[l, i, m]` from level i (stride 4 * 2**i) into layer l, with m = 0 to the
finer level i - 1, 1 to the same level, 2 to the coarser level i + 1. Layer 0 is entered from the stem, at level 0.
edges: (E,) logits of the edges of each block, of supernets with edge normalisation (arXiv:1907.05737, section 3.3).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.architecture.genotype import OPERATIONS, STRIDES, Block, Genotype, cell_edges, input_names
from utils.errors import TrainingError

Floats = NDArray[np.float64]
_LOGIT = 200.0  # exp(-200) is zero in float32: all others get no weight at all, and no denormal number either
_TIE = 1e-9  # scores as close as this are equal, for any order of their addition
_MOVES = 3


def possible_moves(layers: int) -> NDArray[np.bool_]:
    """Return (L, 4, 3): whether a move exists and its source can be reached.

    No move leads below stride 4 or above 32, and level i is first reached by layer i - 1.
    """
    moves = np.zeros((layers, len(STRIDES), _MOVES), dtype=bool)
    for layer in range(layers):
        for level in range(min(layer + 1, len(STRIDES))):
            moves[layer, level] = [0 <= level + step < len(STRIDES) for step in (-1, 0, 1)]
    return moves


def alpha_weights(alpha: ArrayLike) -> Floats:
    """Return (E, 8): the softmax over the operations of each edge."""
    return np.exp(_log_softmax(_read_alpha(alpha)))


def beta_weights(beta: ArrayLike) -> Floats:
    """Return (L, 4, 3): the softmax over the possible moves out of each node; 0 for moves that are not possible."""
    return np.exp(_log_softmax(_read_beta(beta)))


def decode(alpha: ArrayLike, beta: ArrayLike, edges: ArrayLike | None = None) -> Genotype:
    """Return the genotype that the parameters prefer.

    The path is the one of the largest probability (section 3.3 of the paper); each block has its two strongest edges
    with their best operations other than "none". Equals are decided for the finer stride and the earlier edge and
    operation.

    Args:
        alpha: (E, 8) logits; -inf excludes an operation.
        beta: (L, 4, 3) logits; -inf excludes a move.
        edges: (E,) logits; the strength of an edge is then its weight in its block times that of its best operation.

    Raises:
        TrainingError: They are not finite, or exclude every path or every operation of a block.
        ValueError: They have other shapes.
    """
    return Genotype(decode_path(beta), decode_cell(alpha, edges))


def decode_path(beta: ArrayLike) -> tuple[int, ...]:
    """Return the strides of the most probable path, by the algorithm of Viterbi; see `decode`."""
    log_weights = _log_softmax(_read_beta(beta))
    scores = np.array([0.0, -np.inf, -np.inf, -np.inf])  # of the best path to each level: the stem is at level 0
    origins = []
    for layer in log_weights:
        into = np.full((len(STRIDES), len(STRIDES)), -np.inf)  # [target, source]
        for source in range(len(STRIDES)):
            for target in range(max(source - 1, 0), min(source + 2, len(STRIDES))):
                into[target, source] = scores[source] + layer[source, target - source + 1]
        origins.append([_first_best(row) for row in into])
        scores = into.max(axis=1)
    if np.isneginf(scores).all():
        raise TrainingError("beta excludes every path: leave at least one move out of each layer.")
    levels = [_first_best(scores)]
    for origin in origins[:0:-1]:
        levels.append(origin[levels[-1]])
    return tuple(STRIDES[level] for level in levels[::-1])


def decode_cell(alpha: ArrayLike, edges: ArrayLike | None = None) -> tuple[Block, ...]:
    """Return for each block its two strongest edges, each with its best operation that is not "none"; see `decode`."""
    log_weights = _log_softmax(_read_alpha(alpha))[:, 1:]
    edge_logits = _read_edges(edges, len(log_weights))
    num_blocks = _num_blocks(len(log_weights))
    names, blocks, start = input_names(num_blocks), [], 0
    for block in range(num_blocks):
        places = slice(start, start + block + 2)
        operations = log_weights[places]
        strongest = operations.max(axis=1) + _log_softmax(edge_logits[places])
        first = _first_best(strongest)
        others = np.where(np.arange(len(operations)) == first, -np.inf, strongest)
        second = _first_best(others)
        if np.isneginf(others[second]):
            raise TrainingError(f"alpha excludes the operations of block {block + 1}: leave one on two of its edges.")
        pair = [(names[edge], OPERATIONS[1 + _first_best(operations[edge])]) for edge in sorted((first, second))]
        blocks.append((pair[0], pair[1]))
        start += block + 2
    return tuple(blocks)


def encode(genotype: Genotype) -> tuple[Floats, Floats]:
    """Return alpha (E, 8) and beta (L, 4, 3) whose weights are 1 for the genotype, and that decode to it.

    Edges that the genotype has not get "none". The other nodes move to where they do not meet the path, so that a node
    of the path reads nothing but the path from the layer before. A supernet with these parameters still computes more
    than the genotype's network: a node beside the path may read maps of the path two layers back, and its own maps
    reach the path two layers later and the head of their stride.
    """
    alpha = np.zeros((len(cell_edges(genotype.num_blocks)), len(OPERATIONS)))
    names = input_names(genotype.num_blocks)
    for edge, (block, place) in enumerate(cell_edges(genotype.num_blocks)):
        operation = dict(genotype.blocks[block]).get(names[place], OPERATIONS[0])
        alpha[edge, OPERATIONS.index(operation)] = _LOGIT
    moves = possible_moves(genotype.num_layers)
    beta = np.zeros(moves.shape)
    for layer, (source, target) in enumerate(zip((0, *genotype.levels), genotype.levels, strict=False)):
        for level in range(len(STRIDES)):
            free = [move for move in (1, 0, 2) if moves[layer, level, move] and level + move - 1 != target]
            if level == source:
                beta[layer, level, target - source + 1] = _LOGIT
            elif free:
                beta[layer, level, free[0]] = _LOGIT
    return alpha, beta


def entropy_shares(alpha: ArrayLike, beta: ArrayLike) -> tuple[float, float]:
    """Return the entropies of alpha and beta as shares of the largest possible: 1 undecided, 0 decided."""
    shares = []
    for logits, choices in (
        (_read_alpha(alpha), len(OPERATIONS)),
        (_read_beta(beta), possible_moves(len(np.asarray(beta))).sum(axis=-1)),
    ):
        log_weights = _log_softmax(logits)
        parts = -np.exp(log_weights) * np.where(np.isfinite(log_weights), log_weights, 0)
        largest = np.log(np.maximum(np.broadcast_to(choices, logits.shape[:-1]), 1)).sum()
        shares.append(min(float(parts.sum() / largest), 1.0))
    return shares[0], shares[1]


def _read_alpha(alpha: ArrayLike) -> Floats:
    """Return the logits as float64, if their shape and values are those of alpha."""
    logits = np.asarray(alpha, dtype=np.float64)
    edges = len(logits) if logits.ndim == 2 else 0
    if edges == 0 or logits.shape[1] != len(OPERATIONS) or edges != len(cell_edges(_num_blocks(edges))):
        raise ValueError(f"alpha has shape {logits.shape}: it must be (2 + 3 + ... + (B + 1), {len(OPERATIONS)}).")
    return _without_nan(logits, "alpha")


def _read_edges(edges: ArrayLike | None, count: int) -> Floats:
    """Return the logits of the edges as float64; without any they are equal."""
    logits = np.zeros(count) if edges is None else np.asarray(edges, dtype=np.float64)
    if logits.shape != (count,):
        raise ValueError(f"edges has shape {logits.shape}: it must be ({count},), a logit for each row of alpha.")
    return _without_nan(logits, "edges")


def _read_beta(beta: ArrayLike) -> Floats:
    """Return the logits as float64 with -inf for moves that are not possible."""
    logits = np.asarray(beta, dtype=np.float64)
    if logits.ndim != 3 or len(logits) == 0 or logits.shape[1:] != (len(STRIDES), _MOVES):
        raise ValueError(f"beta has shape {logits.shape}: it must be (layers, {len(STRIDES)}, {_MOVES}).")
    return _without_nan(np.where(possible_moves(len(logits)), logits, -np.inf), "beta")


def _without_nan(logits: Floats, name: str) -> Floats:
    if np.isnan(logits).any() or np.isposinf(logits).any():
        raise TrainingError(f"{name} is not finite: the architecture diverged. Set its learning rate lower.")
    return logits


def _num_blocks(edges: int) -> int:
    """Return B for E = 2 + 3 + ... + (B + 1) = B (B + 3) / 2, rounded down."""
    return (math.isqrt(8 * edges + 9) - 3) // 2


def _log_softmax(logits: Floats) -> Floats:
    """Return the logarithms of the softmax over the last axis; -inf stays -inf, also if it is all there is."""
    largest = logits.max(axis=-1, keepdims=True)
    shifted = logits - np.where(np.isfinite(largest), largest, 0)
    total = np.exp(shifted).sum(axis=-1, keepdims=True)
    return shifted - np.log(np.where(total > 0, total, 1))


def _first_best(scores: Floats) -> int:
    """Return the place of the largest score; of those that are equal but for rounding, the first."""
    return int(np.argmax(scores >= scores.max() - _TIE))
