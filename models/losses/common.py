"""What all losses share: which logits are judged, and which targets count."""

import torch
from torch import Tensor

from base.base_model import Output, class_logits, main_output
from utils.errors import ConfigError

NOTHING_IGNORED = -100  # torch's own default: no label is negative


def judged_logits(output: Output) -> Tensor:
    """The logits proper, (B, K, ...) float32 with K at least 2."""
    return class_logits(main_output(output).float())


def is_soft(logits: Tensor, target: Tensor) -> bool:
    """Whether a target holds a share per class (as mixup makes it), shaped as the logits, and not class ids."""
    return target.is_floating_point() and target.shape == logits.shape


def class_ids(logits: Tensor, target: Tensor, loss: str) -> Tensor:
    """The target of a loss that takes class ids only.

    Raises:
        ConfigError: It holds shares.
    """
    if target.is_floating_point():
        raise ConfigError(
            f"{loss} got a target of {tuple(target.shape)} shares per class, for logits of {tuple(logits.shape)}: it "
            "takes one class id per pixel or sample. Use ce_loss, or leave out mixup."
        )
    return target


def require_one_channel(output: Output, loss: str) -> None:
    """Refuse logits of several classes.

    Raises:
        ConfigError: There is more than one channel.
    """
    channels = main_output(output).shape[1]
    if channels != 1:
        raise ConfigError(
            f"{loss} got {channels} logits per pixel: it is for a binary network with one. Set num_classes of arch to "
            "1, or use the loss without sigmoid."
        )


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """The sum of losses over that of their weights, () float32; 0 where all weights are 0."""
    total = weights.sum(dtype=torch.float64).float()
    return losses.sum() / total.where(total > 0, 1.0)


def mean_of_samples(losses: Tensor, counts: Tensor) -> Tensor:
    """The mean of losses (B,) over the samples that count, (B,) bool; 0 where none does."""
    return (losses * counts).sum() / counts.sum().clamp(min=1)
