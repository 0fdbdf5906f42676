"""The default sampler."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from search.samplers.base import Observation
from search.samplers.gp import GPSampler
from search.samplers.learning.evidence import comparable_values

if TYPE_CHECKING:
    from search.space.space import Space

_FEWEST = 8  # proposals of the model that are compared with the random ones
_CAREFUL_SHARE = 0.5


class AutoSampler(GPSampler):
    """Random draws at first, then the proposals of `GPSampler`, as long as they are better than random draws.

    A tenth of all proposals is random. If those of the model have not been better than these, by their mean rank among
    all results as far as results after different epochs compare (`comparable_values`), every second one is: a model
    that is misled finds out that it is, and costs half of the search at most.

    Args:
        space: The space.
        fidelities: Epochs of the rungs, ascending, those of a full training last.
        num_objectives: Objectives.
    """

    def __init__(self, space: "Space", fidelities: Sequence[int] = (), num_objectives: int = 1) -> None:
        super().__init__(space, fidelities, num_objectives)

    def share_of_random(self, observations: Sequence[Observation]) -> float:
        """Return the share of random proposals that the results so far suggest."""
        usual = super().share_of_random(observations)
        if self.num_objectives > 1:  # candidates of a front are not in one order
            return usual
        tried = [each for each in observations if each.number >= 0]  # without those of another study
        values = comparable_values(tried, self.fidelities)
        by_model, at_random = (
            np.array([values[each.number][0] for each in tried if each.origin == origin and each.number in values])
            for origin in ("model", "random")
        )
        if len(by_model) < _FEWEST or not len(at_random):
            return usual
        # The share of pairs in which the model's candidate is the better one; equal ones count half.
        above = (by_model[:, None] > at_random).mean() + 0.5 * (by_model[:, None] == at_random).mean()
        return usual if above > 0.5 else _CAREFUL_SHARE
