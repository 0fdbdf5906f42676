"""The base of every network: its forward pass, its size, its cost and a table of its parts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Output = Tensor | Sequence[Tensor]
TABLE_HEADER = ("Part", "Type", "Output", "Parameters", "FLOPs")


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

    def parameter_count(self, trainable_only: bool = False) -> int:
        """Return the number of weights, or of those that are trained."""
        return sum(weight.numel() for weight in self.parameters() if weight.requires_grad or not trainable_only)

    def flops(self, input_size: Sequence[int]) -> int:
        """Return the FLOPs of one forward pass of one sample.

        Convolutions and matrix products are counted, a multiply-add as two.

        Args:
            input_size: (H, W) of the input, or (T,) of a series; the channels are `in_channels`.
        """
        counter = FlopCounterMode(display=False)
        with counter:
            self._run_zeros(input_size)
        return int(counter.get_total_flops())

    def summary(self, input_size: Sequence[int], depth: int = 3) -> str:
        """Return a table of the parts in order: name, type, output shape, parameters, FLOPs.

        Modes, buffers and generators are restored afterwards.

        Args:
            input_size: (H, W) of the input, or (T,) of a series.
            depth: Number of levels of parts within parts.
        """
        parts = {name: module for name, module in self.named_modules() if name and name.count(".") < depth}
        outputs: dict[str, str] = {}

        def record(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[name] = _shape_text(output)

        hooks = [module.register_forward_hook(partial(record, name)) for name, module in parts.items()]
        counter = FlopCounterMode(display=False)
        try:
            with counter:
                self._run_zeros(input_size)
        finally:
            for hook in hooks:
                hook.remove()
        flops = {key: int(sum(counts.values())) for key, counts in counter.get_flop_counts().items()}
        rows = [TABLE_HEADER]
        for name, module in parts.items():
            if name in outputs:
                parameters = sum(weight.numel() for weight in module.parameters())
                own_flops = flops.get(f"{type(self).__name__}.{name}", 0)
                indented = "  " * name.count(".") + name
                rows.append((indented, type(module).__name__, outputs[name], f"{parameters:,}", f"{own_flops:,}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = [
                text.ljust(width) if column < 3 else text.rjust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        lines.insert(1, "-" * max(map(len, lines)))
        total, shape = flops.get("Global", 0), "x".join(map(str, (1, self.in_channels, *input_size)))
        lines += [
            "",
            f"Parameters: {self.parameter_count():,} ({self.parameter_count(trainable_only=True):,} trainable)",
            f"FLOPs for an input of {shape}: {total:,} "
            f"({total // 2:,} multiply-adds; convolutions and matrix products)",
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{super().__str__()}\nTrainable parameters: {self.parameter_count(trainable_only=True):,}"

    def _run_zeros(self, input_size: Sequence[int]) -> None:
        """Run one forward pass of zeros in evaluation mode; modes, buffers and generators are restored after it."""
        like = next(self.parameters(), torch.zeros(()))
        inputs = torch.zeros(1, self.in_channels, *input_size, device=like.device, dtype=like.dtype)
        modes = [(module, module.training) for module in self.modules()]
        buffers = [
            (module, name, buffer, buffer.clone())
            for module in self.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        devices = {weight.device for weight in self.parameters() if weight.is_cuda}
        with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
            self.eval()
            try:
                self(inputs)
            finally:
                for module, training in modes:
                    module.training = training
                for module, name, buffer, content in buffers:
                    buffer.copy_(content)
                    setattr(module, name, buffer)  # a forward pass may have replaced the tensor, not only its content


def _shape_text(output: Any) -> str:
    """Return the shape of a tensor, or of each tensor of a list, without the batch."""
    if isinstance(output, Tensor):
        return "x".join(str(size) for size in output.shape[1:]) or "-"
    if isinstance(output, list | tuple):
        return ", ".join(map(_shape_text, output))
    return type(output).__name__


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
