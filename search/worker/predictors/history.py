"""The files of a prediction: the trainings so far, and its results.

Dimensions: H cells.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.architecture.cells.expansion import CellGrammar
from utils.errors import SearchError
from utils.files import read_json_object, write_atomically

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrainingHistory:
    """Cells with results, in the order of their texts, each once.

    Attributes:
        cells: H canonical texts.
        results: By objective, (H,) the mean of all trainings of a cell; NaN if all failed.
        estimates: By objective, (H,) the predictions of the cells of the last generation; else NaN.
        deviations: As `estimates`, their deviations.
    """

    cells: Sequence[str]
    results: Mapping[str, Array]
    estimates: Mapping[str, Array]
    deviations: Mapping[str, Array]


def write_arrays(file: Path, arrays: Mapping[str, Array]) -> None:
    """Write the results of a prediction as a .npz, atomically.

    Raises:
        SearchError: It cannot be written.
    """
    try:
        write_atomically(file, lambda stream: np.savez(stream, **arrays))  # type: ignore[arg-type]
    except OSError as error:
        raise SearchError(
            f"{file}: cannot be written ({error.strerror or error}). Free some space or correct the permissions."
        ) from error


def read_history(path: Path, grammar: CellGrammar) -> TrainingHistory:
    """Read the trainings of a study, see `fit_and_estimate`.

    Raises:
        ConfigError: A cell is none of the grammar.
        SearchError: The file is missing or damaged.
    """
    content = read_json_object(path, lambda reason: SearchError(f"{path}: {reason}. Delete it: it is made again."))
    try:
        written = [str(each) for each in content["cells"]]
        results = {str(name): [_number(each) for each in column] for name, column in content["results"].items()}
        before = {str(each["cell"]): each for each in content.get("before", ())}
        wrong = [name for name, column in results.items() if len(column) != len(written)]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise SearchError(f"{path}: is no history of a search ({error}). Delete it: it is made again.") from None
    if wrong:
        raise SearchError(f"{path}: {wrong[0]} has not a value for each of {len(written)} cells. Delete the file.")
    canonical = grammar.decode(grammar.encode(written)) if written else []
    cells, places = np.unique(np.array(canonical, dtype=np.str_), return_inverse=True)
    predicted = dict(zip(grammar.decode(grammar.encode(list(before))), before.values(), strict=True)) if before else {}
    texts = cells.tolist()

    def column(key: str, name: str) -> Array:
        return np.array([_number((predicted.get(cell, {}).get(key) or {}).get(name)) for cell in texts], dtype=float)

    return TrainingHistory(
        texts,
        {name: _means(np.array(values), places, len(cells)) for name, values in results.items()},
        {name: column("estimates", name) for name in results},
        {name: column("deviations", name) for name in results},
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _means(values: Array, places: NDArray[np.intp], count: int) -> Array:
    """Return the mean of the finite values of each place; sums do not depend on the order of the trainings."""
    order = np.lexsort([values, places])
    order = order[np.isfinite(values[order])]
    counts = np.bincount(places[order], minlength=count)
    sums = np.bincount(places[order], weights=values[order], minlength=count)
    return np.where(counts > 0, sums / np.maximum(counts, 1), math.nan)
