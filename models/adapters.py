"""Networks of other libraries as `BaseModel`: images of any size, logits of the image's size.

Their weights have the library's names: a checkpoint's state dict loads into the library's class, and the other way
round.
"""

import enum
import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from base.base_model import BaseModel
from models.layers.blocks import pad_to_multiple, widen_tiny
from utils.module_subclass import with_forward

COARSEST_STRIDE = 32  # the encoders of both libraries halve down to this, or less
TORCHVISION_AUXILIARY_WEIGHT = 0.5  # of torchvision's references/segmentation/train.py


def arguments_without_weights(arguments: Mapping[str, Any]) -> dict[str, None]:
    """Return the arguments with which `torchvision.models.get_model` fetches no weights: null for each of that network.

    Its networks of segmentation and detection would fetch those of their backbone by default.

    Args:
        arguments: `name` is that of the network.
    """
    import torchvision

    try:
        builder = torchvision.models.get_model_builder(arguments["name"])
    except (KeyError, ValueError, AttributeError):  # the function itself refuses it
        return {}
    defaults = {name: item.default for name, item in inspect.signature(builder).parameters.items()}
    return {name: None for name, each in defaults.items() if isinstance(each, enum.Enum) and hasattr(each, "url")}


class PaddedInput(nn.Module):
    """A mixin for networks that take only images of certain sizes: others are padded, and the logits cut."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float; those of an additional classifier are left out."""
        height, width = inputs.shape[2:]
        output = super().forward(pad_to_multiple(widen_tiny(inputs, COARSEST_STRIDE), COARSEST_STRIDE))
        logits: Tensor = output if isinstance(output, Tensor) else output[0]
        return logits[:, :, :height, :width]


class TensorOutput(nn.Module):
    """A mixin for networks that return a dict: its "out" is returned, and while training also its "aux", if any."""

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float, or a tuple of them and auxiliary ones."""
        height, width = inputs.shape[2:]
        output = super().forward(widen_tiny(inputs, COARSEST_STRIDE))
        cut: dict[str, Tensor] = {name: logits[:, :, :height, :width] for name, logits in output.items()}
        return (cut["out"], cut["aux"]) if self.training and "aux" in cut else cut["out"]


def adapt_network(network: nn.Module) -> BaseModel:
    """Return a network of segmentation_models_pytorch or of `torchvision.models.segmentation` as a `BaseModel`."""
    returns_dict = type(network).__module__.startswith("torchvision.")
    adapted = with_forward(network, TensorOutput if returns_dict else PaddedInput, BaseModel)
    assert isinstance(adapted, BaseModel)
    # The first convolution is that of the image in all of these networks.
    adapted.in_channels = next((part.in_channels for part in adapted.modules() if isinstance(part, nn.Conv2d)), 3)
    if returns_dict and getattr(network, "aux_classifier", None) is not None:
        adapted.auxiliary_weights = (TORCHVISION_AUXILIARY_WEIGHT,)
    return adapted
