"""BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation (arXiv:1808.00897)."""

from typing import Literal

import torch
from torch import Tensor, nn

from base.base_model import BaseModel
from models.backbones import Backbone, build_backbone, index_of_stride
from models.layers.blocks import Count, Norm, conv_block, enlarge, halving_blocks, initialise, widen_tiny
from models.layers.heads import AuxiliaryWeight, SegmentationHead, checked_weights, cut_to_stride
from utils.errors import ConfigError

AUXILIARY_WEIGHTS = (1.0, 1.0)  # arXiv:1808.00897, section 3.3
SPATIAL_CHANNELS = (64, 128, 256)
SPATIAL_STRIDE, FINE_STRIDE, COARSE_STRIDE = 8, 16, 32


class ChannelGate(nn.Module):
    """Weigh the channels of a map by their means over the whole map (arXiv:1808.00897, section 3.2).

    Unlike the paper's, it has biases instead of a batch norm, which cannot train on the single value per channel that a
    batch of one image leaves there.

    Args:
        channels: Of the map.
        hidden: Width between the two convolutions; None for only one convolution.
    """

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)]
        if hidden is not None:
            layers += [nn.Conv2d(channels, hidden, kernel_size=1), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(hidden or channels, channels, kernel_size=1), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) float -> (B, channels, h, w) float."""
        weighted: Tensor = maps * self.layers(maps)
        return weighted


class ContextPath(nn.Module):
    """The backbone's maps at strides 16 and 32, refined by attention and added from the coarsest up.

    As in arXiv:1808.00897, section 3.2.

    Args:
        fine_channels: Channels of the map at stride 16.
        coarse_channels: Channels of the map at stride 32.
        channels: Width of the path.
        norm: Normalisation after each convolution.
    """

    def __init__(self, fine_channels: int, coarse_channels: int, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.refine_fine = nn.Sequential(conv_block(fine_channels, channels, norm=norm), ChannelGate(channels))
        self.refine_coarse = nn.Sequential(conv_block(coarse_channels, channels, norm=norm), ChannelGate(channels))
        self.whole = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(coarse_channels, channels, kernel_size=1), nn.ReLU(inplace=True)
        )
        self.smooth_coarse = conv_block(channels, channels, norm=norm)
        self.smooth_fine = conv_block(channels, channels, norm=norm)

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Maps at strides 16 and 32 -> (B, channels, h, w) at each of them."""
        refined_coarse = self.refine_coarse(coarse) + self.whole(coarse)
        from_coarse = self.smooth_coarse(enlarge(refined_coarse, 2, fine.shape[2:]))
        return self.smooth_fine(self.refine_fine(fine) + from_coarse), refined_coarse


class FeatureFusion(nn.Module):
    """Concatenate the maps of both paths, convolve, and add the same weighted by an attention over its channels.

    As in arXiv:1808.00897, section 3.3.

    Args:
        in_channels: Channels of both maps together.
        channels: Width of the result, the input of the classifier.
        norm: Normalisation after the convolution.
    """

    def __init__(self, in_channels: int, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.join = conv_block(in_channels, channels, kernel_size=1, norm=norm)
        self.gate = ChannelGate(channels, max(1, channels // 4))

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Two maps (B, C, h, w) float of equal size -> (B, channels, h, w) float."""
        joined: Tensor = self.join(torch.cat([spatial, context], dim=1))
        added: Tensor = joined + self.gate(joined)
        return added


class BiSeNet(BaseModel):
    """BiSeNet over the backbone of a library; images of any size.

    While training it also returns logits at strides 16 and 32.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        backbone: A backbone of torchvision, or "timm:" and a name of timm's.
        weights: Weights of the backbone: null (from scratch), "DEFAULT", a name, or a file.
        norm: "batch" or "group" (the same result with any number of processes).
        spatial_channels: Widths of the three convolutions for detail; 64, 128, 256 if not given.
        context_channels: Width of the path with a large receptive field.
        fusion_channels: Width of the fused map.
        auxiliary_weights: Factors of the auxiliary outputs at strides 16 and 32; [1, 1] if not given.

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
        spatial_channels: list[Count] | None = None,
        context_channels: Count = 128,
        fusion_channels: Count = 256,
        auxiliary_weights: list[AuxiliaryWeight] | None = None,
    ) -> None:
        super().__init__()
        widths = SPATIAL_CHANNELS if spatial_channels is None else spatial_channels
        if len(widths) != len(SPATIAL_CHANNELS):
            raise ConfigError(
                f"Wrong spatial_channels {list(widths)}: the path has three convolutions, down to stride 8. "
                "Give three widths."
            )
        self.in_channels = in_channels
        self.auxiliary_weights = checked_weights(auxiliary_weights, AUXILIARY_WEIGHTS)
        strides = (FINE_STRIDE, COARSE_STRIDE)
        self.encoder = build_backbone(backbone, in_channels, weights=weights, norm=norm, needed=strides)
        self.fine, self.coarse = (index_of_stride(self.encoder, backbone, stride) for stride in strides)
        channels = self.encoder.channels
        self.spatial = halving_blocks(in_channels, widths, norm=norm)  # arXiv:1808.00897, section 3.1
        self.context = ContextPath(channels[self.fine], channels[self.coarse], context_channels, norm=norm)
        self.decoder = FeatureFusion(widths[-1] + context_channels, fusion_channels, norm=norm)
        self.refine = SegmentationHead(fusion_channels, fusion_channels // 4 or 1, num_classes, norm=norm)
        self.auxiliary = nn.ModuleList(
            SegmentationHead(context_channels, context_channels // 2 or 1, num_classes, norm=norm)
            for _ in AUXILIARY_WEIGHTS
        )
        for part in (self.spatial, self.context, self.decoder, self.refine, self.auxiliary):
            initialise(part)

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float; while training also (B, K, h, w) at 16 and 32."""
        size = inputs.shape[2:]
        widened = widen_tiny(inputs, COARSE_STRIDE)
        features = self.encoder(widened)
        spatial = self.spatial(widened)
        fine, coarse = self.context(features[self.fine], features[self.coarse])
        context = enlarge(fine, FINE_STRIDE // SPATIAL_STRIDE, spatial.shape[2:])
        logits = enlarge(self.refine(self.decoder(spatial, context)), SPATIAL_STRIDE, size)
        # In evaluation nobody uses auxiliary logits, so they are not computed.
        if not self.training:
            return logits
        return (
            logits,
            cut_to_stride(self.auxiliary[0](fine), size, FINE_STRIDE),
            cut_to_stride(self.auxiliary[1](coarse), size, COARSE_STRIDE),
        )
