"""The facts that a run learns from its data, and those in a configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from config.checking.sections import shared_values


@dataclass(frozen=True)
class DataSpec:
    """The properties of the data that network, loss and metrics are built for.

    Attributes:
        num_classes: Classes K in the targets.
        in_channels: Channels C of the inputs.
        dims: Dimensions of an input without its channels: 2 for images, 1 for series.
        ignore_index: Label that no loss or metric counts; None if every label counts.
        class_names: Names of the classes in the order of their ids; empty if they are not known.
        class_counts: Number of targets of each class in the training data, if the loss weighs classes by it.
        learned: Arguments of the loader that the config left open and the training data settled.
    """

    num_classes: int | None = None
    in_channels: int | None = None
    dims: int | None = None
    ignore_index: int | None = None
    class_names: Sequence[str] = ()
    class_counts: Sequence[int] | None = None
    learned: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "DataSpec":
        """Return the values that a config states, e.g. that of a checkpoint, without its data."""
        return cls(**shared_values(config))

    def arguments(self) -> dict[str, Any]:
        """Return the known values by the names under which a class may ask for them."""
        values = {name: value for name, value in vars(self).items() if name != "learned"}
        return {name: value for name, value in values.items() if value not in (None, (), [])}
