"""The operations on the edges of a cell (arXiv:1901.02985, section 3.1). B batch, C channels, H, W size of the map."""

from typing import Literal

from torch import nn

from models.layers.blocks import make_norm

Atrous = Literal["separable", "dense"]
CellNorm = Literal["batch", "group"]

ATROUS_RATE = 2
# A convolution of a cell is ReLU, convolution, norm. The ReLU is not part of the operation: edges that read the same
# input share it.
READS_RECTIFIED = frozenset({"sep_conv_3x3", "sep_conv_5x5", "atrous_conv_3x3", "atrous_conv_5x5"})


def separable_conv(channels: int, kernel_size: int, *, dilation: int = 1, norm: CellNorm) -> list[nn.Module]:
    """Build a depthwise and a 1x1 convolution and a norm: (B, C, H, W) -> (B, C, H, W)."""
    padding = dilation * (kernel_size // 2)
    depthwise = nn.Conv2d(
        channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels, bias=False
    )
    return [depthwise, nn.Conv2d(channels, channels, kernel_size=1, bias=False), make_norm(norm, channels)]


def build_operation(name: str, channels: int, *, atrous: Atrous, norm: CellNorm) -> nn.Module:
    """Build the operation of an edge: (B, C, H, W) -> (B, C, H, W).

    Args:
        name: One of `utils.architecture.genotype.OPERATIONS` but "none", which passes nothing on. Those in
            `READS_RECTIFIED` take an input after its ReLU, the others one before it.
        channels: C, the width of the cell.
        atrous: "dense" for full atrous convolutions, as in the network that Google released; "separable" for
            depthwise and 1x1 ones, as in the public PyTorch code.
        norm: Normalisation after each convolution and pooling; after pooling without weights.
    """
    kind, size = (name.rsplit("_", 1)[0], int(name[-1])) if name != "skip" else (name, 0)
    if kind == "sep_conv":
        first = separable_conv(channels, size, norm=norm)
        return nn.Sequential(*first, nn.ReLU(inplace=True), *separable_conv(channels, size, norm=norm))
    if kind == "atrous_conv" and atrous == "separable":
        return nn.Sequential(*separable_conv(channels, size, dilation=ATROUS_RATE, norm=norm))
    if kind == "atrous_conv":
        padding = ATROUS_RATE * (size // 2)
        full = nn.Conv2d(channels, channels, size, padding=padding, dilation=ATROUS_RATE, bias=False)
        return nn.Sequential(full, make_norm(norm, channels))
    if kind == "skip":
        return nn.Identity()
    is_max = kind == "max_pool"
    pool = nn.MaxPool2d(size, 1, size // 2) if is_max else nn.AvgPool2d(size, 1, size // 2, count_include_pad=False)
    return nn.Sequential(pool, make_norm(norm, channels, affine=False))
