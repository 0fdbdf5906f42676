"""Layers that the processor's library computes wrongly: every result and gradient compared with exact arithmetic.

    python benchmarks/cpu_convolutions.py --minutes 15 --output layers.jsonl
    python benchmarks/cpu_convolutions.py --minutes 15 --output checked.jsonl --heap checked

Layers of random shapes, and of small grids of shapes in turn: convolutions, transposed ones, linear layers, recurrent
ones and attention. Their results (with and without gradients), input, weight and bias gradients are compared with
float64, which oneDNN does not compute. All memory that nobody wrote holds NaN; with `--heap checked` it holds 3e38, and
a write past the end of a block ends the process (glibc's debugging heap). Each shape is computed by torch's own layer
and by what `replace_convolutions` makes of it. A batch of shapes has its own process. If it dies, or finds a wrong
shape, each of these has a process of its own.

With `--output` each batch is a line of that file, and the same command continues. Without bf16 instructions, which is
said, its shapes teach nothing: they are replaced by the rules that were found with such instructions.
"""

import argparse
import copy
import ctypes
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

from base.subsampled_convolution import SubsampledConv2d
from benchmarks.result_files import json_lines, require_result_file
from trainer.runtime import cpu_convolutions
from trainer.runtime.cpu_convolutions import replace_convolutions

HEAP_LIBRARY = "libc_malloc_debug.so.0"
M_PERTURB = -6  # of glibc's mallopt
BATCH = 250  # shapes of a process
SECONDS = 30  # for one shape; a longer one hangs
PHASES = ("rule", "replaced", "raw")
CHANNELS = tuple(range(1, 34))  # around the blocks of 8 and 16
INSTRUCTIONS = ("DEFAULT",) * 4 + ("AVX512_CORE",) * 2 + ("AVX2",) * 2 + ("SSE41",)


@dataclass(frozen=True)
class Shape:
    """A layer, its input, and how it is computed.

    Attributes:
        kind: A key of `DIMENSIONS`.
        channels: Of the input; of attention the size of a head.
        out_channels: Of the result.
        size: Height and width, or length; of attention the queries and the keys.
        kernel: Also stride, padding and dilation: one number for each dimension of a convolution.
        groups: Of attention the heads.
        layout: "contiguous" or "last" (channels-last; of series the same by a transposition).
        gradient: Layout of the gradient of the result: "alike", "contiguous" or "expanded".
        dtype: "fp32" or "bf16", which is autocast.
    """

    kind: str
    channels: int
    out_channels: int
    size: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    batch: int = 2
    bias: bool = True
    layout: str = "contiguous"
    gradient: str = "alike"
    dtype: str = "fp32"
    threads: int = 1

    def is_possible(self) -> bool:
        """Whether torch has such a layer with a result of at least one element."""
        if self.channels % self.groups or self.out_channels % self.groups:
            return False
        reach = [step * (side - 1) + 1 for side, step in zip(self.kernel, self.dilation, strict=True)]
        if self.kind.startswith("transposed"):
            every = zip(self.size, self.stride, self.padding, reach, strict=True)
            return all((side - 1) * step - 2 * pad + wide > 0 for side, step, pad, wide in every)
        return all(side + 2 * pad >= wide for side, pad, wide in zip(self.size, self.padding, reach, strict=False))

    def __str__(self) -> str:
        at = "x".join(map(str, self.size))
        text = f"{self.dtype} {self.kind} {self.channels}->{self.out_channels} at {self.batch}x{at}"
        for name in ("kernel", "stride", "padding", "dilation"):
            if value := getattr(self, name):
                text += f" {name[0]}{'x'.join(map(str, value))}"
        return f"{text} g{self.groups} {self.layout} {self.gradient} {'bias ' * self.bias}t{self.threads}"


