"""A trunk part of which stays as it is while the rest trains."""

from typing import Self

from torch import Tensor, nn

from models.backbones import TimmTrunk, Trunk, freeze_stages
from utils.errors import ConfigError


class SteadyTrunk(nn.Module):
    """A trunk whose first stages do not train, and whose batch norms may keep their statistics.

    Args:
        trunk: The trunk.
        in_channels: Channels of the image.
        frozen_stages: How many of its feature maps stay as they are.
        norm_eval: Keep the running statistics of every batch norm of the trunk.

    Raises:
        ConfigError: More stages than there are.
    """

    def __init__(self, trunk: Trunk | TimmTrunk, in_channels: int, *, frozen_stages: int, norm_eval: bool) -> None:
        super().__init__()
        count = len(trunk.channels)
        if not 0 <= frozen_stages <= count:
            raise ConfigError(
                f"Wrong frozen_stages {frozen_stages}: the trunk has {count} stages. Give a number from 0 to {count}."
            )
        self.trunk = trunk
        self.channels, self.strides = trunk.channels, trunk.strides
        # A tuple: parts in a list attribute would be no different, but these are the trunk's already.
        self._steady = tuple(freeze_stages(trunk, frozen_stages, in_channels))
        if norm_eval:
            self._steady += tuple(part for part in trunk.modules() if isinstance(part, nn.BatchNorm2d))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Image (B, C, H, W) -> feature maps, finest first."""
        features: list[Tensor] = self.trunk(inputs)
        return features

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the parts that stay as they are."""
        super().train(mode)
        for part in self._steady:
            part.eval()
        return self
