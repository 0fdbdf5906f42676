"""LSTM Fully Convolutional Networks for Time Series Classification (arXiv:1709.05206), section III."""

import torch
from torch import Tensor, nn

from base.base_model import BaseModel
from models.layers.blocks import Count, Probability
from models.layers.masked import MaskedConv, initialise_series, masked_mean, split_padding

CHANNELS = (128, 256, 128)
KERNELS = (8, 5, 3)


class LSTMFCN(BaseModel):
    """Fully convolutional network and an LSTM, their features concatenated; series of any length.

    In the paper the LSTM gets a whole series of a fixed length as one step (its dimension shuffle); here it reads a
    series step by step and returns its state after the last one, so that lengths may differ.

    Args:
        num_classes: Classes K.
        in_channels: Variables V of a series.
        cells: Width of the LSTM; the paper takes 8 to 128.
        dropout: Fraction of the LSTM's output that is dropped while training; 0.8 in the paper.
        channels: Width of each convolution; 128, 256, 128 as in the paper if not given.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 1,
        *,
        cells: Count = 64,
        dropout: Probability = 0.8,
        channels: list[Count] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        widths = list(channels or CHANNELS)
        kernels = [*KERNELS, *[KERNELS[-1]] * len(widths)][: len(widths)]
        self.layers = nn.ModuleList(map(MaskedConv, [in_channels, *widths[:-1]], widths, kernels))
        self.lstm = nn.LSTM(in_channels, cells, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1] + cells, num_classes)
        initialise_series(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Series (B, V, T) float, NaN for padding at its end -> logits (B, K) float."""
        series, steps = split_padding(inputs, is_training=self.training)
        maps = series
        for layer in self.layers:
            maps = layer(maps, steps)
        states = self.lstm(series.transpose(1, 2))[0]
        # The state after the last step of each series, not after its padding.
        lengths = steps.valid[:, 0].sum(dim=1).long().clamp(min=1)
        last = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
        recurrent = self.dropout(states.gather(1, last)[:, 0])
        logits: Tensor = self.head(torch.cat((masked_mean(maps, steps), recurrent), dim=1))
        return logits
