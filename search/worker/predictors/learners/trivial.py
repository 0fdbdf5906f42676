"""Predictors that know almost nothing: the measure that others have to beat.

Dimensions: N known cells, M cells to predict.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from search.worker.predictors.learners.graphs import CellGraphs

Array = NDArray[np.float64]
_PENALTY = 1.0  # of the squared coefficients of standardized counts


class ParentMeans:
    """The mean value of the cells from which a cell grows; 0, the mean of all, if none of them is known.

    Args:
        values: (N,) of mean 0.
        parents: (N,) mean value of the parents of each cell; NaN if none is known.
    """

    def __init__(self, values: Array, parents: Array) -> None:
        self.held_out: Array = np.nan_to_num(parents)
        self._error = _root_mean_square(values - self.held_out)

    def predict(self, parents: Array) -> tuple[Array, Array]:
        """Return mean and deviation (M,) of cells by the mean values (M,) of their parents."""
        return np.nan_to_num(parents), np.full(len(parents), self._error)


class OperationCounts:
    """A ridge regression on how often a cell has each operation, input and join.

    Args:
        graphs: N cells.
        values: (N,) of mean 0.
        folds: (N,) number of the fold of each cell.
    """

    def __init__(self, graphs: CellGraphs, values: Array, folds: NDArray[np.intp]) -> None:
        counts = graphs.label_counts
        spread = counts.std(axis=0)
        self._centre, self._scale = counts.mean(axis=0), np.where(spread > 0, 1 / np.maximum(spread, 1e-12), 0.0)
        features, targets = self._features(graphs), torch.from_numpy(values)
        self.held_out: Array = np.zeros(len(values))
        for fold in np.unique(folds) if len(np.unique(folds)) > 1 else ():
            rows = torch.from_numpy(folds != fold)
            answer = _ridge(features[rows], targets[rows])
            self.held_out[folds == fold] = (features[~rows] @ answer[:-1] + answer[-1]).numpy()
        self._answer = _ridge(features, targets)
        self._error = _root_mean_square(values - self.held_out)

    def _features(self, graphs: CellGraphs) -> torch.Tensor:
        return torch.from_numpy((graphs.label_counts - self._centre) * self._scale)

    def predict(self, graphs: CellGraphs) -> tuple[Array, Array]:
        """Return mean and deviation (M,) of cells."""
        mean: Array = (self._features(graphs) @ self._answer[:-1] + self._answer[-1]).numpy()
        return mean, np.full(len(mean), self._error)


def _ridge(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the coefficients and, last, the intercept."""
    mean = targets.mean()
    centre = features.mean(dim=0)
    centred = features - centre
    normal = centred.T @ centred + _PENALTY * torch.eye(features.shape[1], dtype=features.dtype)
    coefficients = torch.linalg.solve(normal, centred.T @ (targets - mean))
    return torch.cat([coefficients, (mean - centre @ coefficients)[None]])


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else 0.0
