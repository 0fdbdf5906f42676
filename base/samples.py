"""Samples of a data set: how they are requested and divided, their names in evaluation, the counts of their targets."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from utils.environment import DECODING_THREADS, available_processors
from utils.errors import ConfigError, DataError, EspalierError
from utils.geometry import Geometry, Size
from utils.seeding import derive_seed

DESCRIBED = (
    "task", "num_classes", "in_channels", "dims", "ignore_index", "class_names", "learned", "preprocessing",
    "listing_faults",
)  # fmt: skip
"""Attributes of a loader that describe its samples."""
_NAMES_SHOWN = 12


class SampleKey(NamedTuple):
    """The request for one sample.

    Attributes:
        epoch: Epoch whose random values the sample gets.
        index: Index in the data set.
        counted: False for a stand-in that only occupies a process; its target is ignored everywhere.
    """

    epoch: int
    index: int  # type: ignore[assignment]
    counted: bool = True


@runtime_checkable
class KeyedSource(Protocol):
    """A data set that takes its random values from a generator that it is given."""

    def sample(self, index: int, generator: np.random.Generator) -> Any:
        """Return sample `index`, with every random value from `generator`."""


@runtime_checkable
class StandInSource(Protocol):
    """A data set that can give a sample whose target counts nowhere."""

    def without_target(self, sample: Any) -> Any:
        """Return the same sample with a target that is ignored everywhere."""


@runtime_checkable
class PreparedSource(KeyedSource, Protocol):
    """A data set that checks or decodes samples before the first of them is requested."""

    def prepare(self, indices: Sequence[int]) -> None:
        """Check or decode these samples."""


@runtime_checkable
class CachedSource(Protocol):
    """A data set that knows whether samples have to be decoded whenever they are requested."""

    def is_in_memory(self, indices: Sequence[int]) -> bool:
        """Return whether all of these samples are decoded in memory; after `prepare`, if there is one."""


@runtime_checkable
class TargetSource(Protocol):
    """A data set that can give a target without its input, and without augmentation."""

    def target(self, index: int) -> Any:
        """Return the target of sample `index` at its original size; labels hidden in training are ignored."""


@runtime_checkable
class IdentifiedSource(Protocol):
    """A data set that can tell its samples from others, wherever its files lie."""

    def sample_identity(self, index: int) -> str:
        """Return name and class of sample `index`, without the folders that it lies in."""


class RawSample(NamedTuple):
    """A sample as its files hold it: neither scaled nor augmented.

    Attributes:
        input: Image (h, w, C) or series (V, T), any kind of number; NaN in a series is a missing value.
        target: Mask (h, w) of ids, or the id of a class.
    """

    input: NDArray[Any]
    target: NDArray[Any] | int


@runtime_checkable
class ExaminedSource(Protocol):
    """A data set whose samples can be examined as their files hold them, from several threads at once."""

    def sample_names(self, index: int) -> Sequence[str]:
        """Return the files of sample `index` (or file and row), the input first, by which a user finds them."""

    def raw_sample(self, index: int) -> RawSample:
        """Return sample `index`; an error for several faults carries each of them."""

    def unfit_sizes(self, sizes: Mapping[int, Size]) -> Iterator[EspalierError]:
        """Yield the reasons for which inputs of these sizes, by index, cannot be augmented or share a batch."""


def data_identity(dataset: Any, indices: Iterable[int]) -> dict[str, Any]:
    """Return what tells some samples of a data set from other data, as plain data.

    Returns:
        Their number under `samples`, and under `digest` the SHA-256 of their names and classes in order, or None if
        the data set does not offer `sample_identity`.
    """
    chosen, digest = list(indices), None
    if isinstance(dataset, IdentifiedSource):
        lines = hashlib.sha256()
        for index in chosen:
            lines.update(f"{dataset.sample_identity(index)}\n".encode(errors="surrogateescape"))
        digest = lines.hexdigest()
    return {"samples": len(chosen), "digest": digest}


def require_same_classes(names: Sequence[str], place: str, expected: Sequence[str], section: str | None) -> None:
    """Raise an error if data has other classes than the data of the training; unnamed ones (class_0, ...) may differ.

    Args:
        names: Classes in the order of their ids.
        place: JSON path of their names.
        expected: Classes of the training data.
        section: Name of the section, or of the file, that has these.

    Raises:
        ConfigError: A class is another one, missing, added or in another place.
    """
    is_named = all(
        each and list(each) != [f"class_{number}" for number in range(len(each))] for each in (names, expected)
    )
    if is_named and list(names) != list(expected):
        given, wanted = (json.dumps(list(each[:_NAMES_SHOWN]), ensure_ascii=False) for each in (names, expected))
        raise ConfigError(
            f"{place}: {given}, but {section} has {wanted}. Ids follow this order. Both must agree: say it once."
        )


class Failure(NamedTuple):
    """A user's error on its way from a loader worker to the main process, without the worker's traceback."""

    error: EspalierError


@dataclass(frozen=True, slots=True)
class NamedMask:
    """A mask for evaluation at its original size.

    Attributes:
        name: The file of the image, by which a user finds it.
        target: (h, w) int64, the mask at its original size.
        geometry: Position of the image on the network's input.
        index: Index in the data set.
    """

    name: str
    target: Tensor
    geometry: Geometry
    index: int


@dataclass(frozen=True, slots=True)
class NamedSample:
    """A sample of a classification for evaluation.

    Attributes:
        name: The file, or the file and the row, by which a user finds it.
        target: Id of its class.
        index: Index in the data set.
    """

    name: str
    target: int
    index: int


def check_loader_arguments(
    count: int, batch_size: int, n_workers: int | str, *, drop_last: bool, is_training: bool
) -> None:
    """Refuse arguments of a loader that are out of their range or leave it without a batch.

    Args:
        count: Samples that it draws from.
        batch_size: Samples per batch.
        n_workers: Processes that load, or "auto".
        drop_last: Whether an incomplete last batch is left out.
        is_training: Whether its batches are to train on.

    Raises:
        ConfigError: An argument is wrong.
        DataError: There is no sample.
    """
    if batch_size < 1:
        raise ConfigError(f"Wrong batch_size {batch_size}: it must be 1 or more.")
    if isinstance(n_workers, str) and n_workers != "auto":
        raise ConfigError(f'Wrong n_workers "{n_workers}": it must be a number, or "auto" (as many as pay).')
    if isinstance(n_workers, int) and n_workers < 0:
        raise ConfigError(f'Wrong n_workers {n_workers}: it must be 0 (load in the main process) or more, or "auto".')
    if count == 0:
        raise DataError("The data set is empty: a loader needs at least one sample. Check the list or the folder.")
    if drop_last and not is_training:
        raise ConfigError("drop_last is true in a loader for evaluation, which must see every sample. Set it to false.")
    if drop_last and count < batch_size:
        raise ConfigError(
            f"drop_last leaves no batch: {count} samples are fewer than batch_size {batch_size}. "
            "Set drop_last to false or make batch_size smaller."
        )


def split_indices(count: int, validation_split: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide `count` samples into those to train on and those held out, both in ascending order.

    Args:
        count: Number of samples.
        validation_split: Fraction to hold out, a float in (0, 1), or a number of samples, an int; 0 holds out none.
        seed: Seed of the choice.

    Returns:
        (training, held out), two int64 arrays.

    Raises:
        ConfigError: The split is neither, or leaves one side empty.
    """
    is_count = isinstance(validation_split, int) and not isinstance(validation_split, bool)
    is_ratio = isinstance(validation_split, float) and 0.0 <= validation_split < 1.0
    held_out = validation_split if is_count else round(count * validation_split) if is_ratio else -1
    if validation_split != 0 and not 0 < held_out < count:
        raise ConfigError(
            f"Wrong validation_split {validation_split!r} for {count} samples: it must be a ratio between 0 and 1 "
            f"(0.1 holds out a tenth) or a whole number of samples from 1 to {count - 1}, and leave both sides one. "
            "Set it to 0 to hold out none."
        )
    permutation = np.random.default_rng(derive_seed(seed, "split")).permutation(count)
    return np.sort(permutation[int(held_out) :]), np.sort(permutation[: int(held_out)])


