"""The classes of a classification: their names, their ids, and a few samples of each."""

from collections.abc import Callable, Sequence

from utils.errors import ConfigError, DataError

NO_CLASS = -100
"""Target of a sample that counts nowhere; the ignored label of classifications."""

_SHOWN = 12


def in_order(names: Sequence[str]) -> list[str]:
    """Every name once: numbers by their value, anything else by its letters."""
    unique = set(names)
    if all(name.isdecimal() for name in unique):
        return sorted(unique, key=lambda name: (int(name), name))
    return sorted(unique)


def checked_classes(classes: Sequence[str], found: Sequence[str]) -> list[str]:
    """The names that were given, or else those that were found, at least two and each once.

    Args:
        classes: Given by the config; empty where it leaves them open.
        found: Those of the data, in their order.

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


def class_ids(labels: Sequence[str], classes: Sequence[str], place: Callable[[int], str]) -> list[int]:
    """The id of each sample's class.

    Args:
        labels: Name of the class of each sample.
        classes: All names, in the order of their ids.
        place: Where a sample is from, for the error.

    Raises:
        DataError: A sample is of a class that is not among them.
    """
    ids = {name: number for number, name in enumerate(classes)}
    unknown = [position for position, label in enumerate(labels) if label not in ids]
    if unknown:
        shown = ", ".join(list(classes)[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
        raise DataError(
            f'{place(unknown[0])} is of the class "{labels[unknown[0]]}", and {len(unknown)} of {len(labels)} samples '
            f"are of a class that is not known. The classes are those of the training data: {shown}. Correct the "
            "labels, or name all in classes."
        )
    return [ids[label] for label in labels]


def first_of_each_class(labels: Sequence[str], samples: int | None) -> list[int]:
    """Positions of `samples` samples, taken from the classes in turn so that few hold all; in order, all for None.

    Raises:
        ConfigError: The number is not positive.
    """
    if samples is None:
        return list(range(len(labels)))
    if samples < 1:
        raise ConfigError(f"Wrong samples {samples}: it must be 1 or more, or null for all.")
    seen: dict[str, int] = {}
    turns = []
    for position, label in enumerate(labels):
        turns.append((seen.setdefault(label, 0), position))
        seen[label] += 1
    return sorted(position for _, position in sorted(turns)[:samples])
