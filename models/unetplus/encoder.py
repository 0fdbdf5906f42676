"""A backbone parts of which are frozen."""

from typing import Self

from torch import Tensor, nn

from models.backbones import Encoder, freeze_stages
from utils.errors import ConfigError


class PartlyFrozenEncoder(nn.Module):
    """A backbone whose first stages do not train, and whose batch norms may retain their statistics.

    Args:
        encoder: The backbone.
        in_channels: Channels of the image.
        frozen_stages: Number of feature maps, finest first, whose weights and statistics are frozen.
        norm_eval: Freeze the running statistics of every batch norm of the backbone.

    Raises:
        ConfigError: More stages than there are.
    """

    def __init__(self, encoder: Encoder, in_channels: int, *, frozen_stages: int, norm_eval: bool) -> None:
        super().__init__()
        count = len(encoder.channels)
        if not 0 <= frozen_stages <= count:
            raise ConfigError(
                f"Wrong frozen_stages {frozen_stages}: the backbone has {count} stages. Give a number from 0 to "
                f"{count}."
            )
        self.trunk = encoder  # the word in the state dicts of all checkpoints
        self.channels, self.strides = encoder.channels, encoder.strides
        # Names, not modules: a module may be replaced afterwards, and a copy has other modules.
        self.in_evaluation_mode = freeze_stages(encoder, frozen_stages, in_channels)
        if norm_eval:
            norms = [name for name, part in encoder.named_modules() if isinstance(part, nn.BatchNorm2d)]
            self.in_evaluation_mode += norms

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Image (B, C, H, W) float -> feature maps (B, channels, h, w) float, finest first."""
        features: list[Tensor] = self.trunk(inputs)
        return features

    def train(self, mode: bool = True) -> Self:
        """Set training mode for all but the frozen parts."""
        super().train(mode)
        for name in self.in_evaluation_mode:
            self.trunk.get_submodule(name).eval()
        return self
