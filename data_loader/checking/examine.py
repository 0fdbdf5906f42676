"""Every sample of a loader, read once: all faults one by one, and the facts of the split."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from base.base_data_loader import BaseDataLoader
from base.samples import ExaminedSource, RawSample, nothing_counted
from data_loader.checking.facts import MOST_COMPARED, SampleFacts, SplitFacts, facts_of, unknown_facts
from utils.environment import DECODING_THREADS, available_processors
from utils.errors import ConfigError, EspalierError, Finding, each_error, fault_of
from utils.geometry import Size

Progress = Callable[[int, int], None]
Outcome = tuple[int, SampleFacts | None, list[Finding]]

_CHUNK = 16  # samples that a thread reads before it reports
_LABELS_SHOWN = 8
_VARIABLES_SHOWN = 4
_CHANNELS = (1, 3, 4)  # of images in the order of torch
_TORCH_IGNORES = -100
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
    indices = loader.keys.indices.tolist()
    source = loader.dataset.dataset
    facts = SplitFacts(
        section, len(indices), class_names=list(loader.class_names or ()), ignore_index=loader.ignore_index
    )
    findings = [fault_of(part, section) for fault in loader.listing_faults for part in each_error(fault)]
    sizes: dict[int, Size] = {}
    if isinstance(source, ExaminedSource):
        outcomes = _read_in_threads(loader, source, indices, section)
    else:
        indices = indices[:: -(-len(indices) // _MOST_LOADED)]
        outcomes = _loaded(loader, indices, section)
    facts.num_examined = len(indices)
    for done, (index, sample, found) in enumerate(outcomes, start=1):
        findings += found
        if sample is not None:
            facts.add(sample)
            sizes[index] = sample.size
        if progress is not None:
            progress(done, len(indices))
    facts.finish()
    if isinstance(source, ExaminedSource):
        for error in source.unfit_sizes(sizes):
            findings.append(
                fault_of(error, f"{section}.args.transforms" if isinstance(error, ConfigError) else section)
            )
    if facts.class_counts and not any(facts.class_counts):
        counted = facts.num_readable
        error = nothing_counted(section, counted, loader.ignore_index, is_training=loader.is_training)
        findings.append(fault_of(error, section))
    return facts, findings


def _read_in_threads(
    loader: BaseDataLoader, source: ExaminedSource, indices: Sequence[int], section: str
) -> Iterator[Outcome]:
    """Yield the outcome of each sample, in order."""
    compared = set(indices[:: -(-len(indices) // MOST_COMPARED)])

    def read(chunk: Sequence[int]) -> list[Outcome]:
        return [_read(loader, source, index, section, has_look=index in compared) for index in chunk]

    chunks = [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
    # Threads suffice: OpenCV, hashlib and the file system release Python's lock.
    with ThreadPoolExecutor(min(DECODING_THREADS, available_processors())) as pool:
        for outcomes in pool.map(read, chunks):
            yield from outcomes


def _read(loader: BaseDataLoader, source: ExaminedSource, index: int, section: str, *, has_look: bool) -> Outcome:
    """Read a sample as its files hold it."""
    names = source.sample_names(index)
    try:
        sample = source.raw_sample(index)
    except EspalierError as error:
        return index, None, [fault_of(part, _place(part, names, section)) for part in each_error(error)]
    facts = facts_of(sample, names[0], loader.num_classes, loader.ignore_index, has_look=has_look)
    return index, facts, list(_missing_values(sample, names[0]))


def _place(error: EspalierError, names: Sequence[str], section: str) -> str:
    """Return the file that an error is about: the one that its message names first."""
    message = str(error)
    named = [(message.find(name), name) for name in names if name in message]
    return min(named)[1] if named else names[0] if names else section


def _missing_values(sample: RawSample, name: str) -> Iterator[Finding]:
    """Warn of a series of which a variable has no value at all; single missing values are interpolated."""
    if sample.input.ndim == 2 and sample.input.dtype.kind == "f":
        empty = np.flatnonzero(np.isnan(sample.input).all(axis=1))
        if len(empty):
            shown = ", ".join(str(variable + 1) for variable in empty[:_VARIABLES_SHOWN])
            more = ", ..." if len(empty) > _VARIABLES_SHOWN else ""
            text = f"{name}: every value of variable {shown}{more} is missing: the network gets zeros. Correct them."
            yield Finding("data", name, text, is_fault=False)


def _loaded(loader: BaseDataLoader, indices: Sequence[int], section: str) -> Iterator[Outcome]:
    """Yield the outcome of each sample of a data set that only gives whole samples, not augmented if it can be."""
    batches = loader.evaluation_loader(indices)
    for index in indices:
        name = f"{section}, sample {index}"
        try:
            batches.keys.indices = np.array([index])
            batches.keys.position = (0, 0)
            batch = batches.example()
        except EspalierError as error:
            yield index, None, [fault_of(part, name) for part in each_error(error)]
            continue
        except Exception as error:  # a data set of a plug-in may raise any error
            reason = " ".join(str(error).split()) or type(error).__name__
            text = f"{name} cannot be loaded: {type(error).__name__}: {reason}. Correct the data set or its files."
            yield index, None, [Finding("data", name, text)]
            continue
        sample = _sample_of(batch)
        if sample is None:  # a batch of another form tells nothing
            yield index, unknown_facts(name), []
            continue
        facts = facts_of(sample, name, loader.num_classes, loader.ignore_index, has_look=True)
        yield index, facts, list(_wrong_labels(loader, sample, name))


def _sample_of(batch: Any) -> RawSample | None:
    """Return the one sample of a batch of (inputs, targets, ...); None if it is of another form."""
    if not isinstance(batch, list | tuple) or len(batch) < 2 or not all(hasattr(part, "__len__") for part in batch[:2]):
        return None
    try:
        values, target = (np.asarray(part[0]) for part in batch[:2])
    except (TypeError, ValueError, RuntimeError):  # a type that NumPy does not have, or a tensor with a gradient
        return None
    if any(part.dtype.kind not in "biuf" for part in (values, target)):
        return None
    is_image = values.ndim == 3 and values.shape[0] in _CHANNELS
    return RawSample(values.transpose(1, 2, 0) if is_image else np.atleast_1d(values), target)


def _wrong_labels(loader: BaseDataLoader, sample: RawSample, name: str) -> Iterator[Finding]:
    """Yield a fault if a target holds labels that are neither a class nor ignored."""
    labels = np.asarray(sample.target)
    if loader.num_classes is None or labels.dtype.kind not in "iu":
        return
    ignored = _TORCH_IGNORES if loader.ignore_index is None else loader.ignore_index
    wrong = np.unique(labels[((labels < 0) | (labels >= loader.num_classes)) & (labels != ignored)])
    if len(wrong):
        shown = ", ".join(map(str, wrong[:_LABELS_SHOWN].tolist())) + (", ..." if len(wrong) > _LABELS_SHOWN else "")
        rule = f"labels must be 0 to {loader.num_classes - 1}. Correct them or num_classes."
        text = f"{name} holds the labels {shown}: {rule}"
        yield Finding("data", name, text)
