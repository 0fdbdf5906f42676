"""Cascade feature fusion: a coarse map guides a finer one (arXiv:1704.08545, section 3.2)."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.blocks import Norm, enlarge, make_norm


class CascadeFusion(nn.Module):
    """Enlarge the coarse map, convolve it with dilation, and add the finer map.

    Args:
        coarse_channels: Channels of the coarse map.
        fine_channels: Channels of the finer map, twice as large.
        channels: Width of the result.
        norm: Normalisation after each convolution.
    """

    def __init__(self, coarse_channels: int, fine_channels: int, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.coarse = nn.Sequential(
            nn.Conv2d(coarse_channels, channels, 3, padding=2, dilation=2, bias=norm == "none"),
            make_norm(norm, channels),
        )
        self.fine = nn.Sequential(
            nn.Conv2d(fine_channels, channels, kernel_size=1, bias=norm == "none"), make_norm(norm, channels)
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, h, w) and (B, D, 2h, 2w) -> the fused map (B, channels, 2h, 2w), and the coarse one enlarged."""
        enlarged = enlarge(coarse, 2, fine.shape[2:])
        return F.relu(self.coarse(enlarged) + self.fine(fine)), enlarged
