"""The context path of BiSeNet, with its attention (arXiv:1808.00897, section 3.2)."""

from torch import Tensor, nn

from models.layers.blocks import Norm, conv_block, enlarge


class ChannelGate(nn.Module):
    """Weigh the channels of a map by their means over the whole map (the attention of section 3.2).

    Unlike the paper's, it has biases instead of a batch norm, which cannot train on the single value per channel that a
    batch of one image leaves there.

    Args:
        channels: Of the map.
        hidden: Width between the two convolutions; None for only one convolution.
    """

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)]
        if hidden is not None:
            layers += [nn.Conv2d(channels, hidden, kernel_size=1), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(hidden or channels, channels, kernel_size=1), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) float -> (B, channels, h, w) float."""
        weighted: Tensor = maps * self.layers(maps)
        return weighted


class ContextPath(nn.Module):
    """The backbone's maps at strides 16 and 32, refined by attention and added from the coarsest up.

    Args:
        fine_channels: Channels of the map at stride 16.
        coarse_channels: Channels of the map at stride 32.
        channels: Width of the path.
        norm: Normalisation after each convolution.
    """

    def __init__(self, fine_channels: int, coarse_channels: int, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.refine_fine = nn.Sequential(conv_block(fine_channels, channels, norm=norm), ChannelGate(channels))
        self.refine_coarse = nn.Sequential(conv_block(coarse_channels, channels, norm=norm), ChannelGate(channels))
        self.whole = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(coarse_channels, channels, kernel_size=1), nn.ReLU(inplace=True)
        )
        self.smooth_coarse = conv_block(channels, channels, norm=norm)
        self.smooth_fine = conv_block(channels, channels, norm=norm)

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Maps at strides 16 and 32 -> (B, channels, h, w) at each of them."""
        refined_coarse = self.refine_coarse(coarse) + self.whole(coarse)
        from_coarse = self.smooth_coarse(enlarge(refined_coarse, 2, fine.shape[2:]))
        return self.smooth_fine(self.refine_fine(fine) + from_coarse), refined_coarse
