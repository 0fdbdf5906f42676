"""Allowed values of masks, and the class ids that are made of them."""

from collections.abc import Hashable, Iterable, Mapping

import numpy as np

from data_loader.common.options import LabelOptions, MaskLabelOptions
from utils.errors import ConfigError

LARGEST_LABEL = 65535


class Labels:
    """The classes of a data set's masks.

    Args:
        options: Number of classes (or one of the options that imply it), names, and values in the masks.

    Attributes:
        num_classes: Converted masks hold 0 to `num_classes` - 1, and `ignored`.
        class_names: Names of the classes, in the order of their ids.
        ignore_index: A value in the masks that counts nowhere; None if they have no such value.
        binary: Every value above 0 (but `ignore_index`) means class 1.
        ignored: Mark of the padding: `ignore_index`, or a value that no mask holds.
        dtype: The smallest type that holds every label.

    Raises:
        ConfigError: The options contradict each other, or no option implies the number of classes.
    """

    def __init__(self, options: MaskLabelOptions) -> None:
        label_map, self.ignore_index = options.label_map, options.ignore_index
        self.binary = isinstance(options, LabelOptions) and options.binary_masks
        names = list(options.classes or ())
        # The first of the options that implies the number of classes.
        if options.num_classes is not None:
            count = options.num_classes
        elif names:
            count = len(names)
        elif self.binary:
            count = 2
        elif label_map:
            count = max(parse_label_map(label_map).values()) + 1
        else:
            raise ConfigError("num_classes is missing: say it in arch.args or in the loader's args, or list classes.")
        self.num_classes = count
        self.class_names = names or [f"class_{number}" for number in range(count)]
        if len(self.class_names) != count or len(set(self.class_names)) != count:
            raise ConfigError(
                f"classes lists {len(names)} names ({len(set(names))} different ones), but num_classes is {count}. "
                "Name every class once."
            )
        if options.palette is not None and len(options.palette) != count:
            raise ConfigError(
                f"palette lists {len(options.palette)} colours, but num_classes is {count}. Give each class one."
            )
        if self.num_classes < 2:
            raise ConfigError(f"Wrong num_classes {self.num_classes}: it must be 2 or more; background is a class.")
        if self.binary and self.num_classes != 2:
            raise ConfigError(
                f"binary_masks makes 2 classes, but num_classes is {self.num_classes}. Set one of them right."
            )
        if self.binary and label_map is not None:
            raise ConfigError("binary_masks and label_map both define the classes. Remove one of them.")
        if self.ignore_index is not None and not 0 <= self.ignore_index <= LARGEST_LABEL:
            raise ConfigError(
                f"Wrong ignore_index {self.ignore_index}: it must be a value that a mask can hold, 0 to 65535."
            )
        unused = 255 if self.num_classes <= 255 else LARGEST_LABEL
        self.ignored = unused if self.ignore_index is None else self.ignore_index
        self.dtype = np.dtype(np.uint8 if max(self.num_classes - 1, self.ignored) <= 255 else np.uint16)
        self._table = None if label_map is None else self._mapping_table(label_map)

    def _mapping_table(self, label_map: Mapping[str, int]) -> np.ndarray:
        """Return (65536,) value in the mask -> id."""
        if self.ignored < self.num_classes:
            raise ConfigError(
                f"Wrong ignore_index {self.ignored} next to a label_map: values that the map leaves out become "
                f"it, so it must be no class (0 to {self.num_classes - 1}). Set it to 255, or leave it out."
            )
        # One look-up per pixel, however many values the map has.
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
        """Convert a mask as read (h, w) to ids of `dtype`; the second value lists the labels that it must not hold."""
        if self._table is not None:
            return self._table[mask], []
        if self.binary:
            ids = (mask > 0).astype(self.dtype)
            if self.ignore_index is not None:
                ids[mask == self.ignore_index] = self.ignore_index
            return ids, []
        if mask.size and int(mask.max()) >= self.num_classes:
            # Only now the slower question which values there are.
            present = np.flatnonzero(np.bincount(mask.ravel()))
            unknown = [value for value in present.tolist() if value >= self.num_classes and value != self.ignore_index]
            if unknown:
                return mask, unknown
        return mask.astype(self.dtype, copy=False), []

    def identity(self) -> Hashable:
        """Return everything that decides the ids of a mask."""
        table = None if self._table is None else self._table.tobytes()
        return self.num_classes, self.ignore_index, self.binary, table

    def rule(self) -> str:
        """Return the values that masks may hold, in words."""
        ignored = "" if self.ignore_index is None else f" or {self.ignore_index} (ignored)"
        return f"0 to {self.num_classes - 1}{ignored}"

    def repair(self, unknown: Iterable[int]) -> str:
        """Return the repair for labels that masks must not hold."""
        values = set(unknown)
        if values == {255} and self.num_classes == 2:
            return 'Set "binary_masks": true if 255 is the object, "ignore_index": 255 if it means unknown.'
        if values == {255}:
            return 'Set "ignore_index": 255 if 255 means unknown.'
        if self.num_classes == 2:
            return 'Set "binary_masks": true if every label above 0 is the object; otherwise correct num_classes.'
        return f"Set num_classes to {max(values) + 1} if these are classes; otherwise correct the masks."


def parse_label_map(label_map: Mapping[str, int]) -> dict[int, int]:
    """Return a `label_map` of the JSON, whose keys are text, as numbers.

    Raises:
        ConfigError: It is empty, or a key or value is not a label.
    """
    if not label_map:
        raise ConfigError('Wrong label_map {}: it must map at least one value, as in {"7": 0, "8": 1}.')
    parsed = {}
    for key, target in label_map.items():
        if not str(key).isdecimal() or int(key) > LARGEST_LABEL:
            raise ConfigError(f'Wrong label_map: "{key}" is no value of a mask. Keys are 0 to 65535, as in {{"7": 0}}.')
        if isinstance(target, bool) or not isinstance(target, int) or target < 0:
            raise ConfigError(
                f'Wrong label_map: "{key}" becomes {target!r}, which is not a class. Classes are whole numbers from 0; '
                "a value that is to be ignored is left out."
            )
        parsed[int(key)] = target
    return parsed


def unmapped_value(label_map: Mapping[str, int]) -> int:
    """Return the largest value of masks that a `label_map` leaves out, so that it is ignored."""
    mapped = parse_label_map(label_map)
    return max(set(range(LARGEST_LABEL + 1)) - set(mapped))


def export_ids(label_map: Mapping[str, int] | None) -> list[int] | None:
    """Return the data set's value for each class, (num_classes,): of several that become one class the first.

    None without a map, or if a class has no value.
    """
    if not label_map:
        return None
    values: dict[int, int] = {}
    for value, target in parse_label_map(label_map).items():
        values.setdefault(target, value)
    return [values[number] for number in range(len(values))] if sorted(values) == list(range(len(values))) else None
