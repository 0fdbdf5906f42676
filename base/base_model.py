"""The base of every network: its forward pass, its size, its cost and a table of its parts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from base.inspection.flops import flop_counter
from base.inspection.summary import network_summary, num_weights, untouched

Output = Tensor | Sequence[Tensor]


class BaseModel(nn.Module, ABC):
    """A network; a subclass writes `__init__` with plain typed arguments, and `forward`.

    Attributes:
        in_channels: Channels of the input; a subclass that takes a number other than three sets it.
        auxiliary_weights: Factors in the loss of the auxiliary outputs that it gives in training mode.
    """

    in_channels: int = 3
    auxiliary_weights: Sequence[float] = ()

    @abstractmethod
    def forward(self, inputs: Tensor) -> Any:
        """Return logits (B, K, H, W) float of inputs (B, C, H, W) float, or a tuple (logits, auxiliary logits, ...).

        A classifier gives (B, K); one of series takes (B, V, T), with V variables as its channels.
        """

    @classmethod
    def canonical_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments in one form for all that make the same network, so that a search tries it once."""
        return dict(arguments)

    @classmethod
    def complete_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments that make the same network without any other file, as a checkpoint's config holds them."""
        return dict(arguments)

    def set_progress(self, share: float) -> None:
        """Note how much of the training is done; called before each training epoch, also after a resume.

        Args:
            share: Completed epochs by all epochs, from 0 to below 1.
        """

    def parameter_count(self, trainable_only: bool = False) -> int:
        """Return the number of weights, or of those that are trained."""
        return num_weights(self, trainable_only=trainable_only)

    def flops(self, input_size: Sequence[int]) -> int:
        """Return the FLOPs of one forward pass of one sample.

        Convolutions and matrix products are counted, a multiply-add as two.

        Args:
            input_size: (H, W) of the input, or (T,) of a series; the channels are `in_channels`.
        """
        counter = flop_counter()
        with counter:
            self._run_zeros(input_size)
        return int(counter.get_total_flops())

    def summary(self, input_size: Sequence[int], depth: int | None = None) -> str:
        """Return a table of the parts in order: name, type, output shape, parameters, FLOPs.

        Modes, buffers and generators are restored afterwards.

        Args:
            input_size: (H, W) of the input, or (T,) of a series.
            depth: Number of levels of parts within parts; by default as many as fit on a screen.

        Raises:
            ConfigError: The network cannot take such an input.
        """
        like = next(self.parameters(), torch.zeros(()))
        example = torch.zeros(1, self.in_channels, *input_size, device=like.device, dtype=like.dtype)
        return network_summary(self, example, depth)

    def __str__(self) -> str:
        return f"{super().__str__()}\nTrainable parameters: {self.parameter_count(trainable_only=True):,}"

    def _run_zeros(self, input_size: Sequence[int]) -> None:
        """Run one forward pass of zeros in evaluation mode; modes, buffers and generators are restored after it."""
        like = next(self.parameters(), torch.zeros(()))
        inputs = torch.zeros(1, self.in_channels, *input_size, device=like.device, dtype=like.dtype)
        with untouched(self), torch.no_grad():
            self.eval()
            self(inputs)


def main_output(output: Output) -> Tensor:
    """Return the main logits: the output itself, or the first of several."""
    return output if isinstance(output, Tensor) else output[0]


def class_logits(logits: Tensor) -> Tensor:
    """Return one logit per class: for a network with a single channel z, the pair (0, z).

    The softmax of the pair is the sigmoid of z, and its maximum is class 1 if z > 0. So all code for two classes also
    works on a binary network with one channel.

    Args:
        logits: (B, K, ...) float.

    Returns:
        (B, max(2, K), ...).
    """
    return torch.cat((torch.zeros_like(logits), logits), dim=1) if logits.shape[1] == 1 else logits
