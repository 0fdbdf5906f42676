"""Pyramid pooling: means over the whole image and over its parts (arXiv:1612.01105, section 3.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.blocks import Norm, conv_block

BINS = (1, 2, 3, 6)  # arXiv:1612.01105, section 3.2


def average_bins(maps: Tensor, bins: int) -> Tensor:
    """Return means over a grid of `bins` by `bins` overlapping parts, those of adaptive average pooling.

    Two matrix products: unlike adaptive pooling, the gradient is deterministic on CUDA.

    Args:
        maps: (B, C, H, W).
        bins: Parts along each side.

    Returns:
        (B, C, bins, bins).
    """
    weights = []
    for size in maps.shape[2:]:
        # (bins, size): the weight of each place in each part; made on the device, without a wait for it.
        places, parts = torch.arange(size, device=maps.device), torch.arange(bins, device=maps.device)[:, None]
        inside = (places >= parts * size // bins) & (places < ((parts + 1) * size + bins - 1) // bins)
        weights.append((inside / inside.sum(dim=1, keepdim=True)).to(maps.dtype))
    return weights[0] @ maps @ weights[1].T


class PyramidPooling(nn.Module):
    """Means over 1, 2x2, 3x3 and 6x6 parts, each reduced, enlarged and concatenated with the features.

    Unlike in the paper, the reduction of the single mean has a bias instead of a batch norm, which cannot train on
    the single value per channel that a batch of one image leaves there.

    Args:
        in_channels: Channels of the features.
        norm: Normalisation after each reduction.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, *, norm: Norm) -> None:
        super().__init__()
        width = max(1, in_channels // len(BINS))
        self.branches = nn.ModuleList(
            conv_block(in_channels, width, kernel_size=1, norm="none" if bins == 1 else norm) for bins in BINS
        )
        self.out_channels = in_channels + width * len(BINS)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w)."""
        size = list(features.shape[2:])
        parts = [features]
        for bins, branch in zip(BINS, self.branches, strict=True):
            means = branch(average_bins(features, bins))
            parts.append(F.interpolate(means, size, mode="bilinear", align_corners=False))
        return torch.cat(parts, dim=1)
