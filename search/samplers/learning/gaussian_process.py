"""A Gaussian process over settings and epochs, which predicts learning curves from all others."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_ROOT_5 = math.sqrt(5.0)
_JITTER = 1e-6
_TREND_SCALE = 1.0  # of the mean curve, in the units of time: it is smooth
_OTHERS = ("settings", "interaction", "trend", "candidate", "noise", "time_scale")
# Mode, standard deviation and bounds of the prior of the logarithm of each, for values of mean 0 and variance 1.
_MODES = np.log([0.5, 0.4, 0.5, 0.05, 0.01, 0.4])
_DEVIATIONS = np.array([1.0, 1.0, 1.0, 1.0, 1.5, 0.7])
_BOUNDS = [(-8.0, 3.0), (-8.0, 3.0), (-8.0, 3.0), (-8.0, 2.0), (-9.0, 1.0), (-3.0, 1.5)]
_LENGTH_BOUNDS = (-4.0, 4.0)


@dataclass(frozen=True)
class Points:
    """Places at which values are known, or asked for.

    Attributes:
        settings: (N, F) features of the settings, see `Features`.
        time: (N,) place of the epoch on its scale.
        candidate: (N,) integer, the candidate whose curve each belongs to; -1 for one without values.
    """

    settings: Array
    time: Array
    candidate: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, chosen: NDArray[np.intp]) -> "Points":
        return Points(self.settings[chosen], self.time[chosen], self.candidate[chosen])

    def __add__(self, other: "Points") -> "Points":
        return Points(
            np.concatenate([self.settings, other.settings]),
            np.concatenate([self.time, other.time]),
            np.concatenate([self.candidate, other.candidate]),
        )


class CurveProcess:
    """A Gaussian process whose covariance joins settings x and the logarithm of the epoch t.

    cov = settings * k(x, x') + interaction * k(x, x') * k(t, t') + trend * k(t, t') + candidate * [same] * k(t, t')
    + noise, as in Swersky et al., 2014 (https://arxiv.org/abs/1406.3896), section 3, with a Matern 5/2 kernel with a
    length scale per marker for settings, and a squared exponential for time. If early epochs say nothing of late ones,
    the time scale becomes short and `settings` small. `candidate` is the difference of a curve from those of similar
    settings.

    The length scales, variances, noise and time scale maximise the marginal likelihood times a prior that grows with
    the root of the number of markers (Hvarfner et al., 2024, https://arxiv.org/abs/2402.02229).

    Args:
        groups: (F,) integer, the marker that each feature belongs to, from 0.
    """

    def __init__(self, groups: NDArray[np.intp]) -> None:
        self._groups = groups
        self._num_markers = int(groups.max()) + 1 if len(groups) else 0
        length = math.log(0.5) + 0.5 * math.log(max(self._num_markers, 1) / 4)
        self._modes = np.concatenate([np.full(self._num_markers, length), _MODES])
        self._deviations = np.concatenate([np.full(self._num_markers, 1.0), _DEVIATIONS])
        self._parameters = self._modes

    def fit(self, points: Points, values: Array, steps: int = 15) -> None:
        """Choose the parameters by values of mean 0 and variance 1.

        Args:
            points: N places; the time is cubic in N, so that a few hundred are a good choice.
            values: (N,) values.
            steps: Iterations of L-BFGS.
        """
        from scipy.optimize import minimize  # scipy is imported when there is something to learn

        pairs = _Pairs(points, self._groups, self._num_markers)
        found = minimize(
            lambda parameters: self._loss(parameters, pairs, values),
            self._modes,
            jac=True,
            method="L-BFGS-B",
            bounds=[_LENGTH_BOUNDS] * self._num_markers + _BOUNDS,
            options={"maxiter": steps, "maxfun": steps + 8},
        )
        self._parameters = found.x

    def _loss(self, parameters: Array, pairs: "_Pairs", values: Array) -> tuple[float, Array]:
        """Return the negative logarithm of likelihood times prior, and its gradient (Rasmussen, 2006, eq. 5.9)."""
        from scipy.linalg import lapack

        count = self._num_markers
        lengths = np.exp(parameters[:count])
        settings, interaction, trend, candidate, noise, time_scale = np.exp(parameters[count:])
        near, slope = _matern(np.sqrt((1 / lengths**2) @ pairs.settings).reshape(pairs.time.shape))
        in_time = np.exp(-0.5 * pairs.time / time_scale**2)
        by_settings, by_both = settings * near, interaction * near * in_time
        by_time, by_candidate = trend * pairs.trend, candidate * pairs.same * in_time
        covariance = by_settings + by_both + by_time + by_candidate
        covariance[np.diag_indices(len(values))] += noise + _JITTER
        lower, info = lapack.dpotrf(covariance, lower=1, clean=1)
        if info:
            return 1e10, np.zeros_like(parameters)
        inverse, _ = lapack.dpotri(lower, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        weights = inverse @ values
        deviation = (parameters - self._modes) / self._deviations
        loss = 0.5 * values @ weights + np.log(np.diag(lower)).sum() + 0.5 * deviation @ deviation
        outer = 0.5 * (inverse - np.outer(weights, weights))  # derivative by the covariance
        gradient = np.empty_like(parameters)
        gradient[:count] = pairs.settings @ (outer * slope * (settings + interaction * in_time)).ravel() / lengths**2
        gradient[count:] = [
            (outer * by_settings).sum(),
            (outer * by_both).sum(),
            (outer * by_time).sum(),
            (outer * by_candidate).sum(),
            noise * np.trace(outer),
            (outer * (by_both + by_candidate) * pairs.time).sum() / time_scale**2,
        ]
        return float(loss), gradient + deviation / self._deviations

    def condition(self, points: Points, values: Array) -> None:
        """Note the values of places, by which `predict` predicts."""
        from scipy.linalg import cho_solve

        covariance = self._covariance(points, points)
        covariance[np.diag_indices(len(values))] += self.noise + _JITTER
        self._points, self._values = points, values
        self._lower = np.linalg.cholesky(covariance)
        self._weights = cho_solve((self._lower, True), values)

    @property
    def noise(self) -> float:
        """Variance of a value around its curve."""
        return float(np.exp(self._parameters[self._num_markers + _OTHERS.index("noise")]))

    def imagine(self, points: Points) -> None:
        """Note the expected values of places as if they were known (kriging believer, Ginsbourger et al., 2010)."""
        if len(points):
            self.condition(self._points + points, np.concatenate([self._values, self.mean(points)]))

    def mean(self, points: Points) -> Array:
        """Return the expected value at places, (N,)."""
        expected: Array = self._covariance(points, self._points) @ self._weights
        return expected

    def predict(self, points: Points) -> tuple[Array, Array]:
        """Return the expected value at places and its standard deviation without noise, both (N,)."""
        from scipy.linalg import solve_triangular

        covariance = self._covariance(points, self._points)
        explained = solve_triangular(self._lower, covariance.T, lower=True)
        prior = np.exp(self._parameters[self._num_markers : self._num_markers + 4]).sum()
        return covariance @ self._weights, np.sqrt(np.maximum(prior - (explained**2).sum(axis=0), 1e-9))

    def _covariance(self, first: Points, second: Points) -> Array:
        lengths = np.exp(self._parameters[: self._num_markers])[self._groups]
        settings, interaction, trend, candidate, _, time_scale = np.exp(self._parameters[self._num_markers :])
        near, _ = _matern(np.sqrt(_squared_distances(first.settings / lengths, second.settings / lengths)))
        squared = (first.time[:, None] - second.time) ** 2
        in_time = np.exp(-0.5 * squared / time_scale**2)
        is_same = (first.candidate[:, None] == second.candidate) & (second.candidate >= 0)
        covariance: Array = near * (settings + interaction * in_time) + candidate * is_same * in_time
        covariance += trend * np.exp(-0.5 * squared / _TREND_SCALE**2)
        return covariance


class _Pairs:
    """Distances between each two points, from which their covariance is computed.

    Attributes:
        settings: (M, N * N) squared distance in each marker.
        time: (N, N) squared distance in time.
        same: (N, N) 1 for two points of one candidate.
        trend: (N, N) covariance of the mean curve.
    """

    def __init__(self, points: Points, groups: NDArray[np.intp], num_markers: int) -> None:
        count = len(points)
        squared = (points.settings.T[:, :, None] - points.settings.T[:, None, :]) ** 2
        self.settings = np.zeros((num_markers, count * count))
        np.add.at(self.settings, groups, squared.reshape(len(groups), count * count))
        self.time = (points.time[:, None] - points.time) ** 2
        self.same = (points.candidate[:, None] == points.candidate).astype(float)

    @cached_property
    def trend(self) -> Array:
        """The covariance of the mean curve."""
        covariance: Array = np.exp(-0.5 * self.time / _TREND_SCALE**2)
        return covariance


def _matern(distance: Array) -> tuple[Array, Array]:
    """Return the Matern 5/2 kernel, and its derivative by log(length) over the squared distance in units of it."""
    decay = np.exp(-_ROOT_5 * distance)
    return (1 + _ROOT_5 * distance + 5 / 3 * distance**2) * decay, 5 / 3 * (1 + _ROOT_5 * distance) * decay


def _squared_distances(first: Array, second: Array) -> Array:
    """Return the squared Euclidean distances (N, M) of rows (N, F) and (M, F)."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    distances: Array = np.maximum(squares, 0.0)
    return distances
