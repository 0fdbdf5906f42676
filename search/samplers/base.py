"""The contract of a sampler: it proposes the next candidate of a search."""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.schedulers.base import Values
from search.space.drawn import Drawn
from utils.errors import EspalierError, SearchError
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
            SearchError: `suggest` raises an error, or returns something else.
        """
        rng = np.random.default_rng(derive_seed(self.space.study_seed, "sampler", number))
        try:
            drawn: Any = self.suggest(number, observations, running, rng)
        except EspalierError:
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise SearchError(
                f"search.sampler: {type(self).__name__} fails at number {number}: {type(error).__name__} at "
                f"{Path(frame.filename).name}:{frame.lineno}: {' '.join(str(error).split())}. It must propose a "
                "candidate, or None. Correct its `suggest`, and continue with --resume auto."
            ) from error
        if drawn is not None and not isinstance(drawn, Drawn):
            raise SearchError(
                f"search.sampler: {type(self).__name__} proposes a {type(drawn).__name__} at number {number}. It must "
                "be a Drawn, e.g. of self.space.random(number), or None. Correct its `suggest`."
            )
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
