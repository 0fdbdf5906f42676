"""Every sample of a loader, read once: all faults one by one, and the facts of the split."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from base.base_data_loader import BaseDataLoader
from base.samples import ExaminedSource, Failure, RawSample, SampleKey, nothing_counted
from data_loader.checking.facts import SampleFacts, SplitFacts, facts_of, merged
from utils.environment import DECODING_THREADS, available_processors
from utils.errors import ConfigError, EspalierError
from utils.findings import Finding, each_error, fault_of

Progress = Callable[[int, int], None]
Outcome = tuple[int, SampleFacts | None, list[Finding]]

_CHUNK = 16  # samples that a thread reads before it reports
_MOST_LOADED = 20_000  # samples of a data set that only gives whole samples: nobody knows how long one takes


def examine(loader: BaseDataLoader, section: str, progress: Progress | None = None) -> tuple[SplitFacts, list[Finding]]:
    """Read every sample that a loader draws from, also those that no cache holds, and nothing is stored.

    It finds all that `prepare` of the loader would raise, and goes on after each fault; `prepare` need not be called.
    The held-out samples of `validation_split` are those of another loader, `loader.split_validation()`. A data set that
    does not offer `raw_sample` is asked for whole samples, one after the other, and of a very large one for some.

    Args:
        loader: The loader.
        section: The section of the config that describes it, the place of faults without a file.
        progress: Called with the number of samples that were read and the number of all.

    Returns:
        The facts of the samples that can be read, and the faults: a finding for each faulty file.
    """
    source = loader.evaluation_loader().dataset
    indices = loader.keys.indices.tolist()
    findings = [fault_of(part, section) for fault in loader.listing_faults for part in each_error(fault)]
    if isinstance(loader.dataset.dataset, ExaminedSource):
        outcomes = _read_in_threads(loader, loader.dataset.dataset, indices, section)
    else:
        step = -(-len(indices) // _MOST_LOADED)
        indices = indices[::step]
        outcomes = (_load(loader, source, index, section) for index in indices)
    read: dict[int, SampleFacts] = {}
    for done, (index, facts, faults) in enumerate(outcomes, start=1):
        findings += faults
        if facts is not None:
            read[index] = facts
        if progress is not None:
            progress(done, len(indices))
    findings += _findings_of_split(loader, read, section)
    return merged(section, loader.num_samples, list(read.values()), loader.class_names), findings


def _read_in_threads(
    loader: BaseDataLoader, source: ExaminedSource, indices: Sequence[int], section: str
) -> Iterator[Outcome]:
    """Yield the outcome of each sample, in order."""

    def read(chunk: Sequence[int]) -> list[Outcome]:
        return [_read(loader, source, index, section) for index in chunk]

    chunks = [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
    # Threads suffice: OpenCV, hashlib and the file system release Python's lock.
    with ThreadPoolExecutor(min(DECODING_THREADS, available_processors())) as pool:
        for outcomes in pool.map(read, chunks):
            yield from outcomes


def _read(loader: BaseDataLoader, source: ExaminedSource, index: int, section: str) -> Outcome:
    """Read a sample as its files hold it."""
    names = source.sample_names(index)
    try:
        sample = source.raw_sample(index)
    except EspalierError as error:
        return index, None, [fault_of(part, _place(part, names, section)) for part in each_error(error)]
    return index, facts_of(sample, names[0], loader.num_classes, loader.ignore_index), []


def _place(error: EspalierError, names: Sequence[str], section: str) -> str:
    """Return the file that an error is about: the one that its message names first."""
    message = str(error)
    named = [(message.find(name), name) for name in names if name in message]
    return min(named)[1] if named else names[0] if names else section


def _load(loader: BaseDataLoader, dataset: Any, index: int, section: str) -> Outcome:
    """Load a whole sample of a data set that offers nothing else, without augmentation as far as it is known."""
    name = f"{section}, sample {index}"
    try:
        loaded = dataset[SampleKey(0, index)]
        if isinstance(loaded, Failure):
            return index, None, [fault_of(part, name) for part in each_error(loaded.error)]
        values, target = (np.asarray(part) for part in loaded[:2])
    except Exception as error:  # a data set of a plug-in may raise any error
        reason = " ".join(str(error).split()) or type(error).__name__
        text = f"{name} cannot be loaded: {type(error).__name__}: {reason}. Correct the data set or its files."
        return index, None, [Finding("data", name, text)]
    return index, facts_of(RawSample(values, target), name, loader.num_classes, loader.ignore_index), []


def _findings_of_split(loader: BaseDataLoader, read: dict[int, SampleFacts], section: str) -> Iterator[Finding]:
    """Yield the faults that only several samples show."""
    source = loader.dataset.dataset
    if isinstance(source, ExaminedSource):
        for error in source.unfit_sizes({index: facts.size for index, facts in read.items()}):
            place = f"{section}.args.transforms" if isinstance(error, ConfigError) else section
            yield fault_of(error, place)
    counted = [facts for facts in read.values() if len(facts.counts)]
    if counted and not any(facts.counts.any() for facts in counted):
        error = nothing_counted(section, len(read), loader.ignore_index, is_training=loader.is_training)
        yield fault_of(error, section)
