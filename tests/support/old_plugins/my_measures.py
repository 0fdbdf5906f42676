import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base import Metric


class FocalLoss(nn.Module):
    """Cross-entropy that cares less for what is already right (arXiv:1708.02002)."""

    def __init__(self, gamma: float = 2.0, *, ignore_index: int | None = None) -> None:
        super().__init__()
        self.gamma, self.ignore_index = gamma, -100 if ignore_index is None else ignore_index

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        losses = F.cross_entropy(output.float(), target, ignore_index=self.ignore_index, reduction="none")
        total = ((1 - torch.exp(-losses)) ** self.gamma * losses).sum()
        return total / (target != self.ignore_index).sum().clamp(min=1)


class Found(Metric):
    """`found`: share of the pictures in which the prediction of class 1 fits its mask well enough."""

    def __init__(self, min_iou: float = 0.9, *, ignore_index: int | None = None) -> None:
        self.min_iou, self.ignore_index = min_iou, ignore_index
        self.reset()

    def reset(self) -> None:
        self.counts = torch.zeros(2, dtype=torch.int64)  # pictures in which it was found, pictures

    def update(self, logits: Tensor, target: Tensor) -> None:
        predicted, truth = (logits.argmax(1) == 1) & (target != self.ignore_index), target == 1
        overlap, union = (predicted & truth).sum((1, 2)), (predicted | truth).sum((1, 2))
        found = (overlap >= self.min_iou * union).sum()
        self.counts = self.counts.to(found.device) + torch.stack((found, torch.full_like(found, len(target))))

    def compute(self) -> dict[str, float]:
        return {"found": float(self.counts[0] / self.counts[1])}
