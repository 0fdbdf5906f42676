"""The number of cells that the generations of a progressive search have at most, and whether `num_samples` suffices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.strategies.popnas.options import ARGUMENTS, GrowthOptions
from utils.errors import ConfigError


@dataclass(frozen=True)
class GenerationSize:
    """The size of a generation.

    Attributes:
        blocks: Of its cells.
        round: Number of the choice among cells of so many blocks, from 1.
        most: Cells that it has at most.
    """

    blocks: int
    round: int
    most: int


def generation_sizes(growth: GrowthOptions, steps: int, num_first: int) -> list[GenerationSize]:
    """Return the sizes of all generations.

    Args:
        growth: How many cells are trained.
        steps: Blocks of complete cells.
        num_first: Cells of one block.
    """
    sizes = []
    for blocks in range(steps + 1):
        at_most = growth.max_children + (growth.max_best or 0) + (growth.num_explored if blocks < steps else 0)
        for number in range(1, (growth.rounds if blocks == steps else 1) + 1):
            most = {(0, 1): 1, (1, 1): num_first}.get((blocks, number), at_most)
            sizes.append(GenerationSize(blocks, number, most))
    return sizes


def cut_generations(num_samples: int, sizes: Sequence[GenerationSize], *, is_limited: bool = False) -> str:
    """Return in words which generations a number of cells cuts off; empty if it suffices for all.

    Args:
        num_samples: Cells to train.
        sizes: Of the generations, at most.
        is_limited: Cells that exceed a limit are not trained, so that those of one block may be fewer.

    Raises:
        ConfigError: It does not even suffice for the cells of one block, of which no search is left.
    """
    needed, steps = sum(each.most for each in sizes), sizes[-1].blocks
    if num_samples >= needed:
        return ""
    of_each = " + ".join(f"{each.most:,}" for each in sizes)
    repair = f"Write {needed:,} or more, or smaller {ARGUMENTS}.max_first and max_children"
    first = sum(each.most for each in sizes if each.blocks <= 1 and each.round == 1)
    if 1 < num_samples < first and not is_limited:  # a single cell is a trial, not a search
        raise ConfigError(
            f"search.num_samples: {num_samples:,}, and the cells without and with one block are {first:,} already: "
            f"some of them would be trained, and none grown. All generations have up to {of_each} = {needed:,} cells. "
            f"{repair}."
        )
    before_last = sum(each.most for each in sizes if each.blocks < steps)
    cells = f"cells of {steps} blocks" if steps > 1 else "complete cells"
    cut = f"no {cells} are trained if all others are" if num_samples <= before_last else f"some {cells} are left out"
    return f"search.num_samples: {num_samples:,} of the up to {of_each} = {needed:,} cells: {cut}. {repair}."


def shrunk_growth(args: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """Return the arguments for a search of two generations with a cell each, or more of the second one.

    Args:
        args: As the JSON has them.
        epochs: Of each training.
    """
    small = {"max_first": 1, "max_children": 1, "max_best": 0, "max_exploration": 0}
    if args.get("grammar") is None:
        small["blocks"] = min(2, args.get("blocks", 2)) if isinstance(args.get("blocks", 2), int) else args["blocks"]
    chosen = args.get("selection")
    shrunk = {"selection": {**chosen, "top": 1, "epochs": epochs}} if isinstance(chosen, Mapping) else {}
    return {**args, **small, **shrunk}
