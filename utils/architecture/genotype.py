"""A genotype of Auto-DeepLab: the path of a network through the strides, and the cell of its layers.

Chenxi Liu et al., "Auto-DeepLab: Hierarchical Neural Architecture Search for Semantic Image Segmentation",
https://arxiv.org/abs/1901.02985, section 3.
"""

import difflib
import json
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.errors import ConfigError

Block = tuple[tuple[str, str], tuple[str, str]]
"""The two inputs of a block, each with the operation on it: `((input, operation), (input, operation))`."""

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
_OTHER_NAMES = {
    "skip_connect": "skip",
    "identity": "skip",
    "dil_conv_3x3": "atrous_conv_3x3",
    "dil_conv_5x5": "atrous_conv_5x5",
}
"""Names of other programs, for "did you mean"."""


def input_names(num_blocks: int) -> tuple[str, ...]:
    """Return the names of the inputs that the blocks of a cell may read.

    Block i (from 1) may read the first i + 1 of them: the cells two and one layers back, and the blocks before it.
    """
    return ("two_back", "one_back", *(f"block_{number}" for number in range(1, num_blocks)))


def cell_edges(num_blocks: int) -> list[tuple[int, int]]:
    """Return the edges of a cell in order as (block, input), both from 0: 20 edges for 5 blocks."""
    return [(block, place) for block in range(num_blocks) for place in range(block + 2)]


@dataclass(frozen=True)
class Genotype:
    """The decoded architecture. Genotypes of the same network are equal, and have the same hash.

    Attributes:
        strides: Stride of each of the L layers, 4 to 32; neighbours differ by a factor of 2 at most, and the first is
            4 or 8.
        blocks: Of each of the B blocks of the cell, the operation on each of its two inputs: `((input, operation),
            (input, operation))`, brought into the order of `input_names`.

    Raises:
        ConfigError: There is no such network.
    """

    strides: tuple[int, ...]
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", _checked_strides(self.strides, "genotype.strides"))
        object.__setattr__(self, "blocks", _checked_blocks(self.blocks, "genotype.blocks"))

    @classmethod
    def from_json(cls, value: object, where: str = "genotype") -> "Genotype":
        """Return the genotype of `{"strides": [4, 8, ...], "blocks": [{"one_back": "skip", ...}, ...]}`.

        Args:
            value: Plain data as JSON has it.
            where: Name of the value for messages: its path in the JSON, or the file.

        Raises:
            ConfigError: It describes no genotype.
        """
        if not isinstance(value, Mapping):
            raise ConfigError(f'{where} is {_show(value)}, not a genotype: {{"strides": [...], "blocks": [...]}}.')
        for key in value:
            if key not in ("strides", "blocks"):
                raise ConfigError(f"{where}: {_unknown('key', key, ('strides', 'blocks'))}")
        for key in ("strides", "blocks"):
            if key not in value:
                raise ConfigError(f'{where} has no "{key}": a genotype has "strides" and "blocks". Add "{key}".')
        blocks = value["blocks"]
        if isinstance(blocks, list | tuple):
            blocks = [tuple(each.items()) if isinstance(each, Mapping) else each for each in blocks]
        strides = _checked_strides(value["strides"], f"{where}.strides")
        return cls(strides, _checked_blocks(blocks, f"{where}.blocks"))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, see `from_json`."""
        return {"strides": list(self.strides), "blocks": [dict(each) for each in self.blocks]}

    @property
    def levels(self) -> tuple[int, ...]:
        """Level of each layer: 0 at stride 4 to 3 at stride 32."""
        return tuple(map(STRIDES.index, self.strides))

    @property
    def num_layers(self) -> int:
        """Number of layers, L."""
        return len(self.strides)

    @property
    def num_blocks(self) -> int:
        """Number of blocks in a cell, B."""
        return len(self.blocks)


def _show(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown(kind: str, name: object, known: Sequence[str]) -> str:
    near = [_OTHER_NAMES[name]] if isinstance(name, str) and name in _OTHER_NAMES else []
    near = near or difflib.get_close_matches(str(name).lower(), known, n=1)
    suggestion = f' Did you mean "{near[0]}"?' if near else ""
    return f"unknown {kind} {_show(name)}.{suggestion} Known: {', '.join(known)}."


def _checked_strides(value: object, where: str) -> tuple[int, ...]:
    """Return the strides of a path, or raise an error if no network has them."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"{where} is {_show(value)}: it must be a list of the stride of each layer, as [4, 8, 8].")
    strides: list[int] = []
    for place, stride in enumerate(value):
        allowed = STRIDES[:2] if place == 0 else tuple(s for s in STRIDES if strides[-1] / 2 <= s <= strides[-1] * 2)
        words = f"{', '.join(map(str, allowed[:-1]))} or {allowed[-1]}"
        if isinstance(stride, bool) or not isinstance(stride, numbers.Integral) or stride not in STRIDES:
            raise ConfigError(f"{where}.{place} is {_show(stride)}: a layer has stride 4, 8, 16 or 32. Set {words}.")
        if stride not in allowed and place == 0:
            raise ConfigError(f"{where}.0 is {stride}: the first layer follows a stem of stride 4. Set {words}.")
        if stride not in allowed:
            rule = "the strides of neighbouring layers differ by a factor of 2 at most"
            raise ConfigError(f"{where}.{place} is {stride} after {strides[-1]}: {rule}. Set {words}.")
        strides.append(int(stride))
    if not strides:
        raise ConfigError(f"{where} is empty: a network has at least one layer. Give the stride of each, as [4, 8, 8].")
    return tuple(strides)


def _checked_blocks(value: object, where: str) -> tuple[Block, ...]:
    """Return the blocks of a cell with their inputs in order, or raise an error if there is no such cell."""
    if not isinstance(value, list | tuple) or not value:
        rule = 'it must be a list of the blocks of a cell, as [{"two_back": "skip", "one_back": "sep_conv_3x3"}]'
        raise ConfigError(f"{where} is {_show(value)}: {rule}.")
    return tuple(_checked_block(block, place, f"{where}.{place}") for place, block in enumerate(value))


def _checked_block(block: object, place: int, where: str) -> Block:
    readable = input_names(place + 1)
    rule = "a block has two different inputs and an operation on each"
    repair = 'as {"two_back": "skip", "one_back": "sep_conv_3x3"}'
    if not isinstance(block, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in block
    ):
        raise ConfigError(f"{where} is {_show(block)}: {rule}, {repair}.")
    for name, operation in block:
        if name not in readable:
            later = isinstance(name, str) and name.removeprefix("block_").isdecimal()
            fault = f"reads {_show(name)}: block {place + 1} may read {', '.join(readable)}. Set one of them"
            raise ConfigError(f"{where} {fault}." if later else f"{where}: {_unknown('input', name, readable)}")
        if operation == OPERATIONS[0]:
            fault = "is none, which passes nothing on: a block of a genotype has a true operation on both inputs"
            raise ConfigError(f"{where}.{name} {fault}. Set one of {', '.join(OPERATIONS[1:])}.")
        if operation not in OPERATIONS:
            raise ConfigError(f"{where}.{name}: {_unknown('operation', operation, OPERATIONS[1:])}")
    names = [name for name, _ in block]
    if len(names) != 2 or names[0] == names[1]:
        found = " and ".join(map(_show, names)) or "nothing"
        raise ConfigError(f"{where} reads {found}: {rule}. Set two of {', '.join(readable)}.")
    first, second = sorted(block, key=lambda pair: readable.index(pair[0]))
    return (first[0], first[1]), (second[0], second[1])
