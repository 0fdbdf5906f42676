"""The base class of all losses, and the two reductions that they share."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from base.base_model import Output, class_logits, main_output
from utils.errors import ConfigError

NOTHING_IGNORED = -100  # torch's default: no label is negative


class LogitLoss(nn.Module, ABC):
    """A loss of the main logits, in float32 also under autocast; a subclass writes `compute`.

    Args:
        ignore_index: Label of pixels that do not count.
        sigmoid: Take only the one channel of a binary network, whose sigmoid is the probability of class 1.

    Attributes:
        name: Name in a config, for messages; with "_with_sigmoid" if `sigmoid`.
        takes_probabilities: Whether a target may hold a probability per class (as mixup makes it).
        needs_one_channel: Whether the loss is only for binary networks with one channel, as if `sigmoid` were set.
    """

    name: ClassVar[str]
    takes_probabilities: ClassVar[bool] = False
    needs_one_channel: ClassVar[bool] = False

    def __init__(self, ignore_index: int | None = None, *, sigmoid: bool = False) -> None:
        super().__init__()
        self.ignore_index = NOTHING_IGNORED if ignore_index is None else ignore_index
        self.sigmoid = sigmoid

    @abstractmethod
    def compute(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, K, ...) float32 with K at least 2, target (B, ...) int64 or (B, K, ...) float -> () float32."""

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, H, W) float, target (B, H, W) int64 or (B, K, H, W) float -> () float32.

        Raises:
            ConfigError: The loss cannot use such logits or such a target.
        """
        main = main_output(output).float()
        name = f"{self.name}_with_sigmoid" if self.sigmoid else self.name
        if (self.sigmoid or self.needs_one_channel) and main.shape[1] != 1:
            raise ConfigError(
                f"{name} got {main.shape[1]} logits per pixel: it is for a binary network with one. Set num_classes of "
                "arch to 1, or use the loss without sigmoid."
            )
        logits = class_logits(main)
        if target.is_floating_point() and not (self.takes_probabilities and target.shape == logits.shape):
            raise ConfigError(
                f"{name} got a target of {tuple(target.shape)} shares per class, for logits of {tuple(logits.shape)}: "
                "it takes one class id per pixel or sample. Use ce_loss, or leave out mixup."
            )
        with torch.autocast(logits.device.type, enabled=False):
            return self.compute(logits, target)


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of losses over that of their weights, () float32; 0 if all weights are 0."""
    # In float32 the sum of many small weights would depend on their order.
    total = weights.sum(dtype=torch.float64).float()
    return losses.sum() / total.where(total > 0, 1.0)


def mean_where(losses: Tensor, counts: Tensor) -> Tensor:
    """Return the mean of losses over those that count, a bool tensor of the same shape; 0 if none does."""
    return (losses * counts).sum() / counts.sum().clamp(min=1)
