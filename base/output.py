"""What a network gives: logits alone, or logits with auxiliary ones behind them."""

from collections.abc import Sequence

import torch
from torch import Tensor

Output = Tensor | Sequence[Tensor]


def main_output(output: Output) -> Tensor:
    """The logits proper: the output itself, or the first of several."""
    return output if isinstance(output, Tensor) else output[0]


def class_logits(logits: Tensor) -> Tensor:
    """One logit per class: as they are or, of a network with a single channel z, the pair (0, z).

    The softmax of the pair is the sigmoid of z, and its larger one is class 1 where z > 0. So whatever works on two
    classes works on a binary network with one channel.

    Args:
        logits: (B, K, ...) float.

    Returns:
        (B, max(2, K), ...).
    """
    return torch.cat((torch.zeros_like(logits), logits), dim=1) if logits.shape[1] == 1 else logits
