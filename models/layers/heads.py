"""Classifiers over feature maps, and the weights of auxiliary ones. B batch, K classes."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from models.layers.blocks import Norm, conv_block
from utils.errors import ConfigError

AuxiliaryWeight = Annotated[float, Field(ge=0.0)]


class SegmentationHead(nn.Sequential):
    """A 3x3 convolution, dropout and a 1x1 convolution: features (B, in_channels, h, w) -> logits (B, K, h, w).

    Args:
        in_channels: Channels of the features.
        channels: Width of the 3x3 convolution.
        num_classes: Classes K.
        dropout: Fraction of the features before the last convolution that is dropped while training.
        norm: Normalisation after the 3x3 convolution.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, *, dropout: float = 0.0, norm: Norm) -> None:
        block = conv_block(in_channels, channels, norm=norm)
        super().__init__(block, nn.Dropout(dropout), nn.Conv2d(channels, num_classes, kernel_size=1))


def checked_weights(given: Sequence[float] | None, published: Sequence[float]) -> tuple[float, ...]:
    """Return the factors of a network's auxiliary outputs: those given, else those published.

    Raises:
        ConfigError: Another number of them than the network has auxiliary outputs.
    """
    if given is None:
        return tuple(published)
    if len(given) != len(published):
        raise ConfigError(
            f"Wrong auxiliary_weights {list(given)}: the network has {len(published)} auxiliary outputs, and each "
            f"needs a weight. Give {len(published)}, or leave it out for {list(published)}."
        )
    return tuple(given)


def cut_to_stride(maps: Tensor, size: Sequence[int], stride: int) -> Tensor:
    """Return maps of a padded image, cut to those of an image of `size` (H, W) at `stride`, rounded up."""
    return maps[:, :, : -(-size[0] // stride), : -(-size[1] // stride)]
