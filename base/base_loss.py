"""Losses that report the weight of their mean, so that means over several batches are exact."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from base.base_model import Output
from utils.errors import ConfigError

Loss = Callable[[Output, Tensor], Tensor]


class BaseLoss(nn.Module):
    """A loss (output, target) -> (): a mean over the batch, which also reports its weight.

    A mean over several batches (accumulated ones, those of several processes or of a validation set) is the sum of
    each batch's mean times its weight, over the sum of the weights. Of losses of torch.nn the weight is known; a loss
    that is any other `nn.Module` is counted by the targets that are not ignored.
    """

    def batch_weight(self, target: Tensor) -> Tensor | None:
        """Return what the mean of a batch was divided by, as () float64: the sum of its pixels' weights, its images.

        Args:
            target: (B, H, W) int64, or all that the loss accepts.

        Returns:
            None if no number that follows from the target makes means over batches exact: the loss is then counted by
            the targets that are not ignored.
        """
        return None

    def terms(self, output: Output, target: Tensor) -> "list[LossTerm]":
        """Return the terms of a sum of means, each of which has its own weight; this loss alone if it is no sum.

        Nothing is computed from the values of the output.
        """
        return [LossTerm(self, output, target)]


@dataclass(frozen=True, eq=False)
class LossTerm:
    """One term of the loss of a batch: a factor times a mean.

    Attributes:
        loss: (output, target) -> (), the mean.
        output: The part of the network's output that the loss gets.
        target: (B, H, W) int64, at the resolution of `output`.
        factor: Factor of the mean in the sum.
    """

    loss: Loss
    output: Output
    target: Tensor
    factor: float = 1.0

    def value(self) -> Tensor:
        """Compute the term, () float.

        Raises:
            ConfigError: The loss returned something else.
        """
        return self.factor * compute_loss(self.loss, self.output, self.target)

    def weight(self) -> Tensor | None:
        """Return the weight of the mean, () float64, None if valid targets are to be counted.

        Raises:
            ConfigError: The loss reports something else.
        """
        loss, target = self.loss, self.target
        weight: Any = loss.batch_weight(target) if isinstance(loss, BaseLoss) else torch_loss_weight(loss, target)
        if weight is None:
            return None
        if isinstance(weight, int | float):  # no tensor of it, whose copy to a GPU would be waited for
            return torch.full((), weight, dtype=torch.float64, device=target.device)
        if isinstance(weight, Tensor) and weight.numel() == 1:
            return weight.to(target.device, torch.float64).reshape(())
        found = f"a tensor of shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else repr(weight)[:200]
        raise ConfigError(
            f"loss: batch_weight of {type(loss).__name__} returned {found}. It is the number by which the mean of "
            "a batch was divided, () float64. Return the sum of the weights, or None to count the targets."
        )

    def times(self, factor: float) -> "LossTerm":
        """Return the term with another factor on it."""
        return replace(self, factor=factor * self.factor)


def compute_loss(loss: Loss, output: Output, target: Tensor) -> Tensor:
    """Return the loss of a batch, () float.

    Raises:
        ConfigError: It is no tensor of one number.
    """
    return checked_loss(loss(output, target), getattr(loss, "__name__", type(loss).__name__))


def checked_loss(value: Any, source: str) -> Tensor:
    """Return the result of a loss as () float.

    Args:
        value: The result.
        source: Name of the class or function that computed it.

    Raises:
        ConfigError: It is no tensor of one number.
    """
    if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point():
        return value.reshape(()) if value.dim() else value
    if isinstance(value, Tensor):
        found, repair = f"a tensor of shape {tuple(value.shape)} and {value.dtype}", "Return its mean over the pixels."
    elif value is None:
        found, repair = "None", "Let it end in a return statement."
    else:
        found, repair = f"{value!r} ({type(value).__name__})", "Leave out item() and float()."
    raise ConfigError(
        f"loss: {source} returned {found[:200]}. The loss of a batch is one number as a tensor, () float, through "
        f"which the gradient flows. {repair}"
    )


# Losses of torch.nn whose mean is over all elements of the target, or over its samples, which have as many each.
_MEAN_OVER_ELEMENTS = (
    nn.BCELoss, nn.BCEWithLogitsLoss, nn.HuberLoss, nn.KLDivLoss, nn.L1Loss, nn.MSELoss, nn.MultiLabelMarginLoss,
    nn.MultiLabelSoftMarginLoss, nn.MultiMarginLoss, nn.PoissonNLLLoss, nn.SmoothL1Loss, nn.SoftMarginLoss,
)  # fmt: skip


def torch_loss_weight(loss: Loss, target: Tensor) -> Tensor | None:
    """Return what a loss of torch.nn divides its mean by, () float64; None if it is another loss, or gives a sum.

    Args:
        loss: Any loss. A subclass of torch's may compute something else and is not known.
        target: (B, ...) int64, or float in the form that the loss takes.
    """
    if getattr(loss, "reduction", None) not in ("mean", "batchmean"):
        return None
    if type(loss) in _MEAN_OVER_ELEMENTS:
        return torch.full((), target.numel(), dtype=torch.float64, device=target.device)
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or type(loss) not in (nn.CrossEntropyLoss, nn.NLLLoss):
        return None
    if target.is_floating_point():  # probabilities (B, K, ...): the mean is over all pixels, whatever they weigh
        return torch.full((), target.numel() / target.shape[1], dtype=torch.float64, device=target.device)
    valid = target != loss.ignore_index
    if loss.weight is None:
        return valid.sum(dtype=torch.float64)
    return (loss.weight[target.where(valid, 0)] * valid).sum(dtype=torch.float64)


def loss_terms(loss: Loss, output: Output, target: Tensor) -> list[LossTerm]:
    """Return the terms of any loss; one that is no `BaseLoss` is a single term."""
    return loss.terms(output, target) if isinstance(loss, BaseLoss) else [LossTerm(loss, output, target)]
