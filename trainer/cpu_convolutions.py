"""Convolutions whose training oneDNN gets wrong or does slowly in bf16 (seen with torch 2.15).

Wrong: the weight gradient of a dilated convolution in channels-last whose input channels are no multiple of 16 reads
memory that nobody has written: where that happens to hold NaN, so does the gradient. Slow: the gradients of a depthwise
convolution with a stride take 7 to 100 times as long as in fp32, a third of a MobileNetV2's step. Such layers train in
fp32; they are seldom many.
"""

import torch
from torch import Tensor, nn

_BLOCK = 16  # channels that the kernels take at once


class Float32Conv2d(nn.Conv2d):
    """A convolution that trains in fp32 under autocast, too."""

    def forward(self, inputs: Tensor) -> Tensor:
        """As `nn.Conv2d`; without gradients nothing is wrong or slow, and evaluation is the same everywhere."""
        if not self.training:
            return super().forward(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float()).to(inputs.dtype)


def compute_in_float32(model: nn.Module) -> None:
    """Change the convolutions of a network that bf16 on a CPU does not suit."""
    for module in model.modules():
        if type(module) is nn.Conv2d and (_is_wrong(module) or _is_slow(module)):
            module.__class__ = Float32Conv2d  # not another module: hooks, names and copies stay as they are


def _is_wrong(convolution: nn.Conv2d) -> bool:
    is_dilated = any(step > 1 for step in convolution.dilation)
    return is_dilated and (convolution.in_channels % _BLOCK > 0 or convolution.groups > 1)


def _is_slow(convolution: nn.Conv2d) -> bool:
    is_strided = any(step > 1 for step in convolution.stride)
    return is_strided and convolution.groups == convolution.in_channels > 1
