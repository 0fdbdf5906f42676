"""Parts of networks for series of unequal lengths. B batch, C channels, T steps.

Padding is NaN at the end of a series. `split_padding` finds it once; after every part padded steps are zero, and norm
and pooling leave them out. So a series has the same result alone as in a batch with longer ones.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Steps(NamedTuple):
    """The steps of a batch that are of the series, in contrast to padding.

    Attributes:
        valid: (B, 1, T) float, 1 for a step of the series, 0 for padding.
        positions: In training those of the valid steps in B x T, (N,) int64; None if there is no padding.
    """

    valid: Tensor
    positions: Tensor | None


def split_padding(inputs: Tensor, *, is_training: bool) -> tuple[Tensor, Steps]:
    """Return series with zeros for padding, and the steps that are not padding.

    Args:
        inputs: (B, V, T) float; a step is padding if its variables are all NaN.
        is_training: Positions are needed only for the statistics of a batch.
    """
    is_padding = inputs.isnan().all(dim=1)
    valid = (~is_padding).to(inputs.dtype)[:, None]
    positions = None
    # The one wait for the device; in evaluation the running statistics need no positions.
    if is_training and bool(is_padding.any()):
        positions = (~is_padding).flatten().nonzero()[:, 0]
    return inputs.nan_to_num(nan=0.0), Steps(valid, positions)


class MaskedNorm(nn.Module):
    """Batch norm (arXiv:1502.03167) over the steps that are of a series; padded steps become zero.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, maps: Tensor, steps: Steps) -> Tensor:
        """(B, C, T) float -> (B, C, T) float."""
        norm, positions = self.norm, steps.positions
        if not self.training:
            maps = norm(maps)
            return maps * steps.valid.to(maps.dtype)
        # The statistics are those of the valid steps alone, gathered as rows (N, C) and scattered back.
        batch, channels, length = maps.shape
        values = maps
        if positions is not None:
            values = maps.transpose(1, 2).flatten(0, 1).index_select(0, positions)
        if values.numel() == channels:
            # A single step has no variance: it gets the running statistics.
            normed = nn.functional.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        else:
            normed = norm(values)
        if positions is None:
            return normed
        scattered = normed.new_zeros(batch * length, channels).index_copy(0, positions, normed)
        return scattered.view(batch, length, channels).transpose(1, 2)


class MaskedConv(nn.Module):
    """Convolution that preserves the length, norm, and optionally ReLU; padded steps stay zero.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Steps in the kernel.
        has_relu: End with a ReLU.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, has_relu: bool = True) -> None:
        super().__init__()
        self.convolution = same_convolution(in_channels, out_channels, kernel_size)
        self.norm = MaskedNorm(out_channels)
        self.has_relu = has_relu

    def forward(self, maps: Tensor, steps: Steps) -> Tensor:
        """(B, in_channels, T) float -> (B, out_channels, T) float."""
        normed: Tensor = self.norm(self.convolution(maps), steps)
        return normed.relu() if self.has_relu else normed


def same_convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Build a convolution without bias that preserves the length; an even kernel has one step more ahead than back."""
    before = (kernel_size - 1) // 2
    convolution = nn.Conv1d(in_channels, out_channels, kernel_size, bias=False)
    return nn.Sequential(nn.ConstantPad1d((before, kernel_size - 1 - before), 0.0), convolution)


def masked_max_pool(maps: Tensor, steps: Steps) -> Tensor:
    """Return the largest of three neighbouring steps, padding left out: (B, C, T) float -> the same."""
    # Zeros would win over negative values.
    lowest = torch.finfo(maps.dtype).min
    pooled = nn.functional.max_pool1d(maps.masked_fill(steps.valid == 0, lowest), 3, stride=1, padding=1)
    return pooled * steps.valid.to(maps.dtype)


def masked_mean(maps: Tensor, steps: Steps) -> Tensor:
    """Return the mean over the steps of each series: (B, C, T) float -> (B, C) float."""
    valid = steps.valid.to(maps.dtype)
    return (maps * valid).sum(dim=2) / valid.sum(dim=2).clamp(min=1)


def initialise_series(module: nn.Module) -> None:
    """Initialise every convolution for the ReLU after it (Kaiming, arXiv:1502.01852)."""
    for part in module.modules():
        if isinstance(part, nn.Conv1d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
