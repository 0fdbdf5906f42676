"""Known candidates before those of a sampler."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from config.faults import Faults
from search.samplers.base import Beliefs, Observation, Sampler, Suggestion
from search.space.drawn import Drawn

if TYPE_CHECKING:
    from search.space.space import Space


class KnownFirst(Sampler):
    """Proposes known candidates first, one at each number from 0, then those of a sampler, whose numbers begin at 0.

    Args:
        space: The space.
        sampler: Proposes the candidates after the known ones.
        first: Values of each known candidate, see `Space.find`; its other values are random.

    Raises:
        ConfigError: Lists the values that no candidate can have, each with its JSON path under `search.first`.
    """

    def __init__(self, space: "Space", sampler: Sampler, first: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(space)
        self.sampler = sampler
        self.first = first
        faults = Faults()
        for number in range(len(first)):
            with faults.collecting():
                self._known(number)
        if faults:
            raise faults.error()

    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Suggestion | None:
        """Return the known candidate of a number, or the proposal of the sampler."""
        if number < len(self.first):
            return Suggestion(self._known(number), "enqueued")
        proposed = self.sampler.suggest(number - len(self.first), observations, running, rng)
        return Suggestion(proposed, self.sampler.origin) if isinstance(proposed, Drawn) else proposed

    def beliefs(self, observations: Sequence[Observation]) -> Beliefs:
        """Return the predictions and importances of the sampler."""
        return self.sampler.beliefs(observations)

    def _known(self, number: int) -> Drawn:
        return self.space.find(self.first[number], number, prefix=f"search.first.{number}")
