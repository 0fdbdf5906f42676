"""A cell: blocks of two operators each, in the notation of POPNAS, and which cells are the same."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from utils.architecture.cells.operators import read_operator
from utils.errors import ConfigError

_BLOCK = re.compile(
    r"""\(\s*(-?\d+)\s*,\s*(['"])([^'"\\]*)\2\s*,\s*(-?\d+)\s*,\s*(['"])([^'"\\]*)\5\s*,?\s*\)""", re.ASCII
)
_EXAMPLE = "[(-2, '3x3 conv', -1, '2x2 maxpool');(0, 'identity', -1, '3x3 conv')]"
_LONGEST_NUMBER = 4
Side = tuple[int, str]
"""An input of a block and the operator on it."""


@dataclass(frozen=True)
class Block:
    """Two operators, each on one input, whose results are joined.

    Attributes:
        first_input: -1 for the previous cell, -2 for the one before, ...; 0 for the first block of the cell, ...
        first: The operator on it, see `operators.read_operator`.
        second_input: As `first_input`.
        second: The operator on it.
    """

    first_input: int
    first: str
    second_input: int
    second: str

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both inputs with their operators."""
        return (self.first_input, self.first), (self.second_input, self.second)

    @property
    def inputs(self) -> tuple[int, int]:
        """Both inputs."""
        return self.first_input, self.second_input

    @property
    def operators(self) -> tuple[str, str]:
        """Both operators."""
        return self.first, self.second

    def __str__(self) -> str:
        """Return the notation, as "(-2, '3x3 conv', -1, '2x2 maxpool')"."""
        return f"({self.first_input}, '{self.first}', {self.second_input}, '{self.second}')"


@dataclass(frozen=True)
class Cell:
    """Blocks, each of which reads earlier cells or earlier blocks. Without a block it is the empty cell.

    `==` compares cells as they are written; cells are equivalent if their `canonical()` is equal.

    Attributes:
        blocks: In an order in which each reads only earlier ones.

    Raises:
        ConfigError: A block reads itself, a later block, or is not written as a block.
    """

    blocks: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        _check_blocks(self.blocks, "cell")

    @classmethod
    def parse(cls, text: str, *, dims: int | None = None, where: str = "cell") -> "Cell":
        """Return the cell of "[(-2, '3x3 conv', -1, '2x2 maxpool');(0, 'identity', -1, '3x3 conv')]".

        Args:
            text: The notation; "[]" is the empty cell.
            dims: 1 to require operators for series, 2 for those for images, None to leave the operators unread.
            where: Name of the value for messages: its path in the JSON.

        Raises:
            ConfigError: There is no such cell, or an operator is unknown.
        """
        found = _read_blocks(text, where)
        _check_blocks(found, where)
        if dims is not None:
            for place, block in enumerate(found):
                for operator in block.operators:
                    read_operator(operator, dims, f"{where}: block {place}")
        return cls(found)

    def __str__(self) -> str:
        """Return the notation, see `parse`."""
        return f"[{';'.join(map(str, self.blocks))}]"

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.blocks)

    @property
    def lookbacks(self) -> tuple[int, ...]:
        """The earlier cells that it reads, the nearest first: (-1, -2)."""
        return tuple(sorted({each for block in self.blocks for each in block.inputs if each < 0}, reverse=True))

    @property
    def unused_blocks(self) -> tuple[int, ...]:
        """The blocks that no other block reads: their results are joined to the output of the cell."""
        read = {each for block in self.blocks for each in block.inputs}
        return tuple(place for place in range(len(self.blocks)) if place not in read)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Of each block, the number of blocks on the longest path to it, itself included."""
        depths: list[int] = []
        for block in self.blocks:
            depths.append(1 + max(depths[each] if each >= 0 else 0 for each in block.inputs))
        return tuple(depths)

    @property
    def depth(self) -> int:
        """The number of blocks on the longest path; 0 for the empty cell."""
        return max(self.depths, default=0)

    def equivalent(self, other: "Cell") -> bool:
        """Return whether both hold the same blocks, in any order and with sides in any order.

        Blocks are the same if they have the same operators on the same earlier cells and on blocks that are the same.
        """
        return self.canonical() == other.canonical()

    def canonical(self) -> "Cell":
        """Return the one cell that stands for all that are equivalent to it.

        Blocks are in the order of their depth and sides, sides in that of their inputs and operators. Of several blocks
        that are the same the first is read.
        """
        blocks: list[Block] = []
        new_numbers: dict[int, int] = {}
        for depth in range(1, self.depth + 1):
            level = []
            for place, block in enumerate(self.blocks):
                if self.depths[place] == depth:
                    sides = sorted((new_numbers.get(read, read), operator) for read, operator in block.sides)
                    level.append((sides, place))
            first_of: dict[Block, int] = {}
            for (first, second), place in sorted(level):
                block = Block(*first, *second)
                new_numbers[place] = first_of.setdefault(block, len(blocks))
                blocks.append(block)
        return Cell(tuple(blocks))


def _read_blocks(text: object, where: str) -> tuple[Block, ...]:
    shown = repr(text) if len(repr(text)) <= 60 else f"{repr(text)[:57]}..."
    rule = f'a cell is written as "{_EXAMPLE}", and the empty cell as "[]"'
    if not isinstance(text, str):
        raise ConfigError(f"{where}: {shown} is not a string: {rule}.")
    stripped = text.strip()
    if not (len(stripped) >= 2 and stripped[0] == "[" and stripped[-1] == "]"):
        raise ConfigError(f"{where}: {shown} is not in square brackets: {rule}.")
    inside = stripped[1:-1].strip().removesuffix(";")
    found = []
    for place, part in enumerate(inside.split(";") if inside else ()):
        match = _BLOCK.fullmatch(part.strip())
        if match is None or any(len(match[group]) > _LONGEST_NUMBER for group in (1, 4)):
            raise ConfigError(f"{where}: block {place} is {part.strip()!r}: {rule}. Write two inputs with operators.")
        found.append(Block(int(match[1]), match[3], int(match[4]), match[6]))
    return tuple(found)


def _check_blocks(blocks: Sequence[Block], where: str) -> None:
    for place, block in enumerate(blocks):
        for read, operator in block.sides:
            if isinstance(read, bool) or not isinstance(read, int):
                raise ConfigError(f"{where}: block {place} reads {read!r}: an input is a whole number, as -1.")
            if read >= place:
                rule = "a block reads cells (-1, -2, ...) or earlier blocks"
                repair = f"Set -1 to {place - 1}" if place else "Set -1 or -2"
                raise ConfigError(f"{where}: block {place} reads {read}: {rule}. {repair}.")
            if not isinstance(operator, str) or not operator.strip() or set(operator) & set("'\"\\;\n"):
                raise ConfigError(f"{where}: block {place} has the operator {operator!r}: it must be as '3x3 conv'.")
