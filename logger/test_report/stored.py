"""The records of a test in a run folder, from which runs are compared: results, facts, and a few predictions."""

import hashlib
import heapq
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from base.samples import NamedMask, NamedSample
from logger.test_report.worst_cases import draw_input, image_of
from utils.drawing import Image, resize_to, valid_pixels
from utils.files import write_json
from utils.runs.stored_tests import FORMAT, IMAGE, PREDICTION, TRUTH, stored_file, stored_folder, stored_results

LOG = logging.getLogger(__name__)
LONGEST_SIDE = 320  # pixels of a stored image
JPEG_QUALITY = 80
_KEY_LETTERS = 16


@dataclass(eq=False)
class StoredSamples:
    """The same few samples of a data set in every run, with their predictions, and the score of all samples.

    They are the samples whose names have the smallest SHA-256, so that they depend neither on the order of the data nor
    on the network, and most of them are also in a part of the data.

    Args:
        count: Number of samples to store.

    Attributes:
        scores: Score of each sample by its key, a hash of its name and its truth.
        input_shape: (C, H, W) or (V, T) of the network's input; None before the first sample.
    """

    count: int = 8
    scores: dict[str, float] = field(init=False, default_factory=dict)
    input_shape: tuple[int, ...] | None = field(init=False, default=None)
    # (-hash of the name, -order of arrival), facts, files: the largest hash is the first in the heap.
    _heap: list[tuple[tuple[int, int], dict[str, Any], dict[str, bytes]]] = field(init=False, default_factory=list)

    def add(
        self, sample: Any, inputs: Tensor, logits: Tensor, facts: Mapping[str, Any], *, ignore_index: int | None = None
    ) -> None:
        """Take in one sample.

        Args:
            sample: Its name and truth.
            inputs: (C, H, W) or (V, T) float, the network's input.
            logits: (K, h, w) float at the size of the sample's mask, or (K,) float.
            facts: `score`, and of a classification `truth`, `prediction` and `probability`.
            ignore_index: Label that does not count.
        """
        if not isinstance(sample, NamedMask | NamedSample):
            return
        name, key = Path(sample.name).name, sample_key(sample)
        self.scores[key] = facts["score"]
        self.input_shape = tuple(inputs.shape)
        rank = (-int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()), -len(self.scores))
        is_full = len(self._heap) >= self.count
        if is_full and (not self._heap or rank < self._heap[0][0]):
            return
        files = _files_of(sample, inputs, logits, ignore_index)
        found = {**facts, "key": key, "name": name}
        (heapq.heapreplace if is_full else heapq.heappush)(self._heap, (rank, found, files))

    def shown(self) -> list[dict[str, Any]]:
        """Return the facts of the stored samples, each with its `key` and `name`, in a fixed order."""
        return [facts for _, facts, _ in sorted(self._heap, key=lambda each: each[0], reverse=True)]

    def files(self) -> dict[tuple[str, str], bytes]:
        """Return the content of each file by the key of its sample and its kind."""
        return {(facts["key"], kind): content for _, facts, files in self._heap for kind, content in files.items()}


def sample_key(sample: NamedMask | NamedSample) -> str:
    """Return a hash of name and truth: the same for the same sample in any run, wherever its files lie."""
    digest = hashlib.sha256(f"{Path(sample.name).name}\n".encode(errors="surrogateescape"))
    if isinstance(sample, NamedSample):
        digest.update(f"class {sample.target}".encode())
    else:
        labels = sample.target.cpu().numpy()
        digest.update(f"{labels.shape}".encode())
        digest.update(np.ascontiguousarray(labels, dtype=np.int16).data)
    return digest.hexdigest()[:_KEY_LETTERS]


def _files_of(
    sample: NamedMask | NamedSample, inputs: Tensor, logits: Tensor, ignore_index: int | None
) -> dict[str, bytes]:
    """Return the files of a sample, scaled down to `LONGEST_SIDE`."""
    if isinstance(sample, NamedSample):
        drawn = draw_input(inputs.float().cpu().numpy(), "")
        return {IMAGE: _encoded(".jpg", resize_to(drawn, _scaled(drawn.shape[:2]))[..., ::-1])}
    truth, prediction = sample.target.cpu().numpy(), logits.argmax(dim=0).cpu().numpy()
    num_classes = logits.shape[0]
    dtype = np.uint8 if num_classes < 256 else np.uint16
    truth = np.where(valid_pixels(truth, num_classes, ignore_index), truth, np.iinfo(dtype).max)
    height, width = _scaled(truth.shape)
    # By nearest neighbour, as labels cannot be averaged.
    rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), truth.shape, strict=True))
    image = resize_to(image_of(sample, inputs), (height, width))
    masks: dict[str, NDArray[Any]] = {TRUTH: truth, PREDICTION: prediction}
    files = {kind: _encoded(".png", mask[np.ix_(rows, columns)].astype(dtype)) for kind, mask in masks.items()}
    return {**files, IMAGE: _encoded(".jpg", image[..., ::-1])}


def _scaled(size: tuple[int, ...]) -> tuple[int, int]:
    """Return the (height, width) of a stored image."""
    factor = min(1.0, LONGEST_SIDE / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _encoded(suffix: str, image: Image | NDArray[Any]) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
    return cv2.imencode(suffix, np.ascontiguousarray(image), options)[1].tobytes()


def write_stored(run: Path, result: Mapping[str, Any], samples: StoredSamples) -> None:
    """Write the records of a test into a run folder, in the place of those of an earlier one.

    A run whose folder cannot be written is still tested: then a warning says so.

    Args:
        run: The run folder.
        result: Of `test`, with `checkpoint` (a file) and `epoch`.
        samples: The stored samples.
    """
    names = ("epoch", "split", "samples", "metrics", "per_class", "problem", "classes", "ignore_index", "facts", "data")
    content = {
        "format_version": FORMAT,
        "checkpoint": Path(result["checkpoint"]).name,
        **{name: result[name] for name in names},
        "palette": result.get("palette"),
        "scores": samples.scores,
        "shown": samples.shown(),
    }
    folder, split = stored_folder(run, result["split"]), result["split"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stored_results(run, split).unlink(missing_ok=True)  # a kill must not leave old results with new files
        for kind in (IMAGE, TRUTH, PREDICTION):
            for old in folder.glob(f"*_{kind}"):
                old.unlink()
        for (key, kind), data in samples.files().items():
            stored_file(run, split, key, kind).write_bytes(data)
        write_json(stored_results(run, split), content)
    except OSError as error:
        LOG.warning("%s: the records for comparisons are not written (%s)", folder, error.strerror)
