"""ICNet for Real-Time Semantic Segmentation on High-Resolution Images (arXiv:1704.08545)."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from base.base_model import BaseModel
from models.backbones import Backbone, build_backbone, index_of_stride
from models.layers.blocks import (
    Count,
    Norm,
    conv_block,
    enlarge,
    halving_blocks,
    initialise,
    make_norm,
    pad_to_multiple,
    widen_tiny,
)
from models.layers.heads import AuxiliaryWeight, checked_weights, cut_to_stride
from models.pspnet.model import BINS, average_bins

AUXILIARY_WEIGHTS = (0.4, 0.16)  # arXiv:1704.08545, section 3.3
FINE_CHANNELS = (32, 32, 64)  # arXiv:1704.08545, figure 2
OUTPUT_STRIDE = 8  # of the backbone, which sees the image halved and quartered
COARSEST_STRIDE = 4 * OUTPUT_STRIDE


class PyramidSum(nn.Module):
    """The features and their means over 1, 2x2, 3x3 and 6x6 parts, added: no weights, the shape stays.

    Not concatenated as in PSPNet (arXiv:1704.08545, section 3.1).
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) float -> (B, C, h, w) float."""
        size = list(features.shape[2:])
        total = features
        for bins in BINS:
            means = average_bins(features, bins)
            total = total + F.interpolate(means, size, mode="bilinear", align_corners=False)
        return total


class CascadeFusion(nn.Module):
    """Enlarge the coarse map, convolve it with dilation, and add the finer map (arXiv:1704.08545, section 3.2).

    Args:
        coarse_channels: Channels of the coarse map.
        fine_channels: Channels of the finer map, twice as large.
        channels: Width of the result.
        norm: Normalisation after each convolution.
    """

    def __init__(self, coarse_channels: int, fine_channels: int, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.coarse = nn.Sequential(
            nn.Conv2d(coarse_channels, channels, 3, padding=2, dilation=2, bias=norm == "none"),
            make_norm(norm, channels),
        )
        self.fine = nn.Sequential(
            nn.Conv2d(fine_channels, channels, kernel_size=1, bias=norm == "none"), make_norm(norm, channels)
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, h, w) and (B, D, 2h, 2w) -> the fused map (B, channels, 2h, 2w), and the coarse one enlarged."""
        enlarged = enlarge(coarse, 2, fine.shape[2:])
        return F.relu(self.coarse(enlarged) + self.fine(fine)), enlarged


class ICNet(BaseModel):
    """ICNet: the whole backbone on the quartered image, half of it on the halved one, three convolutions on all of it.

    Images of any size. While training it also returns logits at strides 8 and 16; the main ones are computed at stride
    4. Unlike in the paper, the input of the whole backbone is the quartered image, not a reduced map of the halved one.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        backbone: A backbone of torchvision, or "timm:" and a name of timm's.
        weights: Weights of the backbone: null (from scratch), "DEFAULT", a name, or a file.
        norm: "batch" or "group" (the same result with any number of processes).
        fusion_channels: Width of the fused maps.
        auxiliary_weights: Factors of the auxiliary outputs at strides 8 and 16; [0.4, 0.16] if not given.

    Raises:
        ConfigError: An argument is out of range, or weights cannot be found.
        CheckpointError: The weights are damaged or of another network.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 3,
        *,
        backbone: Backbone = "resnet18",
        weights: str | None = None,
        norm: Literal["batch", "group"] = "batch",
        fusion_channels: Count = 128,
        auxiliary_weights: list[AuxiliaryWeight] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.auxiliary_weights = checked_weights(auxiliary_weights, AUXILIARY_WEIGHTS)
        self.encoder = build_backbone(
            backbone,
            in_channels,
            weights=weights,
            norm=norm,
            output_stride=OUTPUT_STRIDE,
            needed=(OUTPUT_STRIDE,),
        )
        self.middle = index_of_stride(self.encoder, backbone, OUTPUT_STRIDE)
        self.fine = halving_blocks(in_channels, FINE_CHANNELS, norm=norm)
        self.pyramid = PyramidSum()
        channels = self.encoder.channels
        self.reduce = conv_block(channels[-1], fusion_channels, kernel_size=1, norm=norm)
        self.fuse_coarse = CascadeFusion(fusion_channels, channels[self.middle], fusion_channels, norm=norm)
        self.fuse_fine = CascadeFusion(fusion_channels, FINE_CHANNELS[-1], fusion_channels, norm=norm)
        self.head = nn.Conv2d(fusion_channels, num_classes, kernel_size=1)
        self.auxiliary = nn.ModuleList(
            nn.Conv2d(fusion_channels, num_classes, kernel_size=1) for _ in AUXILIARY_WEIGHTS
        )
        for part in (self.fine, self.reduce, self.fuse_coarse, self.fuse_fine):
            initialise(part)

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float; while training also (B, K, h, w) at 8 and 16."""
        size = inputs.shape[2:]
        # With sides that are multiples of all strides the three branches fit exactly on each other.
        whole = pad_to_multiple(widen_tiny(inputs, COARSEST_STRIDE), COARSEST_STRIDE)
        halved = F.avg_pool2d(whole, 2)
        coarse = self.reduce(self.pyramid(self.encoder(F.avg_pool2d(halved, 2))[-1]))
        # The same weights at both resolutions; of the halved image only the first stages, which makes ICNet fast.
        middle = self.encoder(halved, self.middle + 1)[-1]
        fused, at_sixteen = self.fuse_coarse(coarse, middle)
        fused, at_eight = self.fuse_fine(fused, self.fine(whole))
        logits = enlarge(self.head(enlarge(fused, 2, [side // 4 for side in whole.shape[2:]])), 4, size)
        if not self.training:
            return logits
        return (
            logits,
            cut_to_stride(self.auxiliary[0](at_eight), size, 8),
            cut_to_stride(self.auxiliary[1](at_sixteen), size, 16),
        )
