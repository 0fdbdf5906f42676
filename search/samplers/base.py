"""The contract of a sampler: it proposes the next candidate of a search."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from search.executors.base import own_class_error
from search.schedulers.base import Values
from search.space.drawn import Drawn
from utils.errors import EspalierError
from utils.seeding import derive_seed

if TYPE_CHECKING:
    from search.space.space import Space


@dataclass(frozen=True)
class Observation:
    """The results of a candidate so far.

    Attributes:
        number: Number of the candidate.
        drawn: Its choices.
        values: Its objectives after each epoch, the first epoch first; the larger the better, NaN if unknown.
        has_failed: Whether it failed or ran out of memory: a sampler takes that as a bad result.
        is_running: Whether it is not at its end: more values may follow.
    """

    number: int
    drawn: Drawn
    values: tuple[Values, ...] = ()
    has_failed: bool = False
    is_running: bool = False


class Sampler(ABC):
    """Proposes candidates.

    A sampler has no memory of its own: what it proposes follows from the arguments of `suggest` alone, so that a
    search is continued after a kill from its journal. A proposal is written to the journal, and never asked for again.

    Args:
        space: The space that candidates are drawn from.
    """

    def __init__(self, space: "Space") -> None:
        self.space = space

    def propose(
        self, number: int, observations: Sequence[Observation] = (), running: Sequence[Drawn] = ()
    ) -> Drawn | None:
        """Return what `suggest` proposes, called with the generator of the number.

        Raises:
            SearchError: It has raised an error, or does not return choices.
        """
        rng = np.random.default_rng(derive_seed(self.space.study_seed, "sampler", number))
        try:
            drawn = self.suggest(number, observations, running, rng)
            if drawn is not None and not isinstance(drawn, Drawn):
                raise TypeError(f"it proposes a {type(drawn).__name__}, not choices of its space")
        except EspalierError:
            raise
        except Exception as error:  # of a class of the user's own
            subject = f"search.sampler: {type(self).__name__} cannot propose number {number}"
            raise own_class_error(subject, error) from error
        return drawn

    @abstractmethod
    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Drawn | None:
        """Propose the choices of a candidate.

        The proposal may equal an earlier one, and is then not trained: `suggest` is called again with the next number.

        Args:
            number: Number of the proposal, one more than that of the last one. It is the number of the candidate, less
                the candidates before it that another sampler, or the user, has proposed.
            observations: The results of all candidates that have some or have failed, by number, those that run
                included.
            running: The choices of the candidates that run or wait without a result.
            rng: A generator whose state follows from the study's seed and the number.

        Returns:
            The choices; None if there is none left to propose.
        """
