"""Which values a mask may hold, and what they become."""

from collections.abc import Hashable, Iterable, Mapping

import numpy as np

from utils.errors import ConfigError

LARGEST_LABEL = 65535


class Labels:
    """The ids of a task's masks.

    Args:
        num_classes: Masks hold 0 to `num_classes` - 1.
        ignore_index: A value that is allowed beside them and counts nowhere; None where masks have no such value.
        binary: Every value above 0 (but `ignore_index`) means class 1.
        label_map: Value in the mask -> class; every other value is ignored.

    Attributes:
        ignored: What padding is marked with: `ignore_index`, or a value that no mask holds.
        dtype: The smallest type that holds every label.

    Raises:
        ConfigError: The arguments contradict each other.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = None,
        *,
        binary: bool = False,
        label_map: Mapping[str, int] | None = None,
    ) -> None:
        if num_classes < 2:
            raise ConfigError(f"Wrong num_classes {num_classes}: it must be 2 or more; background is a class.")
        if binary and num_classes != 2:
            raise ConfigError(f"binary_masks makes 2 classes, but num_classes is {num_classes}. Set one of them right.")
        if binary and label_map is not None:
            raise ConfigError("binary_masks and label_map both say what labels become. Remove one of them.")
        if ignore_index is not None and not 0 <= ignore_index <= LARGEST_LABEL:
            raise ConfigError(
                f"Wrong ignore_index {ignore_index}: it must be a value that a mask can hold, 0 to 65535."
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.binary = binary
        unused = 255 if num_classes <= 255 else LARGEST_LABEL
        self.ignored = unused if ignore_index is None else ignore_index
        self.dtype = np.dtype(np.uint8 if max(num_classes - 1, self.ignored) <= 255 else np.uint16)
        self._table = None if label_map is None else self._mapping_table(label_map)

    def _mapping_table(self, label_map: Mapping[str, int]) -> np.ndarray:
        """(65536,) value in the mask -> id."""
        if self.ignored < self.num_classes:
            raise ConfigError(
                f"Wrong ignore_index {self.ignored} beside a label_map: what the map leaves out becomes it, so it must "
                f"be no class (0 to {self.num_classes - 1}). Set it to 255, or leave it out."
            )
        table = np.full(LARGEST_LABEL + 1, self.ignored, self.dtype)
        for value, target in parse_label_map(label_map).items():
            if target >= self.num_classes:
                raise ConfigError(
                    f"Wrong label_map: {value} becomes {target}, but classes are 0 to {self.num_classes - 1}. Correct "
                    "it or num_classes; a value that is to be ignored is left out."
                )
            table[value] = target
        return table

    def convert(self, mask: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Turn a mask as read (h, w) into ids of `dtype`; the second value lists the labels that it must not hold."""
        if self._table is not None:
            return self._table[mask], []
        if self.binary:
            ids = (mask > 0).astype(self.dtype)
            if self.ignore_index is not None:
                ids[mask == self.ignore_index] = self.ignore_index
            return ids, []
        if mask.size and int(mask.max()) >= self.num_classes:
            present = np.flatnonzero(np.bincount(mask.ravel()))
            unknown = [value for value in present.tolist() if value >= self.num_classes and value != self.ignore_index]
            if unknown:
                return mask, unknown
        return mask.astype(self.dtype, copy=False), []

    def identity(self) -> Hashable:
        """What decides the ids that masks become."""
        table = None if self._table is None else self._table.tobytes()
        return self.num_classes, self.ignore_index, self.binary, table

    def rule(self) -> str:
        """What masks may hold, in words."""
        ignored = "" if self.ignore_index is None else f" or {self.ignore_index} (ignored)"
        return f"0 to {self.num_classes - 1}{ignored}"

    def repair(self, unknown: Iterable[int]) -> str:
        """What to do about labels that masks must not hold."""
        values = set(unknown)
        if values == {255} and self.num_classes == 2:
            return 'Set "binary_masks": true if 255 is the object, "ignore_index": 255 if it means unknown.'
        if values == {255}:
            return 'Set "ignore_index": 255 if 255 means unknown.'
        if self.num_classes == 2:
            return 'Set "binary_masks": true if every label above 0 is the object; otherwise correct num_classes.'
        return f"Set num_classes to {max(values) + 1} if these are classes; otherwise correct the masks."


def parse_label_map(label_map: Mapping[str, int]) -> dict[int, int]:
    """A `label_map` of the JSON, whose keys are text, as numbers.

    Raises:
        ConfigError: It is empty, or a key or value is no label.
    """
    if not label_map:
        raise ConfigError('Wrong label_map {}: it must map at least one value, as in {"7": 0, "8": 1}.')
    parsed = {}
    for key, target in label_map.items():
        if not str(key).isdecimal() or int(key) > LARGEST_LABEL:
            raise ConfigError(f'Wrong label_map: "{key}" is no value of a mask. Keys are 0 to 65535, as in {{"7": 0}}.')
        if isinstance(target, bool) or not isinstance(target, int) or target < 0:
            raise ConfigError(
                f'Wrong label_map: "{key}" becomes {target!r}, which is no class. Classes are whole numbers from 0; a '
                "value that is to be ignored is left out."
            )
        parsed[int(key)] = target
    return parsed


def export_ids(label_map: Mapping[str, int] | None) -> list[int] | None:
    """The data set's own value for each class, (num_classes,): of several that become one class the first.

    None without a map, or where a class has no value of its own.
    """
    if not label_map:
        return None
    own: dict[int, int] = {}
    for value, target in parse_label_map(label_map).items():
        own.setdefault(target, value)
    return [own[number] for number in range(len(own))] if sorted(own) == list(range(len(own))) else None


def count_classes(
    num_classes: int | None,
    classes: Iterable[str] | None,
    *,
    binary_masks: bool = False,
    label_map: Mapping[str, int] | None = None,
) -> tuple[int, list[str]]:
    """Number and names of the classes, from the first of the arguments that tells.

    Raises:
        ConfigError: None of them does, or names and number differ.
    """
    listed = list(classes or ())
    if num_classes is not None:
        count = num_classes
    elif listed:
        count = len(listed)
    elif binary_masks:
        count = 2
    elif label_map:
        count = max(parse_label_map(label_map).values()) + 1
    else:
        raise ConfigError("num_classes is missing: say it in arch.args or in the loader's args, or list classes.")
    names = listed or [f"class_{number}" for number in range(count)]
    if len(names) != count or len(set(names)) != count:
        raise ConfigError(
            f"classes lists {len(names)} names ({len(set(names))} different ones), but num_classes is {count}. "
            "Name every class once."
        )
    return count, names
