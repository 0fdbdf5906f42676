"""`Drawn`: one set of choices in a space, as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from config.faults import show
from utils.errors import SearchError

Choice = tuple[str, int | float]


@dataclass(frozen=True)
class Drawn:
    """The choices that make one candidate out of a space.

    Two sets of choices are equal if and only if every marker was drawn alike: two branches with the same `type` have
    different numbers.

    Attributes:
        choices: In the order in which the markers are met, the JSON path of each with its choice: the index of the
            branch of a `$choice`, the number of a `$range`, `$uniform` or `$loguniform`. The number of times of a
            `$repeat` is at `PATH.times`; a `$var` is drawn once, at `$defs.NAME`. A path occurs more than once where a
            branch of a choice is a choice itself.
    """

    choices: tuple[Choice, ...] = ()

    def as_json(self) -> list[list[Any]]:
        """Return the choices as they are written to the journal."""
        return [list(choice) for choice in self.choices]

    @classmethod
    def from_json(cls, choices: Sequence[Sequence[Any]]) -> "Drawn":
        """Return the choices that `as_json` wrote.

        Raises:
            ValueError: They are not pairs of a path and a number.
        """
        for path, number in choices:
            if not isinstance(path, str) or isinstance(number, bool) or not isinstance(number, int | float):
                raise ValueError(f"{[path, number]} is no choice of a path and a number")
        return cls(tuple((path, number) for path, number in choices))


def read_choices(choices: Sequence[Sequence[Any]]) -> Drawn:
    """Return the choices that a journal or a command holds.

    Raises:
        SearchError: They are not pairs of a path and a number.
    """
    try:
        return Drawn.from_json(choices)
    except (TypeError, ValueError) as error:
        raise SearchError(f"{show(choices)}: {error}. They were written by another program, or altered.") from error
