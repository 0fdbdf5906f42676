"""Networks of timm with a feature map per stage as encoders: convolutional ones, and transformers such as Swin."""

from torch import Tensor, nn

from models.backbones.timm_network import TimmTraits, create_network, read_traits, refuse_other_norms, size_errors
from models.layers.blocks import Norm, pad_to_multiple
from utils.errors import ConfigError

COARSEST_FIRST_STRIDE = 4  # a decoder that begins with coarser maps cannot find edges


class TimmEncoder(nn.Module):
    """A network of timm that returns its feature maps.

    Images are padded to a multiple of its coarsest stride: its stems round odd sizes up or down.

    Args:
        name: "timm:" and a name of `timm.list_models()`, e.g. "timm:mobilenetv3_small_100".
        in_channels: Channels of the image.
        weights: null (from scratch), "DEFAULT" (timm's, fetched once), or a file with a state dict under timm's names.
        norm: "batch": the norm that timm gives the network; "group" is refused if that is batch norm.
        output_stride: Stride of the coarsest feature map, 8, 16 or 32, if timm can dilate the network.
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
        output_stride: int = 32,
        traits: TimmTraits | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.traits = traits or read_traits(name)
        dilation = {} if output_stride == 32 else {"output_stride": output_stride}  # some refuse any value of it
        self.network = create_network(name, in_channels, weights, features_only=True, **self.traits.options, **dilation)
        refuse_other_norms(self.network, name, norm)
        self.channels: list[int] = list(self.network.feature_info.channels())
        self.strides: list[int] = list(self.network.feature_info.reduction())
        self.first_stride = self.strides[0]
        self.stride = self.strides[-1]
        if self.first_stride > COARSEST_FIRST_STRIDE or self.stride > output_stride:
            raise ConfigError(
                f"Wrong backbone {name!r}: its feature maps have strides {self.strides}; those of a backbone begin at "
                f"stride {COARSEST_FIRST_STRIDE} or finer and end at {output_stride}. Choose another network."
            )
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.1  # as in `TorchvisionEncoder`: some come with 0.01 or less, for much longer runs

    def forward(self, inputs: Tensor, count: int | None = None) -> list[Tensor]:
        """Image (B, C, H, W) float -> the first `count` feature maps of the padded image, finest first."""
        padded = pad_to_multiple(inputs, self.stride)
        if self.traits.image_size is None:
            features: list[Tensor] = self.network(padded)
        else:
            with size_errors(self.name, self.traits, padded):
                features = self.network(padded)
        if self.traits.layout == "NHWC":
            return [each.permute(0, 3, 1, 2).contiguous() for each in features[:count]]
        return list(features[:count])
