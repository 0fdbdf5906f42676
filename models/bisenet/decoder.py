"""Feature fusion of the two paths of BiSeNet (arXiv:1808.00897, section 3.3)."""

import torch
from torch import Tensor, nn

from models.bisenet.encoder import ChannelGate
from models.layers.blocks import Norm, conv_block


class FeatureFusion(nn.Module):
    """Concatenate the maps of both paths, convolve, and add the same weighted by an attention over its channels.

    Args:
        in_channels: Channels of both maps together.
        channels: Width of the result, the input of the classifier.
        norm: Normalisation after the convolution.
    """

    def __init__(self, in_channels: int, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.join = conv_block(in_channels, channels, kernel_size=1, norm=norm)
        self.gate = ChannelGate(channels, max(1, channels // 4))

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Two maps (B, C, h, w) float of equal size -> (B, channels, h, w) float."""
        joined: Tensor = self.join(torch.cat([spatial, context], dim=1))
        added: Tensor = joined + self.gate(joined)
        return added
