"""A sampler that models learning curves with a Gaussian process over settings and epochs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from search.samplers.base import Beliefs, Observation, Sampler, Suggestion
from search.samplers.learning.curve_model import CurveModel, Features, thinned
from search.samplers.learning.evidence import Untaken, check_random_share
from search.samplers.learning.gaussian_process import Array
from search.space.drawn import Drawn
from utils.errors import ConfigError
from utils.seeding import derive_seed

if TYPE_CHECKING:
    from search.space.space import Space

_BLOCK, _BLOCKS, _PER_BLOCK = 64, 8, 8  # random candidates: a new block after so many proposals, the last ones are used
_PARENTS, _NEIGHBOURS = 4, 12  # whose neighbours are candidates, too, and how many of each
_MOST_COMPARED = 1024  # candidates by which importances are estimated


@dataclass(frozen=True)
class Pool:
    """Candidates that are rated.

    Attributes:
        drawn: N choices.
        settings: (N, F) their features.
    """

    drawn: Sequence[Drawn]
    settings: Array

    def __add__(self, other: "Pool") -> "Pool":
        return Pool([*self.drawn, *other.drawn], np.concatenate([self.settings, other.settings]))


class GPSampler(Sampler):
    """Proposes candidates by a Gaussian process over settings and the logarithm of the epoch, see `CurveProcess`.

    Every result says something of all others: a candidate that was stopped early is a point at its last epoch. Values
    are the best of a candidate so far. Of each candidate there are the epochs of the rungs, and its last one: epochs
    between say little more, and a rung that says nothing of the next one is left out (`thinned`). Above 1,500 points
    those of lower rungs are left out, those of the worst first. Values enter by their ranks (`Warping`); a candidate
    that failed is among the worst at the epoch after its last one.

    The first proposals, and a share of all later ones, are random. Every other one maximises, either with probability
    1/2, the expected improvement at the last epoch (Jones et al., 1998), or a value that the process holds possible,
    drawn for each candidate by itself (after Thompson, 1933), which explores more. The improvement is over the largest
    expected value of a candidate with results. A running candidate without results counts with its expected value. All
    candidates of a list are rated; otherwise random ones and the neighbours of the best.

    With several objectives, each has a process, and a proposal improves one random scalarisation of them, such that
    over all proposals the hypervolume is improved (Zhang and Golovin, 2020, https://arxiv.org/abs/2006.04655).

    Args:
        space: The space.
        fidelities: Epochs of the rungs, ascending, those of a full training last.
        num_objectives: Objectives.
        num_random: Candidates that are drawn before the first that is modelled.
        random_share: Share of the later proposals that are random.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        space: "Space",
        fidelities: Sequence[int] = (),
        num_objectives: int = 1,
        *,
        num_random: int = 5,
        random_share: float = 0.1,
    ) -> None:
        super().__init__(space)
        if num_random < 2:
            raise ConfigError(
                f"num_random {num_random}: must be at least 2, to compare them. Set num_random to 2 or more."
            )
        check_random_share(random_share)
        self.fidelities = tuple(fidelities)
        self.num_objectives = num_objectives
        self.num_random = num_random
        self.random_share = random_share
        self._untaken = Untaken(space)
        self._blocks: dict[int, Pool] = {}  # they follow from the study's seed: no memory that changes an answer

    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Suggestion | None:
        """Propose the candidate that promises most, or a random one."""
        taken = self._untaken.taken(observations, running)
        tried = [each for each in observations if not each.is_refused]
        is_early = len(tried) + len(running) < self.num_random or not self._can_learn(tried)
        if is_early or rng.random() < self.share_of_random(tried):
            return self._untaken.first([Suggestion(self.space.random(number))], taken, rng)
        model = self._model(tried, rng)
        model.imagine(running)
        pool = self._pool(number, model, rng)
        order = np.argsort(-model.merit(pool.settings, rng), kind="stable")
        return self._untaken.first((Suggestion(pool.drawn[place], "model") for place in order.tolist()), taken, rng)

    def beliefs(self, observations: Sequence[Observation]) -> Beliefs:
        """Return predictions for the candidates that run, and the importance of each marker."""
        tried = [each for each in observations if not each.is_refused]
        if not self._can_learn(tried):
            return Beliefs()
        rng = np.random.default_rng(derive_seed(self.space.study_seed, "beliefs"))
        model = self._model(tried, rng)
        # The rows of a table may be in the order of a marker.
        pool = self._random_pool(0).settings if self.space.listed is None else rng.permutation(self._listed_features)
        return Beliefs(model.predictions(tried), model.importances(pool[:_MOST_COMPARED]))

    def share_of_random(self, observations: Sequence[Observation]) -> float:
        """Return the share of proposals that are random from now on.

        Args:
            observations: Those of candidates that were not refused.
        """
        return self.random_share

    def _can_learn(self, tried: Sequence[Observation]) -> bool:
        """Return whether there are markers, and enough results."""
        finite = sum(any(all(map(math.isfinite, row)) for row in each.values) for each in tried)
        return finite >= max(2, self.num_random // 2) and bool(self.space.dimensions)

    def _model(self, tried: Sequence[Observation], rng: np.random.Generator) -> CurveModel:
        curves = thinned(tried, self.fidelities, self.num_objectives)
        return CurveModel(self.features, curves, self.fidelities[-1] if self.fidelities else 0, rng)

    @cached_property
    def features(self) -> Features:
        """The features of candidates."""
        return Features(self.space)

    def _pool(self, number: int, model: CurveModel, rng: np.random.Generator) -> "Pool":
        """Return the candidates that are rated."""
        listed = self.space.listed
        if listed is not None:
            return Pool(listed, self._listed_features)
        pool = self._random_pool(number // _PER_BLOCK)
        near = model.best(_PARENTS)
        for _ in range(2):  # the second time, neighbours of the best neighbours
            drawn = [each for parent in near for each in islice(self.space.neighbours(parent, rng), _NEIGHBOURS)]
            if not drawn:
                break
            found = Pool(drawn, self.features.of(drawn))
            order = np.argsort(-model.expected(found.settings), kind="stable")
            near = [drawn[place] for place in order[:_PARENTS].tolist()]
            pool = pool + found
        return pool

    def _random_pool(self, block: int) -> "Pool":
        """Return the random candidates of the last blocks up to one; of the first blocks, if it is one of these."""
        pools = []
        first = max(0, block - _BLOCKS + 1)
        for place in range(first, first + _BLOCKS):
            if place not in self._blocks:
                generator = np.random.default_rng(derive_seed(self.space.study_seed, "pool", place))
                drawn = [self.space.at(lambda *_: generator.random()) for _ in range(_BLOCK)]  # noqa: B023
                self._blocks[place] = Pool(drawn, self.features.of(drawn))
            pools.append(self._blocks[place])
        # The first ones are those by which importances are estimated.
        self._blocks = {place: pool for place, pool in self._blocks.items() if place < _BLOCKS or place >= first}
        return Pool([each for pool in pools for each in pool.drawn], np.concatenate([pool.settings for pool in pools]))

    @cached_property
    def _listed_features(self) -> Array:
        return self.features.transformed(*self.space.listed_vectors)
