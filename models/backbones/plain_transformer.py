"""Plain vision transformers of timm, such as DINOv2, as encoders: a simple feature pyramid from their last map."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from models.backbones.timm_network import (
    POWERS_OF_TWO,
    TimmTraits,
    create_network,
    read_traits,
    refuse_other_norms,
    size_errors,
)
from models.layers.blocks import Norm, initialise, pad_to_multiple
from utils.errors import ConfigError

PYRAMID_STRIDES = (4, 8, 16, 32)  # arXiv:2203.16527, section 3
PYRAMID_CHANNELS = 256  # arXiv:2203.16527, appendix A.2


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels at each place of a map."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) float -> the same shape."""
        return super().forward(inputs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


class SimpleFeaturePyramid(nn.ModuleList):
    """Maps of several strides, each made from the last map of a plain vision transformer alone.

    "Exploring Plain Vision Transformer Backbones for Object Detection" (Li et al. 2022, arXiv:2203.16527, section 3):
    transposed convolutions of stride 2 enlarge the map, max pooling shrinks it; then a 1x1 and a 3x3 convolution, each
    with a layer norm.

    Args:
        in_channels: Channels of the transformer's map.
        stride: Its stride, a power of two.
        strides: Those of the pyramid's maps, powers of two, finest first.
        channels: Channels of the pyramid's maps.
    """

    def __init__(self, in_channels: int, stride: int, strides: Sequence[int], channels: int) -> None:
        super().__init__(_level(in_channels, stride, each, channels) for each in strides)
        initialise(self)

    def forward(self, features: Tensor, count: int | None = None) -> list[Tensor]:
        """(B, in_channels, h, w) float -> the first `count` maps (B, channels, h', w'), finest first."""
        return [level(features) for level in list(self)[:count]]


class PlainTransformerEncoder(nn.Module):
    """A vision transformer of timm with one stride, and a simple feature pyramid over its last map after the norm.

    Positional embeddings are resized to each image, which is padded to a multiple of the patches and of the coarsest
    stride. Patches that are no power of two become 16x16, whose weights are those of the pretraining, resized once
    (FlexiViT, Beyer et al. 2023, arXiv:2212.08013, section 3.4): DINOv2 sees patches of 16x16 pixels as it saw 14x14.

    Args:
        name: "timm:" and a name of `timm.list_models()`, e.g. "timm:vit_small_patch14_dinov2".
        in_channels: Channels of the image.
        weights: Weights of the transformer: null (from scratch), "DEFAULT" (timm's, fetched once), or a file with a
            state dict under timm's names. The pyramid always begins from scratch.
        norm: "batch" or "group": both have the layer norms of timm and of the paper.
        strides: Strides of the feature maps, powers of two, finest first.
        traits: Those of `read_traits(name)`, if they are known already.

    Attributes:
        channels: Channels of the feature maps, finest first.
        strides: Their strides.
        first_stride: Stride of the finest feature map.
        stride: Stride of the coarsest feature map.

    Raises:
        ConfigError: timm has no such network, or cannot build it so; or weights cannot be found.
        CheckpointError: The weights are damaged or of another network.
    """

    def __init__(
        self,
        name: str,
        in_channels: int = 3,
        *,
        weights: str | None = None,
        norm: Norm = "batch",
        strides: Sequence[int] = PYRAMID_STRIDES,
        traits: TimmTraits | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.traits = traits or read_traits(name)
        patch_stride = self.traits.strides[-1]
        if not self.traits.is_plain or patch_stride not in POWERS_OF_TWO or self.traits.channels[-1] % 8:
            raise ConfigError(
                f"Wrong backbone {name!r}: its feature maps have strides {list(self.traits.strides)}, and those of a "
                "plain vision transformer have one that is 2, 4, 8, 16 or 32. Choose another network."
            )
        self.network = create_network(name, in_channels, weights, num_classes=0, **self.traits.options)
        self.network.prune_intermediate_layers([-1], prune_norm=False, prune_head=True)
        refuse_other_norms(self.network, name, norm)
        self.pyramid = SimpleFeaturePyramid(self.traits.channels[-1], patch_stride, strides, PYRAMID_CHANNELS)
        self.channels = [PYRAMID_CHANNELS] * len(strides)
        self.strides = list(strides)
        self.first_stride, self.stride = strides[0], strides[-1]
        self.multiple = max(patch_stride, self.stride)

    def forward(self, inputs: Tensor, count: int | None = None) -> list[Tensor]:
        """Image (B, C, H, W) float -> the first `count` feature maps of the padded image, finest first."""
        padded = pad_to_multiple(inputs, self.multiple)
        if self.traits.image_size is None:
            features = self._last_map(padded)
        else:
            with size_errors(self.name, self.traits, padded):
                features = self._last_map(padded)
        maps: list[Tensor] = self.pyramid(features, count)
        return maps

    def _last_map(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) float -> the map after the last block and norm (B, channels, h, w) float."""
        features: list[Tensor] = self.network.forward_intermediates(
            images, indices=1, norm=True, intermediates_only=True
        )
        return features[0]


def _level(in_channels: int, stride: int, target: int, channels: int) -> nn.Sequential:
    """Build one level of the pyramid, from `stride` to `target`."""
    layers: list[nn.Module] = []
    width = in_channels
    for step in range(int(math.log2(stride / target)) if target < stride else 0):
        if step:
            layers += [ChannelNorm(width), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2))
        width //= 2
    if target > stride:
        layers.append(nn.MaxPool2d(target // stride))
    layers += [nn.Conv2d(width, channels, kernel_size=1, bias=False), ChannelNorm(channels)]
    layers += [nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False), ChannelNorm(channels)]
    return nn.Sequential(*layers)
