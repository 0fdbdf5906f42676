"""The request for predictions of a generation, and the answer: plain data and .npz files in a folder of the study."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from search.results.record import FACTS, MEASURED, Objective, without_penalty
from search.samplers.base import Observation
from search.samplers.learning.evidence import comparable_values
from search.strategies.popnas.generation import ChosenCell
from search.strategies.popnas.options import PredictionOptions
from utils.architecture.cells.expansion import Expansion, Floats
from utils.architecture.cells.loading import load_predictions
from utils.errors import SearchError
from utils.files import write_json

_FEWEST_COMPLETE = 5
HISTORY, EXPANSION, ESTIMATES, COSTS = "history.json", "expansion.npz", "estimates.npz", "costs.npz"


@dataclass(frozen=True)
class Trained:
    """A cell with results.

    Attributes:
        candidate: Its number.
        cell: Its canonical text.
        results: Objectives and facts by name, in their original sign.
        epochs: That it was trained for.
    """

    candidate: int
    cell: str
    results: Mapping[str, float]
    epochs: int


def as_if_complete(
    trained: Sequence[Trained],
    observations: Sequence[Observation],
    objectives: Sequence[Objective],
    fidelities: Sequence[int],
) -> list[Trained]:
    """Return cells in which those that the scheduler stopped have an estimated score: see `comparable_values`.

    Before there are five complete ones, none is estimated. Costs do not depend on the number of epochs, and stay.

    Args:
        trained: Cells with results.
        observations: Their results after each epoch.
        objectives: Of the study.
        fidelities: Epochs at which the scheduler compares, ascending, those of a full training last.
    """
    num_complete = sum(each.epochs not in fidelities[:-1] for each in trained)
    if num_complete == len(trained) or num_complete < _FEWEST_COMPLETE:
        return list(trained)
    values = comparable_values(observations, fidelities, len(objectives))
    found = []
    for each in trained:
        scores = {
            goal.name: value * goal.sign
            for goal, value in zip(objectives, values.get(each.candidate, ()), strict=False)
            if goal.name not in (*FACTS, *MEASURED) and math.isfinite(without_penalty(value))
        }
        found.append(replace(each, results={**each.results, **scores}))
    return found


@dataclass(frozen=True)
class Request:
    """All that predictions of a generation follow from.

    Attributes:
        blocks: Of its cells.
        round: Number of the choice among cells of so many blocks.
        expansion: The cells to be predicted.
        trained: The cells with results, by candidate.
        failed: Cells whose training failed.
        before: The cells of the generation before that were predicted, for the audit.
        objectives: Of the study.
        max_epochs: Of a full training.
        seed: Of the predictors.
        is_audit: Whether only the predictions of the generation before are compared with its results.
    """

    blocks: int
    round: int
    expansion: Expansion
    trained: Sequence[Trained]
    failed: Sequence[str]
    before: Sequence[ChosenCell]
    objectives: Sequence[Objective]
    max_epochs: int
    seed: int
    is_audit: bool = False

    @property
    def is_first(self) -> bool:
        """Whether the cells are the first ones with blocks: there are no results from which to predict them."""
        return self.blocks <= 1 and self.round == 1

    def trivial_answer(self, reason: str = "") -> "Answer":
        """Return the mean result of the parents of each cell as its prediction; of the first cells none."""
        if self.is_first or self.is_audit:
            return Answer({}, {}, {})
        known = {each.cell: each.results for each in self.trained}
        means, predictors = {}, {}
        for goal in self.objectives:
            values = [known.get(cell, {}).get(goal.name, math.nan) for cell in self.expansion.parents]
            found = self.expansion.parent_means(values)
            typical = np.nanmean(values) if np.isfinite(values).any() else 0.0
            means[goal.name] = np.where(np.isnan(found), typical, found)
            predictors[goal.name] = {"name": "parents", "reason": reason}
        return Answer(means, {}, {}, predictors=predictors)


@dataclass(frozen=True)
class Answer:
    """Predictions of the cells of an expansion, N of them.

    Attributes:
        means: By objective, (N,) in the original sign.
        deviations: By objective, (N,) standard deviations; only of those that have one.
        acquired: By objective, (N,) values that take the place of the mean in the choice, e.g. an expected improvement;
            the larger the better.
        costs: Facts that are known exactly, by name, (N,) each.
        predictors: By objective, the predictor and the reason for it.
        audit: By objective, how the previous predictions compare with the results of the trainings.
        seconds: That it took.
    """

    means: Mapping[str, Floats]
    deviations: Mapping[str, Floats]
    acquired: Mapping[str, Floats]
    costs: Mapping[str, Floats] = field(default_factory=dict)
    predictors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    audit: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0


def write_request(folder: Path, request: Request, options: PredictionOptions) -> dict[str, Any]:
    """Write a request into a folder, and return the payload of its task.

    Raises:
        SearchError: A file cannot be written.
    """
    rows = [*request.trained, *(Trained(-1, cell, {}, 0) for cell in request.failed)]
    history = {
        "cells": [each.cell for each in rows],
        "epochs": [each.epochs for each in rows],
        "results": {goal.name: [each.results.get(goal.name, math.nan) for each in rows] for goal in request.objectives},
        "before": [each.to_json() for each in request.before],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ESTIMATES).unlink(missing_ok=True)
        write_json(folder / HISTORY, history)
        request.expansion.save(folder / EXPANSION)
    except OSError as error:
        raise SearchError(
            f"{folder}: cannot be written ({error.strerror or error}). The predictions of a generation are made there. "
            "Free some space or correct the permissions, and continue with --resume auto; nothing is lost."
        ) from error
    return {
        "folder": str(folder),
        "count": len(request.expansion),
        "objectives": [str(each) for each in request.objectives],
        "max_epochs": request.max_epochs,
        "seed": request.seed,
        "predictor": options.predictor,
        "members": options.members,
        "acquisition": options.acquisition,
    }


def read_answer(details: Mapping[str, Any], request: Request) -> Answer:
    """Return the predictions of a worker.

    Raises:
        SearchError: It is not there, or not of this request.
    """
    audit, seconds = details.get("audit", {}), float(details.get("seconds", 0.0))
    if request.is_audit:
        return Answer({}, {}, {}, audit=audit, seconds=seconds)
    path = Path(str(details.get("file", "")))
    arrays, costs = load_predictions(path), load_predictions(Path(details["costs"])) if "costs" in details else {}
    shape = (len(request.expansion),)
    groups: dict[str, dict[str, Floats]] = {"mean": {}, "deviation": {}, "acquired": {}}
    for name, values in arrays.items():
        kind, _, objective = name.partition(".")
        if kind in groups and values.shape == shape:
            groups[kind][objective] = values
    costs = {name: values for name, values in costs.items() if values.shape == shape}
    known = groups["mean"].keys() | costs.keys()
    missing = [goal.name for goal in request.objectives if goal.name not in known]
    if missing or any(not np.isfinite(values).all() for values in groups["mean"].values()):
        raise SearchError(f"{path}: it has no finite prediction of each cell for {', '.join(missing) or 'all'}.")
    return Answer(
        groups["mean"],
        groups["deviation"],
        groups["acquired"],
        costs,
        details.get("predictors", {}),
        audit,
        seconds,
    )
