"""Several losses in one."""

import torch
from torch import Tensor, nn

from base.output import Output
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
