"""Points that fill a space evenly."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from search.samplers.base import Observation, Sampler
from search.space.drawn import Drawn
from search.space.space import unit_fraction
from utils.seeding import derive_seed

_MOST_DIMENSIONS = 21201  # of the direction numbers of Joe and Kuo, 2008, which scipy has


class SobolSampler(Sampler):
    """Proposes the points of a scrambled Sobol sequence (Sobol, 1967; Owen, 1998).

    They fill the space more evenly than random draws; the best numbers of candidates are powers of two. A dimension is
    a JSON path: markers of different branches at the same path share it. The scrambling follows from the study's seed.
    """

    @cached_property
    def _dimensions(self) -> dict[tuple[str, str], int]:
        places = dict.fromkeys((site.path, site.branch) for site in self.space.sites)
        return {place: dimension for dimension, place in enumerate(places)}

    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Drawn:
        """Propose the point of a number."""
        from scipy.stats.qmc import Sobol

        count = min(len(self._dimensions), _MOST_DIMENSIONS)
        if not count:
            return Drawn()
        sequence = Sobol(count, rng=np.random.default_rng(derive_seed(self.space.study_seed, "sobol")))
        if number:  # scipy cannot skip none
            sequence.fast_forward(number)
        point = sequence.random()[0]

        def fraction(path: str, branch: str, marker: Mapping[str, Any]) -> float:
            dimension = self._dimensions[path, branch]
            if dimension < count:
                return float(point[dimension])
            return unit_fraction(self.space.study_seed, number, path, branch)

        return self.space.at(fraction)
