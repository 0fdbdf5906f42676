"""The predictions of all cells of a generation, as they remain in the folder of a study."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.strategies.popnas.estimates import COSTS, ESTIMATES, EXPANSION
from utils.architecture.cells.expansion import Floats
from utils.architecture.cells.loading import load_expansion, load_predictions
from utils.errors import SearchError

GENERATIONS = "generations"  # folder of the predictions of a study
AUDIT = "audit"  # folder in it, of the comparison after the last generation
_MOST_POINTS = 600  # of a sample


def generation_folder(study: Path, blocks: int, number: int) -> Path:
    """Return the folder of the predictions of a generation.

    Args:
        study: Folder of the study.
        blocks: Of its cells.
        number: Of the choice among cells of so many blocks, from 1.
    """
    return study / GENERATIONS / f"{blocks}_{number}"


@dataclass(frozen=True)
class Predictions:
    """The predictions of the N cells of a generation.

    Attributes:
        folder: In which they are.
        columns: By name of a column, such as "val_accuracy" and "deviation of val_accuracy", (N,) each.
    """

    folder: Path
    columns: Mapping[str, Floats]

    @classmethod
    def read(cls, folder: Path) -> "Predictions | None":
        """Return those in a folder; None if their files are not there any more, or are damaged."""
        if not (folder / EXPANSION).exists():
            return None
        try:
            groups = {name.partition("."): values for name, values in load_predictions(folder / ESTIMATES).items()}
            columns = {name: values for (kind, _, name), values in groups.items() if kind == "mean"}
            columns |= {f"deviation of {name}": each for (kind, _, name), each in groups.items() if kind == "deviation"}
            columns |= load_predictions(folder / COSTS) if (folder / COSTS).exists() else {}
        except SearchError:
            return None
        shapes = {values.shape for values in columns.values()}
        return cls(folder, columns) if len(shapes) == 1 and len(shapes.pop()) == 1 else None

    def sample(self, first: str, second: str) -> list[tuple[float, float]]:
        """Return two columns of cells that are spread evenly over all; nothing if one is not there."""
        if first not in self.columns or second not in self.columns:
            return []
        pairs = np.stack([self.columns[first], self.columns[second]], axis=1)
        step = max(1, math.ceil(len(pairs) / _MOST_POINTS))
        return [(x, y) for x, y in pairs[::step].tolist() if math.isfinite(x) and math.isfinite(y)]

    def texts(self) -> list[str]:
        """Return the cells.

        Raises:
            SearchError: Their file is missing or damaged, or is not that of the predictions.
        """
        found = load_expansion(self.folder / EXPANSION).texts()
        if any(len(values) != len(found) for values in self.columns.values()):
            raise SearchError(
                f"{self.folder}: its predictions are not those of its cells. Remove the folder: what was chosen by "
                "them is in the journal."
            )
        return found


def stored_predictions(study: Path) -> Iterator[tuple[int, int, Predictions]]:
    """Yield blocks, round and predictions of each generation of a study, in their order."""
    places = []
    for folder in (study / GENERATIONS).glob("*_*"):
        words = folder.name.split("_")
        if len(words) == 2 and all(word.isdecimal() for word in words):
            places.append((int(words[0]), int(words[1])))
    for blocks, number in sorted(places):
        found = Predictions.read(generation_folder(study, blocks, number))
        if found is not None:
            yield blocks, number, found
