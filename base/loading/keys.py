"""Keys of samples: the data set that is asked by them, and the sampler that gives the batches of every epoch."""

from collections.abc import Iterator, Sized
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from base.samples import Failure, KeyedSource, SampleKey
from utils.errors import EspalierError
from utils.seeding import derive_seed, isolated_generators


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
            training a last batch of one sample, if not the only one, is left out: batch norm has no variance there.
        seed: Seed of the run.
        has_stand_ins: The data set offers `without_target`, for a process without a share of the last batch.
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
