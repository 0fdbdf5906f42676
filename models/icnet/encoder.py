"""The pyramid pooling of ICNet, whose parts are added and not concatenated (arXiv:1704.08545, section 3.1)."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.pspnet.encoder import BINS, average_bins


class PyramidSum(nn.Module):
    """The features and their means over 1, 2x2, 3x3 and 6x6 parts, added: no weights, the shape stays."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) float -> (B, C, h, w) float."""
        size = list(features.shape[2:])
        total = features
        for bins in BINS:
            means = average_bins(features, bins)
            total = total + F.interpolate(means, size, mode="bilinear", align_corners=False)
        return total
