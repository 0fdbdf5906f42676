"""The predictor of one objective: those that can learn, compared with the trivial ones, and the best of them in use.

Dimensions: N known cells, M cells to predict.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.schedulers.ranking import spearman
from search.worker.predictors.encoding import EncodedCells
from search.worker.predictors.network import GraphEnsemble, NetworkOptions
from search.worker.predictors.process import SubtreeProcess
from search.worker.predictors.support import SupportVectors
from search.worker.predictors.trivial import OperationCounts, ParentMeans
from utils.seeding import derive_seed

Array = NDArray[np.float64]
GRAPH, FEATURES, SUPPORT = "graph", "features", "svr"
PARENTS, OPERATIONS = "parents", "operations"
_FEWEST = {GRAPH: 15, FEATURES: 5, SUPPORT: 8}
_FEWEST_COMPARED = 5  # cells for a rank correlation that decides
_CALIBRATION = (0.5, 3.0)  # bounds of the factor of deviations


@dataclass(frozen=True)
class Known:
    """What the predictor of one objective learns from.

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
        known: What it learns from.
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
        network: NetworkOptions,
        seed: int,
    ) -> None:
        count = len(known.values)
        self._known = known
        self._folds = np.random.default_rng(seed).permutation(count) % max(1, min(network.members, count))
        self._parents = ParentMeans(known.values, known.parents)
        self._operations = OperationCounts(known.cells.graphs, known.values, self._folds)
        learned = [each for each in names if count >= _FEWEST[each] and np.ptp(known.values) > 0]
        self._graph = self._features = self._support = None
        if GRAPH in learned:
            self._graph = GraphEnsemble(
                known.cells.graphs, known.values, self._folds, network, derive_seed(seed, GRAPH)
            )
        if FEATURES in learned:
            rng = np.random.default_rng(derive_seed(seed, FEATURES))
            self._features = SubtreeProcess(known.cells.graphs, known.values, rng)
        if SUPPORT in learned:
            self._support = SupportVectors(known.cells.features, known.values, self._folds)
        self._held_out = {PARENTS: self._parents.held_out, OPERATIONS: self._operations.held_out}
        if self._graph is not None:
            self._held_out[GRAPH] = self._graph.held_out
        if self._features is not None:
            self._held_out[FEATURES] = self._features.held_out(self._folds)[0]
        if self._support is not None:
            self._held_out[SUPPORT] = self._support.held_out
        self.correlations = {name: self._correlation(each) for name, each in self._held_out.items()}
        self.used, self.reason = self._choose(learned, switched_off)
        self._calibration = self._calibrate()

    def _correlation(self, predicted: Array) -> float:
        if len(predicted) < _FEWEST_COMPARED:
            return 0.0
        return rank_correlation(predicted, self._known.values)

    def _choose(self, learned: Sequence[str], switched_off: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
        trivial = max((PARENTS, OPERATIONS), key=lambda name: self.correlations[name])
        count = len(self._known.values)
        if not learned:
            what = "values that differ" if count >= min(_FEWEST.values()) else "trained cells"
            return (trivial,), f"too few {what} to learn from ({count} cells)"
        active = [name for name in learned if name not in switched_off]
        if not active:
            return (trivial,), "; ".join(f"{name}: {switched_off[name]}" for name in learned)
        best: tuple[str, ...] = (max(active, key=lambda name: self.correlations[name]),)
        reached = self.correlations[best[0]]
        if len(active) > 1:
            pair = tuple(active[:2])
            joint = self._correlation(np.mean([self._held_out[name] for name in pair], axis=0))
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

    def _calibrate(self) -> float:
        """Return by how much deviations are too small, from the errors on cells left out."""
        if self.used != (FEATURES,) or self._features is None:
            return 1.0  # the others have these errors as their deviation
        mean, deviation = self._features.held_out(self._folds)
        return float(np.clip(np.sqrt(np.mean(((self._known.values - mean) / deviation) ** 2)), *_CALIBRATION))

    def predict(self, cells: EncodedCells, parents: Array) -> tuple[Array, Array]:
        """Return mean and deviation (M,) of cells, on the scale of the known values.

        Args:
            cells: M cells.
            parents: (M,) mean value of the parents of each, NaN if none is known.
        """
        found = [self.predict_by(name, cells, parents) for name in self.used]
        means, deviations = np.array([mean for mean, _ in found]), np.array([deviation for _, deviation in found])
        return means.mean(axis=0), self._calibration * np.sqrt((deviations**2).mean(axis=0))

    def predict_by(self, name: str, cells: EncodedCells, parents: Array) -> tuple[Array, Array]:
        """Return mean and deviation (M,) by one predictor, in use or not, see `predict`."""
        if name == GRAPH and self._graph is not None:
            return self._graph.predict(cells.graphs)
        if name == FEATURES and self._features is not None:
            return self._features.predict(cells.graphs)
        if name == SUPPORT and self._support is not None:
            return self._support.predict(cells.features)
        return self._operations.predict(cells.graphs) if name == OPERATIONS else self._parents.predict(parents)


def rank_correlation(first: Array, second: Array) -> float:
    """Return Spearman's rank correlation; 0 if it is undefined."""
    found = spearman(first, second)
    return found if math.isfinite(found) else 0.0
