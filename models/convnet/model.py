"""A residual network for small images, after Identity Mappings in Deep Residual Networks (arXiv:1603.05027)."""

from torch import Tensor, nn

from base.base_model import BaseModel
from base.subsampled_convolution import ONEDNN_BLOCK, SubsampledConv2d
from models.layers.blocks import Count, Probability, initialise

CHANNELS = (32, 64, 128)


class PreactivatedBlock(nn.Module):
    """Norm, ReLU, convolution, twice, added to a shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first_norm = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
        )
        changes_shape = stride != 1 or in_channels != out_channels
        projection = SubsampledConv2d if stride != 1 and in_channels < ONEDNN_BLOCK else nn.Conv2d
        self.shortcut = projection(in_channels, out_channels, 1, stride, bias=False) if changes_shape else None

    def forward(self, maps: Tensor) -> Tensor:
        """(B, in_channels, H, W) float -> (B, out_channels, ceil(H / stride), ceil(W / stride)) float."""
        activated = self.first_norm(maps)
        passed = maps if self.shortcut is None else self.shortcut(activated)
        added: Tensor = self.body(activated) + passed
        return added


class ConvNet(BaseModel):
    """Residual network for small images (28x28, 32x32), batch norm, mean over the image; images of any size.

    Args:
        num_classes: Classes K.
        in_channels: Channels C of the image.
        channels: Width per stage, the image halved between stages; 32, 64, 128 if not given.
        blocks: Residual blocks per stage.
        dropout: Fraction of the pooled features that is dropped while training.
        stem_stride: 2 halves the image at once: four times as fast, for larger images.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 3,
        *,
        channels: list[Count] | None = None,
        blocks: Count = 1,
        dropout: Probability = 0.0,
        stem_stride: Count = 1,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        widths = list(channels or CHANNELS)
        self.stem = nn.Conv2d(in_channels, widths[0], 3, stem_stride, 1, bias=False)
        stages, width = [], widths[0]
        for stage, wider in enumerate(widths):
            for number in range(blocks):
                # The first block of each stage but the first halves the map.
                stages.append(PreactivatedBlock(width, wider, 2 if stage and not number else 1))
                width = wider
        self.stages = nn.Sequential(*stages)
        self.norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(dropout)
        initialise(self)
        self.head = nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K) float."""
        maps: Tensor = self.norm(self.stages(self.stem(inputs)))
        logits: Tensor = self.head(self.dropout(maps.mean(dim=(2, 3))))
        return logits
