"""Convolutions whose gradients oneDNN computes wrongly or slowly on a CPU (seen with torch 2.14 and 2.15).

Any precision, wrong: the weight gradient of a strided 1x1 convolution in channels-last with fewer input channels than
`ONEDNN_BLOCK` (see `SubsampledConv2d`). Grouped convolutions and zero padding use another kernel, which is right.

bf16, wrong: the weight gradient of a dilated convolution in channels-last whose input channels are no multiple of
`ONEDNN_BLOCK` reads uninitialised memory: if that contains NaN, so does the gradient. bf16, slow: the gradients of a
depthwise convolution with a stride take 7 to 100 times as long as in fp32 (a third of a MobileNetV2's step), those of a
depthwise convolution wider than 3x3 take 3 to 6 times as long (a third of an EfficientNet's). Such layers train in
fp32.

bf16, wrong: a convolution with a horizontal stride and a kernel wider than 1, on inputs narrower than the stride (the
weight gradient: other memory, NaN by chance), or, if the kernel is as wide as the stride, on inputs of just that width
in channels-last (the result itself). Such inputs are computed in fp32, those of other widths are not.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from base.subsampled_convolution import ONEDNN_BLOCK, SubsampledConv2d
from utils.module_subclass import with_forward

FAST_KERNEL = 3  # the widest depthwise convolution whose gradients are fast


class Float32Training(nn.Conv2d):
    """A mixin for convolutions that train in fp32 also under autocast; in evaluation nothing is wrong or slow."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute as the layer without it; the result has the dtype of the inputs."""
        if not self.training:
            return super().forward(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float()).to(inputs.dtype)


class NarrowFloat32(nn.Conv2d):
    """A mixin for strided convolutions that compute in fp32, also under autocast, if the result is one pixel wide."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute as the layer without it; the result has the dtype that it would have."""
        left, right, *_ = self._reversed_padding_repeated_twice
        step, width = self.stride[1], inputs.shape[-1]
        reach = self.dilation[1] * (self.kernel_size[1] - 1) + 1
        is_narrow = width < step or width + left + right < reach + step
        if not is_narrow or inputs.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(inputs)
        with torch.autocast("cpu", enabled=False):
            return super().forward(inputs.float()).to(torch.get_autocast_dtype("cpu"))


class SubsampledCalls(nn.Conv2d):
    """A mixin for a library's subclass of `nn.Conv2d`: its calls of `F.conv2d` avoid the faulty kernel.

    The subclass may pad its inputs or standardise its weights first. Subsampling the inputs of the layer instead of the
    inputs of the call could change its function.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute as the layer without it."""
        if inputs.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(inputs)
        with _SubsampledFunctions():
            return super().forward(inputs)


class _SubsampledFunctions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_conv2d if func is F.conv2d else func)(*args, **(kwargs or {}))


def _conv2d(  # noqa: PLR0917 - the signature of F.conv2d
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    is_narrow = groups == 1 and weight.shape[1] < ONEDNN_BLOCK and tuple(weight.shape[2:]) == (1, 1)
    if is_narrow and padding in (0, (0, 0), [0, 0], "valid"):
        inputs, stride = F.avg_pool2d(inputs, 1, stride), 1
    return F.conv2d(inputs, weight, bias, stride, padding, dilation, groups)


def replace_convolutions(model: nn.Module, *, in_bf16: bool) -> nn.Module:
    """Replace the convolutions of a network that a CPU does not train well; all others are unchanged.

    A replacement takes over the parameter objects: names in the state dict, the order of parameters and an existing
    optimizer remain valid. A layer that has several names has one replacement.

    Args:
        model: The network, changed in place.
        in_bf16: Whether it trains under bf16 autocast.

    Returns:
        The network; a new module only if the network itself is a convolution that is replaced.
    """
    replacements: dict[nn.Module, nn.Module] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(module, nn.Conv2d) or isinstance(
            module, SubsampledConv2d | SubsampledCalls | Float32Training | NarrowFloat32
        ):
            continue
        is_strided = any(step > 1 for step in module.stride)
        is_dilated = any(step > 1 for step in module.dilation)
        is_depthwise = module.groups == module.in_channels > 1
        is_pointwise = all(side == 1 for side in module.kernel_size)
        is_wide = any(side > FAST_KERNEL for side in module.kernel_size)
        # Also with padding: modes other than zeros pad before the call.
        is_faulty = is_pointwise and is_strided and module.groups == 1 and module.in_channels < ONEDNN_BLOCK
        is_wrong_in_bf16 = is_dilated and (module.in_channels % ONEDNN_BLOCK > 0 or module.groups > 1)
        is_slow_in_bf16 = is_depthwise and (is_strided or is_wide)
        if is_faulty:
            mixin: type[nn.Conv2d] = SubsampledConv2d if type(module) is nn.Conv2d else SubsampledCalls
        elif in_bf16 and (is_wrong_in_bf16 or is_slow_in_bf16):
            mixin = Float32Training
        elif in_bf16 and module.stride[1] > 1 and module.kernel_size[1] > 1:
            mixin = NarrowFloat32
        else:
            continue
        if module not in replacements:
            replacements[module] = with_forward(module, mixin)
        if not name:
            return replacements[module]
        model.set_submodule(name, replacements[module])
    return model