def count_targets(
    dataset: TargetSource, indices: Sequence[int], num_classes: int, ignore_index: int | None
) -> list[int]:
    """Return the number of labels of each class in the targets of some samples, in any order.

    Args:
        dataset: Gives the targets.
        indices: The samples.
        num_classes: Labels outside 0..K-1 do not count.
        ignore_index: A label that does not count either.

    Raises:
        ConfigError: A target holds no ids of classes.
    """
    with ThreadPoolExecutor(min(DECODING_THREADS, available_processors())) as pool:
        parts = pool.map(lambda index: _count(dataset.target(index), num_classes, ignore_index), indices)
        total: NDArray[np.int64] = sum(parts, np.zeros(num_classes, np.int64))
        return [int(count) for count in total]


def loaded_or_failed(dataset: Any, key: SampleKey) -> Any:
    """Return a sample of a data set, which may raise any error, or a `Failure` that says why it cannot be loaded."""
    try:
        return dataset[key]
    except Exception as error:
        return Failure(DataError(f"sample {key.index} cannot be loaded: {type(error).__name__}: {error}."))


def labels_of(sample: Any) -> Any:
    """Return the labels of a sample (input, labels, ...), or a float if it has another form, such as several targets.

    Raises:
        EspalierError: The sample is faulty.
    """
    if isinstance(sample, Failure):
        raise sample.error
    target = sample[1] if isinstance(sample, Sequence) and len(sample) > 1 else None
    return target if isinstance(target, Tensor | np.ndarray | np.integer | int) else 0.0


