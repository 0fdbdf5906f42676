"""Convolutions whose training is wrong or slow in bf16 with oneDNN (seen with torch 2.15); they train in fp32.

Wrong: the weight gradient of a dilated convolution in channels-last whose input channels are no multiple of 16 reads
uninitialised memory: if that holds NaN, so does the gradient. Slow: the gradients of a depthwise convolution with a
stride take 7 to 100 times as long as in fp32 (a third of a MobileNetV2's step), those of a depthwise convolution wider
than 3x3 take 3 to 6 times as long (a third of an EfficientNet's).
"""

import torch
from torch import Tensor, nn

from utils.module_subclass import with_forward

CHANNEL_BLOCK = 16  # channels that the kernels take at once
FAST_KERNEL = 3  # the widest depthwise convolution whose gradients are fast


class Float32Training(nn.Conv2d):
    """A mixin for convolutions that train in fp32 also under autocast."""

    def forward(self, inputs: Tensor) -> Tensor:
        """As the layer without it; in evaluation nothing is wrong or slow, and the result is the same everywhere."""
        if not self.training:
            return super().forward(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float()).to(inputs.dtype)


def compute_in_float32(model: nn.Module) -> None:
    """Replace the convolutions of a network that bf16 on a CPU does not suit, also those of libraries' classes.

    Args:
        model: Changed in place; names and weights stay the same.
    """
    replacements: dict[nn.Module, nn.Module] = {}
    # A module may be in two places: both get the one replacement.
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(module, nn.Conv2d) or isinstance(module, Float32Training):
            continue
        is_dilated = any(step > 1 for step in module.dilation)
        is_wrong = is_dilated and (module.in_channels % CHANNEL_BLOCK > 0 or module.groups > 1)
        is_depthwise = module.groups == module.in_channels > 1
        is_strided = any(step > 1 for step in module.stride)
        is_wide = any(side > FAST_KERNEL for side in module.kernel_size)
        if is_wrong or (is_depthwise and (is_strided or is_wide)):
            if module not in replacements:
                replacements[module] = with_forward(module, Float32Training)
            model.set_submodule(name, replacements[module])