CONVOLUTIONS: dict[str, Any] = {
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "transposed1d": nn.ConvTranspose1d,
    "transposed2d": nn.ConvTranspose2d,
}
DIMENSIONS = {kind: int(kind[-2]) for kind in CONVOLUTIONS}
OTHERS = ("linear", "lstm", "gru", "attention", "multihead")
# Largest error of an element relative to its scale, and of a tensor relative to its norm. Rounding alone stays below a
# third of them; memory that is read or left out by mistake exceeds them by far.
TOLERANCES = {"fp32": (1e-5, 1e-5), "bf16": (0.03, 0.015)}
LOOSE = {"fp32": (1e-4, torch.inf), "bf16": (0.25, torch.inf)}  # layers that round between their steps


class Attention(nn.Module):
    """Scaled dot-product attention as a layer."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, Q, heads * E), (B, K, heads * E) -> (B, Q, heads * E), float."""
        query, key, value = (
            each.view(*each.shape[:2], self.heads, -1).transpose(1, 2) for each in (query, key, key.flip(1))
        )
        return nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class First(nn.Module):
    """A layer that returns a tuple, with only its first item as result; attention to a second input."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, query: Tensor, key: Tensor | None = None) -> Tensor:
        """Compute the layer, with the key as value, too."""
        result: Tensor = (self.layer(query) if key is None else self.layer(query, key, key, need_weights=False))[0]
        return result


def make_layer(shape: Shape) -> nn.Module:
    """Return the layer of a shape, its weights exact in bf16."""
    if shape.kind in CONVOLUTIONS:
        arguments = (shape.channels, shape.out_channels, shape.kernel, shape.stride, shape.padding)
        options = {"dilation": shape.dilation, "groups": shape.groups, "bias": shape.bias}
        layer: nn.Module = CONVOLUTIONS[shape.kind](*arguments, **options)
    elif shape.kind == "linear":
        layer = nn.Linear(shape.channels, shape.out_channels, bias=shape.bias)
    elif shape.kind in ("lstm", "gru"):
        recurrent: Any = {"lstm": nn.LSTM, "gru": nn.GRU}[shape.kind]
        layer = First(recurrent(shape.channels, shape.out_channels, bias=shape.bias, batch_first=True))
    elif shape.kind == "multihead":
        width = shape.channels * shape.groups
        layer = First(nn.MultiheadAttention(width, shape.groups, bias=shape.bias, batch_first=True))
    else:
        layer = Attention(shape.groups)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(weight.bfloat16())
    return layer.to(memory_format=torch.channels_last) if shape.layout == "last" else layer


def make_inputs(shape: Shape) -> list[Tensor]:
    """Return the inputs of a shape, exact in bf16."""
    if shape.kind in DIMENSIONS:
        inputs = torch.randn(shape.batch, shape.channels, *shape.size).bfloat16().float()
        if shape.layout == "last":
            inputs = inputs.movedim(1, -1).contiguous().movedim(-1, 1)
        return [inputs]
    width = shape.channels * (shape.groups if shape.kind in ("attention", "multihead") else 1)
    return [torch.randn(shape.batch, length, width).bfloat16().float() for length in shape.size]


def output_gradient(shape: Shape, output: Tensor) -> Tensor:
    """Return a gradient of the result in the layout that the shape asks for, exact in bf16."""
    if shape.gradient == "expanded":
        return torch.randn(()).bfloat16().to(output.dtype).expand(output.shape)
    values = torch.randn(output.shape).bfloat16().to(output.dtype)
    if shape.gradient == "contiguous":
        return values
    return torch.empty_like(output).copy_(values)


def results_of(layer: nn.Module, inputs: list[Tensor], gradient: Tensor, dtype: str = "fp32") -> dict[str, Tensor]:
    """Return the result, every gradient, and the result in evaluation."""
    given = [each.detach().requires_grad_() for each in inputs]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        output = layer.train()(*given)
    output.backward(gradient)
    found = {"result": output.detach()}
    found |= {f"gradient of input {number}": each.grad for number, each in enumerate(given) if each.grad is not None}
    found |= {f"gradient of {name}": each.grad for name, each in layer.named_parameters() if each.grad is not None}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        found["result in evaluation"] = layer.eval()(*inputs)
    return found


def exact_results(layer: nn.Module, inputs: list[Tensor], gradient: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each result in float64, and the scale of its rounding errors: of a sum that of its terms' absolute values.

    In a layer that is not linear it is the largest absolute value of a result, or a third of that of all, since a
    gradient of zero is a difference of others.
    """
    exact = copy.deepcopy(layer).double()
    wanted = results_of(exact, [each.double() for each in inputs], gradient.double())
    if isinstance(layer, Attention | First):
        floor = 0.3 * max(float(each.abs().max()) for each in wanted.values())
        return {name: (each, each.abs().max().clamp(min=floor)) for name, each in wanted.items()}
    with torch.no_grad():
        for weight in exact.parameters():
            weight.abs_()
    exact.zero_grad()
    sums = results_of(exact, [each.double().abs() for each in inputs], gradient.double().abs())
    return {name: (each, sums[name]) for name, each in wanted.items()}


