"""What an evaluation loader hands over beside inputs and targets."""

from dataclasses import dataclass

from torch import Tensor

from utils.geometry import Geometry


@dataclass(frozen=True, slots=True)
class NamedMask:
    """Where one evaluation sample came from, so that it can be judged at its own size and named.

    Attributes:
        name: The file, as the user would look for it.
        target: (h, w) int64, the mask at its own size.
        geometry: How the image lies on the network's input.
        index: Position in the data set.
    """

    name: str
    target: Tensor
    geometry: Geometry
    index: int


@dataclass(frozen=True, slots=True)
class NamedSample:
    """Where one sample of a classification came from, so that it can be named.

    Attributes:
        name: The file, or the file and the row, as the user would look for it.
        target: Id of its class.
        index: Position in the data set.
    """

    name: str
    target: int
    index: int
