"""Observations for any sampler: values that compare after different epochs, and which candidates are taken.

Dimensions: N candidates, D dimensions of `Space.vector`.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.samplers.base import Observation, Suggestion
from search.samplers.grid import GridSampler
from search.schedulers.base import Values
from search.schedulers.ranking import FEWEST_PAIRS
from search.space.drawn import Drawn
from utils.errors import ConfigError

if TYPE_CHECKING:
    from search.space.space import Space

_MOST_NEIGHBOURS = 200
_MOST_RANDOM = 100
_MOST_ENUMERATED = 4096  # outcomes, as the most that a space compares one by one
_LARGEST = 1e300  # values beyond it count as this one, so that the difference of two is a number, too


def comparable_values(
    observations: Sequence[Observation], fidelities: Sequence[int] = (), num_objectives: int = 1, enough: int = 5
) -> dict[int, Values]:
    """Return values of candidates as if all had been trained for the same number of epochs.

    Results after different epochs do not compare. As in BOHB (Falkner et al., 2018, https://arxiv.org/abs/1807.01774,
    section 4.1), the highest rung counts that enough candidates have reached: of each its best epoch up to there.
    A candidate that did not get there has an estimate instead: the share of candidates that it was better than at its
    highest rung is turned into such a share at the common rung, by the line that fits the candidates that have reached
    both. So a rung whose results say nothing of later ones makes no difference, and one that is always right retains
    its order. (BOHB leaves these candidates out.) Failed and diverged candidates are as bad as the worst other one.

    Args:
        observations: As for `Sampler.suggest`.
        fidelities: Epochs at which the scheduler compares, ascending; empty: unknown, and all results count alike.
        num_objectives: Objectives that are compared.
        enough: Candidates that must have reached a rung above the first one.

    Returns:
        By the number of the candidate, ascending; finite. Candidates that were refused, or have yet to reach the first
        rung, are not among them.
    """
    known = sorted((each for each in observations if not each.is_refused), key=lambda each: each.number)
    healthy = [each for each in known if each.values and not each.has_failed]
    rungs = tuple(fidelities) or (sys.maxsize,)
    reached = {each.number: _rung_reached(each, fidelities) if fidelities else rungs[-1] for each in healthy}
    tables = {
        rung: _results_at(rung, [each for each in healthy if reached[each.number] >= rung], num_objectives)
        for rung in rungs
    }
    level = max((rung for rung in rungs if len(tables[rung]) >= enough), default=rungs[0])
    found = dict(tables[level])
    for rung in rungs[: rungs.index(level)]:
        stopped = [number for number in tables[rung] if reached[number] == rung]
        if stopped:
            found |= _estimates(tables[rung], tables[level], stopped)
    worst = tuple(np.array(list(found.values())).min(axis=0).tolist()) if found else (0.0,) * num_objectives
    rated = [each.number for each in known if each.has_failed or reached.get(each.number)]
    return {number: found.get(number, worst) for number in rated}


def check_random_share(share: float) -> None:
    """Raise if a number is no share of random draws.

    Raises:
        ConfigError: It is below 0 or above 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"random_share {share}: must be from 0 to 1. Leave it out, or write 0 for none.")


def _rung_reached(each: Observation, rungs: Sequence[int]) -> int:
    """Return the epochs of the highest rung that a candidate has reached; 0: none.

    One that has ended at no rung ended by itself (early stopping): its results hold for all later epochs.
    """
    epochs = len(each.values)
    if not each.is_running and epochs not in rungs:
        return rungs[-1]
    return max((rung for rung in rungs if rung <= epochs), default=0)


def _results_at(epochs: int, candidates: Sequence[Observation], num_objectives: int) -> dict[int, Values]:
    """Return the values of each candidate at its best epoch up to a number.

    One without an epoch of finite values is left out.
    """
    found = {}
    for each in candidates:
        rows = (row[:num_objectives] for row in each.values[:epochs])
        finite = [row for row in rows if all(map(math.isfinite, row))]
        if finite:
            best = max(finite, key=itemgetter(each.leading))
            found[each.number] = tuple(max(-_LARGEST, min(value, _LARGEST)) for value in best)
    return found


