"""The facts of the samples of a split: sizes, labels, and marks by which copies are found."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from base.samples import RawSample
from utils.geometry import Size

THUMBNAIL = 32
"""Side of the grey thumbnail of an image."""


_LEAST_SIDE = 64  # smaller images, such as centred digits, are alike without being copies
_RESIZED_TYPES = (np.uint8, np.uint16, np.float32, np.float64)  # by OpenCV
_THUMBNAIL_SIZE = (THUMBNAIL, THUMBNAIL)
_CELLS = (9, 8)  # width and height: eight comparisons in each of eight rows

MOST_COMPARED = 30_000
"""Images of a split whose looks are compared with those of others; they are evenly spaced in a larger one."""


class Look(NamedTuple):
    """The look of an image.

    Attributes:
        fingerprint: 64 bits that are alike for images that look alike.
        thumbnail: (32, 32) uint8, grey.
    """

    fingerprint: int
    thumbnail: NDArray[np.uint8]


class SampleFacts(NamedTuple):
    """The facts of one sample.

    Attributes:
        name: Its file, or file and row.
        size: Height and width of an image; number of variables and steps of a series.
        counts: (K,) int64, labels of each class; empty if the number of classes is not known.
        labels: Number of all labels, with those that do not count.
        digest: Digest of the decoded input: equal for equal content, in any file.
        target_digest: The same of the target.
        look: The look of an image, if it is to be compared with others; None for a series.
    """

    name: str
    size: Size
    counts: NDArray[np.int64]
    labels: int
    digest: int
    target_digest: int
    look: Look | None


@dataclass
class SplitFacts:
    """The facts of a split. Lists and arrays have an entry for each sample that can be read, in the loader's order.

    Attributes:
        section: Section of the config, or another name by which a user knows the split.
        num_samples: Samples that the loader draws from.
        num_examined: Samples that were read, or could not be: fewer if a plug-in's data set is very large.
        names: Files of the samples.
        sizes: Height and width of each image; number of variables and steps of a series.
        class_names: Names of the classes, in the order of their ids; empty if they are not known.
        ignore_index: Label that does not count; it may be one of the classes.
        class_counts: Labels of each class: pixels, or samples of a classification.
        class_samples: Number of samples in which each class appears.
        num_labels: Number of all labels, with those that do not count.
        digests: (n,) uint64, equal for equal inputs.
        target_digests: (n,) uint64, equal for equal targets.
        compared: Positions in `names` of the m images whose looks are known; empty if inputs are no images.
        fingerprints: (m,) uint64.
        thumbnails: (m, 32, 32) uint8.
    """

    section: str
    num_samples: int
    num_examined: int = 0
    names: list[str] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    class_names: Sequence[str] = ()
    ignore_index: int | None = None
    class_counts: list[int] = field(default_factory=list)
    class_samples: list[int] = field(default_factory=list)
    num_labels: int = 0
    digests: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    target_digests: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    compared: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    fingerprints: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    thumbnails: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, THUMBNAIL, THUMBNAIL), np.uint8))
    _digests: list[tuple[int, int]] = field(default_factory=list, repr=False)
    _looks: dict[int, Look] = field(default_factory=dict, repr=False)

    @property
    def num_readable(self) -> int:
        """Number of samples that can be read."""
        return len(self.names)

    @property
    def num_unreadable(self) -> int:
        """Number of samples that cannot be read."""
        return self.num_examined - len(self.names)

    @property
    def ignored_share(self) -> float:
        """Fraction of the labels that do not count, 0 to 1."""
        return 1 - sum(self.class_counts) / self.num_labels if self.num_labels and self.class_counts else 0.0

    def add(self, sample: SampleFacts) -> None:
        """Count a sample that can be read; arrays are set by `finish`."""
        if not self.class_counts:
            self.class_counts, self.class_samples = [0] * len(sample.counts), [0] * len(sample.counts)
        for label in np.flatnonzero(sample.counts).tolist():
            self.class_counts[label] += int(sample.counts[label])
            self.class_samples[label] += 1
        self.num_labels += sample.labels
        if sample.look is not None:
            self._looks[len(self.names)] = sample.look
        self._digests.append((sample.digest, sample.target_digest))
        self.names.append(sample.name)
        self.sizes.append(sample.size)

    def finish(self) -> None:
        """Turn the collected facts into arrays."""
        digests = np.array(self._digests, np.uint64).reshape(-1, 2)
        self.digests, self.target_digests = digests[:, 0].copy(), digests[:, 1].copy()
        if self._looks:
            self.compared = np.array(list(self._looks), np.int64)
            self.fingerprints = np.array([look.fingerprint for look in self._looks.values()], np.uint64)
            self.thumbnails = np.stack([look.thumbnail for look in self._looks.values()])
        self._digests.clear()
        self._looks.clear()

    def size_range(self) -> tuple[Size, Size, Size] | None:
        """Return the smallest, the median and the largest size, by their product; None if no sample can be read."""
        ordered = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
        return (ordered[0], ordered[len(ordered) // 2], ordered[-1]) if ordered else None


def facts_of(
    sample: RawSample, name: str, num_classes: int | None, ignore_index: int | None, *, has_look: bool
) -> SampleFacts:
    """Return the facts of a sample that could be read; with its look if that is wanted and it is a large image."""
    values = np.ascontiguousarray(sample.input)
    is_image = values.ndim == 3 or (values.ndim == 2 and values.dtype == np.uint8)
    has_look = has_look and is_image and min(values.shape[:2]) >= _LEAST_SIDE
    counts, labels = _counted(sample.target, num_classes, ignore_index)
    return SampleFacts(
        name,
        (values.shape[0], values.shape[1] if values.ndim > 1 else 1),
        counts,
        labels,
        _digest(values),
        _digest(np.ascontiguousarray(sample.target)),
        _look(values) if has_look else None,
    )


def unknown_facts(name: str) -> SampleFacts:
    """Return the facts of a sample of which nothing is known but that it can be read; it equals no other one."""
    digest = _digest(np.frombuffer(name.encode(errors="surrogatepass"), np.uint8))
    return SampleFacts(name, (0, 0), np.zeros(0, np.int64), 0, digest, digest, None)


def _digest(values: NDArray[Any]) -> int:
    """Return 64 bits of the content; shape and type count, because equal bytes of another shape are another image."""
    state = hashlib.blake2b(f"{values.shape}{values.dtype}".encode(), digest_size=8)
    state.update(values.reshape(-1).view(np.uint8).data)
    return int.from_bytes(state.digest(), "little")


def _counted(
    target: NDArray[Any] | int, num_classes: int | None, ignore_index: int | None
) -> tuple[NDArray[np.int64], int]:
    """Return the number of labels of each class that count, and the number of all labels."""
    labels = np.asarray(target)
    if num_classes is None or labels.dtype.kind not in "iub":
        return np.zeros(0, np.int64), labels.size
    if labels.dtype == np.uint8 and labels.ndim == 2 and labels.size:
        # Ten times as fast as bincount; its counts are float32, exact up to 2**24.
        histogram = [cv2.calcHist([part], [0], None, [256], [0, 256]).ravel() for part in _parts(labels)]
        counts = np.stack(histogram).sum(axis=0, dtype=np.float64).astype(np.int64)
        counts = np.concatenate([counts, np.zeros(max(0, num_classes - len(counts)), np.int64)])[:num_classes]
    else:
        flat = labels.reshape(-1)
        counts = np.bincount(flat[(flat >= 0) & (flat < num_classes)].astype(np.int64), minlength=num_classes)
        counts = counts.astype(np.int64)
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        counts[ignore_index] = 0
    return counts, labels.size


def _parts(labels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    rows = max(1, (1 << 24) // labels.shape[1])
    return [labels[start : start + rows] for start in range(0, labels.shape[0], rows)]


def _look(image: NDArray[Any]) -> Look:
    """Return the look of an image (h, w, C) or (h, w)."""
    channels = (image if image.ndim == 3 else image[..., None])[..., :3]
    if channels.dtype not in _RESIZED_TYPES:
        channels = channels.astype(np.float32)
    # Shrunk first: the rest then costs nothing.
    small = cv2.resize(channels, (THUMBNAIL * 2, THUMBNAIL * 2), interpolation=cv2.INTER_AREA)
    grey = small.reshape(*small.shape[:2], -1).mean(axis=2, dtype=np.float32)
    if image.dtype != np.uint8:
        low, high = float(grey.min()), float(grey.max())
        grey = (grey - low) * (255 / (high - low)) if high > low else np.zeros_like(grey)
    thumbnail, cells = (cv2.resize(grey, size, interpolation=cv2.INTER_AREA) for size in (_THUMBNAIL_SIZE, _CELLS))
    # Whether a place is brighter than its left neighbour ("dHash").
    fingerprint = int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")
    return Look(fingerprint, np.rint(thumbnail).astype(np.uint8))
