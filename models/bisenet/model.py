"""BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation (arXiv:1808.00897)."""

from typing import Literal

from torch import Tensor, nn

from base.base_model import BaseModel
from models.backbones import Backbone, build_backbone, index_of_stride
from models.bisenet.decoder import FeatureFusion
from models.bisenet.encoder import ContextPath
from models.layers.blocks import Count, cut_to_stride, enlarge, halving_blocks, initialise, widen_tiny
from models.layers.heads import AuxiliaryWeight, SegmentationHead, checked_weights
from utils.errors import ConfigError

AUXILIARY_WEIGHTS = (1.0, 1.0)  # arXiv:1808.00897, section 3.3
SPATIAL_CHANNELS = (64, 128, 256)
SPATIAL_STRIDE, FINE_STRIDE, COARSE_STRIDE = 8, 16, 32


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
        self.encoder = build_backbone(backbone, in_channels, weights=weights, norm=norm)
        self.fine, self.coarse = (
            index_of_stride(self.encoder, backbone, stride) for stride in (FINE_STRIDE, COARSE_STRIDE)
        )
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
