"""The request for predictions of a generation, and the answer: plain data and .npz files in a folder of the study."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from search.results.record import Objective, without_penalty
from search.samplers.base import Observation
from search.samplers.learning.evidence import comparable_values
from search.strategies.popnas.generation import EXACT, ChosenCell, Generation
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
            if not goal.is_cost and math.isfinite(without_penalty(value))
        }
        found.append(replace(each, results={**each.results, **scores}))
    return found


@dataclass(frozen=True)
class FullResults:
    """Results of trained cells as of full trainings, which are what is predicted.

    Attributes:
        trained: The cells; scores of those that were stopped are as `as_if_complete` has them.
        stopped: The candidates that the scheduler stopped.
    """

    trained: Sequence[Trained]
    stopped: Collection[int] = ()

    @cached_property
    def by_candidate(self) -> Mapping[int, Mapping[str, float]]:
        """Results by name, of each candidate with results."""
        return {each.candidate: each.results for each in self.trained}

    @classmethod
    def of(
        cls,
        trained: Sequence[Trained],
        observations: Sequence[Observation],
        objectives: Sequence[Objective],
        fidelities: Sequence[int],
    ) -> "FullResults":
        """Return those of some cells; the arguments are those of `as_if_complete`."""
        stopped = {each.candidate for each in trained if each.epochs in fidelities[:-1]}
        return cls(as_if_complete(trained, observations, objectives, fidelities), stopped)

    def pairs(self, generation: Generation, name: str) -> list[tuple[int, float, float]]:
        """Return candidate, prediction and result of an objective, of the cells of a generation that have both."""
        found = []
        for number, cell in zip(generation.numbers, generation.cells, strict=False):
            value = self.by_candidate.get(number, {}).get(name, math.nan)
            if name in cell.estimates and math.isfinite(value):
                found.append((number, cell.estimates[name], float(value)))
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
        before: The cells that were predicted and are yet to be audited, mostly those of the generation before.
        audited: Blocks and round of their generations.
        objectives: Of the study.
        max_epochs: Of a full training.
        seed: Of the predictors.
        is_audit: Whether only earlier predictions are compared with their results.
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
    audited: Sequence[tuple[int, int]] = ()

    @property
    def place(self) -> tuple[int, int]:
        """Blocks and round."""
        return self.blocks, self.round

    @property
    def is_first(self) -> bool:
        """Whether the cells are the first ones with blocks: there are no results from which to predict them."""
        return self.blocks <= 1 and self.round == 1

    def trivial_answer(self, reason: str = "", folder: Path | None = None) -> "Answer":
        """Return the mean result of the parents of each cell as its prediction; of the first cells none.

        Args:
            reason: Why nothing else predicts them.
            folder: Of a worker that failed, and may have found costs before; None: there is none.
        """
        costs = {} if folder is None else _read_costs(folder, (len(self.expansion),))
        if self.is_first or self.is_audit:
            return Answer({}, {}, {}, costs)
        known = {each.cell: each.results for each in self.trained}
        means, predictors = {}, {}
        for goal in self.objectives:
            if goal.name in costs:
                continue
            values = [known.get(cell, {}).get(goal.name, math.nan) for cell in self.expansion.parents]
            found = self.expansion.parent_means(values)
            typical = np.nanmean(values) if np.isfinite(values).any() else 0.0
            means[goal.name] = np.where(np.isnan(found), typical, found)
            predictors[goal.name] = {"name": "parents", "reason": reason}
        return Answer(means, {}, {}, costs, predictors | self.exact_predictors(costs))

    def exact_predictors(self, costs: Mapping[str, Floats]) -> dict[str, dict[str, str]]:
        """Return the predictors of objectives that need none, as `Answer.predictors` has them."""
        return {goal.name: {"name": EXACT} for goal in self.objectives if goal.name in costs}


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
        for name in (ESTIMATES, COSTS):
            (folder / name).unlink(missing_ok=True)
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
    arrays, shape = load_predictions(path), (len(request.expansion),)
    costs = _of_shape(load_predictions(Path(details["costs"])), shape) if "costs" in details else {}
    groups: dict[str, dict[str, Floats]] = {"mean": {}, "deviation": {}, "acquired": {}}
    for name, values in arrays.items():
        kind, _, objective = name.partition(".")
        if kind in groups and values.shape == shape:
            groups[kind][objective] = values
    known = groups["mean"].keys() | costs.keys()
    missing = [goal.name for goal in request.objectives if goal.name not in known]
    if missing or any(not np.isfinite(values).all() for values in groups["mean"].values()):
        raise SearchError(f"{path}: it has no finite prediction of each cell for {', '.join(missing) or 'all'}.")
    return Answer(
        groups["mean"],
        groups["deviation"],
        groups["acquired"],
        costs,
        {**details.get("predictors", {}), **request.exact_predictors(costs)},
        audit,
        seconds,
    )


def _read_costs(folder: Path, shape: tuple[int, ...]) -> dict[str, Floats]:
    """Return the costs that a worker found before it failed; none if it found none, or their file is damaged."""
    try:
        return _of_shape(load_predictions(folder / COSTS), shape)
    except SearchError:
        return {}


def _of_shape(arrays: Mapping[str, Floats], shape: tuple[int, ...]) -> dict[str, Floats]:
    return {name: values for name, values in arrays.items() if values.shape == shape}
