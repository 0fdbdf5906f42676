"""Order and random values of the samples: all of it follows from (seed, epoch, index)."""

from collections.abc import Iterator, Sequence, Sized
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch.utils.data import Dataset, Sampler

from utils.errors import ConfigError, EspalierError
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


class Failure(NamedTuple):
    """A user's error on its way from a loader worker to the main process, without the worker's traceback."""

    error: EspalierError


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
    """

    def __init__(
        self,
        indices: Sequence[int],
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool,
        is_training: bool,
        seed: int,
        has_stand_ins: bool,
    ) -> None:
        self.indices = np.asarray(indices, dtype=np.int64)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.is_training = is_training
        self.seed = seed
        self.has_stand_ins = has_stand_ins
        self.rank, self.world_size = 0, 1
        self._position = (0, 0)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.indices), self.batch_size)
        if rest == 0 or self.drop_last:
            return whole
        spoils_batch_norm = rest == 1 and whole > 0
        leaves_process_idle = rest < self.world_size and not self.has_stand_ins
        return whole if self.is_training and (spoils_batch_norm or leaves_process_idle) else whole + 1

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Let the next iteration be `epoch` from `batch` on.

        Raises:
            ConfigError: There is no such batch.
        """
        if epoch < 0 or not 0 <= batch <= len(self):
            raise ConfigError(
                f"Cannot start at batch {batch} of epoch {epoch}: an epoch has {len(self)} batches. "
                "Resume with the data and the batch size that the run was started with."
            )
        self._position = (epoch, batch)

    def advance(self) -> None:
        """Move to the beginning of the next epoch."""
        self._position = (self._position[0] + 1, 0)

    def shard(self, rank: int, world_size: int) -> None:
        """Yield only the samples of process `rank` of `world_size`; the order of the samples does not change.

        Raises:
            ConfigError: There is no such process, or a batch has fewer samples than there are processes.
        """
        if not 0 <= rank < world_size:
            raise ConfigError(f"Process {rank} of {world_size}: the rank must be 0 to {world_size - 1}.")
        if self.is_training and self.batch_size < world_size:
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be divided among {world_size} processes: it is the number of "
                f"samples over all of them. Set it to {world_size} or more."
            )
        self.rank, self.world_size = rank, world_size

    def order(self, epoch: int) -> np.ndarray:
        """Return the samples of an epoch in their order, (N,) int64."""
        if not self.shuffle:
            return self.indices
        return np.random.default_rng(derive_seed(self.seed, "order", epoch)).permutation(self.indices)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Return the batches from the current position on; a later change of the position makes no difference."""
        epoch, first = self._position
        return self._batches(epoch if self.is_training else 0, first)

    def _batches(self, epoch: int, first: int) -> Iterator[list[SampleKey]]:
        order = self.order(epoch)

        def samples_of(number: int) -> np.ndarray:
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            start, end = (len(batch) * rank // self.world_size for rank in (self.rank, self.rank + 1))
            return batch[start:end]

        for number in range(first, len(self)):
            samples = samples_of(number)
            if len(samples):
                yield [SampleKey(epoch, index) for index in samples.tolist()]
            elif self.is_training:
                # Every process must take part in the step: this one repeats a sample that does not count.
                repeated = samples_of(0)
                yield [SampleKey(epoch, int(repeated[0] if len(repeated) else order[0]), counted=False)]


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
