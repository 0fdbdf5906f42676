"""Networks of other libraries, made to give logits at the image's own size.

They keep their weights under their own names: a checkpoint's state dict loads into the library's class as it is, and
the other way round. So the object stays what it was, but for its class: a subclass that goes around its `forward`.
"""

from abc import ABCMeta
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from base.base_model import BaseModel
from models.layers.blocks import pad_to_multiple, widen_tiny

COARSEST_STRIDE = 32  # what the encoders of both libraries halve down to, or less
TORCHVISION_AUXILIARY_WEIGHT = 0.5  # of torchvision's references/segmentation/train.py


class Padded(nn.Module):
    """Goes before a class that takes images of certain sizes only: others are padded, and the logits cut."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float; those of a classifier beside are left out."""
        height, width = inputs.shape[2:]
        output = super().forward(pad_to_multiple(widen_tiny(inputs, COARSEST_STRIDE), COARSEST_STRIDE))
        logits: Tensor = output if isinstance(output, Tensor) else output[0]
        return logits[:, :, :height, :width]


class Unpacked(nn.Module):
    """Goes before a class that gives a dict: its "out" is taken, and while training its "aux", where it has one."""

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float, or a tuple of them and auxiliary ones."""
        height, width = inputs.shape[2:]
        output = super().forward(widen_tiny(inputs, COARSEST_STRIDE))
        cut: dict[str, Tensor] = {name: logits[:, :, :height, :width] for name, logits in output.items()}
        return (cut["out"], cut["aux"]) if self.training and "aux" in cut else cut["out"]


def adapt_padded(network: nn.Module) -> nn.Module:
    """A network of segmentation_models_pytorch for images of any size."""
    return _with_forward_of(Padded, network)


def adapt_torchvision(network: nn.Module) -> nn.Module:
    """A network of `torchvision.models.segmentation` that gives tensors."""
    has_auxiliary = getattr(network, "aux_classifier", None) is not None
    return _with_forward_of(Unpacked, network, [TORCHVISION_AUXILIARY_WEIGHT] if has_auxiliary else [])


def _with_forward_of(way: type[nn.Module], network: Any, auxiliary_weights: Sequence[float] = ()) -> nn.Module:
    """The network as a `BaseModel` that goes the way of `way`, and from there to its own `forward`."""
    own_class = type(network)
    bases, members = (way, own_class, BaseModel), {"__module__": own_class.__module__}
    network.__class__ = ABCMeta(own_class.__name__, bases, members)
    network.auxiliary_weights = tuple(auxiliary_weights)
    network.in_channels = next((part.in_channels for part in network.modules() if isinstance(part, nn.Conv2d)), 3)
    adapted: nn.Module = network
    return adapted
