"""A Gaussian process over the subtrees of cells, which predicts scores from few trainings.

Dimensions: N known cells, M cells to predict, L levels of subtrees.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.worker.predictors.learners.graphs import CellGraphs
from search.worker.predictors.learners.subtrees import Counts, SubtreeVocabulary

Array = NDArray[np.float64]
_MOST_FITTED = 200  # cells by which the parameters are chosen: the time is cubic in their number
_STEPS = 40  # of L-BFGS
_JITTER = 1e-5
_VARIANCE, _TREND, _NOISE = math.log(1.0), math.log(0.3), math.log(0.05)
_WIDENING = (1.0, 3.0)  # bounds of the factor of deviations
_DEVIATION = 1.5  # of the prior of each logarithm


class SubtreeProcess:
    """A Gaussian process whose covariance is one of cells that share subtrees, plus a trend in the label counts.

    cov = variance * k(r) + trend * <c, c'> + noise, with a Matern 5/2 kernel k of the distance r of the numbers of
    subtrees, in which each level has its weight, and c the standardized label counts. The trend continues where cells
    are larger than all known ones. Parameters maximise likelihood times prior, as in Ru et al., 2021,
    https://arxiv.org/abs/2006.07556 (there a linear kernel of subtrees).

    Args:
        graphs: N cells.
        values: (N,) of mean 0 and variance about 1.
        folds: (N,) number of the fold of each cell.
        rng: Chooses cells by which the parameters are fitted, if there are many.

    Attributes:
        held_out: (N,) the prediction of each cell without the values of its fold.
    """

    def __init__(self, graphs: CellGraphs, values: Array, folds: NDArray[np.intp], rng: np.random.Generator) -> None:
        self._vocabulary = SubtreeVocabulary(graphs)
        self._known = self._vocabulary.count(graphs)
        labels = graphs.label_counts
        spread = labels.std(axis=0)
        self._centre = labels.mean(axis=0)
        self._scale = np.where(spread > 0, 1 / np.maximum(spread, 1e-12), 0.0) / math.sqrt(max(1, (spread > 0).sum()))
        self._trend = self._trend_features(graphs)
        self._unit = np.ones(self._known.unknown.shape[1])
        self._unit = np.array([_typical(self._distances(level)) for level in range(len(self._unit))])
        count = len(self._unit)
        self._parameters = torch.cat(
            [torch.full((count,), -math.log(count) - 0.5), torch.tensor([_VARIANCE, _TREND, _NOISE])]
        ).double()
        chosen = np.sort(rng.permutation(len(values))[:_MOST_FITTED])
        self._fit(chosen, torch.from_numpy(values[chosen]))
        self._condition(torch.from_numpy(values))
        self.held_out, deviations = self._without_folds(folds)
        # The parameters are those of few cells: errors that are larger than expected widen all deviations.
        self._widening = float(np.clip(np.sqrt(np.mean(((values - self.held_out) / deviations) ** 2)), *_WIDENING))

    def _trend_features(self, graphs: CellGraphs) -> Tensor:
        return torch.from_numpy((graphs.label_counts - self._centre) * self._scale)

    def _distances(self, level: int) -> Array:
        """Return the squared distances (N, N) of the known cells at a level. They are whole numbers, so exact."""
        counts = self._known.known[:, np.flatnonzero(self._vocabulary.levels == level)]
        product: Array = (counts @ counts.T).toarray()
        squares = np.diag(product)
        return squares[:, None] + squares - 2 * product

    def _fit(self, chosen: NDArray[np.intp], values: Tensor) -> None:
        """Choose the parameters by some of the known cells."""
        levels = range(len(self._unit))
        pairs = [self._distances(level)[np.ix_(chosen, chosen)] / self._unit[level] for level in levels]
        distances, trend = torch.from_numpy(np.stack(pairs)), self._trend[chosen] @ self._trend[chosen].T
        modes, parameters = self._parameters, self._parameters.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([parameters], max_iter=_STEPS, line_search_fn="strong_wolfe")
        count = len(self._unit)

        def loss() -> Tensor:
            optimizer.zero_grad()
            squared = (torch.exp(parameters[:count])[:, None, None] * distances).sum(dim=0)
            covariance = _covariance(parameters[count:], squared, trend)
            lower, info = torch.linalg.cholesky_ex(covariance + _noise(parameters) * torch.eye(len(values)))
            if info:
                return torch.full((), 1e10, dtype=torch.float64, requires_grad=True)
            weights = torch.cholesky_solve(values[:, None], lower)[:, 0]
            prior = 0.5 * (((parameters - modes) / _DEVIATION) ** 2).sum()
            total = 0.5 * values @ weights + torch.log(torch.diag(lower)).sum() + prior
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        if torch.isfinite(parameters).all():
            self._parameters = parameters.detach()

    def _condition(self, values: Tensor) -> None:
        """Note all known cells."""
        count = len(self._unit)
        self._weights = torch.exp(self._parameters[:count]).numpy() / self._unit
        squared = sum(self._weights[level] * self._distances(level) for level in range(count))
        covariance = _covariance(self._parameters[count:], torch.from_numpy(squared), self._trend @ self._trend.T)
        covariance += _noise(self._parameters) * torch.eye(len(values))
        self._lower = torch.linalg.cholesky(covariance)
        self._answer = torch.cholesky_solve(values[:, None], self._lower)[:, 0]
        self._unlower = torch.linalg.solve_triangular(
            self._lower, torch.eye(len(values)).double(), upper=False
        ).T.float()
        self._values = values
        weights = self._weights[self._vocabulary.levels]
        self._scaled_known = (-2 * weights[:, None] * self._known.known.T.toarray()).astype(np.float32)
        self._of_known = (self._known.known.power(2) @ weights).astype(np.float32)

    def _without_folds(self, folds: NDArray[np.intp]) -> tuple[Array, Array]:
        """Return mean and deviation (N,) of each known cell, predicted without the values of its fold.

        Follows from the inverse of the covariance (Rasmussen and Williams, 2006, section 5.4.2, for several at once).
        """
        inverse = torch.cholesky_inverse(self._lower)
        means, variances = torch.empty(len(folds), dtype=torch.float64), torch.empty(len(folds), dtype=torch.float64)
        for fold in np.unique(folds):
            rows = torch.from_numpy(np.flatnonzero(folds == fold))
            covariance = torch.linalg.inv(inverse[rows][:, rows])
            means[rows] = self._values[rows] - covariance @ self._answer[rows]
            variances[rows] = torch.diag(covariance)
        return means.numpy(), variances.clamp_min(1e-12).sqrt().numpy()

    def predict(self, graphs: CellGraphs) -> tuple[Array, Array]:
        """Return mean and deviation (M,) of the values that trainings of cells would have."""
        count = len(self._unit)
        squared = torch.from_numpy(self._squared_distances(self._vocabulary.count(graphs)))
        trend = self._trend_features(graphs).float()
        covariance = _covariance(self._parameters[count:].float(), squared, trend @ self._trend.T.float())
        explained = covariance @ self._unlower
        prior = torch.exp(self._parameters[count]) + torch.exp(self._parameters[count + 1]) * (trend**2).sum(dim=1)
        variance = prior + _noise(self._parameters) - (explained**2).sum(dim=1)
        deviation: Array = variance.double().clamp_min(1e-12).sqrt().numpy()
        mean: Array = (covariance @ self._answer.float()).double().numpy()
        return mean, self._widening * deviation

    def _squared_distances(self, counts: Counts) -> NDArray[np.float32]:
        """Return the weighted squared distances (M, N) of cells from the known ones.

        Single precision is enough for distances of whole numbers, and halves the time of a large expansion.
        """
        weights = self._weights[self._vocabulary.levels]
        of_cells = counts.known.power(2) @ weights + counts.unknown @ self._weights
        distances = counts.known.astype(np.float32) @ self._scaled_known
        distances += of_cells.astype(np.float32)[:, None]
        distances += self._of_known
        nearest: NDArray[np.float32] = np.maximum(distances, 0.0, out=distances)
        return nearest


def _typical(distances: Array) -> float:
    """Return the median of the distances that are not zero; 1 if all are."""
    apart = distances[distances > 0]
    return float(np.median(apart)) if len(apart) else 1.0


def _noise(parameters: Tensor) -> Tensor:
    return torch.exp(parameters[-1]) + _JITTER


def _covariance(parameters: Tensor, squared: Tensor, trend: Tensor) -> Tensor:
    """Return the covariance without noise, by the logarithms of variance and trend."""
    distance = math.sqrt(5.0) * torch.sqrt(squared + 1e-12)
    matern = (1 + distance + distance**2 / 3) * torch.exp(-distance)
    return torch.exp(parameters[0]) * matern + torch.exp(parameters[1]) * trend
