"""Small parts that every architecture here is made of. B batch, C channels, H height, W width."""

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["batch", "group", "none"]
Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]

CHANNELS_PER_GROUP = 8


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Batch norm, or group norm (arXiv:1803.08494), whose result for a sample does not depend on the others.

    The paper's 32 groups would leave single channels in networks as narrow as these; here a group has about eight.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(channels, max(1, channels // CHANNELS_PER_GROUP)), channels)
    return nn.Identity()


def conv_block(
    in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1, dilation: int = 1, norm: Norm
) -> nn.Sequential:
    """Convolution, norm, ReLU; the output is ceil(H / stride) x ceil(W / stride)."""
    padding = dilation * (kernel_size // 2)
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=norm == "none")
    if norm == "none":
        return nn.Sequential(convolution, nn.ReLU(inplace=True))
    return nn.Sequential(convolution, make_norm(norm, out_channels), nn.ReLU(inplace=True))


def initialise(module: nn.Module) -> None:
    """Kaiming initialisation (arXiv:1502.01852) of every convolution in `module`, for the ReLU behind it."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def pad_to_multiple(inputs: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples, and at least two of them.

    Two, because batch norm cannot train on one value per channel: so a batch of one small picture trains, too.

    Args:
        inputs: (B, C, H, W), H and W at least 1.
        multiple: The stride of the coarsest feature map.
    """
    height, width = inputs.shape[2:]
    bottom = max(2 * multiple, math.ceil(height / multiple) * multiple) - height
    right = max(2 * multiple, math.ceil(width / multiple) * multiple) - width
    if bottom == 0 and right == 0:
        return inputs
    return F.pad(inputs, (0, right, 0, bottom), mode="replicate")


def upsample_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear up to `size` (H, W); as it is where it has that size."""
    if tuple(logits.shape[2:]) == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
