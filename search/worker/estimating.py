"""The predictions of a generation of cells: exact costs of their networks, and what trainings are expected to give."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from search.worker.candidate import build_training_step
from search.worker.predictors.task import fit_and_estimate
from utils.architecture.cells.costs import CostModel
from utils.architecture.cells.expansion import Expansion
from utils.architecture.cells.loading import load_expansion
from utils.errors import SearchError
from utils.files import write_atomically

EXPANSION, COSTS = "expansion.npz", "costs.npz"
_EXACT = ("params", "flops")


def estimated_cells(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the predictions of the cells of a generation.

    Args:
        task: As the strategy writes it: `folder` with history and expansion, `config` of the cell without blocks,
            `facts` (costs to be computed), `input_size` (for FLOPs; None: that of the training), `device`, and what
            `fit_and_estimate` reads.

    Returns:
        What `fit_and_estimate` does, and `costs`: a .npz with the arrays (N,) of the costs that are known exactly.

    Raises:
        SearchError: A file is missing or damaged, or cannot be written.
    """
    folder, wanted = Path(task["folder"]), [name for name in task.get("facts", ()) if name in _EXACT]
    costs = exact_costs(task, load_expansion(folder / EXPANSION)) if wanted else {}
    known = {name: costs[name] for name in wanted if name in costs}
    # A cost that is known needs no predictor.
    objectives = [text for text in task["objectives"] if text.split()[1] not in known]
    answer = fit_and_estimate({**task, "objectives": objectives})
    if not known:
        return answer
    file = folder / COSTS
    try:
        write_atomically(file, lambda stream: np.savez(stream, **known))  # type: ignore[arg-type]
    except OSError as error:
        raise SearchError(
            f"{file}: cannot be written ({error.strerror or error}). Free some space or correct the permissions."
        ) from error
    return {**answer, "costs": str(file)}


def exact_costs(task: Mapping[str, Any], expansion: Expansion) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return parameters and FLOPs of the networks of cells, (N,) each; nothing for a network that has no plan.

    Args:
        task: `config` of the cell without blocks, `input_size`, `device`.
        expansion: The cells.
    """
    step = build_training_step(task["config"], task.get("device"))
    options = getattr(getattr(step.placed_model(), "plan", None), "options", None)
    if options is None:
        return {}
    model = CostModel(options, task.get("input_size") or step.input_shape[2:])
    operators = expansion.grammar.operators
    found = [model.of_codes(codes, operators) for codes in expansion.batches()]
    table = np.concatenate(found).astype(float) if found else np.zeros((0, len(_EXACT)))
    return {name: table[:, place] for place, name in enumerate(_EXACT)}
