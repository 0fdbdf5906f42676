"""InceptionTime: Finding AlexNet for Time Series Classification (arXiv:1909.04939), section 3."""

import torch
from torch import Tensor, nn

from base.base_model import BaseModel
from models.layers.blocks import Count, Probability
from models.layers.masked import (
    MaskedConv,
    MaskedNorm,
    Steps,
    initialise_series,
    masked_max_pool,
    masked_mean,
    same_convolution,
    split_padding,
)

KERNELS = (10, 20, 40)
MODULES_PER_RESIDUAL = 3


class InceptionModule(nn.Module):
    """Convolutions of several lengths and a max pooling, concatenated.

    Args:
        in_channels: Channels of the input.
        width: Channels of each branch.
        kernel_sizes: Steps in the kernel of each convolution.
        bottleneck: Channels to which a wider input is reduced before the convolutions.
    """

    def __init__(self, in_channels: int, width: int, kernel_sizes: list[int], bottleneck: int) -> None:
        super().__init__()
        is_narrowed = in_channels > 1
        self.bottleneck = same_convolution(in_channels, bottleneck, 1) if is_narrowed else nn.Identity()
        inputs = bottleneck if is_narrowed else in_channels
        self.branches = nn.ModuleList(same_convolution(inputs, width, kernel) for kernel in kernel_sizes)
        self.pooled = same_convolution(in_channels, width, 1)
        self.out_channels = width * (len(kernel_sizes) + 1)
        self.norm = MaskedNorm(self.out_channels)

    def forward(self, maps: Tensor, steps: Steps) -> Tensor:
        """(B, in_channels, T) float -> (B, out_channels, T) float."""
        narrow = self.bottleneck(maps)
        parts = [branch(narrow) for branch in self.branches]
        parts.append(self.pooled(masked_max_pool(maps, steps)))
        normed: Tensor = self.norm(torch.cat(parts, dim=1), steps)
        return normed.relu()


class InceptionTime(BaseModel):
    """Inception network over time with a residual connection around every three modules; series of any length.

    This is one network; the paper's classifier is the mean of the probabilities of five.

    Args:
        num_classes: Classes K.
        in_channels: Variables V of a series.
        depth: Modules, one after another; 6 in the paper.
        width: Channels of each of a module's branches; 32 in the paper.
        kernel_sizes: Steps in the kernels of a module's convolutions; 10, 20, 40 as in the paper if not given.
        bottleneck: Channels before the convolutions; 32 in the paper.
        dropout: Fraction of the pooled features that is dropped while training; the paper drops none.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 1,
        *,
        depth: Count = 6,
        width: Count = 32,
        kernel_sizes: list[Count] | None = None,
        bottleneck: Count = 32,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        kernels = list(kernel_sizes or KERNELS)
        channels = width * (len(kernels) + 1)
        inputs = [in_channels, *[channels] * (depth - 1)]
        self.inception = nn.ModuleList(InceptionModule(each, width, kernels, bottleneck) for each in inputs)
        # Each leads from the input of a module past this and the next two.
        self.shortcuts = nn.ModuleList(
            MaskedConv(inputs[last - MODULES_PER_RESIDUAL], channels, 1, has_relu=False)
            for last in range(MODULES_PER_RESIDUAL, depth + 1, MODULES_PER_RESIDUAL)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)
        initialise_series(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Series (B, V, T) float, NaN for padding -> logits (B, K) float."""
        maps, steps = split_padding(inputs, is_training=self.training)
        entering = maps
        for number, module in enumerate(self.inception, start=1):
            maps = module(maps, steps)
            # The paper's residual block: three modules, then the shortcut of their input is added.
            if number % MODULES_PER_RESIDUAL == 0:
                shortcut = self.shortcuts[number // MODULES_PER_RESIDUAL - 1]
                entering = maps = (maps + shortcut(entering, steps)).relu()
        logits: Tensor = self.head(self.dropout(masked_mean(maps, steps)))
        return logits
