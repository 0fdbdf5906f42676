"""The costs of a generation of POPNAS apart from trainings and predictors: `python benchmarks/popnas_expansion.py`.

The default search space, 12 operators, two lookbacks and five blocks: all cells of one block grow, then 144 cells drawn
by chance, as many as there are of a front of 128 and 16 that are explored. The estimated score of a cell is the higher,
the later its operators are in the list, and the costs are random numbers, one or two. Seconds are those of the
processor, with one thread; memory is the growth of the process's largest, of all steps so far.

With `--nasbench data/nasbench201/cifar10.npz` also the number of cells that each grammar of the table reaches,
and the best of them.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from utils.architecture.cells.cell import Block, Cell
from utils.architecture.cells.expansion import CellGrammar, Expansion
from utils.architecture.cells.front import exploration_front, pareto_front
from utils.architecture.cells.grammar import Grammar
from utils.architecture.cells.nasbench201 import (
    BLOCK_OPERATORS,
    Nasbench201Blocks,
    Nasbench201Nodes,
    architecture_of_blocks,
)
from utils.errors import ConfigError

OPERATORS = (
    "identity", "3x3 dconv", "5x5 dconv", "7x7 dconv", "1x3-3x1 conv", "1x5-5x1 conv", "1x7-7x1 conv", "1x1 conv",
    "3x3 conv", "5x5 conv", "2x2 maxpool", "2x2 avgpool",
)  # fmt: skip
Result = TypeVar("Result")


def timed(act: Callable[[], Result]) -> tuple[Result, float]:
    """Return a result, and the processor's seconds for it."""
    begun = time.process_time()
    result = act()
    return result, time.process_time() - begun


def megabytes() -> float:
    """Return the largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def features(grammar: CellGrammar, expansion: Expansion) -> int:
    """Make all features of all cells, and return how many numbers there are."""
    values = np.linspace(0, 1, len(grammar.operators))
    return sum(
        grammar.time_features(codes, values).size + grammar.score_features(codes).size for codes in expansion.batches()
    )


def measure(grammar: CellGrammar, parents: list[str], before: float, seed: int) -> list[str]:
    """Print a step of growth, and return the cells that grow next."""
    draw = np.random.default_rng(seed)
    expansion, growing = timed(lambda: grammar.expand(parents))
    _, encoding = timed(lambda: sum(len(codes) for codes in expansion.batches()))
    _, describing = timed(lambda: features(grammar, expansion))
    count = len(expansion)
    operators = np.concatenate([grammar.elements(codes)[0] for codes in expansion.batches()])
    scores, costs = operators.mean(axis=1) + draw.random(count), draw.random((count, 2))
    keys = expansion.keys()
    two, fronting = timed(lambda: pareto_front(np.column_stack([scores, costs[:, 0]]), 128, keys))
    three, fronting_three = timed(lambda: pareto_front(np.column_stack([scores, costs]), 128, keys))
    explored, exploring = timed(lambda: exploration_front(expansion, np.column_stack([scores, costs[:, 0]]), two, 16))
    seconds = [growing, encoding, describing, fronting, fronting_three, exploring]
    cells = [len(parents), count, len(two), len(three), len(explored)]
    print(
        " | ".join([*map(str, cells), *(f"{each:.2f}" for each in seconds), f"{megabytes() - before:.0f}"]), flush=True
    )
    return expansion.texts(np.sort(draw.choice(count, min(144, count), replace=False)))


def original_cells() -> set[str]:
    """Return the cells of NAS-Bench-201 that two blocks can be written as."""
    found = {architecture_of_blocks(Cell())}
    sides = [(read, name) for read in (-1, 0) for name in BLOCK_OPERATORS]
    first = [Block(*one, *two) for one in sides[:4] for two in sides[:4]]
    second = [Block(*one, *two) for one in sides for two in sides]
    for cell in [*(Cell((one,)) for one in first), *(Cell((one, two)) for one in first for two in second)]:
        try:
            found.add(architecture_of_blocks(cell))
        except ConfigError:
            continue  # the benchmark does not hold it
    return found


def print_reach(path: Path) -> None:
    """Print how many cells of the table each grammar reaches, and the best of them."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        accuracies = dict(zip(map(str, file["arch"]), np.nanmean(file["val_acc_200ep"], axis=1).tolist(), strict=True))
    written = original_cells()
    print(f"two blocks as they are written: {len(written)}, best {max(map(accuracies.__getitem__, written)):.3f}")
    for grammar in (Nasbench201Blocks(), Nasbench201Nodes(), Nasbench201Nodes(once_per_network=True)):
        parents, steps = [grammar.empty], []
        for _ in range(grammar.steps + 1):
            best = max(accuracies[grammar.architecture(each)] for each in parents)
            steps.append(f"{len(parents)}, best {best:.3f}")
            parents = grammar.expand(parents).texts()
        print(f"{grammar}: {'; '.join(steps)}")


def main() -> None:
    """Print a line per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nasbench", type=Path, help="table of NAS-Bench-201")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    grammar, before = Grammar(OPERATORS), megabytes()
    print("cells: parents | grown | front of two | of three | explored; seconds: to grow without equivalent ones | "
          "to encode | features | front of two objectives | of three | to explore | MB")  # fmt: skip
    parents = grammar.expand([grammar.empty]).texts()
    while grammar.growths(grammar.encode(parents)):
        parents = measure(grammar, parents, before, options.seed)
    if options.nasbench is not None:
        print_reach(options.nasbench)


if __name__ == "__main__":
    main()
