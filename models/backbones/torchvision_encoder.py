"""Torchvision's classification networks, cut into five stages that each halve the resolution."""

import functools
from typing import Literal, NamedTuple

from torch import Tensor, nn

from models.backbones.weights import load_weights
from models.layers.blocks import Norm, make_norm
from utils.errors import ConfigError

TorchvisionName = Literal["mobilenet_v2", "mobilenet_v3_large", "resnet18", "resnet34", "resnet50", "resnet101"]

STAGE_STRIDES = (2, 4, 8, 16, 32)


class Layout(NamedTuple):
    """The places at which a torchvision network is cut.

    Attributes:
        channels: Channels at the end of each stage.
        cuts: MobileNets: the first modules of the stages in `features`, and the end; after it there is only the 1x1
            convolution that widens for the classifier, which is left out. ResNets: empty.
        first_convolution: Its name in torchvision's state dict, without ".weight".
        unused: Prefixes of the names in that state dict that are no part of the encoder.
    """

    channels: tuple[int, ...]
    cuts: tuple[int, ...] = ()
    first_convolution: str = "conv1"
    unused: tuple[str, ...] = ("fc.",)


TORCHVISION_BACKBONES: dict[str, Layout] = {
    "mobilenet_v2": Layout(
        (16, 24, 32, 96, 320), (0, 2, 4, 7, 14, 18), "features.0.0", ("features.18.", "classifier.")
    ),
    "mobilenet_v3_large": Layout(
        (16, 24, 40, 112, 160), (0, 2, 4, 7, 13, 16), "features.0.0", ("features.16.", "classifier.")
    ),
    "resnet18": Layout((64, 64, 128, 256, 512)),
    "resnet34": Layout((64, 64, 128, 256, 512)),
    "resnet50": Layout((64, 256, 512, 1024, 2048)),
    "resnet101": Layout((64, 256, 512, 1024, 2048)),
}


class TorchvisionEncoder(nn.Module):
    """A torchvision network that returns its feature maps.

    Args:
        name: A key of `TORCHVISION_BACKBONES`.
        in_channels: Channels of the image; the first convolution is replaced if they are not three.
        weights: null (from scratch), "DEFAULT", a torchvision name, or a file; see `load_weights`.
        norm: "batch" or "group".
        output_stride: Stride of the coarsest feature map, 8, 16 or 32: later stages dilate instead of striding.

    Attributes:
        channels: Channels of the five feature maps, finest first.
        strides: Their strides.
        first_stride: Stride of the finest feature map.
        stride: Stride of the coarsest feature map.

    Raises:
        ConfigError: Unknown name, a norm that the backbone cannot have, or weights that cannot be found.
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
    ) -> None:
        import torchvision  # as long as torch itself: it loads torch._dynamo

        super().__init__()
        if name not in TORCHVISION_BACKBONES:
            raise ConfigError(
                f"Unknown backbone {name!r}: there are {', '.join(TORCHVISION_BACKBONES)}, and timm:NAME for the "
                "networks of timm. Choose one of them."
            )
        if norm == "none":
            raise ConfigError(
                f"Wrong norm 'none' for backbone {name!r}: a backbone has batch or group norm. Choose one of them."
            )
        if norm != "batch" and weights is not None:
            raise ConfigError(
                f"Wrong norm {norm!r} together with weights: torchvision's weights were trained with batch norm. "
                'Set "norm": "batch" or "weights": null.'
            )
        layout = TORCHVISION_BACKBONES[name]
        norm_layer = {"norm_layer": functools.partial(make_norm, "group")} if norm == "group" else {}
        network: nn.Module = torchvision.models.get_model(name, weights=None, **norm_layer)
        _replace_first_convolution(network, layout.first_convolution, in_channels)
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                # MobileNetV3 comes with 0.01, made for hundreds of thousands of steps: a short run would be
                # evaluated with statistics from its beginning.
                part.momentum = 0.1
        if weights is not None:
            load_weights(network, name, weights, first_convolution=layout.first_convolution, unused=layout.unused)
        self.stages = nn.ModuleList(_stages(network, layout, output_stride))
        self.channels = list(layout.channels)
        self.strides = [min(stride, output_stride) for stride in STAGE_STRIDES]
        self.first_stride = STAGE_STRIDES[0]
        self.stride = output_stride

    def forward(self, inputs: Tensor, count: int | None = None) -> list[Tensor]:
        """Image (B, C, H, W) float -> five feature maps (B, channels, h, w) float, finest first.

        Only the first `count` are computed.
        """
        features: list[Tensor] = []
        current = inputs
        for stage in self.stages[:count]:
            current = stage(current)
            features.append(current)
        return features


def _replace_first_convolution(network: nn.Module, name: str, in_channels: int) -> None:
    """Give a network a new first convolution if its input has other channels."""
    old = network.get_submodule(name)
    if not isinstance(old, nn.Conv2d):
        raise TypeError(f"{name} is a {type(old).__name__}: this torchvision has another layout. Install 0.20 to 0.29.")
    if in_channels != old.in_channels:
        new = nn.Conv2d(in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False)  # type: ignore[arg-type]
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        network.set_submodule(name, new)


def _stages(network: nn.Module, layout: Layout, output_stride: int) -> list[nn.Sequential]:
    """Cut a network into five stages, without its classifier, and preserve the resolution beyond `output_stride`.

    There the convolution that used to stride has the spacing of the stage before it, and those after it get twice that:
    so the encoder computes the same values, only at more places (arXiv:1706.05587, section 3.1, without multi-grid).
    Only strides and spacings change: the weights of the classifier fit as before.
    """
    if layout.cuts:
        features = list(network.get_submodule("features").children())
        stages = [nn.Sequential(*features[a:b]) for a, b in zip(layout.cuts[:-1], layout.cuts[1:], strict=True)]
    else:
        part = network.get_submodule
        stages = [
            nn.Sequential(part("conv1"), part("bn1"), part("relu")),
            nn.Sequential(part("maxpool"), part("layer1")),  # the pooling halves, so it begins a stage
            *(nn.Sequential(*part(f"layer{number}").children()) for number in (2, 3, 4)),
        ]
    spacing = 1
    for stage, stride in zip(stages, STAGE_STRIDES, strict=True):
        if stride <= output_stride:
            continue
        for convolution in stage.modules():
            if isinstance(convolution, nn.Conv2d):
                rate = spacing if convolution.stride != (1, 1) else 2 * spacing
                convolution.stride = (1, 1)
                convolution.dilation = (rate, rate)
                convolution.padding = tuple(rate * (size // 2) for size in convolution.kernel_size)
        spacing *= 2
    return stages
