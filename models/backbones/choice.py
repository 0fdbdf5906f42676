"""One name for every trunk: torchvision's, or "timm:" and a name of timm's."""

from typing import cast

from models.backbones.timm_encoder import PREFIX, TimmName, TimmTrunk
from models.backbones.torchvision_encoder import TRUNKS, Trunk, TrunkName
from models.layers.blocks import Norm
from utils.errors import ConfigError

Backbone = TrunkName | TimmName


def make_trunk(
    name: Backbone,
    in_channels: int = 3,
    *,
    weights: str | None = None,
    norm: Norm = "batch",
    output_stride: int = 32,
) -> Trunk | TimmTrunk:
    """The trunk of that name; arguments as of `Trunk` and `TimmTrunk`.

    Raises:
        ConfigError: Unknown name, a norm that the trunk cannot have, or weights that cannot be had.
        CheckpointError: The weights are damaged or of another network.
    """
    if name.startswith(PREFIX):
        return TimmTrunk(name, in_channels, weights=weights, norm=norm, output_stride=output_stride)
    if name in TRUNKS:
        known = cast(TrunkName, name)
        return Trunk(known, in_channels, weights=weights, norm=norm, output_stride=output_stride)
    raise ConfigError(
        f"Unknown backbone {name!r}: there are {', '.join(TRUNKS)}, and {PREFIX}NAME for the networks of timm. "
        "Choose one of them."
    )


def index_of_stride(trunk: Trunk | TimmTrunk, name: str, stride: int) -> int:
    """Which of a trunk's feature maps has a stride, the first where several have.

    Raises:
        ConfigError: None has.
    """
    if stride not in trunk.strides:
        raise ConfigError(
            f"Wrong backbone {name!r}: its feature maps have strides {trunk.strides}, and one of {stride} is needed. "
            "Choose another."
        )
    return trunk.strides.index(stride)
