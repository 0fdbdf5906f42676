"""A genotype of Auto-DeepLab: the path of a network through the strides, and the cell of its layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STRIDES = (4, 8, 16, 32)
OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "atrous_conv_3x3",
    "atrous_conv_5x5",
)


def input_names(num_blocks: int) -> tuple[str, ...]:
    """Return the names of what the blocks of a cell may read.

    Block i (from 1) may read the first i + 1 of them: the cells two and one layers back, and the blocks before it.
    """
    return ("two_back", "one_back", *(f"block_{number}" for number in range(1, num_blocks)))


@dataclass(frozen=True)
class Genotype:
    """The decoded architecture.

    Attributes:
        strides: Stride of each of the L layers, 4 to 32; neighbours differ by a factor of 2 at most, and the first is
            4 or 8.
        blocks: Of each of the B blocks of the cell, the operation on each of its two inputs: `((input, operation),
            (input, operation))`, in the order of `input_names`.
    """

    strides: tuple[int, ...]
    blocks: tuple[tuple[tuple[str, str], tuple[str, str]], ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Genotype":
        """Return the genotype of `{"strides": [4, 8, ...], "blocks": [{"one_back": "skip", ...}, ...]}`."""
        order = input_names(len(value["blocks"]))
        blocks = tuple(tuple(sorted(each.items(), key=lambda pair: order.index(pair[0]))) for each in value["blocks"])
        return cls(tuple(value["strides"]), blocks)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, see `from_json`."""
        return {"strides": list(self.strides), "blocks": [dict(each) for each in self.blocks]}
