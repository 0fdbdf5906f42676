"""The predictions of a generation of cells: exact costs of their networks, and the expected results of trainings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from search.strategies.popnas.estimates import COSTS, EXPANSION
from search.worker.callbacks import CONTINUE, Report
from search.worker.candidate import build_training_step
from search.worker.predictors.history import write_arrays
from search.worker.predictors.task import fit_and_estimate
from trainer.inspection.costs import TrainingStep
from utils.architecture.cells.cell import Cell
from utils.architecture.cells.costs import CostModel
from utils.architecture.cells.expansion import Expansion, Floats
from utils.architecture.cells.loading import load_expansion
from utils.architecture.cells.network import NetworkPlan, plan_network
from utils.errors import ConfigError

_EXACT = ("params", "flops")
_SECONDS_BETWEEN_REPORTS = 1.0


class _GivenUp(Exception):
    """The search wants its worker back."""


def estimated_cells(task: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Return the predictions of the cells of a generation.

    It reports every second that it is at work, and ends if the search answers that it shall pause.

    Args:
        task: As the strategy writes it: `folder` with history and expansion, `count` of its cells, `config` of the cell
            without blocks, `facts` (costs to be computed; without cells, those that were), `input_size` (for FLOPs;
            None: that of the training), `device`, and the keys that `fit_and_estimate` reads.
        report: Reports to the search and returns its decision.

    Returns:
        `status`: "interrupted", or "ended" with the result of `fit_and_estimate`, and `costs`: a .npz with the arrays
        (N,) of the costs that are known exactly.

    Raises:
        SearchError: A file is missing or damaged, or cannot be written.
    """
    try:
        return {"status": "ended", **_estimated(task, _heartbeat(report))}
    except _GivenUp:
        return {"status": "interrupted"}


def _heartbeat(report: Report) -> Callable[[], None]:
    """Return a function that reports at most once a second that the task goes on."""
    last = monotonic()

    def beat() -> None:
        nonlocal last
        now = monotonic()
        if now - last >= _SECONDS_BETWEEN_REPORTS:
            last = now
            if report({"is_at_work": True}) != CONTINUE:
                raise _GivenUp

    return beat


def _estimated(task: Mapping[str, Any], beat: Callable[[], None]) -> dict[str, Any]:
    folder, wanted = Path(task["folder"]), [name for name in task.get("facts", ()) if name in _EXACT]
    file, known = folder / COSTS, dict[str, Floats]()
    if wanted and task["count"]:
        step = build_training_step(task["config"], task.get("device"))
        costs = costs_of_networks(step, load_expansion(folder / EXPANSION), task.get("input_size"), beat)
        known = {name: costs[name] for name in wanted if name in costs}
    if known:
        write_arrays(file, known)  # before anything is predicted, which may fail
    # A cost that is known needs no predictor; without cells, only the earlier predictions are compared.
    exact = known if task["count"] else wanted
    objectives = [text for text in task["objectives"] if text.split()[1] not in exact]
    answer = fit_and_estimate({**task, "objectives": objectives}, beat)
    return {**answer, "costs": str(file)} if known else answer


def costs_of_shapes(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights and FLOPs of networks of some cells in several shapes.

    Args:
        task: `config` of the cell without blocks, `cells` (texts), `grid` (values of motifs, normal_cells, filters),
            `searched` (the shape of the search), `input_size` (for FLOPs; None: that of the training) and `device`.

    Returns:
        `costs`: of each network its `cell` (a place in `cells`), motifs, normal_cells, filters, `params`,
        `flops`, and `network`, equal for equal networks of a cell; empty if the network has no plan.
    """
    step = build_training_step(task["config"], task.get("device"))
    options = getattr(getattr(step.placed_model(), "plan", None), "options", None)
    if options is None:
        return {"costs": []}
    cells, names = [Cell.parse(each) for each in task["cells"]], list(task["grid"])
    shapes = [dict(zip(names, values, strict=True)) for values in product(*task["grid"].values())]
    rows = []
    for shape in [task["searched"], *(each for each in shapes if each != task["searched"])]:
        try:
            changed = replace(options, macro=replace(options.macro, **shape))
        except ConfigError:  # without any cell
            continue
        model = CostModel(changed, task.get("input_size") or step.input_shape[2:])
        for place, cell in enumerate(cells):
            network = _built_network(plan_network(cell.lookbacks, changed))
            rows.append({"cell": place, **shape, **asdict(model.costs(cell)), "network": network})
    return {"costs": rows}


def _built_network(plan: NetworkPlan) -> str:
    """Return text that is equal for plans of which the same network is built, as cells without a path are not."""
    numbers = {0: 0} | {node.state: place for place, node in enumerate(plan.built, start=1)}
    parts: list[Any] = [plan.shapes[0], numbers[plan.output], [numbers[state] for state in plan.skips]]
    for node in plan.built:
        reads = [(each.lookback, each.given, each.pool, each.shape) for each in getattr(node, "lookbacks", ())]
        parts.append((type(node).__name__, node.shape, [numbers[state] for state in node.sources], reads))
    parts += [(numbers[each.state], each.weight) for each in plan.exits]
    return sha256(repr(parts).encode()).hexdigest()[:16]


def costs_of_networks(
    step: TrainingStep,
    expansion: Expansion,
    input_size: Sequence[int] | None,
    on_batch: Callable[[], None] = lambda: None,
) -> dict[str, Floats]:
    """Return parameters and FLOPs of the networks of cells, (N,) each; nothing if the network has no plan.

    Args:
        step: Of the cell without blocks.
        expansion: The cells.
        input_size: For FLOPs; None: that of the training.
        on_batch: Called before each batch of cells.
    """
    options = getattr(getattr(step.placed_model(), "plan", None), "options", None)
    if options is None:
        return {}
    model, operators = CostModel(options, input_size or step.input_shape[2:]), expansion.grammar.operators
    found = []
    for codes in expansion.batches():
        on_batch()
        found.append(model.of_codes(codes, operators))
    table = np.concatenate(found).astype(float) if found else np.zeros((0, len(_EXACT)))
    return {name: table[:, place] for place, name in enumerate(_EXACT)}
