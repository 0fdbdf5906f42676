"""What a network gives: logits alone, or logits with auxiliary ones behind them."""

from collections.abc import Sequence

from torch import Tensor

Output = Tensor | Sequence[Tensor]


def main_output(output: Output) -> Tensor:
    """The logits proper: the output itself, or the first of several."""
    return output if isinstance(output, Tensor) else output[0]
