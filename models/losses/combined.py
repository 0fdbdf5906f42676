"""Auxiliary outputs: further logits, taken from the depth of a network while it trains. B batch, K classes."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from base.base_model import Output
from models.layers.blocks import Norm, conv_block
from utils.errors import ConfigError


class WeightedLoss(nn.Module):
    """A weighted sum of losses.

    Args:
        losses: The terms, each (output, target) -> scalar; all get the whole output, auxiliary logits included.
        weights: One factor per term.

    Raises:
        ConfigError: Not as many factors as terms, or no terms.
    """

    def __init__(self, losses: list[nn.Module], weights: list[float]) -> None:
        super().__init__()
        if not losses or len(losses) != len(weights):
            raise ConfigError(
                f"{len(losses)} losses with {len(weights)} weights: there must be at least one loss, and "
                "one weight for each. Give as many of each."
            )
        self.losses = nn.ModuleList(losses)
        self.weights = list(weights)

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, H, W) float, target (B, H, W) int64 -> () float32."""
        terms = [weight * loss(output, target) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(terms).sum()


AuxiliaryWeight = Annotated[float, Field(ge=0.0)]


class AuxiliaryHead(nn.Sequential):
    """A 3x3 convolution and a classifier over features within a network: (B, in_channels, h, w) -> (B, K, h, w).

    Args:
        in_channels: Channels of the features.
        channels: Width of the 3x3 convolution.
        num_classes: Classes K.
        dropout: Share of the features before the classifier that is dropped.
        norm: Normalisation behind the 3x3 convolution.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, *, dropout: float = 0.0, norm: Norm) -> None:
        block = conv_block(in_channels, channels, norm=norm)
        super().__init__(block, nn.Dropout(dropout), nn.Conv2d(channels, num_classes, kernel_size=1))


class AuxiliaryLoss(nn.Module):
    """A loss of the main logits, and the same of each auxiliary one against the target at its own size.

    A network gets it by itself around the configured loss where it has auxiliary weights. Where there are no auxiliary
    logits, as in evaluation, it is the loss alone.

    Args:
        loss: (output, target) -> scalar.
        weights: One factor per auxiliary output.
    """

    def __init__(self, loss: nn.Module, weights: Sequence[AuxiliaryWeight]) -> None:
        super().__init__()
        self.loss = loss
        self.weights = [float(weight) for weight in weights]

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, H, W), or a tuple of them and (B, K, h, w) ...; target (B, H, W) int64 -> () float.

        Raises:
            ConfigError: Not as many auxiliary outputs as weights.
        """
        if isinstance(output, Tensor) or len(output) == 1:
            loss: Tensor = self.loss(output, target)
            return loss
        main, *auxiliary = output
        if len(auxiliary) != len(self.weights):
            raise ConfigError(
                f"{len(auxiliary)} auxiliary outputs with {len(self.weights)} weights {self.weights}: each needs one. "
                "Correct auxiliary_weights."
            )
        terms = [self.loss(main, target)]
        for weight, logits in zip(self.weights, auxiliary, strict=True):
            terms.append(weight * self.loss(logits, resize_nearest(target, logits.shape[2:])))
        return torch.stack(terms).sum()


def checked_weights(given: Sequence[float] | None, published: Sequence[float]) -> tuple[float, ...]:
    """The factors of a network's auxiliary outputs: those given, else those published.

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


def resize_nearest(target: Tensor, size: Sequence[int]) -> Tensor:
    """The label at the centre of each cell of a coarser map; labels are never mixed.

    A network that halves rounds odd sizes up, so that its last cells reach beyond the image. The cells' spacing is
    thus the power of two that leads to that many of them, and only where there is none the ratio of the sizes.

    Args:
        target: (B, H, W) int64.
        size: (h, w).

    Returns:
        (B, h, w) int64.
    """
    if tuple(target.shape[1:]) == tuple(size):
        return target
    rows, columns = (_centres(old, new, target.device) for old, new in zip(target.shape[1:], size, strict=True))
    return target.index_select(1, rows).index_select(2, columns)


def _centres(length: int, count: int, device: torch.device) -> Tensor:
    """(count,) int64: the place at the centre of each of `count` cells over `length` places."""
    power = 1 << (-(-length // count) - 1).bit_length()
    spacing = power if -(-length // power) == count else length / count
    return ((torch.arange(count, device=device) + 0.5) * spacing).long().clamp(max=length - 1)
