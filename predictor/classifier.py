"""A classification network put to use: probabilities of images or series, and a table of them."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from base.base_inference import BaseInference, Prepared
from utils.errors import ConfigError, DataError
from utils.geometry import Geometry

TABLE = "predictions.csv"
_NO_GEOMETRY = Geometry((0, 0), (0, 0), (0, 0), (0, 0))


class Prediction(NamedTuple):
    """What a network says of one sample.

    Attributes:
        name: The file, the row, or the frame.
        probabilities: (K,) float32.
    """

    name: str
    probabilities: NDArray[np.float32]


class Classifier(BaseInference):
    """Gives each image (h, w, 3), or series (V, T), a probability for each class."""

    def render(self, image: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[Any]:
        """The probabilities themselves, (K,)."""
        return probabilities

    def prepare(self, image: NDArray[Any]) -> Prepared:
        """Make a network's input of an image (h, w, 3 or 4) uint8 or uint16 RGB, or of a series (V, T) of numbers.

        Raises:
            DataError: It lacks what the network was trained on.
        """
        if np.issubdtype(image.dtype, np.floating):
            values: Any = self.preprocess(image)
            return Prepared(values, _NO_GEOMETRY)
        return super().prepare(image)

    @torch.inference_mode()
    def restore(self, logits: Tensor, geometry: Geometry) -> NDArray[np.float32]:
        """Logits of one input (K,) -> probabilities (K,) float32."""
        probabilities: NDArray[np.float32] = logits.softmax(dim=0).cpu().numpy()
        return probabilities

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their ids; numbers where the config does not tell them."""
        for section in ("valid_loader", "train_loader", "data_loader", "test_loader"):
            spec = self.config.get(section)
            names = spec.get("args", {}).get("classes") if isinstance(spec, dict) else None
            if names:
                return [str(name) for name in names]
        return [str(number) for number in range(int(self.config["arch"]["args"].get("num_classes", 0)))]

    def classify(self, samples: Iterable[tuple[str, NDArray[Any]]], batch_size: int) -> Iterator[Prediction]:
        """Predictions of (name, image or series) in order, a few read at a time."""
        iterator = iter(samples)
        while part := list(islice(iterator, batch_size)):
            found = self.probabilities([values for _, values in part], batch_size)
            for (name, _), probabilities in zip(part, found, strict=True):
                yield Prediction(name, probabilities)


def write_table(
    predictions: Iterable[Prediction], class_names: Sequence[str], file: Path, *, first_column: str = "file"
) -> int:
    """Write a row for each prediction as it comes: name, class, its probability, and that of every class.

    Returns:
        The number of rows.

    Raises:
        ConfigError: The file cannot be written.
    """
    count = 0
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8", newline="") as opened:
            table = csv.writer(opened)
            table.writerow([first_column, "class", "probability", *(f"probability_{name}" for name in class_names)])
            for name, probabilities in predictions:
                best = int(probabilities.argmax())
                shown = [f"{value:.6f}" for value in probabilities.tolist()]
                table.writerow([name, class_names[best], shown[best], *shown])
                count += 1
    except OSError as error:
        raise ConfigError(
            f"--output {file}: cannot be written ({error.strerror}). The predictions go there. Name a file that you "
            "may write to."
        ) from error
    if not count:
        with suppress(OSError):
            file.unlink()
        raise DataError("Nothing could be classified: no image or series could be read. Name another --source.")
    return count


def table_file(output: Path | None) -> Path:
    """Where the table goes: the file itself, or `predictions.csv` in a folder; in the working directory by default."""
    if output is None:
        return Path(TABLE)
    return output if output.suffix else output / TABLE
