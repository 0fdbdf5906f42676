"""Backbones of networks: build one by its name, find a feature map, freeze the first stages."""

from collections.abc import Sequence

import torch

from models.backbones.plain_transformer import PYRAMID_STRIDES, PlainTransformerEncoder
from models.backbones.timm_encoder import TimmEncoder
from models.backbones.timm_network import PREFIX, TimmName, read_traits
from models.backbones.torchvision_encoder import TorchvisionEncoder, TorchvisionName
from models.layers.blocks import Norm
from utils.errors import ConfigError

Backbone = TorchvisionName | TimmName
Encoder = TorchvisionEncoder | TimmEncoder | PlainTransformerEncoder


def build_backbone(
    name: Backbone,
    in_channels: int = 3,
    *,
    weights: str | None = None,
    norm: Norm = "batch",
    output_stride: int = 32,
    needed: Sequence[int] = PYRAMID_STRIDES,
) -> Encoder:
    """Build the encoder of a name: torchvision's, or "timm:" and a name of timm's.

    The other arguments are those of `TorchvisionEncoder`, of `TimmEncoder`, and for plain vision transformers those of
    `PlainTransformerEncoder`.

    Args:
        name: A backbone.
        in_channels: Channels of the image.
        weights: Its weights.
        norm: Its norm.
        output_stride: Stride of its coarsest feature map.
        needed: Strides of the feature maps that the network uses, finest first: a simple feature pyramid has no others.

    Raises:
        ConfigError: Unknown name, a norm that the backbone cannot have, or weights that cannot be found.
        CheckpointError: The weights are damaged or of another network.
    """
    if not name.startswith(PREFIX):
        return TorchvisionEncoder(name, in_channels, weights=weights, norm=norm, output_stride=output_stride)
    traits = read_traits(name)
    if traits.is_plain:
        strides = [stride for stride in needed if stride <= output_stride]
        return PlainTransformerEncoder(name, in_channels, weights=weights, norm=norm, strides=strides, traits=traits)
    return TimmEncoder(name, in_channels, weights=weights, norm=norm, output_stride=output_stride, traits=traits)


def index_of_stride(encoder: Encoder, name: str, stride: int) -> int:
    """Return the index of the first feature map of a stride.

    Raises:
        ConfigError: There is none.
    """
    if stride not in encoder.strides:
        raise ConfigError(
            f"Wrong backbone {name!r}: its feature maps have strides {encoder.strides}, and one of {stride} is needed. "
            "Choose another."
        )
    return encoder.strides.index(stride)


def freeze_stages(encoder: Encoder, count: int, in_channels: int) -> list[str]:
    """Freeze the weights that the first `count` feature maps depend on.

    The dependence is that of the gradient, so it does not matter how a network calls its parts. A simple feature
    pyramid is never frozen, since it begins from scratch: all maps depend on the whole transformer under it, which is
    frozen by any count above 0.

    Args:
        encoder: Changed in place.
        count: Number of feature maps, finest first.
        in_channels: Channels of the image.

    Returns:
        Names of the parts all of whose weights are frozen, which are to stay in evaluation mode.
    """
    if count == 0:
        return []
    # A zero image of the smallest size is enough: only the graph matters, not the values.
    weights = {name: weight for name, weight in encoder.named_parameters() if not name.startswith("pyramid.")}
    modes = [(part, part.training) for part in encoder.modules()]
    like = next(iter(weights.values()))
    image = torch.zeros(1, in_channels, encoder.stride, encoder.stride, device=like.device, dtype=like.dtype)
    with torch.enable_grad():
        # In evaluation mode the forward pass leaves the statistics of batch norms alone.
        total = torch.stack([features.sum() for features in encoder.eval()(image, count)]).sum()
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    for part, training in modes:
        part.training = training
    for weight, gradient in zip(weights.values(), gradients, strict=True):
        if gradient is not None:
            weight.requires_grad_(False)
    trained = {name: {weight.requires_grad for weight in part.parameters()} for name, part in encoder.named_modules()}
    return [name for name, states in trained.items() if states == {False}]
