"""Samples of a data set: their order and random values, their names in evaluation, and the counts of their targets.

Order and random values follow from (seed, epoch, index) alone.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from utils.environment import DECODING_THREADS, available_processors
from utils.errors import ConfigError, EspalierError
from utils.geometry import Geometry
from utils.seeding import derive_seed, isolated_generators


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
class TargetSource(Protocol):
    """A data set that can give a target without its input, and without augmentation."""

    def target(self, index: int) -> Any:
        """Return the target of sample `index` at its original size; labels hidden in training are ignored."""


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


class KeyedDataset(Dataset[Any]):
    """A data set whose samples are requested by keys.

    Args:
        dataset: One with `sample(index, generator)`, or any map-style one: then `dataset[index]` runs with the global
            generators seeded for that sample alone and restored afterwards.
        seed: Seed of the run.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.is_keyed = isinstance(dataset, KeyedSource)

    def __getitem__(self, key: SampleKey) -> Any:
        """Return the sample of a key, or a `Failure` if the user has to correct something."""
        seed = derive_seed(self.seed, "sample", key.epoch, key.index)
        try:
            if self.is_keyed:
                sample = self.dataset.sample(key.index, np.random.default_rng(seed))
            else:
                with isolated_generators(seed):
                    sample = self.dataset[key.index]
            return sample if key.counted else self.dataset.without_target(sample)
        except EspalierError as error:
            return Failure(error)

    def __len__(self) -> int:
        return len(self.dataset)


@dataclass(eq=False)
class KeyedBatchSampler(Sampler[list[SampleKey]], Sized):
    """An index sampler: batches of keys, from any epoch and batch on, whole or only those of one process.

    Args:
        indices: Samples to choose from, in the order of the data set.
        batch_size: Samples per batch over all processes.
        shuffle: New order in every epoch.
        drop_last: Leave out an incomplete last batch.
        is_training: In evaluation every sample comes exactly once and every pass has the random values of epoch 0. In
            training a last batch of one sample is left out (batch norm has no variance there), unless it is the only
            one.
        seed: Seed of the run.
        has_stand_ins: The data set offers `without_target`, so that a process without a share of the last batch gets a
            stand-in.
        rank: Number of this process; it gets a contiguous share of the samples of each batch.
        world_size: Number of processes.
        position: Epoch and batch at which the next iteration begins.
    """

    indices: NDArray[np.int64]
    batch_size: int
    _: KW_ONLY
    shuffle: bool
    drop_last: bool
    is_training: bool
    seed: int
    has_stand_ins: bool
    rank: int = 0
    world_size: int = 1
    position: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.indices), self.batch_size)
        if rest == 0 or self.drop_last:
            return whole
        spoils_batch_norm = rest == 1 and whole > 0
        leaves_process_idle = rest < self.world_size and not self.has_stand_ins
        return whole if self.is_training and (spoils_batch_norm or leaves_process_idle) else whole + 1

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Return the batches from the current position on; a later change of the position makes no difference."""
        epoch, first = self.position
        return self._batches(epoch if self.is_training else 0, first)

    def _batches(self, epoch: int, first: int) -> Iterator[list[SampleKey]]:
        order = self.indices
        if self.shuffle:
            order = np.random.default_rng(derive_seed(self.seed, "order", epoch)).permutation(order)
        for number in range(first, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            start, end = (len(batch) * rank // self.world_size for rank in (self.rank, self.rank + 1))
            if start < end:
                yield [SampleKey(epoch, index) for index in batch[start:end].tolist()]
            elif self.is_training:
                # Every process must take part in the step: this one repeats a sample that does not count.
                count = min(self.batch_size, len(order))
                start, end = (count * rank // self.world_size for rank in (self.rank, self.rank + 1))
                yield [SampleKey(epoch, int(order[start] if start < end else order[0]), counted=False)]


def split_indices(count: int, validation_split: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide `count` samples into those to train on and those held out, both in ascending order.

    Args:
        count: Number of samples.
        validation_split: Fraction to hold out, a float in (0, 1), or a number of samples, an int; 0 holds out none.
        seed: Seed of the run.

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
    """
    with ThreadPoolExecutor(min(DECODING_THREADS, available_processors())) as pool:
        parts = pool.map(lambda index: _count(dataset.target(index), num_classes, ignore_index), indices)
        total: NDArray[np.int64] = sum(parts, np.zeros(num_classes, np.int64))
        return [int(count) for count in total]


def count_batches(batches: Iterable[Any], num_classes: int, ignore_index: int | None) -> list[int]:
    """Return the number of labels of each class in batches, at their original size if known."""
    total: NDArray[np.int64] = np.zeros(num_classes, np.int64)
    for _, target, *named in batches:
        for labels in (sample.target for sample in named[0]) if named else (target,):
            total += _count(labels, num_classes, ignore_index)
    return [int(count) for count in total]


def _count(target: Any, num_classes: int, ignore_index: int | None) -> NDArray[np.int64]:
    labels = np.asarray(target).reshape(-1)
    if labels.dtype.itemsize > 2 or labels.dtype.kind != "u":  # bincount needs small values without sign
        labels = labels[(labels >= 0) & (labels < num_classes)].astype(np.int64)
    counts = np.bincount(labels, minlength=num_classes)[:num_classes].astype(np.int64)
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        counts[ignore_index] = 0
    return counts
