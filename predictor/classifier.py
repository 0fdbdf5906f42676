"""A classification network put to use: probabilities of images or series, and a table of them."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from base.base_inference import BaseInference, Prepared
from predictor.loop import StageTimer, batched_logits, chunked
from utils.errors import ConfigError, DataError
from utils.files import temporary_path
from utils.geometry import Geometry
from utils.writing.text import cell

TABLE = "predictions.csv"
_NO_GEOMETRY = Geometry((0, 0), (0, 0), (0, 0), (0, 0))


class Prediction(NamedTuple):
    """The prediction for one sample.

    Attributes:
        name: The file, the row, or the frame.
        probabilities: (K,) float32.
    """

    name: str
    probabilities: NDArray[np.float32]


class Classifier(BaseInference):
    """A network that gives each image (h, w, 3), or series (V, T), a probability for each class."""

    def render(self, image: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[Any]:
        """Return the probabilities themselves, (K,)."""
        return probabilities

    def prepare(self, image: NDArray[Any]) -> Prepared:
        """Convert an image (h, w, C) of any numbers, or a series (V, T) of floats, to the network's input.

        Raises:
            DataError: It has fewer channels than the network was trained on.
        """
        if image.ndim == 2 and np.issubdtype(image.dtype, np.floating):
            values: Any = self.preprocess(image)
            return Prepared(values, _NO_GEOMETRY) if isinstance(values, np.ndarray) else Prepared(*values)
        return super().prepare(image)

    @torch.inference_mode()
    def restore(self, logits: Tensor, geometry: Geometry) -> NDArray[np.float32]:
        """Convert the logits of one input, (K,), to probabilities, (K,) float32."""
        probabilities: NDArray[np.float32] = logits.softmax(dim=0).cpu().numpy()
        return probabilities

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their ids; numbers if the config does not name them."""
        known = self.config.get("arch", {}).get("args", {}).get("num_classes")
        count = known if isinstance(known, int) else 0
        names = super().class_names
        # Names of other classes than those of the network name nothing; one channel separates two classes by its sign.
        are_of_network = names and (not count or len(names) in (count, max(2, count)))
        return names if are_of_network else list(map(str, range(max(2, count))))

    def classify(
        self,
        samples: Iterable[tuple[str, NDArray[Any]]],
        batch_size: int,
        timer: StageTimer | None = None,
        failures: list[str] | None = None,
    ) -> Iterator[Prediction]:
        """Yield the predictions of (name, image or series) in order; one batch is read at a time.

        Args:
            samples: Name and values of each.
            batch_size: Samples that the network sees at once.
            timer: Measures the stages, if they are of interest.
            failures: Gets a line for each sample that the network cannot take, instead of an error.

        Raises:
            DataError: The network cannot take a sample, and there is no list of failures.
            TrainingError: The memory does not suffice for a batch.
        """
        timer = timer or StageTimer()

        def leave_out(name: str, error: DataError) -> None:
            if failures is None:
                raise error
            failures.append(f"{name}: {error}")

        def prepare_all() -> Iterator[tuple[str, Prepared]]:
            for name, values in samples:
                try:
                    with timer.measure("preprocess"):
                        prepared = self.prepare(values)
                except DataError as error:
                    leave_out(name, error)
                else:
                    yield name, prepared

        for batch in chunked(prepare_all(), batch_size):
            outputs = batched_logits(self, [prepared for _, prepared in batch], timer)
            for (name, prepared), logits in zip(batch, outputs, strict=True):
                if isinstance(logits, DataError):
                    leave_out(name, logits)
                    continue
                with timer.measure("restore"):
                    probabilities = self.restore(logits, prepared.geometry)
                yield Prediction(name, probabilities)


def write_table(
    predictions: Iterable[Prediction],
    class_names: Sequence[str],
    file: Path,
    *,
    first_column: str = "file",
    failures: Sequence[str] = (),
) -> int:
    """Write a row for each prediction as it comes: name, class, its probability, and that of every class.

    Classes are numbers if there are not as many names as probabilities.

    The file is replaced at the end, also of an interruption; if nothing was predicted, it remains as it was.

    Args:
        predictions: Of each sample.
        class_names: In the order of the ids.
        file: The table.
        first_column: Title of the column of names.
        failures: A line for each sample that could not be used, filled during iteration: if there is none else, the
            error names the first.

    Returns:
        The number of rows.

    Raises:
        ConfigError: The file cannot be written.
        DataError: There is no prediction.
    """
    count, place = 0, Path(os.path.realpath(file))  # the target of a link is replaced, not the link
    is_stream = place.exists() and not place.is_file()
    partial = place if is_stream else temporary_path(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="utf-8", newline="") as opened:
                table = csv.writer(opened)
                for name, probabilities in predictions:
                    best = int(probabilities.argmax())
                    shown = [f"{value:.6f}" for value in probabilities.tolist()]
                    if not count:
                        is_named = len(class_names) == len(shown)
                        names = list(class_names) if is_named else list(map(str, range(len(shown))))
                        columns = [first_column, "class", "probability", *(f"probability_{each}" for each in names)]
                        table.writerow(map(cell, columns))
                    table.writerow([cell(name), cell(names[best]), shown[best], *shown])
                    count += 1
        finally:
            if not is_stream and count:
                os.replace(partial, place)
            elif not is_stream:  # a table of a header alone would look like a result
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--output {file}: cannot be written ({error.strerror}). The predictions go there. Name a file that you "
            "may write to."
        ) from error
    require_predictions(count, failures, "images" if first_column == "file" else "series")
    return count


def require_predictions(count: int, failures: Sequence[str] = (), unit: str = "images") -> None:
    """Raise an error if nothing was classified.

    Args:
        count: Of the predictions.
        failures: A line for each sample that could not be used.
        unit: Name of several samples.

    Raises:
        DataError: There is no prediction.
    """
    if not count and failures:
        raise DataError(
            f"Nothing could be classified: none of the {len(failures)} {unit} could be used. The first: {failures[0]}"
        )
    if not count:
        raise DataError("Nothing could be classified: no image or series could be read. Name another --source.")
