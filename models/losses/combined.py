"""Sums of losses: of several terms, and of the main and the auxiliary logits of a network. B batch, K classes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from base.base_model import Output
from models.layers.heads import AuxiliaryWeight
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


class AuxiliaryLoss(nn.Module):
    """A loss of the main logits, and the same of each auxiliary one against the target at its resolution.

    A network with auxiliary weights gets it around the configured loss. Without auxiliary logits, as in evaluation, it
    is the loss alone.

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
        # In evaluation a network returns only the main logits.
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


def resize_nearest(target: Tensor, size: Sequence[int]) -> Tensor:
    """Return the label at the centre of each cell of a coarser map; labels are never mixed.

    Args:
        target: (B, H, W) int64.
        size: (h, w).

    Returns:
        (B, h, w) int64.
    """
    for dimension, count in enumerate(size, start=1):
        length = target.shape[dimension]
        if length == count:
            continue
        # A network that halves rounds odd sizes up, so that its last cells reach beyond the image. The spacing of the
        # cells is thus the power of two that leads to that many of them, and only without one the ratio of the sizes.
        power = 1 << (-(-length // count) - 1).bit_length()
        spacing = power if -(-length // power) == count else length / count
        centres = ((torch.arange(count, device=target.device) + 0.5) * spacing).long().clamp(max=length - 1)
        target = target.index_select(dimension, centres)
    return target
