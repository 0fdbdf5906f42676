"""A model of the learning curves of a study: features, thinned curves, and a Gaussian process per objective."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.samplers.base import Observation, PredictedValue
from search.samplers.learning.gaussian_process import Array, CurveProcess, Points
from search.samplers.learning.warping import Warping
from search.schedulers.ranking import spearman
from search.space.drawn import Drawn

if TYPE_CHECKING:
    from search.space.space import Space

_MOST_FITTED = 150  # points by which the parameters of a process are chosen
_MOST_POINTS = 1500  # points that predictions follow from
_FEWEST_PAIRS, _LEAST_CORRELATION = 5, 0.6  # of two rungs, see `thinned`
_LAST_EPOCH = 2.0  # place of the last epoch on the scale of time; the first is at 0
_UPPER = 0.8416  # standard deviations above which a value is with a probability of 20 %
_SAMPLES = 16  # of several objectives, for the expected improvement


class Features:
    """The vectors of a space as features whose squared distances tell how different candidates are.

    In each marker, two numbers are as far from each other as they are on its scale, two branches at distance 1. The
    squared distance of candidates of which one has the marker and the other has not is 0.25 to 0.5 for a number, and
    0.5 for a choice. So they are points of a Euclidean space, as those of Hutter and Osborne (2013,
    https://arxiv.org/abs/1310.5738) are.

    Args:
        space: The space.

    Attributes:
        groups: (F,) integer, the number of the JSON path that each feature belongs to.
        paths: The JSON paths.
    """

    def __init__(self, space: "Space") -> None:
        self._space = space
        self._is_branch = np.array([each.branch is not None for each in space.dimensions], dtype=bool)
        self.paths = list(dict.fromkeys(each.site.path for each in space.dimensions))
        groups = np.array([self.paths.index(each.site.path) for each in space.dimensions], dtype=np.intp)
        # A number has a second feature: whether a candidate has it.
        self.groups = np.concatenate([groups, groups[~self._is_branch]])

    def of(self, drawn: Sequence[Drawn]) -> Array:
        """Return the features (N, F) of candidates."""
        vectors = [self._space.vector(each) for each in drawn]
        return self.transformed(np.array([point for point, _ in vectors]), np.array([mask for _, mask in vectors]))

    def transformed(self, points: Array, is_inactive: NDArray[np.bool_]) -> Array:
        """Return the features (N, F) of vectors (N, D)."""
        numbers, absent = points[:, ~self._is_branch], is_inactive[:, ~self._is_branch]
        main = points.copy()
        main[:, self._is_branch] *= math.sqrt(0.5)
        main[:, ~self._is_branch] = np.where(absent, 0.5, numbers)
        return np.concatenate([main, np.where(absent, 0.0, 0.5)], axis=1)


@dataclass(frozen=True)
class Curves:
    """The points of learning curves.

    Attributes:
        drawn: Choices of each candidate.
        candidate: (N,) integer, the place of the candidate of each point in `drawn`.
        epoch: (N,) number of the epoch.
        values: (N, K) the objectives at the best epoch so far; minus infinity if the candidate failed.
        leading: Place of the objective that says which epoch is the best.
    """

    drawn: list[Drawn]
    candidate: NDArray[np.intp]
    epoch: NDArray[np.intp]
    values: Array
    leading: int = 0


def thinned(observations: Sequence[Observation], fidelities: Sequence[int], num_objectives: int) -> Curves:
    """Return the epochs of learning curves that a model needs: those of the rungs, and the last one.

    A rung that a candidate has passed is left out if it says nothing: if the rank correlation with the next rung, of at
    least five candidates that reached both, is below 0.6. So first epochs that are mere chance disturb less. A failed
    candidate has one more point, the epoch after its last one. Epochs beyond those of a full training, which another
    study may have, are left out. Above 1,500 points, those that are not the last of their
    candidate are left out, the worst first; then the worst last ones.

    Args:
        observations: Those of candidates that were not refused.
        fidelities: Epochs of the rungs, ascending.
        num_objectives: K.
    """
    worst, last = (-math.inf,) * num_objectives, fidelities[-1] if fidelities else None
    curves = [_best_so_far(each, num_objectives)[:last] for each in observations]
    leading = observations[0].leading if observations else 0
    rungs = _telling([[row[leading] for row in curve] for curve in curves], fidelities)
    rows: list[tuple[int, int, bool, tuple[float, ...]]] = []
    for place, (each, curve) in enumerate(zip(observations, curves, strict=True)):
        rows += [(place, epoch, False, curve[epoch - 1]) for epoch in rungs if epoch < len(curve)]
        fails_at_end = each.has_failed and len(curve) == last
        if curve and not fails_at_end:
            rows.append((place, len(curve), not each.has_failed, curve[-1]))
        if each.has_failed:
            rows.append((place, len(curve) + (not fails_at_end), True, worst))
    if len(rows) > _MOST_POINTS:
        rows.sort(key=lambda row: (row[2], row[3][leading]), reverse=True)
        rows = sorted(rows[:_MOST_POINTS])
    return Curves(
        [each.drawn for each in observations],
        np.array([row[0] for row in rows], dtype=np.intp),
        np.array([row[1] for row in rows], dtype=np.intp),
        np.array([row[3] for row in rows], dtype=float).reshape(len(rows), num_objectives),
        leading,
    )


def _best_so_far(each: Observation, num_objectives: int) -> list[tuple[float, ...]]:
    """Return the objectives after each epoch at the best epoch until then; minus infinity before the first one."""
    best, curve = (-math.inf,) * num_objectives, []
    for row in each.values:
        if row[each.leading] > best[each.leading] and all(map(math.isfinite, row)):  # false for NaN
            best = row[:num_objectives]
        curve.append(best)
    return curve


def _telling(curves: Sequence[Sequence[float]], fidelities: Sequence[int]) -> list[int]:
    """Return the rungs whose results say something of the next one, by one objective of each curve."""
    telling = []
    for rung, following in pairwise(fidelities):
        both = np.array([(curve[rung - 1], curve[following - 1]) for curve in curves if len(curve) >= following])
        is_known = len(both) >= _FEWEST_PAIRS
        if not is_known or not spearman(both[:, 0], both[:, 1]) < _LEAST_CORRELATION:
            telling.append(rung)
    return [*telling, *fidelities[-1:]]


class CurveModel:
    """The processes of all objectives, fitted to the results of a study.

    Args:
        features: Of the space.
        curves: At least two points.
        last_epoch: Epochs of a full training; 0: the largest that was seen.
        rng: Chooses the points by which parameters are fitted, and the weights of the objectives.
    """

    def __init__(self, features: Features, curves: Curves, last_epoch: int, rng: np.random.Generator) -> None:
        self.features, self.curves, self._leading = features, curves, curves.leading
        last = max(last_epoch, int(curves.epoch.max()))
        time = (
            np.log(curves.epoch) / math.log(last) * _LAST_EPOCH if last > 1 else np.full(len(curves.epoch), _LAST_EPOCH)
        )
        self.settings = features.of(curves.drawn)
        points = Points(self.settings[curves.candidate], time, curves.candidate)
        fitted = rng.permutation(len(points))[:_MOST_FITTED]
        self.warpings = [Warping(column) for column in curves.values.T]
        self.processes = [CurveProcess(features.groups) for _ in self.warpings]
        for process, warping in zip(self.processes, self.warpings, strict=True):
            process.fit(points[fitted], warping.normal[fitted])
            process.condition(points, warping.normal)
        self.weights = np.abs(rng.standard_normal(len(self.processes))) if len(self.processes) > 1 else np.ones(1)
        self.weights /= np.linalg.norm(self.weights)

    def imagine(self, running: Sequence[Drawn]) -> None:
        """Add the expected values of candidates without results."""
        if running:
            for process in self.processes:
                process.imagine(self._at_end(self.features.of(running)))

    def _at_end(self, settings: Array, candidate: NDArray[np.intp] | None = None) -> Points:
        """Return the points of a full training."""
        count = len(settings)
        known = np.full(count, -1, dtype=np.intp) if candidate is None else candidate
        return Points(settings, np.full(count, _LAST_EPOCH), known)

    def expected(self, settings: Array, candidate: NDArray[np.intp] | None = None) -> Array:
        """Return the expected value (N,) of settings (N, F) after a full training, several objectives in one."""
        means: list[Array] = [process.mean(self._at_end(settings, candidate)) for process in self.processes]
        return means[0] if len(means) == 1 else self._scalarised(np.array(means))

    def best(self, count: int) -> list[Drawn]:
        """Return the candidates with results of which most is expected."""
        expected = self.expected(self.settings, np.arange(len(self.settings)))
        return [self.curves.drawn[place] for place in np.argsort(-expected, kind="stable")[:count].tolist()]

    def merit(self, settings: Array, rng: np.random.Generator) -> Array:
        """Return how much each of some settings (N, F) promises, (N,): an improvement, or a possible value."""
        predicted = [process.predict(self._at_end(settings)) for process in self.processes]
        means, deviations = np.array([mean for mean, _ in predicted]), np.array([each for _, each in predicted])
        is_sampled = rng.random() < 0.5  # Thompson
        if is_sampled and len(predicted) == 1:
            sample: Array = means[0] + deviations[0] * rng.standard_normal(len(settings))
            return sample
        incumbent = self.expected(self.settings, np.arange(len(self.settings))).max()
        if len(predicted) > 1:
            samples = means + deviations * rng.standard_normal((1 if is_sampled else _SAMPLES, *means.shape))
            values = np.array([self._scalarised(each) for each in samples])
            promises: Array = values.mean(axis=0)
            # Where no sample is an improvement, the mean decides.
            return promises if is_sampled else np.maximum(values - incumbent, 0).mean(axis=0) + 1e-9 * promises
        from scipy.special import ndtr

        excess = (means[0] - incumbent) / deviations[0]
        density = np.exp(-0.5 * excess**2) / math.sqrt(2 * math.pi)
        improvement: Array = deviations[0] * (excess * ndtr(excess) + density)
        return improvement

    def _scalarised(self, normal: Array) -> Array:
        """Return one number for several objectives (K, N), whose expected largest one is the hypervolume.

        The reference point is the worst value of each objective, the unit its range. As long as no candidate keeps the
        constraints, it is the mean on the scale of the ranks: how little they are violated.
        """
        if any(math.isnan(end) for warping in self.warpings for end in warping.ends):
            mean: Array = normal.mean(axis=0)
            return mean
        shares = []
        for row, warping in zip(normal, self.warpings, strict=True):
            low, high = warping.ends
            shares.append((warping.inverse(row) - low) / (high - low if high > low else 1.0))
        scaled = np.array(shares) / self.weights[:, None]
        lowest: Array = scaled.min(axis=0)
        return np.where(lowest > 0, np.abs(lowest) ** len(shares), lowest)

    def predictions(self, observations: Sequence[Observation]) -> dict[int, PredictedValue]:
        """Return predictions for the candidates that run and have a result, by their numbers.

        A result is that of the best epoch, so that none falls below the present one. There the interval begins: many
        candidates improve no more, and of these the model has no examples, as they were not continued.

        Args:
            observations: Those that the curves are of.
        """
        leading, present = self._leading, {}
        for place, each in enumerate(observations):
            curve = _best_so_far(each, leading + 1) if each.is_running else []
            if curve and math.isfinite(curve[-1][leading]):
                present[place] = curve[-1][leading]
        if not present:
            return {}
        places = np.array([*present], dtype=np.intp)
        mean, deviation = self.processes[leading].predict(self._at_end(self.settings[places], places))
        deviation = np.sqrt(deviation**2 + self.processes[leading].noise)
        expected, high = self.warpings[leading].inverse(np.stack([mean, mean + _UPPER * deviation]))
        rows = zip(places.tolist(), expected.tolist(), high.tolist(), strict=True)
        return {
            observations[place].number: PredictedValue(max(expected, low), low, max(high, low))
            for (place, expected, high), low in zip(rows, present.values(), strict=True)
        }

    def importances(self, settings: Array) -> dict[str, float]:
        """Return the first-order share of each marker in the variance of the leading objective, by JSON path.

        The estimator of Jansen with two sets of candidates, one of which takes the marker from the other (Saltelli et
        al., 2010, https://doi.org/10.1016/j.cpc.2009.09.018, table 2 c): exact if all depends on one marker.

        Args:
            settings: (2 N, F) features of random candidates.
        """
        half = len(settings) // 2
        first, second = settings[:half], settings[half : 2 * half]
        process = self.processes[self._leading]
        at_first, at_second = (process.mean(self._at_end(each)) for each in (first, second))
        variance = float(np.concatenate([at_first, at_second]).var())
        shares = {}
        for number, path in enumerate(self.features.paths):
            mixed = np.where(self.features.groups == number, second, first)
            rest = float(((at_second - process.mean(self._at_end(mixed))) ** 2).mean()) / 2  # of the other markers
            shares[path] = min(1.0, max(0.0, 1 - rest / variance)) if variance > 1e-12 else 0.0
        total = max(1.0, sum(shares.values()))  # estimates of shares can be more than all
        return {path: share / total for path, share in shares.items()}
