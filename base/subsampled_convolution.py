"""A strided 1x1 convolution whose training avoids a faulty kernel of oneDNN."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ONEDNN_BLOCK = 16  # input channels that oneDNN's convolutions take at once with AVX-512; with AVX2 8


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
