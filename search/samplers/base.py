"""The contract of a sampler: it proposes the next candidate of a search."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from search.executors.base import own_class_error
from search.schedulers.base import Values
from search.space.drawn import Drawn
from utils.errors import EspalierError
from utils.seeding import derive_seed

if TYPE_CHECKING:
    from search.space.space import Space


Origin = Literal["random", "model", "enqueued"]
"""Whether a candidate was drawn without looking at results, proposed because of them, or named by the user."""


@dataclass(frozen=True)
class Observation:
    """The results of a candidate so far.

    Attributes:
        number: Number of the candidate.
        drawn: Its choices.
        values: Its objectives after each epoch, the first epoch first; the larger the better, NaN if unknown.
        has_failed: Whether it failed or ran out of memory: a sampler takes that as a bad result.
        is_running: Whether it has not ended by itself: more values may follow, or of another study, could have.
        is_refused: Whether it was refused before its training, e.g. since it has too many parameters. It has no values
            then, and says only that it need not be proposed again.
        origin: Where its choices come from, see `Origin`; empty if that is unknown.
        leading: Place among the values of that which says which epoch is the best; others may be equal after all.
    """

    number: int
    drawn: Drawn
    values: tuple[Values, ...] = ()
    has_failed: bool = False
    is_running: bool = False
    is_refused: bool = False
    origin: str = ""
    leading: int = 0


@dataclass(frozen=True)
class Suggestion:
    """A proposal with the reason for it.

    Attributes:
        drawn: The choices.
        origin: Where they come from.
    """

    drawn: Drawn
    origin: Origin = "random"


@dataclass(frozen=True)
class PredictedValue:
    """The value of a candidate after a full training, as a model predicts it.

    Attributes:
        mean: The first objective that is a result, the larger the better.
        low: Lower end of an interval that should hold it in 80 % of the cases or more.
        high: Upper end.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Beliefs:
    """The predictions and importances of a sampler that learns.

    Attributes:
        predictions: Of the candidates that run, by their numbers.
        importances: Of each marker, by its JSON path: its share of the variance of the same objective over the space,
            0 to 1, as the model sees it.
    """

    predictions: Mapping[int, PredictedValue] = field(default_factory=dict)
    importances: Mapping[str, float] = field(default_factory=dict)


def _check_proposal(proposed: object) -> None:
    """Raise if a proposal of a sampler, perhaps a class of the user's own, is none.

    Raises:
        TypeError: It holds no choices.
        ValueError: Its origin is unknown.
    """
    drawn = proposed.drawn if isinstance(proposed, Suggestion) else proposed
    if not isinstance(proposed, Suggestion) or not isinstance(drawn, Drawn):
        raise TypeError(f"it proposes a {type(drawn).__name__}, not choices of its space")
    if proposed.origin not in get_args(Origin):
        raise ValueError(f"its proposal has the origin {proposed.origin!r}, not one of {', '.join(get_args(Origin))}")


class Sampler(ABC):
    """Proposes candidates.

    A sampler has no memory: its proposal follows from the arguments of `suggest` alone, so that a
    search is continued after a kill from its journal. A proposal is written to the journal, and never asked for again.

    Args:
        space: The space that candidates are drawn from. A class may also ask for `fidelities` (a tuple: the epochs at
            which the scheduler compares, ascending, those of a full training last), and `num_objectives`.

    Attributes:
        origin: The origin of proposals that are plain choices.
    """

    origin: Origin = "random"

    def __init__(self, space: "Space") -> None:
        self.space = space

    def propose(
        self, number: int, observations: Sequence[Observation] = (), running: Sequence[Drawn] = ()
    ) -> Suggestion | None:
        """Return the proposal of `suggest`, called with the generator of the number.

        Raises:
            SearchError: It has raised an error, or does not return choices.
        """
        rng = np.random.default_rng(derive_seed(self.space.study_seed, "sampler", number))
        try:
            proposed = self.suggest(number, observations, running, rng)
            if isinstance(proposed, Drawn):
                proposed = Suggestion(proposed, self.origin)
            if proposed is not None:
                _check_proposal(proposed)
        except EspalierError:
            raise
        except Exception as error:  # of a class of the user's own
            subject = f"search.sampler: {type(self).__name__} cannot propose number {number}"
            raise own_class_error(subject, error) from error
        return proposed

    @abstractmethod
    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Drawn | Suggestion | None:
        """Propose the choices of a candidate.

        The proposal may equal an earlier one, and is then not trained: `suggest` is called again with the next number.

        Args:
            number: Number of the proposal, one more than that of the last one. It is the number of the candidate, less
                the candidates before it that another sampler, or the user, has proposed.
            observations: The results of all candidates that have some, have failed or were refused, by number, those
                that run included. Numbers below 0 are those of another study, see `search.warm_start`.
            running: The choices of the candidates that run or wait without a result.
            rng: A generator whose state follows from the study's seed and the number.

        Returns:
            The choices; None if there is none left to propose.
        """

    def beliefs(self, observations: Sequence[Observation]) -> Beliefs:
        """Return predictions and importances that follow from the results; by default none.

        Args:
            observations: As for `suggest`.
        """
        return Beliefs()
