"""Pyramid Scene Parsing Network (arXiv:1612.01105)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base.base_model import BaseModel
from models.backbones import Backbone, build_backbone
from models.layers.blocks import Count, Norm, Probability, conv_block, enlarge, initialise, widen_tiny
from models.layers.heads import AuxiliaryWeight, SegmentationHead, checked_weights, cut_to_stride

BINS = (1, 2, 3, 6)  # arXiv:1612.01105, section 3.2
AUXILIARY_WEIGHTS = (0.4,)  # arXiv:1612.01105, section 3.3


def average_bins(maps: Tensor, bins: int) -> Tensor:
    """Return means over a grid of `bins` by `bins` overlapping parts, those of adaptive average pooling.

    Two matrix products: unlike adaptive pooling, the gradient is deterministic on CUDA.

    Args:
        maps: (B, C, H, W).
        bins: Parts along each side.

    Returns:
        (B, C, bins, bins).
    """
    weights = []
    for size in maps.shape[2:]:
        # (bins, size): the weight of each place in each part; made on the device, without a wait for it.
        places, parts = torch.arange(size, device=maps.device), torch.arange(bins, device=maps.device)[:, None]
        inside = (places >= parts * size // bins) & (places < ((parts + 1) * size + bins - 1) // bins)
        weights.append((inside / inside.sum(dim=1, keepdim=True)).to(maps.dtype))
    return weights[0] @ maps @ weights[1].T


class PyramidPooling(nn.Module):
    """Means over 1, 2x2, 3x3 and 6x6 parts, each reduced, enlarged and concatenated with the features.

    As in arXiv:1612.01105, section 3.2. Unlike in the paper, the reduction of the single mean has a bias instead of a
    batch norm, which cannot train on the single value per channel that a batch of one image leaves there.

    Args:
        in_channels: Channels of the features.
        norm: Normalisation after each reduction.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, *, norm: Norm) -> None:
        super().__init__()
        width = max(1, in_channels // len(BINS))
        self.branches = nn.ModuleList(
            conv_block(in_channels, width, kernel_size=1, norm="none" if bins == 1 else norm) for bins in BINS
        )
        self.out_channels = in_channels + width * len(BINS)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w)."""
        size = list(features.shape[2:])
        parts = [features]
        for bins, branch in zip(BINS, self.branches, strict=True):
            means = branch(average_bins(features, bins))
            parts.append(F.interpolate(means, size, mode="bilinear", align_corners=False))
        return torch.cat(parts, dim=1)


class PSPNet(BaseModel):
    """PSPNet over the backbone of a library; images of any size.

    While training it also returns logits of the last feature map but one.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        backbone: A backbone of torchvision, or "timm:" and a name of timm's.
        weights: Weights of the backbone: null (from scratch), "DEFAULT", a name, or a file.
        norm: "batch" or "group" (the same result with any number of processes).
        output_stride: Stride of the coarsest features: a smaller one is finer and costs more.
        decoder_channels: Width before the classifier; a quarter of the pyramid's output if not given.
        dropout: Fraction of the features before the classifiers that is dropped while training.
        auxiliary_weights: Factor of the auxiliary output in the loss; [0.4] if not given.

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
        output_stride: Literal[8, 16, 32] = 8,
        decoder_channels: Count | None = None,
        dropout: Probability = 0.1,
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
            output_stride=output_stride,
            needed=(output_stride // 2, output_stride),
        )
        self.pyramid = PyramidPooling(self.encoder.channels[-1], norm=norm)
        width = decoder_channels or max(1, self.pyramid.out_channels // 4)
        self.decoder = SegmentationHead(self.pyramid.out_channels, width, num_classes, dropout=dropout, norm=norm)
        # As in the paper, section 3.3: from the stage before the last one.
        before = self.encoder.channels[-2]
        self.auxiliary = SegmentationHead(before, max(1, before // 4), num_classes, dropout=dropout, norm=norm)
        for part in (self.pyramid, self.decoder[0], self.auxiliary[0]):
            initialise(part)

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float; while training (logits, auxiliary logits)."""
        size = inputs.shape[2:]
        features = self.encoder(widen_tiny(inputs, self.encoder.stride))
        logits = enlarge(self.decoder(self.pyramid(features[-1])), self.encoder.stride, size)
        # In evaluation nobody uses auxiliary logits, so they are not computed.
        if not self.training:
            return logits
        return logits, cut_to_stride(self.auxiliary(features[-2]), size, self.encoder.strides[-2])
