"""What a check knows of the samples of a split: sizes, labels, and marks by which copies are found."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from base.samples import RawSample
from utils.geometry import Size

THUMBNAIL = 16
"""Side of the grey thumbnail of an image."""


class SampleFacts(NamedTuple):
    """The facts of one sample.

    Attributes:
        name: Its file, or file and row.
        size: Height and width of an image; number of variables and steps of a series.
        counts: (K,) int64, labels of each class; empty if the number of classes is not known.
        labels: Number of all labels, with those that do not count.
        digest: Digest of the decoded input: equal for equal content, whatever the file.
        target_digest: The same of the target.
        fingerprint: 64 bits that are alike for images that look alike; None for a series.
        thumbnail: (16, 16) uint8, grey; None for a series.
    """

    name: str
    size: Size
    counts: NDArray[np.int64]
    labels: int
    digest: int
    target_digest: int
    fingerprint: int | None
    thumbnail: NDArray[np.uint8] | None


@dataclass
class SplitFacts:
    """The facts of a split. Lists and arrays have an entry for each sample that can be read, in the loader's order.

    Attributes:
        section: Section of the config, or another name by which a user knows the split.
        num_samples: Samples that the loader draws from.
        names: Files of the samples.
        sizes: Height and width of each image; number of variables and steps of a series.
        class_names: Names of the classes, in the order of their ids; empty if they are not known.
        class_counts: Labels of each class: pixels, or samples of a classification.
        class_samples: Number of samples in which each class appears.
        num_labels: Number of all labels, with those that do not count.
        digests: (n,) uint64, equal for equal inputs.
        target_digests: (n,) uint64, equal for equal targets.
        fingerprints: (n,) uint64, or empty if inputs are no images.
        thumbnails: (n, 16, 16) uint8, or empty.
    """

    section: str
    num_samples: int
    names: list[str] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    class_names: Sequence[str] = ()
    class_counts: list[int] = field(default_factory=list)
    class_samples: list[int] = field(default_factory=list)
    num_labels: int = 0
    digests: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    target_digests: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    fingerprints: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    thumbnails: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, THUMBNAIL, THUMBNAIL), np.uint8))

    @property
    def num_readable(self) -> int:
        """Number of samples that can be read."""
        return len(self.names)

    @property
    def ignored_share(self) -> float:
        """Fraction of the labels that do not count, 0 to 1."""
        return 1 - sum(self.class_counts) / self.num_labels if self.num_labels and self.class_counts else 0.0

    def size_range(self) -> tuple[Size, Size, Size] | None:
        """Return the smallest, the median and the largest size, by their product; None if no sample can be read."""
        ordered = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
        return (ordered[0], ordered[len(ordered) // 2], ordered[-1]) if ordered else None


def facts_of(sample: RawSample, name: str, num_classes: int | None, ignore_index: int | None) -> SampleFacts:
    """Return the facts of a sample that could be read."""
    values = np.ascontiguousarray(sample.input)
    is_image = values.ndim == 3 or values.dtype == np.uint8
    thumbnail = _thumbnail(values) if is_image and values.size else None
    counts, labels = _counted(sample.target, num_classes, ignore_index)
    return SampleFacts(
        name,
        (values.shape[0], values.shape[1] if values.ndim > 1 else 1),
        counts,
        labels,
        _digest(values),
        _digest(np.ascontiguousarray(sample.target)),
        None if thumbnail is None else _fingerprint(thumbnail[1]),
        None if thumbnail is None else thumbnail[0],
    )


def merged(section: str, num_samples: int, samples: Sequence[SampleFacts], class_names: Sequence[str]) -> SplitFacts:
    """Return the facts of a split from those of its samples."""
    facts = SplitFacts(section, num_samples, class_names=class_names)
    facts.names = [sample.name for sample in samples]
    facts.sizes = [sample.size for sample in samples]
    facts.num_labels = sum(sample.labels for sample in samples)
    if samples and len(samples[0].counts):
        total = np.zeros(len(samples[0].counts), np.int64)
        shown = total.copy()
        for sample in samples:
            total += sample.counts
            shown += sample.counts > 0
        facts.class_counts, facts.class_samples = total.tolist(), shown.tolist()
    facts.digests = np.array([sample.digest for sample in samples], np.uint64)
    facts.target_digests = np.array([sample.target_digest for sample in samples], np.uint64)
    thumbnails = [sample.thumbnail for sample in samples if sample.thumbnail is not None]
    if samples and len(thumbnails) == len(samples):
        facts.fingerprints = np.array([sample.fingerprint for sample in samples], np.uint64)
        facts.thumbnails = np.stack(thumbnails)
    return facts


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
        counts = np.pad(counts, (0, max(0, num_classes - len(counts))))[:num_classes]
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


def _thumbnail(image: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image (h, w, C) or (h, w) in grey as (16, 16), and as the (8, 9) of which the fingerprint is made."""
    channels = image if image.ndim == 3 else image[..., None]
    # Shrunk first: the rest then costs nothing.
    small = cv2.resize(channels[..., :3], (THUMBNAIL * 4, THUMBNAIL * 4), interpolation=cv2.INTER_AREA)
    grey = small.reshape(*small.shape[:2], -1).mean(axis=2, dtype=np.float32)
    if image.dtype != np.uint8:
        low, high = float(grey.min()), float(grey.max())
        grey = (grey - low) * (255 / (high - low)) if high > low else np.zeros_like(grey)
    sizes = ((THUMBNAIL, THUMBNAIL), (9, 8))
    first, second = (np.rint(cv2.resize(grey, size, interpolation=cv2.INTER_AREA)).astype(np.uint8) for size in sizes)
    return first, second


def _fingerprint(grey: NDArray[np.uint8]) -> int:
    """Return the bits of (8, 9) that say whether a place is brighter than its left neighbour (dHash)."""
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")
