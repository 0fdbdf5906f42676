"""A plug-in: a supernet of two blocks and three layers that trains in milliseconds, for the laws of its trainer."""

import os
import signal
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base import BaseModel
from utils.architecture.decoding import decode, possible_moves
from utils.architecture.genotype import OPERATIONS, Genotype

EDGES, LAYERS, WIDTH = 5, 3, 4
KILL_AT = "KILL_AT_ARCHITECTURE_PASS"  # environment variable: number of the pass that ends the process


class SmallSupernet(BaseModel):
    """Logits (B, K, H, W) from a mixture of convolutions by alpha, scaled by the moves of beta.

    Args:
        num_classes: K.
        norm: Kind of the norm.
        dropout: Share of the features that are dropped, so that random numbers are drawn.
        samples_paths: Leave out one operation by chance in each pass of the training.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        norm: Literal["batch", "group", "none"] = "none",
        dropout: float = 0.0,
        samples_paths: bool = False,
    ) -> None:
        super().__init__()
        self.samples_paths = samples_paths
        self.alpha = nn.Parameter(1e-3 * torch.randn(EDGES, len(OPERATIONS)))
        self.beta = nn.Parameter(1e-3 * torch.randn(LAYERS, 4, 3))
        self.operations = nn.ModuleList(nn.Conv2d(3, WIDTH, 3, padding=1) for _ in OPERATIONS[1:])
        norms = {"batch": nn.BatchNorm2d(WIDTH), "group": nn.GroupNorm(2, WIDTH), "none": nn.Identity()}
        self.norm, self.dropout = norms[norm], nn.Dropout(dropout)
        self.head = nn.Conv2d(WIDTH, num_classes, 1)
        self.passes, self.shares = 0, []

    def architecture_parameters(self) -> list[nn.Parameter]:
        return [self.alpha, self.beta]

    def architecture(self) -> tuple[np.ndarray, np.ndarray]:
        return self.alpha.detach().cpu().numpy(), self.beta.detach().cpu().numpy()

    def decode(self) -> Genotype:
        return decode(*self.architecture())

    def set_progress(self, share: float) -> None:
        self.shares = [*self.shares, share]

    def forward(self, inputs: Tensor) -> Tensor:
        if self.alpha.requires_grad:
            self.passes += 1
            if str(self.passes) == os.environ.get(KILL_AT):  # between the two steps
                os.kill(os.getpid(), signal.SIGKILL)
        moves = torch.from_numpy(possible_moves(LAYERS))
        weights = self.alpha.softmax(dim=1)
        moving = self.beta.masked_fill(~moves, -1e9).softmax(dim=-1) * moves
        scale = (torch.arange(1.0, 4.0) * moving).sum(dim=(1, 2)).prod() / LAYERS
        edges = torch.arange(1.0, EDGES + 1) / EDGES
        outputs = [operation(inputs) for operation in self.operations]
        left_out = int(torch.randint(1, len(OPERATIONS), ())) if self.samples_paths and self.training else 0
        mixed = sum(
            (edges * weights[:, place]).sum() * each for place, each in enumerate(outputs, start=1) if place != left_out
        )
        return self.head(self.dropout(F.silu(self.norm(mixed * scale))))
