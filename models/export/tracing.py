"""From a network to a program that runs without its code, and the sizes that this program takes.

B batch, C channels, K classes, H, W size of the input, T steps of a series.
"""

import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from base.base_model import main_output
from utils.errors import EspalierError, ExportError

SIDES = {3: ("batch", "length"), 4: ("batch", "height", "width")}  # by the dimensions of the input, channels left out
# Divisors that networks demand of the sides of their input, the least demanding first.
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
TOLERANCE = 1e-3  # of logits, at sizes other than the traced one
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Side:
    """The lengths that one side of the input may have.

    Attributes:
        fixed: The only one; None if it may vary.
        least: The smallest.
        multiple: It must be a multiple of this.
    """

    fixed: int | None = None
    least: int = 1
    multiple: int = 1

    def takes(self, length: int) -> bool:
        """Return whether a length is allowed."""
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
        sides: Lengths that batch, height and width, or batch and length, may have.
        num_classes: K.
    """

    program: ExportedProgram
    sides: dict[str, Side]
    num_classes: int


class LogitsOnly(nn.Module):
    """A network without auxiliary logits, its input called `input`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input: Tensor) -> Tensor:
        """Inputs (B, C, ...) float32 -> the network's main logits."""
        return main_output(self.network(input))


@torch.no_grad()
def trace(model: nn.Module, in_channels: int, size: tuple[int, ...]) -> Traced:
    """Turn a network into a program with as many free sides as it allows, found by trial.

    Args:
        model: In evaluation mode, on the processor.
        in_channels: Channels of the input.
        size: (height, width) of the input, or (length,) of a series.

    Raises:
        ExportError: torch cannot trace it even with every side fixed.
    """
    network = LogitsOnly(copy.deepcopy(model).to(memory_format=torch.contiguous_format))
    # From all sides free to none. torch takes a batch of 1 for a constant, so a free one is traced with 2.
    for batch, free in ((2, (0, *range(2, 2 + len(size)))), (2, (0,)), (1, ())):
        example = torch.zeros(batch, in_channels, *size)
        dimensions = dict.fromkeys(free, Dim.AUTO)
        try:
            with quiet():
                program = torch.export.export(network, (example,), dynamic_shapes=(dimensions,))
            traced = Traced(program, _find_sides(program, network, size), int(network(example).shape[1]))
            _require_same_results(traced, network, example)
        except Exception as error:  # a network's code may raise any error while it is traced
            line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            reason = f"{type(error).__name__}: {line}"[:300]
            logger.debug("Not traced with %s free: %s", free, error)
        else:
            return traced
    raise ExportError(
        f"{type(model).__name__}: torch cannot trace it ({reason}). A network to export must not decide by the "
        "values of its input, nor change its state. Change its forward, or name another --size."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the tools of tracing, which log every symbol, and warn of each other's deprecated parts."""
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


def as_function(program: ExportedProgram) -> Callable[[Tensor], Tensor]:
    """Return the program as a function.

    It checks no guards: they hold the memory layout of the traced size, too. `Side.takes` checks the sizes.
    """
    options = {"check_guards": False} if "check_guards" in inspect.signature(program.module).parameters else {}
    module = program.module(**options)
    return partial(module)  # not the module itself: it refuses eval()


def sides_of(shape: Sequence[Any]) -> dict[str, Any]:
    """Return the sides of an input (B, C, ...) by their names."""
    return dict(zip(SIDES[len(shape)], (shape[0], *shape[2:]), strict=True))


def _find_sides(program: ExportedProgram, network: nn.Module, size: tuple[int, ...]) -> dict[str, Side]:
    """Return the lengths that the program's input may have, as its tracing left it."""
    (name,) = program.graph_signature.user_inputs
    shape = next(node for node in program.graph.nodes if node.name == name).meta["val"].shape
    sides = {}
    for side, length in sides_of(shape).items():
        if isinstance(length, int):
            if side == "batch" and length > 1:
                raise ValueError("the batch is not free")
            sides[side] = Side(fixed=length)
        elif side == "batch":
            sides[side] = Side()
        else:
            multiple = _find_multiple(network, int(shape[1]), size)
            # The tracer knows the least length, but not every divisor: the network itself was asked for that.
            bound = int(length.node.shape_env.bound_sympy(length.node.expr).lower)
            sides[side] = Side(least=-(-bound // multiple) * multiple, multiple=multiple)
    return sides


def _find_multiple(network: nn.Module, in_channels: int, size: tuple[int, ...]) -> int:
    """Return the number of which the network demands that all sides are a multiple."""
    for multiple in MULTIPLES:
        if any(side % multiple for side in size):
            break
        try:
            network(torch.zeros(1, in_channels, *(side + (place + 1) * multiple for place, side in enumerate(size))))
        except (RuntimeError, ValueError, AssertionError, EspalierError):  # it does not take this size
            continue
        return multiple
    raise ValueError(f"the network takes no other size than {'x'.join(map(str, size))}")


def _require_same_results(traced: Traced, network: nn.Module, example: Tensor) -> None:
    """Compare program and network at other lengths of every free side.

    Raises:
        ValueError: They differ.
    """
    run, (batch, channels, *size) = as_function(traced.program), example.shape
    grown = [
        length if side.fixed else length + factor * side.multiple
        for factor, (length, side) in enumerate(zip(size, list(traced.sides.values())[1:], strict=True), start=1)
    ]
    batches = [batch] if traced.sides["batch"].fixed else [1, 3]
    # Random inputs: with zeros, paths that depend on the size may give equal results by chance.
    generator = torch.Generator().manual_seed(0)
    for count, sides in zip(batches, (grown, size), strict=False):
        inputs = torch.rand(count, channels, *sides, generator=generator)
        expected, found = network(inputs), run(inputs)
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise ValueError(f"the traced program differs from the network at {tuple(inputs.shape)}")
