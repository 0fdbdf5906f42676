"""The Lovász-softmax loss (arXiv:1705.08790). B batch, K classes, G groups of N pixels."""

import torch
from torch import Tensor

from models.losses.common import LogitLoss, weighted_mean


class LovaszLoss(LogitLoss):
    """The Lovász extension of one minus intersection over union (arXiv:1705.08790), on softmax probabilities.

    A mean over the classes that the truth of a group shows; the group is an image, or the whole batch. It is the
    convex surrogate of the coefficient that `miou` measures; added to cross-entropy it sharpens, alone it starts
    slowly.

    Args:
        ignore_index: Label of pixels that do not count.
        per_image: Compute one coefficient per image, else one for the batch: a statistic of each batch by itself, also
            of accumulated ones and of those of several processes.
        exclude_background: Leave class 0 out of the mean.
        sigmoid: Take only the one channel of a binary network.
    """

    name = "lovasz_loss"

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        per_image: bool = True,
        exclude_background: bool = False,
        sigmoid: bool = False,
    ) -> None:
        super().__init__(ignore_index, sigmoid=sigmoid)
        self.per_image = per_image
        self.first_class = int(exclude_background)

    def compute(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, K, ...) float32, target (B, ...) int64 -> () float32."""
        labels = target.reshape(len(target), -1)
        probabilities = logits.softmax(dim=1).reshape(*logits.shape[:2], -1).transpose(0, 1)
        # Groups are in the first dimension: B images, or one batch.
        if not self.per_image:
            labels, probabilities = labels.reshape(1, -1), probabilities.reshape(len(probabilities), 1, -1)
        valid = labels != self.ignore_index
        losses, present = [], []
        for number in range(self.first_class, len(probabilities)):
            truth = (labels == number) & valid
            errors = (truth.float() - probabilities[number]).abs() * valid
            losses.append((errors * jaccard_steps(errors.detach(), truth, valid)).sum(dim=1))
            present.append(truth.any(dim=1))
        shown = torch.stack(present, dim=1)
        means = (torch.stack(losses, dim=1) * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1)
        is_shown = shown.any(dim=1)
        return weighted_mean(means * is_shown, is_shown)

    def batch_weight(self, target: Tensor) -> Tensor | None:
        """Return the number of images that show a class, () float64; None if the batch is one group."""
        if not self.per_image:
            return None
        labels = target.reshape(len(target), -1)
        shows_class = (labels >= self.first_class) & (labels != self.ignore_index)
        return shows_class.any(dim=1).sum(dtype=torch.float64)


@torch.no_grad()
def jaccard_steps(errors: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Return by how much one minus intersection over union grows with each pixel, the largest error first.

    The loss is the sum of errors times these, and they are its gradient (arXiv:1705.08790, algorithm 1), so the sorting
    needs none; integers and a stable order make it the same in every run.

    Args:
        errors: (G, N) float, not negative.
        truth: (G, N) bool, the pixels of the class.
        valid: (G, N) bool; pixels that are not come last and change nothing.

    Returns:
        (G, N) float32, at the place of each error.
    """
    order = errors.where(valid, -1.0).sort(dim=1, descending=True, stable=True).indices
    hits = truth.gather(1, order).int()
    total = hits.sum(dim=1, keepdim=True, dtype=torch.int32)
    missed = hits.cumsum(dim=1, dtype=torch.int32)
    invented = (1 - hits).cumsum(dim=1, dtype=torch.int32)
    losses = 1 - (total - missed).double() / (total + invented).clamp(min=1).double()
    steps = losses.diff(dim=1, prepend=torch.zeros_like(losses[:, :1])).float()
    return torch.empty_like(steps).scatter_(1, order, steps)
