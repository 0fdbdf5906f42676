"""Scheduled drop path: in training, paths of a network are dropped for single samples, the more often the later."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ScheduledDrop(nn.Module):
    """A probability that grows linearly from 0 during the training (NASNet, arXiv:1707.07012, appendix A.4).

    Args:
        probability: Of dropping, at the end of the training.
    """

    current: Tensor

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        # A tensor, which a compiled network reads anew; a number would be compiled in again each epoch.
        self.register_buffer("current", torch.zeros(()), persistent=False)

    def set_progress(self, share: float) -> None:
        """Set the probability for a share of the training that is done, from 0 to 1."""
        self.current.fill_(self.probability * share)


def set_drop_progress(network: nn.Module, share: float) -> None:
    """Set the probabilities of all scheduled drops of a network, see `ScheduledDrop.set_progress`."""
    for part in network.modules():
        if isinstance(part, ScheduledDrop):
            part.set_progress(share)


class DropPath(ScheduledDrop):
    """Drops a path for whole samples, and enlarges it for the others."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) float -> the same, in training zero for some samples and enlarged for the others."""
        if not self.training:
            return maps
        kept = 1 - self.current
        drawn = torch.rand(len(maps), 1, 1, 1, device=maps.device) < kept
        return maps * (drawn / kept).to(maps.dtype)


class SurvivingPaths(ScheduledDrop):
    """Drops some of several paths for whole samples; at least one survives.

    Each path is dropped with the present probability. If all would be, one of them survives. The survivors are enlarged
    by the number of paths over that of survivors, so that the expected sum is that of all paths (arXiv:2212.06735).
    """

    def forward(self, paths: Sequence[Tensor]) -> list[Tensor]:
        """Return the paths, each (B, C, *S) float, in training zero for some samples and enlarged for others."""
        if not self.training or len(paths) == 1:
            return list(paths)
        factors = self.factors(len(paths[0]), len(paths), paths[0].device)
        shape = (-1, *[1] * (paths[0].dim() - 1))
        return [path * factor.view(shape).to(path.dtype) for path, factor in zip(paths, factors, strict=True)]

    def factors(self, batch: int, count: int, device: torch.device) -> Tensor:
        """Draw the factor of each path for each sample, (count, B) float32."""
        drawn = torch.rand(count, batch, device=device)
        # The one with the largest number survives in any case: each path is as likely to be that one.
        survives = (drawn >= self.current) | (drawn == drawn.amax(dim=0))
        return survives * (count / survives.sum(dim=0))
