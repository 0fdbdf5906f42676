"""The loader a user subclasses: PyTorch's own, with its chance keyed to (seed, epoch, index)."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import default_collate

from base.data.class_counts import TargetSource, count_batches, count_targets, required_classes
from base.data.index_sampler import (
    Failure,
    KeyedBatchSampler,
    KeyedDataset,
    PreparedSource,
    StandInSource,
    split_indices,
)
from base.data.loader_workers import (
    GuardedCollate,
    child_signals_kept,
    start_worker,
    tells_of_death,
    unpacked,
    usable_workers,
)
from utils.errors import ConfigError, DataError

Task = Literal["segmentation", "classification"]


class BaseDataLoader(DataLoader[Any]):
    """A loader whose batches depend on nothing but its arguments.

    The order of epoch e follows from `(seed, e)`, the draws of a sample from `(seed, epoch, index)`. So batches are
    the same for any number of workers, and an epoch can go on at any batch without replaying those before it.

    A subclass makes its data set and passes it on; it sets the attributes below where they are known.

    Args:
        dataset: Map-style data set. One that offers `sample(index, generator)` draws from that generator; any other
            one may draw from the global generators, which are seeded for each sample and put back.
        batch_size: Samples per batch, over all processes.
        shuffle: New order in each epoch.
        validation_split: Share (0.1) or number (500) of samples held out for `split_validation`.
        n_workers: Worker processes; 0 loads in this one. More than there are processors are not started.
        collate_fn: List of samples -> batch.
        seed: Seed of the run.
        pin_memory: Page-locked batches for faster copies; without CUDA it does nothing.
        drop_last: Leave out an incomplete last batch.
        validation_dataset: The same samples without augmentation, for `split_validation`.
        is_training: Whether batches are to train on; evaluation sees each sample once and the same way in each pass.
            Where not given, a shuffled loader trains.
        indices: Restrict to these samples.

    Attributes:
        task: What a target is: a class per pixel, or one per sample.
        num_classes: Classes in the targets, where known.
        in_channels: Channels of the inputs, where known.
        ignore_index: Target value that no loss or metric counts; None where the task has none.
        class_names: Names of the classes, where known.
        preprocessing: What makes an input of an image, where known.
        learned: Arguments that were left open and that the training data settled (class names, statistics); the loaders
            of other data get them, and they stand in the checkpoint's config.

    Raises:
        ConfigError: An argument is out of its range.
        DataError: There is no sample.
    """

    task: Task = "segmentation"
    num_classes: int | None = None
    in_channels: int | None = None
    ignore_index: int | None = None
    class_names: Sequence[str] = ()
    preprocessing: Any = None
    learned: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        shuffle: bool = True,
        validation_split: int | float = 0.0,
        n_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        seed: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        validation_dataset: Any = None,
        is_training: bool | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized):
            raise ConfigError(
                f"{type(dataset).__name__} cannot be read in any order: a loader needs a data set with __len__ and "
                "__getitem__. Turn the stream into one."
            )
        trains = shuffle if is_training is None else is_training
        chosen = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
        _check_arguments(len(chosen), batch_size, n_workers, drop_last=drop_last, is_training=trains)
        training, held_out = split_indices(len(chosen), validation_split, seed)
        self.seed = seed
        self.keys = KeyedBatchSampler(
            chosen[training],
            batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            is_training=trains,
            seed=seed,
            has_stand_ins=isinstance(dataset, StandInSource),
        )
        self._validation_dataset = validation_dataset
        self._held_out = chosen[held_out]
        self._collate = collate_fn or default_collate
        self._is_prepared = False
        workers = usable_workers(n_workers)
        super().__init__(
            KeyedDataset(dataset, seed),
            batch_sampler=self.keys,
            num_workers=workers,
            collate_fn=GuardedCollate(self._collate),
            pin_memory=pin_memory and torch.cuda.is_available(),
            worker_init_fn=start_worker,
            # DataLoader draws a seed for its workers from here; without it, from the global generator.
            generator=torch.Generator().manual_seed(seed),
            persistent_workers=workers > 0,
            # Forked workers share the decoded images of the main process.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        # DataLoader leaves these unset beside a batch sampler and forbids assigning them.
        self.__dict__["batch_size"] = batch_size
        self.__dict__["drop_last"] = drop_last

    @property
    def is_training(self) -> bool:
        """Whether batches are to train on; whoever knows better than the arguments told may set it."""
        return self.keys.is_training

    @is_training.setter
    def is_training(self, value: bool) -> None:
        self.keys.is_training = value

    @property
    def num_samples(self) -> int:
        """Samples that this loader draws from, over all processes."""
        return len(self.keys.indices)

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Let the next iteration be `epoch` (from 0) from `batch` on; without it, epochs follow one another."""
        self.keys.set_position(epoch, batch)

    def shard(self, rank: int, world_size: int) -> None:
        """Yield only the part of process `rank` of each batch.

        The parts are contiguous and together are the batches of a single process. In training every process gets as
        many batches; one without a share of the last batch gets a stand-in whose target is ignored or, where the data
        set cannot give one, nobody gets that batch. In evaluation each sample is on exactly one process, so a process
        may get fewer batches than `len`.
        """
        self.keys.shard(rank, world_size)

    def limit(self, count: int) -> None:
        """Keep only the first `count` samples.

        Raises:
            ConfigError: No batch would be left.
        """
        left = self.keys.indices[:count] if count > 0 else self.keys.indices[:0]
        if not len(left) or (self.keys.drop_last and len(left) < self.keys.batch_size):
            raise ConfigError(f"{count} samples leave no batch. Keep more, or set drop_last to false.")
        self.keys.indices = left

    def split_validation(self) -> "BaseDataLoader | None":
        """A loader over the held-out samples, in order and without augmentation; None without a split."""
        return self.evaluation_loader(self._held_out) if len(self._held_out) else None

    def evaluation_loader(self, indices: Sequence[int] | np.ndarray | None = None) -> "BaseDataLoader":
        """A loader for evaluation over some samples, by default over those that this one draws from."""
        loader = BaseDataLoader(
            self.dataset_for_evaluation(),
            self.keys.batch_size,
            shuffle=False,
            n_workers=self.num_workers,
            collate_fn=self._collate,
            seed=self.seed,
            pin_memory=self.pin_memory,
            indices=list(self.keys.indices if indices is None else indices),
        )
        for name in ("task", "num_classes", "in_channels", "ignore_index", "class_names", "preprocessing", "learned"):
            setattr(loader, name, getattr(self, name))
        return loader

    def dataset_for_evaluation(self) -> Any:
        """The samples without augmentation, or the data set itself where none such was given."""
        return self._source() if self._validation_dataset is None else self._validation_dataset

    def class_counts(self) -> list[int]:
        """How many targets that count each class has in the samples that this loader draws from, not augmented.

        A data set that offers `target(index)` is asked for the targets alone; of others whole samples are loaded.

        Raises:
            ConfigError: The number of classes is not known.
            DataError: A sample cannot be read.
        """
        num_classes, dataset = required_classes(self.num_classes), self._source()
        if isinstance(dataset, TargetSource):
            return count_targets(dataset, self.keys.indices.tolist(), num_classes, self.ignore_index)
        return count_batches(self.evaluation_loader(), num_classes, self.ignore_index)

    def _source(self) -> Any:
        keyed: KeyedDataset = self.dataset  # type: ignore[assignment]
        return keyed.dataset

    def prepare(self) -> None:
        """Let the data set check and decode what this loader draws from; the first iteration does it otherwise.

        Raises:
            DataError: What the data set found.
        """
        if not self._is_prepared:
            dataset = self._source()
            if isinstance(dataset, PreparedSource):
                dataset.prepare(self.keys.indices.tolist())
            self._is_prepared = True

    def example(self) -> Any:
        """The batch at the current position, loaded in this process and without moving on.

        Raises:
            EspalierError: What a sample has to complain of.
        """
        batch = GuardedCollate(self._collate)([self.dataset[key] for key in next(iter(self.keys))])
        return unpacked(batch)

    def close(self) -> None:
        """Stop the workers; another iteration starts new ones."""
        iterator: Any = self._iterator
        self._iterator = None
        if iterator is not None:
            # At once, not when the garbage is collected: that may happen in a later worker's copy of this process.
            iterator._shutdown_workers()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches of the epoch at the current position.

        Raises:
            EspalierError: What a sample has to complain of, as if it were loaded here.
        """
        self.prepare()
        with warnings.catch_warnings(), child_signals_kept():
            # Our threads (a writer of events, a pool that has ended) hold no lock that a worker will want.
            warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
            iterator = super().__iter__()
        self.keys.advance()  # not by the sampler itself: DataLoader begins to iterate over it more than once
        return self._delivered(iterator)

    def _delivered(self, iterator: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
                self.close()
                if not self.num_workers or not tells_of_death(error):
                    raise
                raise DataError(
                    f"A worker process of the loader died ({error!r}). Usually memory or shared memory (/dev/shm) ran "
                    "out. Use fewer n_workers, a smaller batch_size, or more shared memory."
                ) from error
            if isinstance(batch, Failure):
                self.close()
            yield unpacked(batch)


def _check_arguments(count: int, batch_size: int, n_workers: int, *, drop_last: bool, is_training: bool) -> None:
    if batch_size < 1:
        raise ConfigError(f"Wrong batch_size {batch_size}: it must be 1 or more.")
    if n_workers < 0:
        raise ConfigError(f"Wrong n_workers {n_workers}: it must be 0 (load in the main process) or more.")
    if count == 0:
        raise DataError("The data set is empty: a loader needs at least one sample. Check the list or the folder.")
    if drop_last and not is_training:
        raise ConfigError("drop_last is true in a loader for evaluation, which must see every sample. Set it to false.")
    if drop_last and count < batch_size:
        raise ConfigError(
            f"drop_last leaves no batch: {count} samples are fewer than batch_size {batch_size}. "
            "Set drop_last to false or make batch_size smaller."
        )
