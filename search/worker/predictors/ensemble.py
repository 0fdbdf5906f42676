"""The predictor of one objective: those that can learn, compared with the trivial ones, and the best of them in use.

Dimensions: N known cells, M cells to predict.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.schedulers.ranking import spearman
from search.worker.predictors.encoding import EncodedCells
from search.worker.predictors.learners.network import EnsembleOptions, GraphEnsemble
from search.worker.predictors.learners.process import SubtreeProcess
from search.worker.predictors.learners.support import SupportVectors
from search.worker.predictors.learners.trivial import OperationCounts, ParentMeans
from utils.seeding import derive_seed

Array = NDArray[np.float64]
GRAPH, FEATURES, SUPPORT = "graph", "features", "svr"
PARENTS, OPERATIONS = "parents", "operations"
_FEWEST = {GRAPH: 15, FEATURES: 5, SUPPORT: 8}
_FEWEST_COMPARED = 5  # cells for a rank correlation that decides


@dataclass(frozen=True)
class Known:
    """The data from which the predictor of one objective learns.

    Attributes:
        cells: N cells.
        values: (N,) on the scale on which they are learned.
        parents: (N,) mean value of the parents of each, NaN if none is known.
    """

    cells: EncodedCells
    values: Array
    parents: Array


class ObjectivePredictor:
    """The predictor of one objective.

    Of each that can learn, the values of each fold are predicted without it. In use is the one whose rank correlation
    is the largest, or the mean of two if that is larger. It must be larger than that of the trivial ones, and larger
    than the standard error of chance; otherwise the better trivial one is in use.

    Args:
        known: The data from which it learns.
        names: Of the predictors that may be used: "graph", "features", "svr".
        switched_off: Of these, those that are not used, with the reason.
        network: How graph networks are trained.
        seed: Of everything random.

    Attributes:
        used: The names of the predictors in use.
        reason: Why these.
        correlations: Rank correlation of each on the folds that it has not seen; 0 if undefined.
    """

    def __init__(
        self,
        known: Known,
        names: Collection[str],
        switched_off: Mapping[str, str],
        network: EnsembleOptions,
        seed: int,
    ) -> None:
        count = len(known.values)
        self._values = known.values
        folds = np.random.default_rng(seed).permutation(count) % max(1, min(network.members, count))
        learned = [each for each in names if count >= _FEWEST[each] and np.ptp(known.values) > 0]
        self._fitted = _fit(known, learned, folds, network, seed)
        self.correlations = {name: self._correlation(each.held_out) for name, each in self._fitted.items()}
        self.used, self.reason = self._choose(names, learned, switched_off)

    def _correlation(self, predicted: Array) -> float:
        if len(predicted) < _FEWEST_COMPARED:
            return 0.0
        return rank_correlation(predicted, self._values)

    def _choose(
        self, names: Collection[str], learned: Sequence[str], switched_off: Mapping[str, str]
    ) -> tuple[tuple[str, ...], str]:
        trivial = max((PARENTS, OPERATIONS), key=lambda name: self.correlations[name])
        count = len(self._values)
        if not learned:
            return (trivial,), self._reason_for_none(names)
        active = [name for name in learned if name not in switched_off]
        if not active:
            return (trivial,), "; ".join(f"{name}: {switched_off[name]}" for name in learned)
        best: tuple[str, ...] = (max(active, key=lambda name: self.correlations[name]),)
        reached = self.correlations[best[0]]
        if len(active) > 1:
            pair = tuple(active[:2])
            joint = self._correlation(np.mean([self._fitted[name].held_out for name in pair], axis=0))
            if joint > reached:
                best, reached = pair, joint
        chance = 1 / math.sqrt(max(1, count - 1))
        least = max(self.correlations[trivial], chance)
        said = f"rank correlation {reached:.2f} on cells left out"
        if reached > least:
            return best, said
        if chance >= self.correlations[trivial]:
            return (trivial,), f"{' and '.join(best)}: {said}, which chance may reach ({chance:.2f})"
        return (trivial,), f"{' and '.join(best)}: {said}, {trivial} {self.correlations[trivial]:.2f}"

    def _reason_for_none(self, names: Collection[str]) -> str:
        """Return why none of the predictors that may be used has learned."""
        count = len(self._values)
        if not names:
            return "only trivial predictors are asked for"
        fewest = min(_FEWEST[each] for each in names)
        if count < fewest:
            return f"too few trained cells to learn from ({count}, {' and '.join(names)} from {fewest} on)"
        return f"all {count} trained cells have the same value"

    def predict(self, cells: EncodedCells, parents: Array) -> tuple[Array, Array]:
        """Return mean and deviation (M,) of cells, on the scale of the known values.

        Args:
            cells: M cells.
            parents: (M,) mean value of the parents of each, NaN if none is known.
        """
        found = [self.predict_by(name, cells, parents) for name in self.used]
        means, deviations = np.array([mean for mean, _ in found]), np.array([deviation for _, deviation in found])
        return means.mean(axis=0), np.sqrt((deviations**2).mean(axis=0))

    def predict_by(self, name: str, cells: EncodedCells, parents: Array) -> tuple[Array, Array]:
        """Return mean and deviation (M,) by one predictor, in use or not, see `predict`."""
        return self._fitted[name].predict(cells, parents)


@dataclass(frozen=True)
class _Fitted:
    """A fitted predictor: its predictions of each known cell without the cell's fold, (N,), and of others."""

    held_out: Array
    predict: Callable[[EncodedCells, Array], tuple[Array, Array]]


def _fit(
    known: Known, names: Collection[str], folds: NDArray[np.intp], network: EnsembleOptions, seed: int
) -> dict[str, _Fitted]:
    """Return the trivial predictors, and those with the given names."""
    graphs, values = known.cells.graphs, known.values
    network.on_progress()
    of_parents, of_operations = ParentMeans(values, known.parents), OperationCounts(graphs, values, folds)
    fitted = {
        PARENTS: _Fitted(of_parents.held_out, lambda _, parents: of_parents.predict(parents)),
        OPERATIONS: _Fitted(of_operations.held_out, lambda cells, _: of_operations.predict(cells.graphs)),
    }
    if GRAPH in names:
        ensemble = GraphEnsemble(graphs, values, folds, network, derive_seed(seed, GRAPH))
        fitted[GRAPH] = _Fitted(ensemble.held_out, lambda cells, _: ensemble.predict(cells.graphs))
    if FEATURES in names:
        network.on_progress()
        process = SubtreeProcess(graphs, values, folds, np.random.default_rng(derive_seed(seed, FEATURES)))
        fitted[FEATURES] = _Fitted(process.held_out, lambda cells, _: process.predict(cells.graphs))
    if SUPPORT in names:
        network.on_progress()
        rng = np.random.default_rng(derive_seed(seed, SUPPORT))
        machine = SupportVectors(known.cells.features, values, folds, rng)
        fitted[SUPPORT] = _Fitted(machine.held_out, lambda cells, _: machine.predict(cells.features))
    return fitted


def rank_correlation(first: Array, second: Array) -> float:
    """Return Spearman's rank correlation; 0 if it is undefined."""
    found = spearman(first, second)
    return found if math.isfinite(found) else 0.0
