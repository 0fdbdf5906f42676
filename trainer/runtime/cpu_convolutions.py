"""Convolutions that oneDNN computes wrongly or slowly on a CPU (seen with torch 2.14 and 2.15).

`mixin_for` decides which layer is computed otherwise than torch does. Its rules were found, and are checked, by
`benchmarks/cpu_convolutions.py`. "Channels" are those of the convolution that oneDNN computes: the input's, and of a
transposed convolution, whose weight gradient is that of a convolution from its result to its input, the result's.

Any precision, wrong: a dilation along an axis where the kernel is 1 long, which means nothing, can end the process. It
becomes 1 (see `without_idle_dilation`, which also inference needs).

Any precision, wrong: the weight gradient of a strided 1x1 convolution in channels-last with fewer input channels than
`ONEDNN_BLOCK` (see `SubsampledConv2d`). Grouped convolutions and zero padding use another kernel, which is right.

bf16, wrong: the weight gradient of a dilated two-dimensional convolution in channels-last whose channels of a group are
no multiple of `ONEDNN_BLOCK` reads uninitialised memory: if that contains NaN, so does the gradient. With fewer
channels than a block, in one group, another kernel is used, which is right. bf16, slow: the gradients of a depthwise
convolution with a stride take 7 to 100 times as long as in fp32 (a third of a MobileNetV2's step), those of a depthwise
convolution wider than 3x3 take 3 to 6 times as long (a third of an EfficientNet's), those of a transposed depthwise one
3 times as long. Such layers train in fp32.

bf16, wrong: a convolution of one or two dimensions, transposed or not, whose stride along the last axis is larger than
the input (of a transposed one: the result) is long there, unless it is dilated there. Its weight gradient reads other
memory, NaN by chance. Where kernel, stride and length are equal, the result itself is wrong. Such inputs are computed
in fp32, those of other lengths are not.

bf16, refused: an LSTM on a processor without AVX-512, where torch has a way for every other layer. It computes in fp32.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from base.subsampled_convolution import ONEDNN_BLOCK, Convolution, SubsampledConv2d, without_idle_dilation
from utils.module_subclass import with_forward

FAST_KERNEL = 3  # the widest depthwise convolution whose gradients are fast
_TRANSPOSED = nn.ConvTranspose1d | nn.ConvTranspose2d


class NarrowFloat32(nn.Module):
    """A mixin for strided convolutions that compute inputs shorter than the stride in fp32, also under autocast."""

    def forward(self, inputs: Tensor, *arguments: Any) -> Tensor:
        """Compute as the layer without it; the result has the dtype that it would have."""
        is_faulty = inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not is_faulty or not self.is_narrow(inputs.shape[-1], *arguments):
            result: Tensor = super().forward(inputs, *arguments)
            return result
        with torch.autocast("cpu", enabled=False):
            result = super().forward(inputs.float(), *arguments)
        return result.to(torch.get_autocast_dtype("cpu"))

    def is_narrow(self, length: int, output_size: Any = None) -> bool:
        """Whether oneDNN is wrong in bf16 for inputs of a length along the last axis.

        Args:
            length: Of the inputs.
            output_size: As the argument of a transposed convolution.
        """
        assert isinstance(self, Convolution)
        kernel, step = self.kernel_size[-1], self.stride[-1]
        padding = 0 if isinstance(self.padding, str) else self.padding[-1]  # "same" is never strided
        if isinstance(self, _TRANSPOSED):
            if output_size is not None:
                length = output_size[-1]
            else:
                reach = self.dilation[-1] * (kernel - 1) + 1
                length = (length - 1) * step - 2 * padding + reach + self.output_padding[-1]
        elif self.padding_mode != "zeros":  # padded before the call
            length, padding = length + 2 * padding, 0
        return self.dilation[-1] == 1 and (length < step or (length == step == kernel and padding == 0))


class Float32Training(NarrowFloat32):
    """A mixin for convolutions that train in fp32 also under autocast; in evaluation only if the input is narrow."""

    def forward(self, inputs: Tensor, *arguments: Any) -> Tensor:
        """Compute as the layer without it; the result has the dtype of the inputs."""
        if not self.training:
            return super().forward(inputs, *arguments)
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float(), *arguments).to(inputs.dtype)


class Float32Always(nn.Module):
    """A mixin for recurrent layers that compute in fp32, also under autocast and in evaluation."""

    def forward(self, inputs: Any, states: Any = None) -> Any:
        """Compute as the layer without it, with results in fp32; the arguments are those of `nn.LSTM`."""
        if states is not None:
            states = tuple(state.float() for state in states)
        with torch.autocast(inputs.data.device.type, enabled=False):
            return super().forward(inputs.float(), states)


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


def mixin_for(layer: nn.Module, *, in_bf16: bool) -> type[nn.Module] | None:
    """Return the forward pass that a layer needs on a CPU; None if torch's own is right and fast.

    Args:
        layer: Any module.
        in_bf16: Whether it trains under bf16 autocast.
    """
    if isinstance(layer, SubsampledConv2d | SubsampledCalls | NarrowFloat32 | Float32Always):
        return None
    is_few = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.in_channels < ONEDNN_BLOCK
    # Also with padding: modes other than zeros pad before the call.
    if isinstance(layer, nn.Conv2d) and is_few and max(layer.kernel_size) == 1 < max(layer.stride):
        return SubsampledConv2d if type(layer) is nn.Conv2d else SubsampledCalls
    if in_bf16 and isinstance(layer, Convolution):
        return _mixin_in_bf16(layer)
    # Not public, but what torch itself asks before it computes a convolution in bf16.
    if in_bf16 and isinstance(layer, nn.LSTM) and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return Float32Always
    return None


def _mixin_in_bf16(layer: Convolution) -> type[nn.Module] | None:
    is_transposed = isinstance(layer, _TRANSPOSED)
    channels = layer.out_channels if is_transposed else layer.in_channels
    is_partial = channels // layer.groups % ONEDNN_BLOCK > 0 and (layer.groups > 1 or channels > ONEDNN_BLOCK)
    is_wrong = max(layer.dilation) > 1 and is_partial
    is_slow = layer.groups == layer.in_channels > 1 and (
        is_transposed or max(layer.stride) > 1 or max(layer.kernel_size) > FAST_KERNEL
    )
    if len(layer.kernel_size) == 2 and (is_wrong or is_slow):
        return Float32Training
    return NarrowFloat32 if layer.stride[-1] > 1 else None


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
    for name, module in list(without_idle_dilation(model).named_modules(remove_duplicate=False)):
        mixin = mixin_for(module, in_bf16=in_bf16)
        if mixin is None:
            continue
        if module not in replacements:
            replacements[module] = with_forward(module, mixin)
        if not name:
            return replacements[module]
        model.set_submodule(name, replacements[module])
    return model
