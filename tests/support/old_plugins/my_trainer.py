from typing import Any

import torch
from torch import Tensor

from trainer.trainer import Trainer


class CutMixTrainer(Trainer):
    """Pastes a stripe of each sample into another one of the batch, picture and mask alike (after arXiv:1905.04899)."""

    def __init__(self, model: Any, optimizer: Any, *, share: float = 0.5, **parts: Any) -> None:
        super().__init__(model, optimizer, **parts)
        self.share = share

    def train_step(self, inputs: Tensor, target: Tensor) -> Tensor:
        width = target.shape[-1]
        stripe = (torch.arange(width) < self.share * width).roll(int(torch.randint(width, ()))).to(inputs.device)
        return super().train_step(inputs.where(~stripe, inputs.roll(1, 0)), target.where(~stripe, target.roll(1, 0)))
