"""The objectives of a search: results or facts of a candidate, each to be maximized or minimized."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from utils.errors import SearchError

FACTS = ("params", "flops", "memory_mb", "latency_ms")


@dataclass(frozen=True)
class Objective:
    """One objective.

    Attributes:
        name: A result such as `val_miou`, or one of `FACTS`.
        sign: 1 if more is better, -1 if less is.
    """

    name: str
    sign: int

    @property
    def is_fact(self) -> bool:
        """Whether its value is known before training."""
        return self.name in FACTS

    def __str__(self) -> str:
        return f"{'max' if self.sign > 0 else 'min'} {self.name}"


def parse_objectives(texts: Sequence[str]) -> tuple[Objective, ...]:
    """Parse `["max val_miou", "min params"]`.

    Raises:
        SearchError: A text is not of this form, or a name is repeated.
    """
    objectives = []
    for text in texts:
        words = text.split()
        if len(words) != 2 or words[0] not in ("min", "max"):
            raise SearchError(
                f'search.objectives: "{text}" must be "min NAME" or "max NAME", NAME being a result such as val_miou '
                f"or one of {', '.join(FACTS)}. Write it so."
            )
        objectives.append(Objective(words[1], 1 if words[0] == "max" else -1))
    names = [objective.name for objective in objectives]
    if not names or len(set(names)) < len(names):
        raise SearchError(f"search.objectives: {list(texts)} must name one result or several different ones.")
    return tuple(objectives)


def require_results(objectives: Sequence[Objective], names: Iterable[str]) -> None:
    """Raise if an objective will have no value.

    Raises:
        SearchError: An objective is neither a fact nor among the results of these names.
    """
    known = list(names)
    for each in objectives:
        if not each.is_fact and each.name not in known:
            raise SearchError(
                f'search.objectives: "{each}" is not among the results ({", ".join(known)}). Name one of these, or one '
                f"of {', '.join(FACTS)}."
            )


class Tally:
    """The objectives of one candidate over its epochs so far: the best value of each result.

    Args:
        objectives: Of the search.
        facts: Known before training.

    Attributes:
        best_epoch: Of the first objective that is a result; None before the first report.
    """

    def __init__(self, objectives: Sequence[Objective], facts: Mapping[str, float]) -> None:
        self.objectives = objectives
        self.best_epoch: int | None = None
        self._best = {each.name: facts.get(each.name, math.nan) * each.sign for each in objectives if each.is_fact}

    def add(self, row: Mapping[str, float]) -> tuple[float, ...]:
        """Add an epoch's results and return `values`.

        Raises:
            SearchError: An objective is not among the results.
        """
        results = [each for each in self.objectives if not each.is_fact]
        require_results(results, row)
        for position, each in enumerate(results):
            value = row[each.name] * each.sign
            if value > self._best.get(each.name, -math.inf):  # False for NaN: a diverged epoch is never the best
                self._best[each.name] = value
                if position == 0:
                    self.best_epoch = int(row["epoch"])
        return self.values

    @property
    def values(self) -> tuple[float, ...]:
        """Each objective so far, the larger the better; NaN if it is unknown."""
        return tuple(self._best.get(each.name, math.nan) for each in self.objectives)

    def as_written(self) -> dict[str, float]:
        """Return the known objectives by name, in their original sign."""
        return {each.name: self._best[each.name] * each.sign for each in self.objectives if each.name in self._best}
