"""The loader that users subclass: PyTorch's DataLoader, with random values that follow from (seed, epoch, index)."""

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler
from torch.utils.data.dataloader import default_collate

from base.loading.workers import ended_in_time, next_batch, not_started, poll_seconds, sendable, start_worker
from base.samples import (
    DESCRIBED,
    Failure,
    KeyedSource,
    PreparedSource,
    SampleKey,
    StandInSource,
    TargetSource,
    check_loader_arguments,
    count_batches,
    count_targets,
    data_identity,
    is_counted,
    labels_of,
    loaded_or_failed,
    nothing_counted,
    split_indices,
)
from utils.environment import available_processors
from utils.errors import ConfigError, DataError, EspalierError, LoaderFailed, joined_faults
from utils.seeding import derive_seed, isolated_generators

logger = logging.getLogger(__name__)

Task = Literal["segmentation", "classification"]


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


class BaseDataLoader(DataLoader[Any]):
    """A loader whose batches depend on nothing but its arguments.

    The order of epoch e follows from `(seed, e)`, the random values of a sample from `(seed, epoch, index)`. So batches
    are the same for any number of loader workers, and an epoch can continue at any batch without replaying those before
    it.

    A subclass builds its data set and passes it on; it sets those of the attributes below that are known.

    Args:
        dataset: Map-style data set. One that offers `sample(index, generator)` draws from that generator; any other
            one may draw from the global generators, which are seeded for each sample and restored.
        batch_size: Samples per batch, over all processes.
        shuffle: New order in each epoch.
        validation_split: Fraction (0.1) or number (500) of samples held out for `split_validation`.
        n_workers: Loader workers; 0 loads in this process. At most one per processor is started.
        collate_fn: List of samples -> batch.
        seed: Seed of the run.
        pin_memory: Page-locked batches for faster copies; without CUDA it does nothing.
        drop_last: Leave out an incomplete last batch.
        validation_dataset: The same samples without augmentation, for `split_validation`.
        is_training: Whether batches are to train on, or evaluate each sample once and the same way; None: `shuffle`.
        indices: Restrict to these samples.

    Attributes:
        task: Kind of a target: a class per pixel, or one per sample; None: by the shape of a target, see `task_of`.
        num_classes: Classes in the targets, if known.
        in_channels: Channels of the inputs, if known.
        dims: Dimensions of an input without its channels, 2 for images and 1 for series, if known.
        ignore_index: Target value that no loss or metric counts; None if there is none.
        class_names: Names of the classes, if known.
        preprocessing: Converts an image to an input, if known.
        split_seed: Seed of what `validation_split` holds out, set before `__init__`; None: the seed of the run.
        learned: Arguments that were left open and follow from the training data (class names, statistics); the loaders
            of other data get them, and they are written into the checkpoint's config.
        listing_faults: Entries of its list or folder that cannot be used, such as missing files. The loader has the
            others, so that a check can go through them; `prepare` refuses it.

    Raises:
        ConfigError: An argument is out of its range.
        DataError: There is no sample.
    """

    task: Task | None = None
    num_classes: int | None = None
    in_channels: int | None = None
    dims: int | None = None
    ignore_index: int | None = None
    class_names: Sequence[str] = ()
    preprocessing: Any = None
    split_seed: int | None = None
    learned: Mapping[str, Any] = MappingProxyType({})
    listing_faults: Sequence[DataError] = ()
    dataset: KeyedDataset
    _loader_timeout: float | None = None

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
        check_loader_arguments(len(chosen), batch_size, n_workers, drop_last=drop_last, is_training=trains)
        split_seed = seed if self.split_seed is None else self.split_seed
        training, held_out = split_indices(len(chosen), validation_split, split_seed)
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
        self.collate = collate_fn or default_collate
        self._is_prepared = False
        workers = min(n_workers, available_processors())
        if workers < n_workers:
            logger.warning("n_workers %d: this process may use %d processor(s), as many start.", n_workers, workers)
        super().__init__(
            KeyedDataset(dataset, seed),
            batch_sampler=self.keys,
            num_workers=workers,
            collate_fn=partial(guarded_collate, self.collate),
            pin_memory=pin_memory and torch.cuda.is_available(),
            timeout=poll_seconds(None) if workers else 0,
            worker_init_fn=start_worker,
            # DataLoader draws a seed for its workers from here; without it, from the global generator.
            generator=torch.Generator().manual_seed(seed),
            persistent_workers=workers > 0,
            # Forked workers share the decoded images of the main process.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        # With a batch sampler, DataLoader leaves these unset and forbids assigning them.
        self.__dict__["batch_size"] = batch_size
        self.__dict__["drop_last"] = drop_last

    @property
    def is_training(self) -> bool:
        """Whether batches are to train on; it may be set if the arguments left it open."""
        return self.keys.is_training

    @is_training.setter
    def is_training(self, value: bool) -> None:
        self.keys.is_training = value

    @property
    def loader_timeout(self) -> float | None:
        """Seconds after which a batch of loader workers that does not come is an error; None: wait for ever."""
        return self._loader_timeout

    @loader_timeout.setter
    def loader_timeout(self, seconds: float | None) -> None:
        self._loader_timeout = seconds
        if self.num_workers:
            self.timeout = poll_seconds(seconds)

    @property
    def num_samples(self) -> int:
        """Number of samples that this loader draws from, over all processes."""
        return len(self.keys.indices)

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Let the next iteration be `epoch` (from 0) from `batch` on; without it, epochs follow one another.

        Raises:
            ConfigError: There is no such batch.
        """
        if epoch < 0 or not 0 <= batch <= len(self.keys):
            raise ConfigError(
                f"Cannot start at batch {batch} of epoch {epoch}: an epoch has {len(self.keys)} batches. "
                "Resume with the data and the batch size that the run was started with."
            )
        self.keys.position = (epoch, batch)

    def shard(self, rank: int, world_size: int) -> None:
        """Yield only the samples of process `rank` in each batch.

        The samples of a process are contiguous, and those of all processes are the batches of a single one. In training
        every process gets the same number of batches; one without a share of the last batch gets a stand-in whose
        target is ignored or, if the data set cannot give one, no process gets that batch. In evaluation each sample is
        on exactly one process, so a process may get fewer batches than `len`.

        Raises:
            ConfigError: There is no such process, or a batch has fewer samples than there are processes.
        """
        if not 0 <= rank < world_size:
            raise ConfigError(f"Process {rank} of {world_size}: the rank must be 0 to {world_size - 1}.")
        if self.is_training and self.keys.batch_size < world_size:
            raise ConfigError(
                f"batch_size {self.keys.batch_size} cannot be divided among {world_size} processes: it is the number "
                f"of samples over all of them. Set it to {world_size} or more."
            )
        self.keys.rank, self.keys.world_size = rank, world_size

    def split_validation(self) -> "BaseDataLoader | None":
        """Return a loader over the held-out samples, in order and without augmentation; None without a split."""
        return self.evaluation_loader(self._held_out) if len(self._held_out) else None

    def evaluation_loader(self, indices: Sequence[int] | np.ndarray | None = None) -> "BaseDataLoader":
        """Return a loader for evaluation over some samples, by default over those that this one draws from."""
        loader = BaseDataLoader(
            self.dataset.dataset if self._validation_dataset is None else self._validation_dataset,
            self.keys.batch_size,
            shuffle=False,
            n_workers=self.num_workers,
            collate_fn=self.collate,
            seed=self.seed,
            pin_memory=self.pin_memory,
            indices=list(self.keys.indices if indices is None else indices),
        )
        for name in DESCRIBED:
            setattr(loader, name, getattr(self, name))
        loader.loader_timeout = self.loader_timeout
        return loader

    def class_counts(self) -> list[int]:
        """Return the number of targets of each class in the samples that this loader draws from, not augmented.

        A data set that offers `target(index)` is asked for the targets alone; of others whole samples are loaded.

        Raises:
            ConfigError: The number of classes is not known.
            DataError: A sample cannot be read.
        """
        if self.num_classes is None:
            raise ConfigError(
                "the loader does not know the number of classes, so it cannot count them. Let it have the attribute "
                'num_classes, or write the "weight" of the loss as numbers.'
            )
        if isinstance(self.dataset.dataset, TargetSource):
            return count_targets(self.dataset.dataset, self.keys.indices.tolist(), self.num_classes, self.ignore_index)
        return count_batches(self.evaluation_loader(), self.num_classes, self.ignore_index)

    def identity(self) -> dict[str, Any]:
        """Return what tells the samples of this loader from other data; see `base.samples.data_identity`."""
        return data_identity(self.dataset.dataset, self.keys.indices.tolist())

    def require_counted_targets(self, section: str) -> None:
        """Refuse samples of which none has a label that counts.

        The targets are read up to the first that counts, which mostly is the very first one; of a data set that offers
        no `target(index)` whole samples are.

        Args:
            section: The section of the config that describes this loader.

        Raises:
            DataError: Every label is ignored, or a target cannot be read.
        """
        dataset, indices = self.dataset.dataset, self.keys.indices.tolist()
        if isinstance(dataset, TargetSource) and callable(dataset.target):
            targets = map(dataset.target, indices)
        elif self.num_classes is None and self.ignore_index is None:
            return  # then every label counts
        else:
            targets = map(labels_of, (self.dataset[SampleKey(0, index)] for index in indices))
        if not any(is_counted(target, self.num_classes, self.ignore_index) for target in targets):
            raise nothing_counted(section, self.num_samples, self.ignore_index, is_training=self.is_training)

    def require_whole_listing(self) -> None:
        """Raise an error if entries of the list or folder cannot be used.

        Raises:
            DataError: One error for all of them.
        """
        if self.listing_faults:
            raise joined_faults(self.listing_faults)

    def prepare(self) -> None:
        """Let the data set check and decode the samples of this loader; otherwise the first iteration does it.

        Raises:
            DataError: An entry of the list or folder cannot be used, or the data set found a fault.
        """
        self.require_whole_listing()
        dataset = self.dataset.dataset
        if not self._is_prepared and isinstance(dataset, PreparedSource):
            dataset.prepare(self.keys.indices.tolist())
        self._is_prepared = True

    def example(self, *, leaves_out_faulty: bool = False) -> Any:
        """Return the batch at the current position, loaded in this process and without moving on.

        Args:
            leaves_out_faulty: Take later samples in place of those that cannot be loaded.

        Raises:
            EspalierError: A sample is faulty, or all are.
        """
        load = partial(loaded_or_failed, self.dataset) if leaves_out_faulty else self.dataset.__getitem__
        samples = [load(key) for key in next(iter(self.keys))]
        if leaves_out_faulty and any(isinstance(sample, Failure) for sample in samples):
            loaded = (load(key) for batch in self.keys for key in batch)
            samples = list(islice((each for each in loaded if not isinstance(each, Failure)), len(samples))) or samples
        return _received(guarded_collate(self.collate, samples))

    def close(self) -> None:
        """Stop the loader workers; another iteration starts new ones."""
        iterator: Any = self._iterator
        self._iterator = None
        if iterator is not None:
            # At once, not by garbage collection: that may happen in a later worker's copy of this process.
            with ended_in_time(iterator._workers):
                iterator._shutdown_workers()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Return the batches of the epoch at the current position.

        Raises:
            EspalierError: A sample is faulty; the error is the same as if it were loaded in this process.
            LoaderFailed: The loader workers cannot be started, die, hang, or cannot send their batches.
        """
        self.prepare()
        # DataLoader installs a handler that raises an error at any line of the main process when a worker dies. It must
        # not interrupt the writing of a checkpoint: the death is noticed when a batch is awaited.
        is_main = threading.current_thread() is threading.main_thread()
        number = getattr(signal, "SIGCHLD", None) if is_main else None
        handler = None if number is None else signal.getsignal(number)
        try:
            with warnings.catch_warnings():
                # Our threads (a writer of events, a pool that has ended) hold no lock that a worker needs.
                warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
                iterator = super().__iter__()
        except OSError as error:
            raise not_started(error, self.num_workers) from error
        finally:
            if number is not None:
                signal.signal(number, handler or signal.SIG_DFL)
        # Not advanced by the sampler itself: DataLoader begins to iterate over it more than once.
        self.keys.position = (self.keys.position[0] + 1, 0)
        return self._delivered(iterator)

    def _delivered(self, iterator: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches of an iterator of DataLoader; an error stops its workers."""
        while True:
            try:
                batch = next_batch(iterator, self.loader_timeout) if self.num_workers else next(iterator)
            except StopIteration:
                return
            except Exception:
                self.close()
                raise
            if isinstance(batch, Failure):
                self.close()
            yield _received(batch)


@runtime_checkable
class Packed(Protocol):
    """A message of a loader worker in place of a batch that would be costly or impossible to send."""

    def unpack(self) -> Any:
        """Return the batch; called in the main process."""


def guarded_collate(collate_fn: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    """Return the batch of some samples, or the first failure among them if there is one."""
    failures = [sample for sample in samples if isinstance(sample, Failure)]
    if failures:
        return failures[0]
    try:
        return sendable(partial(collate_fn, samples))
    except LoaderFailed as error:
        return Failure(error)


def _received(batch: Any) -> Any:
    """Return a batch as the main process uses it.

    Raises:
        EspalierError: A failure came instead of the batch.
    """
    if isinstance(batch, Failure):
        raise batch.error
    return batch.unpack() if isinstance(batch, Packed) else batch
