"""Small parts of which all networks here are built. B batch, C channels, H height, W width."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["batch", "group", "none"]
Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]

CHANNELS_PER_GROUP = 8
VECTOR_WIDTH = 8  # with fewer channels, enlarging channels-last maps on a CPU takes three times as long


def make_norm(norm: Norm, channels: int, *, affine: bool = True) -> nn.Module:
    """Build a batch norm, or a group norm (arXiv:1803.08494), whose result for a sample does not depend on the others.

    The paper's 32 groups would leave single channels in networks as narrow as these; here a group has about eight.

    Args:
        norm: The kind; "none" for the identity.
        channels: C.
        affine: Scale and shift each channel by weights.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels, affine=affine)
    if norm == "group":
        return nn.GroupNorm(math.gcd(channels, max(1, channels // CHANNELS_PER_GROUP)), channels, affine=affine)
    return nn.Identity()


def conv_block(
    in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1, dilation: int = 1, norm: Norm
) -> nn.Sequential:
    """Build convolution, norm, ReLU; the output is ceil(H / stride) x ceil(W / stride)."""
    padding = dilation * (kernel_size // 2)
    # A norm subtracts the mean, and with it any bias.
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=norm == "none")
    if norm == "none":
        return nn.Sequential(convolution, nn.ReLU(inplace=True))
    return nn.Sequential(convolution, make_norm(norm, out_channels), nn.ReLU(inplace=True))


def halving_blocks(in_channels: int, channels: Sequence[int], *, norm: Norm) -> nn.Sequential:
    """Build a block of stride 2 per width: (B, in_channels, H, W) -> (B, channels[-1], H / 2^n, W / 2^n)."""
    before = [in_channels, *channels[:-1]]
    return nn.Sequential(
        *(conv_block(old, new, stride=2, norm=norm) for old, new in zip(before, channels, strict=True))
    )


def initialise(module: nn.Module) -> None:
    """Initialise every convolution in `module` for the ReLU after it (Kaiming, arXiv:1502.01852)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def widen_tiny(inputs: Tensor, stride: int) -> Tensor:
    """Repeat the last column if an image would leave one value per channel at `stride`, so that it leaves two.

    Batch norm cannot train on one value per channel; so a batch of one image of any size trains.

    Args:
        inputs: (B, C, H, W), H and W at least 1.
        stride: Stride of the coarsest feature map.
    """
    height, width = inputs.shape[2:]
    if height > stride or width > stride:
        return inputs
    return F.pad(inputs, (0, stride + 1 - width, 0, 0), mode="replicate")


def enlarge(maps: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """Enlarge bilinearly by a whole factor, cut to `size` (H, W).

    Odd sizes are rounded up on the way down; with a whole factor on the way up every pixel is at its place.
    """
    if factor > 1:
        if maps.shape[1] < VECTOR_WIDTH:
            maps = maps.contiguous()
        maps = F.interpolate(maps, scale_factor=float(factor), mode="bilinear", align_corners=False)
    return maps[:, :, : size[0], : size[1]]


def pad_to_multiple(inputs: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples, so that every halving on the way is exact.

    Args:
        inputs: (B, C, H, W).
        multiple: A divisor of both sides of the result.
    """
    height, width = inputs.shape[2:]
    if height % multiple == 0 and width % multiple == 0:
        return inputs
    return F.pad(inputs, (0, -width % multiple, 0, -height % multiple), mode="replicate")
