"""What every network offers beside its forward pass: its size, its cost and a table of its parts."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class _Row(NamedTuple):
    """One line of the summary."""

    name: str
    kind: str
    output: str
    parameters: int
    flops: int


class BaseModel(nn.Module, ABC):
    """A network; a subclass writes `__init__` with plain typed arguments, and `forward`.

    Attributes:
        in_channels: Channels of the input; a subclass that takes others than three sets it.
        auxiliary_weights: Factors in the loss of the auxiliary outputs that it gives in training mode.
    """

    in_channels: int = 3
    auxiliary_weights: Sequence[float] = ()

    @abstractmethod
    def forward(self, inputs: Tensor) -> Any:
        """Inputs (B, C, H, W) float -> logits (B, K, H, W) float, or a tuple (logits, auxiliary logits, ...).

        A classifier gives (B, K); one of series takes (B, V, T), with V variables as its channels.
        """

    @classmethod
    def canonical_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments in the form that all share which make the same network, so that a search tries it once."""
        return dict(arguments)

    def parameter_count(self, trainable_only: bool = False) -> int:
        """Number of weights; only those that an optimizer may change where `trainable_only`."""
        return _count_parameters(self, trainable_only)

    def flops(self, input_size: Sequence[int]) -> int:
        """FLOPs of one forward pass of one sample: convolutions and matrix products, a multiply-add counted as two.

        Args:
            input_size: (H, W) of the input, or (T,) of a series; the channels are `in_channels`.
        """
        counter = FlopCounterMode(display=False)
        with counter:
            self._probe(input_size)
        return int(counter.get_total_flops())

    def summary(self, input_size: Sequence[int], depth: int = 3) -> str:
        """A table of the parts in the order in which they run: name, type, output shape, parameters, FLOPs.

        Modes, buffers and generators are afterwards what they were before.

        Args:
            input_size: (H, W) of the input, or (T,) of a series.
            depth: How deep to look into parts of parts.
        """
        outputs: dict[str, str] = {}
        counter = FlopCounterMode(display=False)
        with ExitStack() as stack:
            for name, module in self.named_modules():
                if name and name.count(".") < depth:
                    stack.callback(module.register_forward_hook(_shape_recorder(outputs, name)).remove)
            with counter:
                self._probe(input_size)
        per_module = {key: int(sum(counts.values())) for key, counts in counter.get_flop_counts().items()}
        modules = dict(self.named_modules())
        # A part's hook runs after those of its own parts: the table has the whole before its parts.
        order = {name: position for position, name in enumerate(modules)}
        rows = [
            _Row(
                "  " * name.count(".") + name,
                type(modules[name]).__name__,
                outputs[name],
                _count_parameters(modules[name]),
                per_module.get(f"{type(self).__name__}.{name}", 0),
            )
            for name in sorted(outputs, key=order.__getitem__)
        ]
        return "\n".join([*_format_rows(rows), "", self._totals(input_size, per_module.get("Global", 0))])

    def __str__(self) -> str:
        return f"{super().__str__()}\nTrainable parameters: {self.parameter_count(trainable_only=True):,}"

    def _totals(self, input_size: Sequence[int], flops: int) -> str:
        shape = "x".join(str(size) for size in (1, self.in_channels, *input_size))
        trainable = self.parameter_count(trainable_only=True)
        return (
            f"Parameters: {self.parameter_count():,} ({trainable:,} trainable)\n"
            f"FLOPs for an input of {shape}: {flops:,} ({flops // 2:,} multiply-adds; convolutions and matrix products)"
        )

    def _probe(self, input_size: Sequence[int]) -> None:
        """One forward pass of zeros that leaves no trace."""
        like = next(self.parameters(), torch.zeros(()))
        inputs = torch.zeros(1, self.in_channels, *input_size, device=like.device, dtype=like.dtype)
        with _untouched(self), torch.no_grad():
            self(inputs)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a block; modes, buffers and generators are put back after it."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    devices = {weight.device for weight in model.parameters() if weight.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            for module, name, buffer, content in buffers:
                buffer.copy_(content)
                setattr(module, name, buffer)


def _count_parameters(module: nn.Module, trainable_only: bool = False) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad or not trainable_only)


def _shape_recorder(outputs: dict[str, str], name: str) -> Any:
    """A forward hook that notes the shape of what the part gives."""

    def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs[name] = _describe(output)

    return record


def _describe(output: Any) -> str:
    """Shape of a tensor, or of each tensor of a list, without the batch."""
    if isinstance(output, Tensor):
        return "x".join(str(size) for size in output.shape[1:]) or "-"
    if isinstance(output, list | tuple):
        return ", ".join(_describe(part) for part in output)
    return type(output).__name__


def _format_rows(rows: Sequence[_Row]) -> list[str]:
    """The rows as aligned text under a header."""
    header = ("Part", "Type", "Output", "Parameters", "FLOPs")
    cells = [(row.name, row.kind, row.output, f"{row.parameters:,}", f"{row.flops:,}") for row in rows]
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
    lines = [
        "  ".join(
            text.ljust(width) if column < 3 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, *cells]
    ]
    return [lines[0], "-" * max(len(line) for line in lines), *lines[1:]]


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
