"""Samples that have one class each: names, order and ids of the classes, and the base of their data sets."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from torch.utils.data import Dataset

from data_loader.common.lists import Listing
from utils.errors import ConfigError, DataError
from utils.seeding import derive_seed

Sample = TypeVar("Sample", bound=Any)  # a named tuple with a field `label`

NO_CLASS = -100
"""Target of a sample that does not count; the ignored label of classifications."""

_NAMES_SHOWN = 12
_LONGEST_NUMBER = 1000  # digits: Python refuses to convert much longer ones


def in_order(names: Sequence[str]) -> list[str]:
    """Return every name once: numbers by their value, anything else alphabetically."""
    unique = set(names)
    if all(name.isdecimal() and len(name) <= _LONGEST_NUMBER for name in unique):
        return sorted(unique, key=lambda name: (int(name), name))
    return sorted(unique)


def checked_classes(classes: Sequence[str], found: Sequence[str]) -> list[str]:
    """Return the names of the config or, if it has none, those of the data: at least two, and each once.

    Args:
        classes: Names of the config; empty if it leaves them open.
        found: Names of the data, in their order.

    Raises:
        ConfigError: A name is given twice, or there are fewer than two.
    """
    names = list(classes or found)
    if len(set(names)) != len(names):
        raise ConfigError(
            f"classes lists {len(names)} names, of which {len(set(names))} differ. Name every class once."
        )
    if len(names) < 2:
        raise ConfigError(
            f"There are {len(names)} classes ({', '.join(names)}): it takes two or more. Add data of another."
        )
    return names


def list_label_ids(
    labels: Sequence[str], classes: Sequence[str], place: Callable[[int], str]
) -> Listing[tuple[int, int]]:
    """Return the index of each sample and the id of its class; samples of other classes are faults.

    Args:
        labels: Name of the class of each sample.
        classes: All names, in the order of their ids.
        place: Index of a sample -> its file or line, for the error.
    """
    ids = {name: number for number, name in enumerate(classes)}
    # "1.0" in one file and "1" in another are one class, unless both are names.
    whole = {_whole_number(name): number for name, number in ids.items()}
    if len(whole) == len(ids):
        ids |= {label: whole[_whole_number(label)] for label in {*labels} - {*ids} if _whole_number(label) in whole}
    unknown = [index for index, label in enumerate(labels) if label not in ids]
    known = [(index, ids[label]) for index, label in enumerate(labels) if label in ids]
    if not unknown:
        return Listing(known)
    shown = ", ".join(list(classes)[:_NAMES_SHOWN]) + (", ..." if len(classes) > _NAMES_SHOWN else "")
    rule = f"The classes are those of the training data: {shown}. Correct the labels, or name all in classes."
    message = (
        f'{place(unknown[0])} is of the class "{labels[unknown[0]]}", and {len(unknown)} of {len(labels)} samples '
        f"are of a class that is not known. {rule}"
    )
    parts = [  # none if no class is known: that has one cause
        DataError(f'{name} is of the class "{labels[index]}", which is not known. {rule}', place=name)
        for index, name in ((index, place(index)) for index in unknown if known)
    ]
    return Listing(known, [DataError(message, parts)])


def _whole_number(name: str) -> str:
    """Return a name without the fraction of a whole number: "1" of "1.0"."""
    number, _, fraction = name.partition(".")
    return number if fraction and not fraction.strip("0") and number.lstrip("-").isdecimal() else name


def first_of_each_class(labels: Sequence[str], samples: int | None) -> list[int]:
    """Return the sorted indices of `samples` samples, taken from the classes in turn so that few contain all classes.

    Raises:
        ConfigError: The number is not positive.
    """
    if samples is None:
        return list(range(len(labels)))
    if samples < 1:
        raise ConfigError(f"Wrong samples {samples}: it must be 1 or more, or null for all.")
    seen: dict[str, int] = {}
    turns = []  # (how many of its class come before it, index)
    for index, label in enumerate(labels):
        turns.append((seen.setdefault(label, 0), index))
        seen[label] += 1
    return sorted(index for _, index in sorted(turns)[:samples])


class LabelledDataset(Dataset[Sample]):
    """A data set whose samples have one class each.

    Args:
        labels: Id of the class of each sample.
    """

    def __init__(self, labels: Sequence[int]) -> None:
        self.labels = list(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Return sample `index` with draws that follow from the index alone; loaders call `sample`."""
        return self.sample(index, np.random.default_rng(derive_seed("sample", index)))

    @abstractmethod
    def sample(self, index: int, generator: np.random.Generator) -> Sample:
        """Return sample `index` with random numbers from `generator`."""

    def without_target(self, sample: Sample) -> Sample:
        """Return the sample with a class that does not count."""
        changed: Sample = sample._replace(label=NO_CLASS)
        return changed
