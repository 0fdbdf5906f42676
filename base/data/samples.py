"""Names and original targets that an evaluation loader yields in addition to inputs and targets."""

from dataclasses import dataclass

from torch import Tensor

from utils.geometry import Geometry


@dataclass(frozen=True, slots=True)
class NamedMask:
    """A mask for evaluation at its original size.

    Attributes:
        name: The file of the image, by which a user finds it.
        target: (h, w) int64, the mask at its original size.
        geometry: Position of the image on the network's input.
        index: Index in the data set.
    """

    name: str
    target: Tensor
    geometry: Geometry
    index: int


@dataclass(frozen=True, slots=True)
class NamedSample:
    """A sample of a classification for evaluation.

    Attributes:
        name: The file, or the file and the row, by which a user finds it.
        target: Id of its class.
        index: Index in the data set.
    """

    name: str
    target: int
    index: int