def _estimates(at_rung: dict[int, Values], at_level: dict[int, Values], stopped: Sequence[int]) -> dict[int, Values]:
    """Return estimates for candidates that stopped at a rung, of their values at a higher one, per objective."""
    both = [number for number in at_level if number in at_rung]
    if len(both) < FEWEST_PAIRS:
        return {}
    everyone, later = np.array(list(at_rung.values())), np.array([at_level[number] for number in both])
    early, ended = np.array([at_rung[number] for number in both]), np.array([at_rung[number] for number in stopped])
    columns = []
    for place in range(everyone.shape[1]):
        levels = np.sort(later[:, place])
        shares = _shares(everyone[:, place], early[:, place])
        outcomes = _shares(levels, later[:, place])
        centred = shares - shares.mean()
        slope = max(0.0, float(centred @ outcomes) / max(float(centred @ centred), 1e-12))
        expected = outcomes.mean() + slope * (_shares(everyone[:, place], ended[:, place]) - shares.mean())
        # Below the worst that got there the scale continues, so that the order of the others remains.
        below = np.minimum(expected, 0.0) * (np.median(levels) - levels[0])
        columns.append(np.quantile(levels, expected.clip(0, 1)) + below)
    return dict(zip(stopped, map(tuple, np.array(columns).T.tolist()), strict=True))


def _shares(values: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of values that each of others is above; equal ones count half."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, of, "left") + np.searchsorted(ordered, of, "right")) / (2 * len(ordered))


class Untaken:
    """The candidates of a space that a study does not have yet.

    Candidates of another study (`search.warm_start`) are not taken: this one has to train them to choose them.

    Args:
        space: The space.
    """

    def __init__(self, space: "Space") -> None:
        self.space = space
        self._keys: dict[Drawn, str] = {}  # they follow from the choices: no memory that changes an answer

    def taken(self, observations: Sequence[Observation], running: Sequence[Drawn]) -> set[str]:
        """Return the keys of the candidates that need not be proposed again."""
        known = [each.drawn for each in observations if each.number >= 0 or each.is_refused]
        return {self._key(drawn) for drawn in (*known, *running)}

    def first(self, proposals: Iterable[Suggestion], taken: set[str], rng: np.random.Generator) -> Suggestion | None:
        """Return the first proposal that is not taken, else another candidate that is not.

        In a space that is a list, a proposal that is not in the list is replaced by the nearest candidate that is not
        taken, as does the first one if all are taken. Otherwise neighbours of the first proposal follow, then random
        draws, then all outcomes of a small space.

        Args:
            proposals: In the order of preference; at least one.
            taken: From `taken`.
            rng: Draws the others.

        Returns:
            None if all candidates of the space are taken. In a large space in which no other was found soon, the first
            proposal.
        """
        if not self.space.has_markers:  # candidates are repeats
            return next(iter(proposals))
        first: Suggestion | None = None
        for each in proposals:
            if self._listed and each.drawn not in self._listed:
                first = each
                break
            first = first or each
            if self._key(each.drawn) not in taken:
                return each
        assert first is not None, "there is a proposal"
        if self.space.listed is not None:
            nearest = self._nearest(first.drawn, taken)
            return None if nearest is None else Suggestion(nearest, first.origin)
        for each in self._others(first, rng):
            if self._key(each.drawn) not in taken:
                return each
        return None if self.space.distinct() <= _MOST_ENUMERATED else first

    @cached_property
    def _listed(self) -> frozenset[Drawn]:
        return frozenset(self.space.listed or ())

    def _others(self, first: Suggestion, rng: np.random.Generator) -> Iterator[Suggestion]:
        for drawn in islice(self.space.neighbours(first.drawn, rng), _MOST_NEIGHBOURS):
            yield Suggestion(drawn, first.origin)
        for _ in range(_MOST_RANDOM):
            yield Suggestion(self.space.at(lambda *_: rng.random()))
        if self.space.distinct() <= _MOST_ENUMERATED:
            grid, number = GridSampler(self.space), 0
            while (outcome := grid.suggest(number, (), (), rng)) is not None:
                yield Suggestion(outcome)
                number += 1

    def _key(self, drawn: Drawn) -> str:
        if drawn not in self._keys:
            self._keys[drawn] = self.space.key(drawn)
        return self._keys[drawn]

    def _nearest(self, drawn: Drawn, taken: set[str]) -> Drawn | None:
        """Return the nearest candidate of a list that is not taken; None if there is none."""
        listed = self.space.listed or ()
        distances = np.linalg.norm(self.space.listed_vectors[0] - self.space.vector(drawn)[0], axis=1)
        for place in map(int, np.argsort(distances, kind="stable")):
            if self._key(listed[place]) not in taken:
                return listed[place]
        return None
