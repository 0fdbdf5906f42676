"""The base classes of all losses, and how they are weighted: pixels by class, terms in a sum, auxiliary logits.

B batch, K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from base.base_loss import BaseLoss, LossTerm, compute_loss, loss_terms
from base.base_model import Output, class_logits, main_output
from base.class_weights import ClassWeight, Rule, class_weights
from models.layers.heads import AuxiliaryWeight
from utils.errors import ConfigError

NOTHING_IGNORED = -100  # torch's default: no label is negative

Weights = list[ClassWeight] | Rule | None
Ratio = Annotated[float, Field(gt=1.0)]


class LogitLoss(BaseLoss, ABC):
    """A loss of the main logits, in float32 also under autocast; a subclass writes `compute` and `batch_weight`.

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
    """Return the sum of losses, weighted already, over that of their weights, () float32; 0 if all weights are 0."""
    # In float32 the sum of many small weights would depend on their order.
    total = weights.sum(dtype=torch.float64).float()
    return losses.sum() / total.where(total > 0, 1.0)


class ClassWeightedLoss(LogitLoss):
    """Base of the losses with class weights; their mean is weighted, as torch's is.

    Args:
        ignore_index: Label of pixels that do not count.
        weight: One number per class, or the rule that makes them, see `class_weights`.
        class_counts: Pixels of each class in the training data; a rule needs them.
        num_classes: K, to check the weights against.
        max_weight_ratio: For "bounded": the largest weight over the smallest.
        sigmoid: Take only the one channel of a binary network.

    Attributes:
        weight: (K,) float32, or None.

    Raises:
        ConfigError: Not one weight per class, or a rule without counts.
    """

    weight: Tensor | None

    def __init__(
        self,
        ignore_index: int | None,
        weight: Weights,
        class_counts: Sequence[int] | None,
        num_classes: int | None,
        max_weight_ratio: float,
        *,
        sigmoid: bool = False,
    ) -> None:
        super().__init__(ignore_index, sigmoid=sigmoid)
        numbers = None
        if weight is not None:
            numbers = class_weights(
                weight,
                class_counts,
                num_classes=num_classes,
                ignore_index=ignore_index,
                max_ratio=max_weight_ratio,
            )
        # Not persistent: a checkpoint holds the config, from which the weights follow.
        self.register_buffer("weight", None if numbers is None else torch.tensor(numbers).float(), persistent=False)

    def target_weights(self, target: Tensor) -> Tensor:
        """Return the weight of each pixel, (B, ...) float32, 0 if it does not count.

        Args:
            target: (B, ...) int64, or (B, K, ...) float with a probability per class.
        """
        if target.is_floating_point():
            ones = torch.ones(target.shape[1], device=target.device)
            weights = ones if self.weight is None else self.weight
            return (weights.view(-1, *[1] * (target.dim() - 2)) * target.float()).sum(dim=1)
        # An ignored label may lie outside 0..K-1 and is no index of the weights.
        valid = target != self.ignore_index
        return valid.float() if self.weight is None else self.weight[target.where(valid, 0)] * valid

    def batch_weight(self, target: Tensor) -> Tensor | None:
        """Return the sum of the weights of all pixels, () float64."""
        return self.target_weights(target).sum(dtype=torch.float64)


class WeightedLoss(BaseLoss):
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
        losses = [compute_loss(loss, output, target) for loss in self.losses]
        return torch.stack([weight * loss for weight, loss in zip(self.weights, losses, strict=True)]).sum()

    def terms(self, output: Output, target: Tensor) -> list[LossTerm]:
        """Return the terms of all losses, with their factors."""
        return [
            term.times(weight)
            for weight, loss in zip(self.weights, self.losses, strict=True)
            for term in loss_terms(loss, output, target)
        ]


class AuxiliaryLoss(BaseLoss):
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
        main, *auxiliary = self.outputs_with_targets(output, target)
        loss = compute_loss(self.loss, *main)
        if not auxiliary:
            return loss
        terms = [weight * compute_loss(self.loss, *pair) for weight, pair in zip(self.weights, auxiliary, strict=True)]
        return torch.stack([loss, *terms]).sum()

    def terms(self, output: Output, target: Tensor) -> list[LossTerm]:
        """Return the terms of the main logits, and with their factors those of each auxiliary output."""
        main, *auxiliary = self.outputs_with_targets(output, target)
        terms = loss_terms(self.loss, *main)
        for weight, pair in zip(self.weights, auxiliary, strict=False):  # evaluation has no auxiliary outputs
            terms += [term.times(weight) for term in loss_terms(self.loss, *pair)]
        return terms

    def outputs_with_targets(self, output: Output, target: Tensor) -> list[tuple[Output, Tensor]]:
        """Return the main logits and each auxiliary output, if there are any, with the target at its resolution.

        Raises:
            ConfigError: Not as many auxiliary outputs as weights.
        """
        # In evaluation a network returns only the main logits.
        if isinstance(output, Tensor) or len(output) == 1:
            return [(output, target)]
        main, *auxiliary = output
        if len(auxiliary) != len(self.weights):
            raise ConfigError(
                f"{len(auxiliary)} auxiliary outputs with {len(self.weights)} weights {self.weights}: each needs one. "
                "Correct auxiliary_weights."
            )
        return [(main, target), *((logits, resize_nearest(target, logits.shape[2:])) for logits in auxiliary)]


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
