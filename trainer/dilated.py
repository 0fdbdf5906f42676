"""Dilated convolutions that oneDNN gets wrong in bf16.

The weight gradient of a dilated bf16 convolution in channels-last whose input channels are no multiple of 16 reads memory
that nobody has written (seen with torch 2.15): where that happens to hold NaN, so does the gradient. Such layers compute
in fp32, which is right, and they are seldom many.
"""

import torch
from torch import Tensor, nn

_BLOCK = 16  # channels that the kernels take at once


class Float32Conv2d(nn.Conv2d):
    """A convolution that computes in fp32 under autocast, too."""

    def forward(self, inputs: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float())


def compute_dilated_in_float32(model: nn.Module) -> None:
    """Change the convolutions of a network that its bf16 training on a CPU would get wrong."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_wrong(module):
            module.__class__ = Float32Conv2d  # not another module: hooks, names and copies stay as they are


def _is_wrong(convolution: nn.Conv2d) -> bool:
    is_dilated = any(step > 1 for step in convolution.dilation)
    return is_dilated and (convolution.in_channels % _BLOCK > 0 or convolution.groups > 1)