def task_of(loader: Any) -> str:
    """Return the task of a loader, `segmentation` or `classification`: its `task`, or that of its first target.

    A target with two axes or more is a mask; a number, or a list of probabilities, is the class of a sample.

    Raises:
        EspalierError: The first sample is faulty.
    """
    if loader.task is not None:
        return str(loader.task)
    dataset, index = loader.dataset.dataset, int(loader.keys.indices[0])
    is_asked = isinstance(dataset, TargetSource) and callable(dataset.target)
    target = dataset.target(index) if is_asked else labels_of(loader.dataset[SampleKey(0, index)])
    return "segmentation" if np.ndim(target) >= 2 else "classification"


def nothing_counted(section: str, count: int, ignore_index: int | None, *, is_training: bool) -> DataError:
    """Return the error for `count` samples of a section of which none has a label that counts."""
    ignored = "" if ignore_index is None else f" {ignore_index} (ignored) or"
    return DataError(
        f"{section}: every label of its {count} samples is{ignored} of no class. There is nothing to "
        f"{'train' if is_training else 'evaluate'} on. Correct the masks, or name other samples."
    )


def is_counted(target: Any, num_classes: int | None, ignore_index: int | None) -> bool:
    """Return whether a target has a label that counts; of probabilities and other floats this is taken for granted."""
    labels = np.asarray(target)
    if labels.dtype.kind == "f":
        return True
    counted = (labels >= 0) & (labels != (-1 if ignore_index is None else ignore_index))
    return bool((counted if num_classes is None else counted & (labels < num_classes)).any())


def count_batches(batches: Iterable[Any], num_classes: int, ignore_index: int | None) -> list[int]:
    """Return the number of labels of each class in batches, at their original size if known.

    Raises:
        ConfigError: A target holds no ids of classes.
    """
    total: NDArray[np.int64] = np.zeros(num_classes, np.int64)
    for _, target, *named in batches:
        for labels in (sample.target for sample in named[0]) if named else (target,):
            total += _count(labels, num_classes, ignore_index)
    return [int(count) for count in total]


def _count(target: Any, num_classes: int, ignore_index: int | None) -> NDArray[np.int64]:
    labels = np.asarray(target)
    if labels.dtype.kind == "f":
        raise ConfigError(
            f"A target is {labels.dtype} {labels.shape}, but only ids of classes (whole numbers) can be counted. "
            'Write the "weight" of the loss as numbers, or let the data set offer target(index) with the ids.'
        )
    labels = labels.reshape(-1)
    if labels.dtype.itemsize > 2 or labels.dtype.kind != "u":  # bincount needs small values without sign
        labels = labels[(labels >= 0) & (labels < num_classes)].astype(np.int64)
    counts = np.bincount(labels, minlength=num_classes)[:num_classes].astype(np.int64)
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        counts[ignore_index] = 0
    return counts
