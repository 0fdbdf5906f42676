"""The count of FLOPs of a forward pass: torch's, and the layers that torch leaves out."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

Shape = Sequence[int]


def flop_counter() -> "FlopCounterMode":
    """Return a mode that counts the FLOPs of convolutions and matrix products, a multiply-add as two.

    torch does not count fused recurrent layers, nor the fused attention of a processor.
    """
    from torch.utils.flop_counter import FlopCounterMode  # it loads Triton

    aten = torch.ops.aten
    formulas = {
        aten.mkldnn_rnn_layer: _recurrent_layer,
        aten._cudnn_rnn: _cudnn_recurrent,
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    }
    return FlopCounterMode(display=False, custom_mapping=formulas)


def _recurrent_layer(inputs: Shape, of_inputs: Shape, of_states: Shape, *_: Any, **__: Any) -> int:
    """Return the FLOPs of one direction of one layer; inputs (T, B, C) or (B, T, C)."""
    return 2 * inputs[0] * inputs[1] * (math.prod(of_inputs) + math.prod(of_states))


def _cudnn_recurrent(inputs: Shape, weights: Sequence[Shape], *_: Any, **__: Any) -> int:
    """Return the FLOPs of all layers; inputs (T, B, C) or (B, T, C)."""
    return 2 * inputs[0] * inputs[1] * sum(math.prod(shape) for shape in weights if len(shape) == 2)


def _attention(queries: Shape, keys: Shape, values: Shape, *_: Any, **__: Any) -> int:
    """Return the FLOPs of both products of attention; (B, heads, N, C) each."""
    batch, heads, count, channels = queries
    return 2 * batch * heads * count * keys[2] * (channels + values[3])
