"""Support vector regression of times on a few features of a cell.

Dimensions: N known cells, M cells to predict, F features.
"""

import warnings
from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import SearchError

Array = NDArray[np.float64]
_KERNELS: tuple[dict[str, Any], ...] = (
    {"kernel": "linear"}, {"kernel": "poly", "degree": 2, "coef0": 1.0}, {"kernel": "rbf"}
)  # fmt: skip
_PENALTIES, _TOLERANCE = (1.0, 10.0), 0.05
_MOST_FITTED = 150  # cells by which the kernel is chosen
_ITERATIONS = 20_000


class SupportVectors:
    """A support vector machine whose kernel and penalty have the least error on cells left out.

    Args:
        features: (N, F).
        values: (N,) of mean 0 and variance about 1.
        folds: (N,) number of the fold of each cell; at least two.
        rng: Chooses the cells by which the kernel is chosen, if there are many.

    Raises:
        SearchError: scikit-learn is not installed.
    """

    def __init__(self, features: Array, values: Array, folds: NDArray[np.intp], rng: np.random.Generator) -> None:
        require_scikit_learn()
        spread = features.std(axis=0)
        self._centre, self._scale = features.mean(axis=0), np.where(spread > 0, 1 / np.maximum(spread, 1e-12), 0.0)
        scaled, few = self._scaled(features), np.sort(rng.permutation(len(values))[:_MOST_FITTED])
        settings = [dict(kernel, C=penalty, epsilon=_TOLERANCE) for kernel, penalty in product(_KERNELS, _PENALTIES)]
        errors = [_error(scaled[few], values[few], folds[few], each) for each in settings]
        chosen = settings[int(np.argmin(errors))]
        self.held_out: Array = _left_out(scaled, values, folds, chosen)
        self._error = float(np.sqrt(np.mean((values - self.held_out) ** 2)))
        self._machine = _fitted(scaled, values, chosen)

    def _scaled(self, features: Array) -> Array:
        scaled: Array = (features - self._centre) * self._scale
        return scaled

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean and deviation (M,) of cells with features (M, F)."""
        mean: Array = self._machine.predict(self._scaled(features))
        return mean, np.full(len(mean), self._error)


def require_scikit_learn() -> None:
    """Raise if scikit-learn is not installed.

    Raises:
        SearchError: It is not.
    """
    if not is_installed():
        raise SearchError("svr: the package scikit-learn is not installed. Run: pip install scikit-learn")


def is_installed() -> bool:
    """Return whether scikit-learn can be imported."""
    return find_spec("sklearn") is not None


def _fitted(features: Array, values: Array, settings: dict[str, Any]) -> Any:
    from sklearn.svm import SVR

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the iterations did not converge: the error on cells left out judges it
        return SVR(max_iter=_ITERATIONS, tol=0.01, **settings).fit(features, values)


def _left_out(features: Array, values: Array, folds: NDArray[np.intp], settings: dict[str, Any]) -> Array:
    """Return the values (N,) of each fold, predicted without it."""
    found = np.zeros(len(values))
    for fold in np.unique(folds):
        rows = folds == fold
        found[rows] = _fitted(features[~rows], values[~rows], settings).predict(features[rows])
    return found


def _error(features: Array, values: Array, folds: NDArray[np.intp], settings: dict[str, Any]) -> float:
    return float(np.mean((_left_out(features, values, folds, settings) - values) ** 2))
