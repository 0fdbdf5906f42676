"""The task of a worker that predicts the results of cells before any of them is trained.

Dimensions: H cells of the history, N cells of the expansion.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from search.results.record import parse_objectives
from search.strategies.popnas.estimates import ESTIMATES, EXPANSION, HISTORY
from search.worker.predictors.encoding import CellEncoder
from search.worker.predictors.history import read_history, write_arrays
from search.worker.predictors.learners.network import EnsembleOptions
from search.worker.predictors.objective import ObjectiveTask, PredictorOptions
from utils.architecture.cells.loading import load_expansion
from utils.seeding import derive_seed

Array = NDArray[np.float64]


def fit_and_estimate(request: Mapping[str, Any], on_progress: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Predict the objectives of all cells of an expansion from the trainings so far.

    The answer follows from the request alone: neither the order of the history nor the number of threads matters. Of an
    expansion without cells only the audit is made.

    Args:
        request: `folder` with `history.json` (`cells`, by objective `results` with null for failed ones, and `before`:
            the cells of the last generation with their `estimates` and `deviations`) and `expansion.npz` (from
            `Expansion.save`); `objectives` (the score first), `seed`, optionally `predictor` ("auto", "graph",
            "features", "trivial"), `acquisition` ("mean", "ei", "ucb"), `members` and `epochs` of the graph networks,
            `config`, of whose network `motifs` and `normal_cells` are read.
        on_progress: Called again and again while it computes; it may raise an error to end the task.

    Returns:
        `file`: a .npz with the arrays (N,) "mean.<objective>", "deviation.<objective>" and "acquired.<objective>", by
        which cells are compared, the larger the better. `predictors` and `audit` by objective, as plain data, and
        `seconds`.

    Raises:
        SearchError: A file is missing or damaged, or cannot be written.
    """
    began = time.monotonic()
    folder, arrays, predictors, audit = Path(request["folder"]), dict[str, Array](), {}, {}
    given = {key: request[key] for key in ("members", "epochs") if request.get(key)}
    network = EnsembleOptions(**given, on_progress=on_progress)
    options = PredictorOptions(request.get("predictor", "auto"), network)
    with _one_thread():
        expansion = load_expansion(folder / EXPANSION)
        encoder = CellEncoder(expansion.grammar, **_sizes(request.get("config") or {}))
        history = read_history(folder / HISTORY, expansion.grammar)
        for place, goal in enumerate(parse_objectives(request["objectives"])):
            seed = derive_seed(int(request["seed"]), goal.name)
            task = ObjectiveTask(goal, history, encoder, options, seed)
            audit[goal.name] = dict(task.audit.details)
            if not len(expansion):  # after the last generation
                continue
            found, described = task.predict(expansion, request.get("acquisition", "mean") if not place else "mean")
            arrays |= {f"{kind}.{goal.name}": values for kind, values in found.items()}
            predictors[goal.name] = described
    file = folder / ESTIMATES
    write_arrays(file, arrays)
    return {"file": str(file), "predictors": predictors, "audit": audit, "seconds": time.monotonic() - began}


def _sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """Return `motifs` and `normal_cells` of the network of a config, if it says so."""
    arch = config.get("arch")
    args = arch.get("args") if isinstance(arch, Mapping) else None
    known = args if isinstance(args, Mapping) else {}
    return {key: known[key] for key in ("motifs", "normal_cells") if type(known.get(key)) is int}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, so that sums are in one order on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
