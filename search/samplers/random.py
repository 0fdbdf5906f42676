"""Independent random draws."""

from collections.abc import Sequence

import numpy as np

from search.samplers.base import Observation, Sampler
from search.space.drawn import Drawn


class RandomSampler(Sampler):
    """Proposes independent random draws.

    A draw follows from the study's seed, the number of the candidate and the JSON path of each marker.
    """

    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Drawn:
        """Propose the random draw of a number."""
        return self.space.random(number)