def errors(shape: Shape, layer: nn.Module, inputs: list[Tensor], gradient: Tensor, exact: Any) -> dict[str, Any]:
    """Return the errors of the results of a layer that are above the tolerance of the shape, by name."""
    try:
        found = results_of(layer, inputs, gradient, shape.dtype)
    except RuntimeError as error:
        return {"refuses": str(error).splitlines()[0]}
    of_element, of_norm = (LOOSE if isinstance(layer, Attention | First) else TOLERANCES)[shape.dtype]
    wrong: dict[str, Any] = {}
    for name, (wanted, scale) in exact.items():
        difference = (found[name].double() - wanted).abs().nan_to_num(torch.inf)
        element = float((difference / (scale + 1e-30)).max())
        norm = float(difference.norm() / (wanted.norm() + 0.01 * scale.expand_as(wanted).norm() + 1e-30))
        if element > of_element or norm > of_norm:
            wrong[name] = "NaN" if found[name].isnan().any() else f"{max(element, norm):.2g}"
    return wrong


def rule_of(layer: nn.Module, replacement: nn.Module, inputs: Tensor) -> str | None:
    """Return the rule by which what `replace_convolutions` returned computes inputs otherwise than torch's layer."""
    for rule in (SubsampledConv2d, cpu_convolutions.Float32Training, cpu_convolutions.Float32Always):
        if any(isinstance(part, rule) for part in replacement.modules()):
            return rule.__name__
    if isinstance(replacement, cpu_convolutions.NarrowFloat32) and replacement.is_narrow(inputs.shape[-1]):
        return "NarrowFloat32"
    return None if getattr(layer, "dilation", 1) == getattr(replacement, "dilation", 1) else "undilated"


def examine(shape: Shape, report: Callable[[Any], None]) -> None:
    """Compute a shape with the layer that takes the place of torch's, then with torch's own.

    Args:
        shape: The layer.
        report: Gets the rule that replaces the layer, the errors of the replacement (None if there is none), and the
            errors of torch's layer, each as soon as it is known: the process may die of the next.
    """
    torch.manual_seed(0)
    torch.set_num_threads(shape.threads)
    layer, inputs = make_layer(shape), make_inputs(shape)
    with torch.no_grad():
        output = copy.deepcopy(layer).double()(*[each.double() for each in inputs])
    gradient = output_gradient(shape, output.to(torch.bfloat16 if shape.dtype == "bf16" else torch.float32))
    exact = exact_results(layer, inputs, gradient)
    replacement = replace_convolutions(copy.deepcopy(layer), in_bf16=shape.dtype == "bf16")
    rule = rule_of(layer, replacement, inputs[0])
    report(rule)
    report(None if rule is None else errors(shape, replacement, inputs, gradient, exact))
    report(errors(shape, layer, inputs, gradient, exact))


