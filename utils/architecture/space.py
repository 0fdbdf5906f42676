"""The space of Auto-DeepLab: how many paths and cells there are, and genotypes drawn from it at random."""

import math
from functools import cache

import numpy as np

from utils.architecture.genotype import OPERATIONS, STRIDES, Block, Genotype, input_names


def count_paths(layers: int, first_strides: tuple[int, ...] = STRIDES[:2]) -> int:
    """Return the number of paths through the strides.

    Args:
        layers: Number of layers.
        first_strides: Strides that the first layer may have.

    Returns:
        75,025 for 12 layers. The paper counts the 28,657 that begin at stride 4 (11 free moves).
    """
    return sum(_count_ways(STRIDES.index(stride), layers - 1) for stride in first_strides)


def count_cells(blocks: int) -> int:
    """Return the number of cells as the paper counts them: 5.57e14 for 5 blocks.

    Each block chooses each of its two inputs and each of its two operations freely, whether or not they differ.
    """
    return math.prod(((block + 2) * len(OPERATIONS)) ** 2 for block in range(blocks))


def count_decoded_cells(blocks: int) -> int:
    """Return the number of cells that decoding can give: 7.6e11 for 5 blocks.

    A block has two different inputs, in no order, and none of its operations is "none".
    """
    return math.prod(math.comb(block + 2, 2) * (len(OPERATIONS) - 1) ** 2 for block in range(blocks))


def random_genotype(seed: int | np.random.Generator, layers: int = 12, blocks: int = 5) -> Genotype:
    """Return a genotype that is drawn uniformly from those that decoding can give.

    Each path has the same probability. A random walk would prefer the outer strides, where fewer moves are possible.

    Args:
        seed: Seed, or the generator to draw from.
        layers: Number of layers.
        blocks: Number of blocks in a cell.
    """
    generator = np.random.default_rng(seed)
    levels: list[int] = []
    for layer in range(layers):
        choices = _neighbours(levels[-1]) if levels else [0, 1]
        ways = [_count_ways(level, layers - layer - 1) for level in choices]
        levels.append(choices[_draw(generator, ways)])
    cell: list[Block] = []
    for block in range(blocks):
        names = list(input_names(block + 1))
        first, second = (names.pop(_draw(generator, [1] * len(names))) for _ in range(2))
        operations = [OPERATIONS[1 + _draw(generator, [1] * (len(OPERATIONS) - 1))] for _ in range(2)]
        cell.append(((first, operations[0]), (second, operations[1])))
    return Genotype(tuple(STRIDES[level] for level in levels), tuple(cell))


def _draw(generator: np.random.Generator, weights: list[int]) -> int:
    """Return a place with the probability of its weight, which may be larger than any float."""
    total, reached, point = sum(weights), 0, generator.random()
    for place, weight in enumerate(weights):
        reached += weight
        if point < reached / total:
            return place
    return len(weights) - 1


def _neighbours(level: int) -> list[int]:
    return [near for near in (level - 1, level, level + 1) if 0 <= near < len(STRIDES)]


@cache
def _count_ways(level: int, moves: int) -> int:
    """Return the number of ways to move `moves` times from a level."""
    ways = [1] * len(STRIDES)
    for _ in range(moves):
        ways = [sum(ways[near] for near in _neighbours(start)) for start in range(len(STRIDES))]
    return ways[level]
