"""Convolutions whose gradients oneDNN computes wrongly or slowly on a CPU (seen with torch 2.14 and 2.15).

In any precision, wrong: the weight gradient of a strided 1x1 convolution in channels-last with fewer input channels
than `ONEDNN_BLOCK` (see `SubsampledConv2d`). Grouped convolutions and zero padding use another kernel, which is right.

In bf16, wrong: the weight gradient of a dilated convolution in channels-last whose input channels are no multiple of
`ONEDNN_BLOCK` reads uninitialised memory: if that holds NaN, so does the gradient. In bf16, slow: the gradients of a
depthwise convolution with a stride take 7 to 100 times as long as in fp32 (a third of a MobileNetV2's step), those of a
depthwise convolution wider than 3x3 take 3 to 6 times as long (a third of an EfficientNet's). Such layers train in
fp32.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from base.subsampled_convolution import ONEDNN_BLOCK, SubsampledConv2d

FAST_KERNEL = 3  # the widest depthwise convolution whose gradients are fast
CALLING = ("forward", "backward")  # prefixes of the attributes that act when a layer is called: hooks, methods


class Float32Conv2d(nn.Conv2d):
    """A convolution that trains in fp32 also under autocast; in evaluation nothing is wrong or slow."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, in_channels, H, W) float -> (B, out_channels, H', W') of the type of the inputs, as `nn.Conv2d`."""
        if not self.training:
            return super().forward(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float()).to(inputs.dtype)


class WrappedConv2d(nn.Conv2d):
    """A layer of a library's subclass of `nn.Conv2d`, its faulty or slow convolution replaced.

    The subclass decides how it uses its convolution (padding, standardised weights): subsampling the layer's input, or
    building a layer of another class, could change the function. So the layer is called as it is, its hooks included,
    and its calls of `F.conv2d` are replaced.

    Args:
        layer: The layer. Its parameters, buffers and parts are those of this module, by the same names.
        in_float32: Whether it trains in fp32 also under autocast.
    """

    def __init__(self, layer: nn.Conv2d, *, in_float32: bool) -> None:
        nn.Module.__init__(self)
        # The hooks stay with the layer: here they would act twice.
        state = {name: value for name, value in vars(layer).items() if not name.lstrip("_").startswith(CALLING)}
        vars(self).update(state)  # with the very dictionaries of parameters, buffers and parts
        self.in_float32 = in_float32
        self.wrapped = (layer,)  # in a tuple, since a registered part would add its name to the keys of the state dict

    def train(self, mode: bool = True) -> "WrappedConv2d":
        """Set the mode of the layer as well."""
        self.wrapped[0].train(mode)
        return super().train(mode)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, in_channels, H, W) float -> the output of the layer, of the type of the inputs."""
        layer = self.wrapped[0]
        with ExitStack() as stack:
            if torch.is_grad_enabled():
                stack.enter_context(SubsampledCalls())
            if not (self.in_float32 and self.training):
                return layer(inputs)  # type: ignore[no-any-return]
            stack.enter_context(torch.autocast(inputs.device.type, enabled=False))
            return layer(inputs.float()).to(inputs.dtype)  # type: ignore[no-any-return]


class SubsampledCalls(TorchFunctionMode):
    """Subsamples the input of those calls of `F.conv2d` that would use the faulty kernel."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = _conv2d if func is F.conv2d else func
        return call(*args, **(kwargs or {}))


def _conv2d(  # noqa: PLR0917 - the signature of F.conv2d
    inputs: Tensor,
    weight: Tensor,
    bias: Any = None,
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
    """Replace the convolutions of a network that a CPU does not train well; all others stay as they are.

    A replacement has the same parameter objects, so names in the state dict, the order of parameters and an existing
    optimizer stay valid. A layer that has several names has one replacement.

    Args:
        model: The network, changed in place.
        in_bf16: Whether it trains under bf16 autocast.

    Returns:
        The network; a new module only if the network itself is a convolution that is replaced.
    """
    replacements: dict[nn.Module, nn.Module] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module not in replacements:
            replacements[module] = _replacement(module, in_bf16)
        if replacements[module] is module:
            continue
        if not name:
            return replacements[module]
        model.set_submodule(name, replacements[module])
    return model


def _replacement(module: nn.Module, in_bf16: bool) -> nn.Module:
    """Return the replacement of a module: itself unless it is a convolution that needs another one."""
    if not isinstance(module, nn.Conv2d) or isinstance(module, SubsampledConv2d | Float32Conv2d | WrappedConv2d):
        return module
    is_strided = any(step > 1 for step in module.stride)
    is_pointwise = all(side == 1 for side in module.kernel_size)
    # Also with padding: modes other than zeros pad before the call.
    is_faulty = is_strided and is_pointwise and module.groups == 1 and module.in_channels < ONEDNN_BLOCK
    is_dilated = any(step > 1 for step in module.dilation)
    is_wrong_in_bf16 = is_dilated and (module.in_channels % ONEDNN_BLOCK > 0 or module.groups > 1)
    is_depthwise = module.groups == module.in_channels > 1
    is_wide = any(side > FAST_KERNEL for side in module.kernel_size)
    is_slow_in_bf16 = is_depthwise and (is_strided or is_wide)
    in_float32 = in_bf16 and (is_wrong_in_bf16 or is_slow_in_bf16)
    if not (is_faulty or in_float32):
        return module
    if type(module) is not nn.Conv2d or "forward" in vars(module):
        return WrappedConv2d(module, in_float32=in_float32)
    kind = SubsampledConv2d if is_faulty else Float32Conv2d
    replacement = kind.__new__(kind)
    vars(replacement).update(vars(module))  # parameters, hooks, mode and sizes: all the state of a module
    return replacement
