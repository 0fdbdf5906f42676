"""Which values a mask may hold, and what they become."""

from collections.abc import Iterable

import numpy as np

from utils.errors import ConfigError


class Labels:
    """The ids of a task's masks.

    Args:
        num_classes: Masks hold 0 to `num_classes` - 1.
        ignore_index: A value that is allowed beside them and counts nowhere; None where masks have no such value.
        binary: Every value above 0 (but `ignore_index`) means class 1.

    Attributes:
        ignored: What padding is marked with: `ignore_index`, or a value that no mask holds.
        dtype: The smallest type that holds every label.

    Raises:
        ConfigError: The arguments contradict each other.
    """

    def __init__(self, num_classes: int, ignore_index: int | None = None, *, binary: bool = False) -> None:
        if num_classes < 2:
            raise ConfigError(f"Wrong num_classes {num_classes}: it must be 2 or more; background is a class.")
        if binary and num_classes != 2:
            raise ConfigError(f"binary_masks makes 2 classes, but num_classes is {num_classes}. Set one of them right.")
        if ignore_index is not None and not 0 <= ignore_index <= 65535:
            raise ConfigError(
                f"Wrong ignore_index {ignore_index}: it must be a value that a mask can hold, 0 to 65535."
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.binary = binary
        unused = 255 if num_classes <= 255 else 65535
        self.ignored = unused if ignore_index is None else ignore_index
        self.dtype = np.dtype(np.uint8 if max(num_classes - 1, self.ignored) <= 255 else np.uint16)

    def convert(self, mask: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Turn a mask as read (h, w) into ids of `dtype`; the second value lists the labels that it must not hold."""
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
