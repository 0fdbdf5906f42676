"""A network as a table of its parts, at a length that can be read, and a look at it that leaves no trace."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from base.inspection.failures import run_network, size_text
from base.inspection.flops import flop_counter

TABLE_HEADER = ("Part", "Type", "Output", "Parameters", "FLOPs")
TABLE_ROWS = 32  # of a table whose depth is not asked for: with head and sums it fits on a screen
_LONGEST_CELL = 48


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restore the modes and buffers of a network after a block, and the generators of torch."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    devices = {weight.device for weight in model.parameters() if weight.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            with torch.no_grad():
                for module, name, buffer, content in buffers:
                    buffer.copy_(content)
                    setattr(module, name, buffer)  # a forward pass may have replaced the tensor, not only its content


def num_weights(module: nn.Module, *, trainable_only: bool = False) -> int:
    """Return the number of weights of a module; lazy ones, which have no size yet, count as none."""
    return sum(
        weight.numel()
        for weight in module.parameters()
        if not isinstance(weight, UninitializedParameter) and (weight.requires_grad or not trainable_only)
    )


@dataclass
class _Part:
    """A part that has run: its module, the shape of its last output, and the FLOPs of all its calls."""

    name: str
    module: nn.Module
    output: str = ""
    flops: int = 0

    @property
    def depth(self) -> int:
        return self.name.count(".") + 1

    def row(self) -> tuple[str, ...]:
        indented = "  " * (self.depth - 1) + self.name
        kind = type(self.module).__name__
        return indented, kind, self.output, f"{num_weights(self.module):,}", f"{self.flops:,}"


def network_summary(model: nn.Module, example: Tensor, depth: int | None = None) -> str:
    """Return a table of the parts of any network in order: name, type, output shape, parameters, FLOPs.

    One forward pass runs in evaluation mode. Weights, modes, buffers and torch's generators are the same afterwards.

    Args:
        model: The network, not wrapped for several devices.
        example: (B, C, H, W) float, or (B, V, T) of series: inputs as the loader yields them, of which the first is
            taken.
        depth: Number of levels of parts within parts; by default as many as fit into `TABLE_ROWS` rows.

    Raises:
        ConfigError: The network cannot take the example; the message names the part and the argument to change.
        OutOfMemory: Memory ran out.
    """
    like = next((weight for weight in model.parameters() if weight.is_floating_point()), torch.zeros(()))
    inputs = example[:1].to(like.device)
    if inputs.is_floating_point():
        inputs = inputs.to(like.dtype)
    parts, flops, output = _run_parts(model, inputs)
    shown = _parts_shown(parts, depth)
    rows = [TABLE_HEADER, *(each.row() for each in shown[0])]
    lines = _aligned(rows)
    if shown[1]:
        lines.insert(1 + len(shown[0]) // 2, f"... {shown[1]} more parts ...")
    lines.insert(1, "-" * max(map(len, lines)))
    trainable = num_weights(model, trainable_only=True)
    return "\n".join(
        [
            *lines,
            "",
            f"{type(model).__name__}: an input of {size_text(inputs.shape)} gives an output of {shapes_text(output)}",
            f"Parameters: {num_weights(model):,} ({trainable:,} trainable)",
            f"FLOPs for an input of {size_text(inputs.shape)}: {flops:,} "
            f"({flops // 2:,} multiply-adds; convolutions and matrix products)",
        ]
    )


def _run_parts(model: nn.Module, inputs: Tensor) -> tuple[list[_Part], int, Any]:
    """Return the parts that an input runs through in the order of the network, all FLOPs, and the output."""
    counter = flop_counter()
    parts = {name: _Part(name, module) for name, module in model.named_modules() if name}
    begun: dict[str, list[int]] = {name: [] for name in parts}

    def enter(part: _Part, _module: nn.Module, _inputs: Any) -> None:
        begun[part.name].append(int(counter.get_total_flops()))

    def leave(part: _Part, _module: nn.Module, _inputs: Any, output: Any) -> None:
        part.output = shapes_text(output, skipped=1)
        part.flops += int(counter.get_total_flops()) - begun[part.name].pop()

    hooks = []
    for part in parts.values():
        hooks.append(part.module.register_forward_pre_hook(partial(enter, part)))
        hooks.append(part.module.register_forward_hook(partial(leave, part)))
    try:
        with untouched(model), torch.no_grad(), counter:
            output = run_network(model.eval(), inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [part for part in parts.values() if part.output], int(counter.get_total_flops()), output


def _parts_shown(parts: Sequence[_Part], depth: int | None) -> tuple[list[_Part], int]:
    """Return the parts down to a depth, and how many in the middle were left out since they are too many."""
    if depth is not None:
        return [part for part in parts if part.depth <= depth], 0
    depths = sorted({part.depth for part in parts}, reverse=True)
    for deepest in depths:
        shown = [part for part in parts if part.depth <= deepest]
        if len(shown) <= TABLE_ROWS:
            return shown, 0
    highest = [part for part in parts if part.depth <= depths[-1]] if depths else []
    left_out = len(highest) - TABLE_ROWS
    if left_out <= 0:
        return highest, 0
    half = TABLE_ROWS // 2
    return [*highest[:half], *highest[-half:]], left_out


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose first three columns are text and whose others are numbers."""
    cut = [[text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 3]}..." for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if column < 3 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cut
    ]


def shapes_text(output: Any, skipped: int = 0) -> str:
    """Return the shape of a tensor, or those of all tensors in lists and dictionaries, as text.

    Args:
        output: Of a network or a part of one.
        skipped: Number of first dimensions to leave out; 1 leaves out the batch.
    """
    if isinstance(output, Tensor):
        return "x".join(map(str, output.shape[skipped:])) or "-"
    if isinstance(output, list | tuple):
        return ", ".join(shapes_text(each, skipped) for each in output) or "-"
    if isinstance(output, dict):
        return ", ".join(f"{name} {shapes_text(each, skipped)}" for name, each in output.items()) or "-"
    return type(output).__name__