def random_shape(rng: random.Random) -> Shape:
    """Draw a shape of any kind."""
    kind = rng.choice(["conv2d"] * 6 + ["conv1d"] * 3 + ["transposed1d", "transposed2d"] * 2 + list(OTHERS))
    common: dict[str, Any] = {
        "batch": rng.choice((1, 2, 7)),
        "bias": rng.random() < 0.5,
        "layout": rng.choice(("contiguous", "last", "last")),
        "gradient": rng.choice(("alike", "alike", "contiguous", "expanded")),
        "dtype": rng.choice(("fp32", "bf16", "bf16")),
        "threads": rng.choice((1, 1, 1, 2)),
    }
    channels, out_channels = rng.choice(CHANNELS), rng.choice(CHANNELS)
    if kind not in DIMENSIONS:
        size = tuple(rng.choice((1, 2, 3, 5, 8, 16, 17, 33)) for _ in range(1 + (kind in ("attention", "multihead"))))
        heads = rng.choice((1, 2, 3, 4)) if len(size) == 2 else 1
        return Shape(kind, channels, out_channels * heads, size, groups=heads, **{**common, "layout": "contiguous"})
    dimensions = DIMENSIONS[kind]
    is_square = rng.random() < 0.6

    def draw(values: Any) -> tuple[int, ...]:
        return (rng.choice(values),) * dimensions if is_square else tuple(rng.choice(values) for _ in range(dimensions))

    groups = rng.choice((1, 1, 1, channels, channels, 2, 3, 4))
    if groups == channels > 1 and rng.random() < 0.7:
        out_channels = channels
    kernel, dilation = draw((1, 1, 2, 3, 3, 4, 5, 6, 7)), draw((1, 1, 1, 2, 3))
    padding = tuple(
        rng.choice((0, 1, side // 2, step * (side // 2))) for side, step in zip(kernel, dilation, strict=True)
    )
    size = tuple(rng.choice((1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 17, 28, 33, 64)) for _ in range(dimensions))
    stride = draw((1, 1, 2, 2, 3, 4))
    if (special := rng.random()) < 0.1:  # patches, and inputs of a single one
        stride, padding, dilation = kernel, (0,) * dimensions, (1,) * dimensions
        size = tuple(side * rng.choice((1, 1, 2, 5)) for side in kernel)
    elif special < 0.15:  # shortcuts of residual networks on larger inputs
        kernel, stride, padding, dilation = ((value,) * dimensions for value in (1, 2, 0, 1))
        size = tuple(rng.choice((32, 48, 64)) for _ in range(dimensions))
    return Shape(kind, channels, out_channels, size, kernel, stride, padding, dilation, groups, **common)


def small_grid() -> list[Shape]:
    """Return every convolution of a grid of kernels, strides, sizes, channels, paddings, groups and layouts."""
    shapes = []
    axes = (DIMENSIONS, range(1, 8), (1, 2, 3, 4), (1, 2), (1, 2, 3, 4, 5, 8), (1, 3, 8, 16, 17, 32), (False, True))
    for kind, side, step, dilation, width, channels, is_padded in product(*axes):
        dimensions = DIMENSIONS[kind]
        size = (4, width)[-dimensions:]
        every = [(value,) * dimensions for value in (side, step, dilation * (side // 2) * is_padded, dilation)]
        for groups, layout, dtype in product({1, channels}, ("contiguous", "last"), ("fp32", "bf16")):
            out_channels = 16 if groups == 1 else channels
            kernel, stride, padding, dilations = every
            shape = Shape(kind, channels, out_channels, size, kernel, stride, padding, dilations, groups)
            shapes.append(replace(shape, layout=layout, dtype=dtype))
    return [shape for shape in shapes if shape.is_possible()]


def batches(seed: int) -> Iterator[tuple[str, list[Shape]]]:
    """Yield batches of shapes with their instruction set: random ones and those of the grid in turn, without end."""
    grid = small_grid()
    random.Random(seed).shuffle(grid)
    position, number = 0, 0
    while True:
        rng = random.Random(f"{seed} {number}")
        instructions = rng.choice(INSTRUCTIONS)
        if number % 2 and position < len(grid):
            shapes = grid[position : position + BATCH]
            position += BATCH
        else:
            shapes = []
            while len(shapes) < BATCH:
                if (shape := random_shape(rng)).is_possible():
                    shapes.append(shape)
        yield instructions, shapes
        number += 1


def in_child(shapes: list[Shape], instructions: str) -> tuple[list[dict[str, Any]], str]:
    """Examine shapes in a process of their own; returns what is known of each, and how the process died ("": not)."""
    read_end, write_end = os.pipe()

    def report(found: Any) -> None:
        os.write(write_end, (json.dumps(found) + "\n").encode())

    child = os.fork()
    if child == 0:
        os.environ["ONEDNN_MAX_CPU_ISA"] = instructions
        try:
            for shape in shapes:
                signal.alarm(SECONDS)
                examine(shape, report)
        except BaseException:  # the process is a copy of its parent, and must not continue
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        reports = [json.loads(line) for line in pipe]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    starts = range(0, len(reports), len(PHASES))
    found = [dict(zip(PHASES, reports[at : at + len(PHASES)], strict=False)) for at in starts]
    return found, "" if code == 0 else "hangs" if -code == signal.SIGALRM else f"exit {code}"


def alone(shape: Shape, instructions: str) -> dict[str, Any]:
    """Examine a shape in a process of its own; a replacement that dies leaves torch's layer unexamined."""
    found, death = in_child([shape], instructions)
    verdict: dict[str, Any] = {"rule": None, "raw": {}, **(found[0] if found else {})}
    if death:
        verdict["raw" if "replaced" in verdict else "replaced"] = {"dies": death}
    return {"replaced": None, **verdict}


def examine_batch(shapes: list[Shape], instructions: str) -> list[dict[str, Any]]:
    """Examine shapes, each that is wrong or that a process died of again by itself; returns what is known of each."""
    results: list[dict[str, Any]] = []
    while len(results) < len(shapes):
        found, death = in_child(shapes[(begin := len(results)) :], instructions)
        if death:  # of the last shape or, if that survives by itself, of an earlier one
            position = min(begin + sum("raw" in verdict for verdict in found), len(shapes) - 1)
            last = alone(shapes[position], instructions)
            found = found[: position - begin]
            if not is_wrong(last):
                found = [alone(shape, instructions) for shape in shapes[begin:position]]
                if not any(map(is_wrong, found)):
                    last["raw"] = {"dies": f"{death}, after others only"}
            found.append(last)
        results += found
    for position, (shape, verdict) in enumerate(zip(shapes, results, strict=True)):
        if is_wrong(verdict) and "dies" not in str(verdict):
            again = alone(shape, instructions)
            results[position] = again if is_wrong(again) else {**verdict, "alone": "right"}
    return results


def is_wrong(verdict: dict[str, Any]) -> bool:
    """Whether torch's layer or its replacement was wrong; one that torch refuses with these instructions is not."""
    return any(errors and "refuses" not in errors for errors in (verdict.get("raw"), verdict.get("replaced")))


def word_for(found: dict[str, Any]) -> str:
    """Return whether errors mean "right", "refused" by torch, or "wrong"."""
    return "refused" if "refuses" in found else "wrong" if found else "right"


def examine_until(end: float, seed: int, output: Path | None) -> list[dict[str, Any]]:
    """Examine batches until a time of the clock; returns those of this and of earlier runs into the same file."""
    lines = [] if output is None or not output.exists() else [json.loads(line) for line in output.open()]
    for number, (instructions, shapes) in enumerate(batches(seed)):
        if number < len(lines):
            continue
        if time.time() > end:
            break
        verdicts = examine_batch(shapes, instructions)
        pairs = list(zip(shapes, verdicts, strict=True))
        counts = Counter(
            f"{shape.kind} {shape.dtype} {found['rule']} {word_for(found['raw'])}" for shape, found in pairs
        )
        wrong = [asdict(shape) | {"found": verdict} for shape, verdict in pairs if is_wrong(verdict)]
        lines.append({"batch": number, "instructions": instructions, "counts": counts, "wrong": wrong})
        if output is not None:
            with output.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
        print(f"\r{BATCH * len(lines)} shapes, {sum(len(line['wrong']) for line in lines)} wrong", end="", flush=True)
    print()
    return lines


def print_tables(lines: list[dict[str, Any]], *, is_complete: bool) -> bool:
    """Print what was found, by rule and by shape; returns whether every layer was right after `replace_convolutions`.

    Args:
        lines: Of batches.
        is_complete: Name also the wrong shapes that are replaced.
    """
    total: Counter[str] = sum((Counter(line["counts"]) for line in lines), Counter())
    print("\n| kind | precision | computed by | shapes | torch's layer wrong | refused |\n|---|---|---|---|---|---|")
    for kind, dtype, rule in sorted({tuple(key.split()[:3]) for key in total}):
        right, wrong, refused = (total[f"{kind} {dtype} {rule} {word}"] for word in ("right", "wrong", "refused"))
        computed_by = "torch" if rule == "None" else rule
        print(f"| {kind} | {dtype} | {computed_by} | {right + wrong + refused} | {wrong} | {refused or ''} |")
    print("\n| wrong shape | instructions | computed by | torch's layer | replacement | |\n|---|---|---|---|---|---|")
    names = [field.name for field in fields(Shape)]
    is_right = True
    for line in lines:
        for found in line["wrong"]:
            verdict = found["found"]
            is_left = bool(verdict["replaced"]) or verdict["rule"] is None
            is_right &= not is_left
            if is_left or is_complete:
                shape = Shape(**{name: found[name] for name in names})
                told = " | ".join(str(verdict.get(name) or "") for name in ("rule", "raw", "replaced", "alone"))
                print(f"| {shape} | {line['instructions']} | {told} |")
    return is_right


def prepare_process(heap: str) -> str:
    """Let unwritten memory hold NaN, or start this program again with a checked heap; returns what memory holds."""
    settings = {"OMP_WAIT_POLICY": "PASSIVE", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    if heap == "checked":
        settings |= {"LD_PRELOAD": HEAP_LIBRARY, "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "128"}
    if any(os.environ.get(name) != value for name, value in settings.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})
    if heap == "plain" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_PERTURB, 256)  # each byte of new memory is 255
    memory = torch.empty(10_000)
    held = "NaN" if memory.isnan().all() else "3e38" if (memory > 1e38).all() else "anything: faults may stay unseen"
    return f"unwritten memory holds {held}"


def main() -> int:
    """Examine shapes and print tables; returns 1 if a layer is wrong after `replace_convolutions`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=5.0, help="end after this time (default: 5)")
    parser.add_argument("--output", type=Path, help="file of results, which an equal command continues")
    parser.add_argument(
        "--heap", choices=("plain", "checked"), default="plain", help="checked: finds writes past blocks"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the shapes (default: 0)")
    parser.add_argument("--all", action="store_true", help="name also the wrong shapes that are replaced")
    arguments = parser.parse_args()
    require_result_file(arguments.output, json_lines("batch", "instructions", "counts", "wrong"), ".jsonl")
    memory = prepare_process(arguments.heap)
    has_bf16 = any(getattr(torch.cpu, f"_is_{name}_supported")() for name in ("avx512_bf16", "amx_tile"))
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {memory}")
    if not has_bf16:
        print("no bf16 instructions: shapes in bf16 tell nothing about processors that have them; their rules stay")
    lines = examine_until(time.time() + 60 * arguments.minutes, arguments.seed, arguments.output)
    return 0 if print_tables(lines, is_complete=arguments.all) else 1


if __name__ == "__main__":
    sys.exit(main())
