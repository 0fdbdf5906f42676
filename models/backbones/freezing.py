"""The beginning of a trunk that is to stay as it is."""

import torch
from torch import nn

from models.backbones.timm_encoder import TimmTrunk
from models.backbones.torchvision_encoder import Trunk


def freeze_stages(trunk: Trunk | TimmTrunk, count: int, in_channels: int) -> list[nn.Module]:
    """Take the weights that the first `count` feature maps depend on from training.

    The dependence is that of the gradient, so it holds for whatever a network calls its parts.

    Args:
        trunk: The trunk.
        count: How many feature maps, finest first.
        in_channels: Channels of the image.

    Returns:
        The parts all of whose weights are frozen: those to keep in evaluation mode.
    """
    if count == 0:
        return []
    weights = dict(trunk.named_parameters())
    modes = [(part, part.training) for part in trunk.modules()]
    like = next(iter(weights.values()))
    image = torch.zeros(1, in_channels, trunk.stride, trunk.stride, device=like.device, dtype=like.dtype)
    with torch.enable_grad():
        total = torch.stack([features.sum() for features in trunk.eval()(image, count)]).sum()
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    for part, training in modes:
        part.training = training
    for weight, gradient in zip(weights.values(), gradients, strict=True):
        if gradient is not None:
            weight.requires_grad_(False)
    return [part for part in trunk.modules() if _is_frozen(part)]


def _is_frozen(part: nn.Module) -> bool:
    weights = list(part.parameters())
    return bool(weights) and not any(weight.requires_grad for weight in weights)
