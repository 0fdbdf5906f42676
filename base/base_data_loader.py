"""The loader that users subclass: PyTorch's DataLoader, with random values that follow from (seed, epoch, index)."""

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import default_collate

from base.loading.keys import KeyedBatchSampler, KeyedDataset
from base.loading.packing import BATCHES_PER_WORKER, BatchSender, SendBuffers, buffers_for, received_batch
from base.loading.worker_count import WorkerCount, processors_to_share, workers_that_pay
from base.loading.workers import PolledIterator, ended_in_time, not_started, start_worker
from base.samples import (
    DESCRIBED,
    CachedSource,
    Failure,
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
from utils.errors import ConfigError, DataError, joined_faults

logger = logging.getLogger(__name__)

Task = Literal["segmentation", "classification"]


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
        n_workers: Loader workers; 0 loads in this process, `"auto"` has as many as pay, see
            `base.loading.worker_count`. At most one per processor is started.
        collate_fn: List of samples -> batch.
        seed: Seed of the run.
        pin_memory: Page-locked batches for faster copies; without CUDA it does nothing. None: for a network on a GPU.
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
    asked_pin_memory: bool | None = None
    _feeds_accelerator: bool = False
    _loader_timeout: float | None = None
    _buffers: SendBuffers | None

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        shuffle: bool = True,
        validation_split: int | float = 0.0,
        n_workers: WorkerCount = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        seed: int = 0,
        pin_memory: bool | None = None,
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
        self.n_workers = n_workers
        self.asked_pin_memory = pin_memory
        self._sender, self._buffers = BatchSender(self.collate), None
        super().__init__(
            KeyedDataset(dataset, seed),
            batch_sampler=self.keys,
            collate_fn=self._sender,
            pin_memory=bool(pin_memory) and torch.cuda.is_available(),
            worker_init_fn=start_worker,
            # DataLoader draws a seed for its workers from here; without it, from the global generator.
            generator=torch.Generator().manual_seed(seed),
        )
        self._set_workers(n_workers)
        # With a batch sampler, DataLoader leaves these unset and forbids assigning them.
        self.__dict__["batch_size"] = batch_size
        self.__dict__["drop_last"] = drop_last

    def _set_workers(self, asked: WorkerCount) -> None:
        """Set the number of loader workers for the next start of them; "auto" is 0 until the data is prepared."""
        if asked == "auto":
            workers = self._workers_that_pay() if self._is_prepared else 0
        else:
            processors = available_processors()
            workers = min(asked, processors)
            if workers < asked:
                logger.warning("n_workers %d: this process may use %d processor(s), as many start.", asked, workers)
        self.num_workers = workers
        self.prefetch_factor = BATCHES_PER_WORKER if workers else None
        # Forked workers share the decoded images of the main process.
        self.multiprocessing_context = "fork" if workers and sys.platform == "linux" else None
        self.__dict__["persistent_workers"] = workers > 0  # DataLoader forbids assigning it

    def _workers_that_pay(self) -> int:
        """Return the number of loader workers for "auto", once the data is prepared."""
        dataset = self.dataset.dataset
        return workers_that_pay(
            is_in_memory=isinstance(dataset, CachedSource) and dataset.is_in_memory(self.keys.indices.tolist()),
            processors=processors_to_share(feeds_accelerator=self.feeds_accelerator),
            feeds_accelerator=self.feeds_accelerator,
        )

    @property
    def is_training(self) -> bool:
        """Whether batches are to train on; it may be set if the arguments left it open."""
        return self.keys.is_training

    @is_training.setter
    def is_training(self, value: bool) -> None:
        self.keys.is_training = value

    @property
    def loader_timeout(self) -> float | None:
        """Seconds without a message of any loader worker after which a wait is an error; None: wait for ever."""
        return self._loader_timeout

    @loader_timeout.setter
    def loader_timeout(self, seconds: float | None) -> None:
        self._loader_timeout = seconds
        if isinstance(self._iterator, PolledIterator):
            self._iterator.limit = seconds

    @property
    def feeds_accelerator(self) -> bool:
        """Whether the network is on another device; it decides what the arguments left open."""
        return self._feeds_accelerator

    @feeds_accelerator.setter
    def feeds_accelerator(self, value: bool) -> None:
        self._feeds_accelerator = value
        if self.asked_pin_memory is None:
            self.pin_memory = value and torch.cuda.is_available()

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

    @property
    def plain_dataset(self) -> Any:
        """The data set without augmentation; the one that this loader reads, if there is no other."""
        return self.dataset.dataset if self._validation_dataset is None else self._validation_dataset

    def evaluation_loader(self, indices: Sequence[int] | np.ndarray | None = None) -> "BaseDataLoader":
        """Return a loader for evaluation over some samples, by default over those that this one draws from."""
        loader = BaseDataLoader(
            self.plain_dataset,
            self.keys.batch_size,
            shuffle=False,
            n_workers="auto" if self.n_workers == "auto" else self.num_workers,
            collate_fn=self.collate,
            seed=self.seed,
            pin_memory=self.asked_pin_memory,
            indices=list(self.keys.indices if indices is None else indices),
        )
        for name in DESCRIBED:
            setattr(loader, name, getattr(self, name))
        loader.loader_timeout, loader.feeds_accelerator = self.loader_timeout, self.feeds_accelerator
        return loader

    def class_counts(self) -> list[int]:
        """Return the number of targets of each class in the samples that this loader draws from, not augmented.

        A data set that offers `target(index)` is asked for the targets alone; of others whole samples are loaded.

        Raises:
            ConfigError: The number of classes is not known, or a target holds no ids of classes.
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
        is_first, self._is_prepared = not self._is_prepared, True
        if is_first and self.n_workers == "auto":
            self._set_workers("auto")

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
        return self._received(self._sender(samples))

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
        return self._delivered(self._started())

    def compact_batches(self) -> Iterator[Any]:
        """Return the batches of `__iter__`, as `CompactBatch` where the collation can do that, for an accelerator.

        Raises:
            EspalierError: As `__iter__`.
        """
        return self._delivered(self._started(), is_compact=True)

    def _started(self) -> Iterator[Any]:
        """Return the iterator of DataLoader over the epoch at the current position."""
        self.prepare()
        self._offer_buffers()
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
        except BaseException as error:
            # Of workers that run some may have answered: the next iteration would take that for its own answer.
            was_running = self._iterator is not None
            self.close()
            if isinstance(error, OSError) and not was_running:
                raise not_started(error, self.num_workers) from error
            raise
        finally:
            if number is not None:
                signal.signal(number, handler or signal.SIG_DFL)
        # Not advanced by the sampler itself: DataLoader begins to iterate over it more than once.
        self.keys.position = (self.keys.position[0] + 1, 0)
        return iterator

    def _get_iterator(self) -> Any:
        """Return the iterator of DataLoader, which has no public way to another one."""
        return PolledIterator(self, self.loader_timeout) if self.num_workers else super()._get_iterator()

    def _delivered(self, iterator: Iterator[Any], *, is_compact: bool = False) -> Iterator[Any]:
        """Yield the batches of an iterator of DataLoader; an error stops its workers."""
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except Exception:
                self.close()
                raise
            if isinstance(batch, Failure):
                self.close()
            yield self._received(batch, is_compact=is_compact)

    def _offer_buffers(self) -> None:
        """Give memory for batches to loader workers that are about to start; for those that run, mark all of it free.

        After an iteration that was broken off, workers may still fill some of it with batches that nobody reads. These
        buffers are free again at the next iteration; until then the workers send in fresh shared memory what they lack.
        """
        if self._iterator is None:
            first, size = SampleKey(0, int(self.keys.indices[0])), -(-self.keys.batch_size // self.keys.world_size)
            load = partial(self.dataset.__getitem__, first)
            self._buffers = buffers_for(self.collate, load, size, self.num_workers) if self.num_workers else None
            self._sender.buffers = self._buffers  # forked with the workers
        elif self._buffers is not None:
            self._buffers.free_all()

    def _received(self, batch: Any, *, is_compact: bool = False) -> Any:
        """Return a batch as the process that iterates uses it; see `base.loading.packing.received_batch`."""
        return received_batch(batch, self.collate, self._buffers, pins=self.pin_memory, is_compact=is_compact)
