"""Convolutions that avoid faulty kernels of oneDNN, in the network itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ONEDNN_BLOCK = 16  # input channels that oneDNN's convolutions take at once with AVX-512; with AVX2 8
Convolution = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d


class SubsampledConv2d(nn.Conv2d):
    """A strided 1x1 convolution, computed as a subsampling and a 1x1 convolution of stride 1: the same function.

    oneDNN's weight gradient of a strided 1x1 convolution with fewer input channels than `ONEDNN_BLOCK`, channels-last,
    writes past its workspace (uxlfoundation/oneDNN#6035): it crashes, hangs or is wrong. That of stride 1 is right.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) float to (B, out_channels, H', W') float, as `nn.Conv2d`."""
        if inputs.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(inputs)
        # torch has this list, the padding of each side from the last axis on, only as a private attribute.
        if any(self._reversed_padding_repeated_twice):
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            inputs = F.pad(inputs, self._reversed_padding_repeated_twice, mode=mode)
        # Unlike [:, :, ::2, ::2], whose gradient is contiguous, a pool of one pixel stays channels-last in both passes.
        return F.conv2d(F.avg_pool2d(inputs, 1, self.stride), self.weight, self.bias)


def without_idle_dilation(model: nn.Module) -> nn.Module:
    """Set the dilation of convolutions to 1 along axes where the kernel is 1 long, in place: the same function.

    Such a dilation, with padding and a stride that is larger than the input, ends the process in channels-last, in any
    precision and also without gradients.
    """
    for layer in model.modules():
        if isinstance(layer, Convolution):
            sides = zip(layer.kernel_size, layer.dilation, strict=True)
            layer.dilation = tuple(1 if side == 1 else step for side, step in sides)
    return model
