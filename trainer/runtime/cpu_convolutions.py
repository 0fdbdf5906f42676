"""Convolutions whose training oneDNN gets wrong or does slowly in bf16 (seen with torch 2.15).

Wrong: the weight gradient of a dilated convolution in channels-last whose input channels are no multiple of 16 reads
memory that nobody has written: where that happens to hold NaN, so does the gradient. Slow: the gradients of a depthwise
convolution with a stride take 7 to 100 times as long as in fp32 (a third of a MobileNetV2's step), those of a depthwise
convolution wider than 3x3 take 3 to 6 times as long (a third of an EfficientNet's). Such layers train in fp32.
"""

import torch
from torch import Tensor, nn

_BLOCK = 16  # channels that the kernels take at once
_FAST_KERNEL = 3  # the widest depthwise convolution whose gradients are fast


class Float32Training(nn.Conv2d):
    """A convolution that trains in fp32 under autocast, too; mixed into the class that a layer has."""

    def forward(self, inputs: Tensor) -> Tensor:
        """As the layer's own class; in evaluation nothing is wrong or slow, and the result is the same everywhere."""
        if not self.training:
            return super().forward(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float()).to(inputs.dtype)


def compute_in_float32(model: nn.Module) -> None:
    """Change the convolutions of a network that bf16 on a CPU does not suit, those of libraries' own classes, too."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and (_is_wrong(module) or _is_slow(module)):
            module.__class__ = _in_float32(type(module))  # not another module: hooks, names, copies stay as they are


def _in_float32(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """The class of a layer, training in fp32."""
    return kind if issubclass(kind, Float32Training) else type(kind.__name__, (Float32Training, kind), {})


def _is_wrong(convolution: nn.Conv2d) -> bool:
    is_dilated = any(step > 1 for step in convolution.dilation)
    return is_dilated and (convolution.in_channels % _BLOCK > 0 or convolution.groups > 1)


def _is_slow(convolution: nn.Conv2d) -> bool:
    is_depthwise = convolution.groups == convolution.in_channels > 1
    is_strided = any(step > 1 for step in convolution.stride)
    is_wide = any(side > _FAST_KERNEL for side in convolution.kernel_size)
    return is_depthwise and (is_strided or is_wide)
