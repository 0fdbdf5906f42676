"""From a network to a program that runs without its code, and what sizes that program takes.

B batch, C channels, K classes, H, W size of the input, T steps of a series.
"""

import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from base.base_model import main_output
from utils.errors import EspalierError, ExportError

SIDES = {3: ("batch", "length"), 4: ("batch", "height", "width")}  # by the dimensions of the input, channels left out
# What networks want the sides of their input to be a multiple of, the least demanding first.
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
TOLERANCE = 1e-3  # of logits, at sizes other than the traced one
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Side:
    """What lengths one side of the input may have.

    Attributes:
        fixed: The only one; None where it may vary.
        least: The smallest.
        multiple: Of what it must be a multiple.
    """

    fixed: int | None = None
    least: int = 1
    multiple: int = 1

    def takes(self, length: int) -> bool:
        """Whether a length will do."""
        return length == self.fixed if self.fixed else length >= self.least and length % self.multiple == 0

    def __str__(self) -> str:
        if self.fixed:
            return str(self.fixed)
        return f"{self.least} or more" + (f", a multiple of {self.multiple}" if self.multiple > 1 else "")


@dataclass(frozen=True)
class Traced:
    """A network as a program.

    Attributes:
        program: input (B, C, H, W) or (B, C, T) float32 -> logits (B, K, H, W), of a classifier (B, K).
        sides: What batch, height and width, or batch and length, may be.
        num_classes: K.
    """

    program: ExportedProgram
    sides: dict[str, Side]
    num_classes: int

    def plain_sides(self) -> dict[str, Any]:
        """The sides as plain data."""
        return {name: asdict(side) for name, side in self.sides.items()}


class LogitsOnly(nn.Module):
    """A network without auxiliary logits, its input called `input`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input: Tensor) -> Tensor:
        """Inputs (B, C, ...) float32 -> the network's own logits."""
        return main_output(self.network(input))


@torch.no_grad()
def trace(model: nn.Module, in_channels: int, size: tuple[int, ...]) -> Traced:
    """Turn a network into a program with as many free sides as it allows, found out by trying.

    Args:
        model: In evaluation mode, on the processor.
        in_channels: Channels of the input.
        size: (height, width) of the input, or (length,) of a series.

    Raises:
        ExportError: torch cannot trace it even with every side fixed.
    """
    network = LogitsOnly(copy.deepcopy(model).to(memory_format=torch.contiguous_format))
    reasons: list[str] = []
    for batch, free in ((2, (0, *range(2, 2 + len(size)))), (2, (0,)), (1, ())):
        example = torch.zeros(batch, in_channels, *size)
        dimensions = dict.fromkeys(free, Dim.AUTO)
        try:
            with quiet():
                program = torch.export.export(network, (example,), dynamic_shapes=(dimensions,))
            traced = Traced(program, _sides(program, network, size), int(network(example).shape[1]))
            _try_out(traced, network, example)
        except Exception as error:  # a network's code may raise anything while it is traced
            reasons.append(_first_line(error))
            logger.debug("Not traced with %s free: %s", free, error)
        else:
            return traced
    raise ExportError(
        f"{type(model).__name__}: torch cannot trace it ({reasons[-1]}). A network to export must not decide by the "
        "values of its input, nor change its own state. Change its forward, or name another --size."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the tools of tracing from talking of themselves.

    They log every symbol that they find, and warn of each other's ageing parts.
    """
    loggers = [logging.getLogger(name) for name in ("torch.__trace", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def runnable(program: ExportedProgram) -> Callable[[Tensor], Tensor]:
    """The program as a function.

    It checks no guards: they hold the memory layout of the traced size, too. `Side.takes` holds what matters.
    """
    options = {"check_guards": False} if "check_guards" in inspect.signature(program.module).parameters else {}
    module = program.module(**options)

    def run(inputs: Tensor) -> Tensor:  # not the module itself: it refuses eval()
        logits: Tensor = module(inputs)
        return logits

    return run


def sides_of(shape: Sequence[Any]) -> dict[str, Any]:
    """The sides of an input (B, C, ...) by their names."""
    return dict(zip(SIDES[len(shape)], (shape[0], *shape[2:]), strict=True))


def _sides(program: ExportedProgram, network: nn.Module, size: tuple[int, ...]) -> dict[str, Side]:
    """What the program's input may be, as its tracing left it."""
    (name,) = program.graph_signature.user_inputs
    node = next(node for node in program.graph.nodes if node.name == name)
    shape = node.meta["val"].shape
    sides = {}
    for side, length in sides_of(shape).items():
        if isinstance(length, int):
            if side == "batch" and length > 1:
                raise ValueError("the batch is not free")
            sides[side] = Side(fixed=length)
        elif side == "batch":
            sides[side] = Side()
        else:
            multiple = _multiple(network, int(shape[1]), size)
            bound = int(length.node.shape_env.bound_sympy(length.node.expr).lower)
            sides[side] = Side(least=-(-bound // multiple) * multiple, multiple=multiple)
    return sides


def _multiple(network: nn.Module, in_channels: int, size: tuple[int, ...]) -> int:
    """Of what the network itself wants all sides to be a multiple."""
    for multiple in MULTIPLES:
        if any(side % multiple for side in size):
            break
        try:
            network(torch.zeros(1, in_channels, *(side + (place + 1) * multiple for place, side in enumerate(size))))
        except (RuntimeError, ValueError, AssertionError, EspalierError):  # it does not take this size
            continue
        return multiple
    raise ValueError(f"the network takes no other size than {'x'.join(map(str, size))}")


def _try_out(traced: Traced, network: nn.Module, example: Tensor) -> None:
    """Compare program and network at other lengths of every free side.

    Raises:
        ValueError: They differ.
    """
    run, (batch, channels, *own) = runnable(traced.program), example.shape
    grown = [
        length if side.fixed else length + factor * side.multiple
        for factor, (length, side) in enumerate(zip(own, list(traced.sides.values())[1:], strict=True), start=1)
    ]
    batches = [batch] if traced.sides["batch"].fixed else [1, 3]
    generator = torch.Generator().manual_seed(0)
    for count, sides in zip(batches, (grown, own), strict=False):
        inputs = torch.rand(count, channels, *sides, generator=generator)
        expected, found = network(inputs), run(inputs)
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise ValueError(f"the traced program differs from the network at {tuple(inputs.shape)}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
