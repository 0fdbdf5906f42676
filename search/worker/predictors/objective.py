"""One objective of all cells of an expansion: its predictor, the audit of the last one, and the predictions.

Dimensions: H cells of the history, N cells of the expansion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.results.record import Objective
from search.worker.predictors.acquisition import Acquisition, acquired_values
from search.worker.predictors.audit import FEWEST_AUDITED, Audit, compare_with_trainings
from search.worker.predictors.encoding import CellEncoder, EncodedCells, means_of_parents
from search.worker.predictors.ensemble import FEATURES, GRAPH, SUPPORT, Known, ObjectivePredictor
from search.worker.predictors.history import TrainingHistory
from search.worker.predictors.learners.network import EnsembleOptions
from search.worker.predictors.learners.support import is_installed
from search.worker.predictors.scales import CostScale, ScoreScale
from utils.architecture.cells.expansion import Codes, Expansion

Array = NDArray[np.float64]
Rows = NDArray[np.bool_]
_BATCH = 4096  # cells at once
_OF_SCORES = {"auto": (GRAPH, FEATURES), "graph": (GRAPH,), "features": (FEATURES,), "trivial": ()}


@dataclass(frozen=True)
class PredictorOptions:
    """Which predictors of a score are used.

    Attributes:
        predictor: "auto" (the better one, or their mean), "graph", "features" or "trivial".
        network: How graph networks are trained.
    """

    predictor: str = "auto"
    network: EnsembleOptions = field(default_factory=EnsembleOptions)


class ObjectiveTask:
    """The prediction of one objective.

    Scores are learned by their ranks; everything that is measured before or during a training by its value.

    Args:
        goal: The objective.
        history: The trainings so far.
        encoder: Reads the cells.
        options: Which predictors, and how they are trained.
        seed: Of everything random.
    """

    def __init__(
        self, goal: Objective, history: TrainingHistory, encoder: CellEncoder, options: PredictorOptions, seed: int
    ) -> None:
        self._goal, self._history, self._encoder = goal, history, encoder
        self._network, self._seed = options.network, seed
        self._is_cost = goal.is_cost
        self._names = _names(options.predictor, self._is_cost)
        self._values = history.results.get(goal.name, np.full(len(history.cells), np.nan))
        self._codes = encoder.grammar.encode(list(history.cells))
        self._pairs = encoder.family(self._codes)

    @cached_property
    def _operator_values(self) -> Array:
        return self._encoder.operator_values(dict(zip(self._history.cells, self._values.tolist(), strict=True)))

    def _encoded(self, codes: Codes) -> EncodedCells:
        if self._is_cost:
            return self._encoder.for_costs(codes, self._operator_values)
        return self._encoder.for_scores(codes)

    @cached_property
    def _cells(self) -> EncodedCells:
        return self._encoded(self._codes)

    def _fit(
        self, rows: Rows, switched_off: Mapping[str, str]
    ) -> tuple["ScoreScale | CostScale", Array, ObjectivePredictor]:
        """Return a predictor that has learned some cells, their scale, and (H,) the normal values of these cells."""
        chosen = np.flatnonzero(rows)
        values = self._values[chosen]
        scale = CostScale(values) if self._is_cost else ScoreScale(values, self._goal.sign)
        chosen = chosen[scale.is_known]
        normal = np.full(len(self._values), np.nan)
        normal[chosen] = scale.normal
        parents = means_of_parents(self._pairs, normal)[chosen]
        known = Known(self._cells[chosen], scale.normal, parents)
        return scale, normal, ObjectivePredictor(known, self._names, switched_off, self._network, self._seed)

    @cached_property
    def audit(self) -> Audit:
        """The predictions of the last generation, compared with the results of its trainings."""
        estimates = self._history.estimates[self._goal.name]
        rows = np.isfinite(estimates) & np.isfinite(self._values)
        trained, deviations = self._values[rows], self._history.deviations[self._goal.name][rows]
        by_each: dict[str, Array] = {}
        if len(trained) >= FEWEST_AUDITED:
            # The predictions that the others would have made: they learn again without this generation.
            scale, normal, predictor = self._fit(~np.isfinite(estimates), {})
            parents = means_of_parents(self._pairs, normal)[rows]
            for name in predictor.correlations:
                mean, deviation = predictor.predict_by(name, self._cells[np.flatnonzero(rows)], parents)
                by_each[name] = scale.original(mean, deviation)[0]
        return compare_with_trainings(trained, estimates[rows], deviations, by_each)

    def predict(self, expansion: Expansion, acquisition: Acquisition) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return the arrays (N,) "mean", "deviation" and "acquired" of an expansion, and the predictor as plain data.

        Args:
            expansion: The cells.
            acquisition: How the merit of a cell follows from its mean and deviation.
        """
        if not np.isfinite(self._values).any():
            nothing = {kind: np.zeros(len(expansion)) for kind in ("mean", "deviation", "acquired")}
            return nothing, {"name": "none", "reason": "no training has a result"}
        scale, normal, predictor = self._fit(np.ones(len(self._values), dtype=bool), self.audit.switched_off)
        place_of = {cell: place for place, cell in enumerate(self._history.cells)}
        places = [place_of.get(cell) for cell in self._encoder.canonical(expansion.parents)]
        parents = expansion.parent_means([np.nan if place is None else normal[place] for place in places])
        found, best = [(np.zeros(0), np.zeros(0))], float(np.nanmax(normal))
        acquired, sign = [np.zeros(0)], self._goal.sign if self._is_cost else 1
        for number, codes in enumerate(expansion.batches(_BATCH)):
            self._network.on_progress()
            start = number * _BATCH
            mean, deviation = predictor.predict(self._encoded(codes), parents[start : start + len(codes)])
            deviation = self.audit.widening * deviation
            found.append(scale.original(mean, deviation))
            # On the scale of ranks: in the unit of a score, the deviation of a bad cell is far larger.
            acquired.append(acquired_values(acquisition, mean, deviation, best, sign))
        arrays = {
            "mean": np.concatenate([mean for mean, _ in found]),
            "deviation": np.concatenate([deviation for _, deviation in found]),
            "acquired": np.concatenate(acquired),
        }
        return arrays, self._described(predictor)

    def _described(self, predictor: ObjectivePredictor) -> dict[str, Any]:
        """Return plain data for journal and report."""
        said = {"name": " + ".join(predictor.used), "reason": predictor.reason}
        ranked = {name: round(value, 4) for name, value in predictor.correlations.items()}
        return said | {"rank_correlations": ranked, "switched_off": dict(self.audit.switched_off)}


def _names(predictor: str, is_cost: bool) -> tuple[str, ...]:
    """Return the names of the predictors that may be used."""
    if not is_cost or predictor == "trivial":
        return _OF_SCORES[predictor]
    return (FEATURES, SUPPORT) if is_installed() else (FEATURES,)
