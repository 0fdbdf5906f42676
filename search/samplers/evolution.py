"""Regularised evolution: changes of good candidates among the latest."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from search.samplers.base import Observation, Sampler, Suggestion
from search.samplers.learning.evidence import Untaken, check_random_share, comparable_values
from search.schedulers.base import check_at_least
from search.schedulers.ranking import best_first
from search.space.drawn import Drawn
from utils.errors import ConfigError

if TYPE_CHECKING:
    from search.space.space import Space


class EvolutionSampler(Sampler):
    """Proposes a change of one choice of the best of a few of the latest candidates.

    Regularised evolution (Real et al., 2019, https://arxiv.org/abs/1802.01548, Algorithm 1): the population is the
    latest candidates with results, so that one that was lucky is forgotten, however good it seemed. The paper has a
    population of 100 and samples of 25 for 20,000 networks; the defaults here are for some hundreds.

    Differences to the paper: candidates that stopped early compete, see `comparable_values`. Several objectives are
    ranked as in NSGA-II, see `best_first`. A number changes to a near one, a branch to any other, see
    `Space.neighbours`. No candidate is proposed twice.

    Args:
        space: The space.
        population_size: Latest candidates of which parents are taken; as many random ones come first.
        sample_size: Candidates, taken at random from these, of which the best is the parent.
        random_share: Share of proposals that are random draws all the same: a population whose early results mislead
            would remain where it is.
        fidelities: Epochs at which the scheduler compares.
        num_objectives: Objectives of the search.

    Raises:
        ConfigError: A number is below 1, a sample is larger than the population, or the share is not from 0 to 1.
    """

    def __init__(
        self,
        space: "Space",
        population_size: int = 20,
        sample_size: int = 5,
        random_share: float = 0.25,
        *,
        fidelities: tuple[int, ...] = (),
        num_objectives: int = 1,
    ) -> None:
        super().__init__(space)
        check_at_least("population_size", population_size, 1)
        check_at_least("sample_size", sample_size, 1)
        check_random_share(random_share)
        if sample_size > population_size:
            raise ConfigError(
                f"sample_size {sample_size}: must be at most the population_size of {population_size}, from which the "
                f"sample is taken. Set sample_size to {population_size} or less."
            )
        self.population_size = population_size
        self.sample_size = sample_size
        self.random_share = random_share
        self.fidelities = fidelities
        self.num_objectives = num_objectives
        self._untaken = Untaken(space)

    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Suggestion | None:
        """Propose a random draw, or from a complete population on a neighbour of a parent."""
        values = comparable_values(observations, self.fidelities, self.num_objectives)
        latest = list(values)[-self.population_size :]
        proposals: Iterator[Suggestion] = iter([Suggestion(self.space.random(number))])
        is_random = rng.random() < self.random_share or len(latest) < self.population_size
        if self.space.has_markers and not is_random:
            sample = rng.choice(latest, self.sample_size, replace=False).tolist()
            parent = best_first({each: values[each] for each in sample})[0]
            drawn = next(each.drawn for each in observations if each.number == parent)
            proposals = (Suggestion(each, "model") for each in self._children(drawn, rng))
        return self._untaken.first(proposals, self._untaken.taken(observations, running), rng)

    def _children(self, parent: Drawn, rng: np.random.Generator) -> Iterator[Drawn]:
        """Yield the neighbours of a parent, at last the parent, which has none in a space of one candidate."""
        yield from self.space.neighbours(parent, rng)
        yield parent
