"""A weights step and an architecture step of our supernet against the public PyTorch code of Auto-DeepLab.

    git clone https://github.com/NoamRosenberg/autodeeplab peer
    python benchmarks/auto_deeplab_peer.py peer --setting 'exact={"mixing": "outputs"}' --setting 'mixed={}'

Same sizes, random images, the same loss and the same optimizers: SGD for the weights, Adam for alpha and beta. Each
contender takes the gradients that its own training takes: the public code all of them in both steps, ours only those
that the step uses. The public code runs as it is; what it imports or calls in addition (CUDA, a compiled norm) is
replaced from outside, before it is imported. Each run has a process of its own, contenders take turns, and quoted are
medians over the runs, of the median step of each, and the median ratios of runs of the same round.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

from benchmarks.result_files import require_result_file
from trainer.runtime.activations import recompute_activations

PEER = "public code"
FORWARD = "forward"
KINDS = (FORWARD, "weights", "architecture")
Result = dict[str, float]


@contextmanager
def runnable_on_a_processor(folder: Path) -> Iterator[None]:
    """Let the public code be imported and run without CUDA.

    `.cuda()` moves nothing, and the compiled norm, which the supernet does not use, is an ordinary one.
    """
    norms = ModuleType("modeling.modules")
    norms.InPlaceABNSync = norms.InPlaceABN = nn.BatchNorm2d  # type: ignore[attr-defined]
    moved = torch.Tensor.cuda
    sys.modules["modeling.modules"] = norms
    sys.path.insert(0, str(folder))
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        torch.Tensor.cuda = moved  # type: ignore[method-assign]


def build_peer(options: argparse.Namespace) -> tuple[nn.Module, list[nn.Parameter], list[nn.Parameter]]:
    """The public supernet, its weights and its architecture parameters."""
    network: Any = importlib.import_module("auto_deeplab").AutoDeeplab(
        options.classes, options.layers, None, options.filter_multiplier, options.blocks, options.blocks
    )
    return network, network.weight_parameters(), network.arch_parameters()


def build_ours(
    options: argparse.Namespace, arguments: dict[str, Any]
) -> tuple[nn.Module, list[nn.Parameter], list[nn.Parameter]]:
    """Our supernet, its weights and its architecture parameters."""
    network: Any = importlib.import_module("models.auto_deeplab.supernet").AutoDeepLabSupernet(
        options.classes,
        **{
            "layers": options.layers,
            "blocks": options.blocks,
            "filter_multiplier": options.filter_multiplier,
            "atrous": "separable",
            **arguments,
        },
    )
    architecture = network.architecture_parameters()
    known = set(map(id, architecture))
    return network, [each for each in network.parameters() if id(each) not in known], architecture


def memory_of_process(line: str) -> float:
    """A line of this process's status in MB: `VmRSS` now, `VmHWM` at most."""
    found = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(line))
    return float(found.split()[1]) / 1024


def measure_steps(step: Callable[[], object], steps: int, warm_up: int) -> Result:
    """Seconds by the clock and of the processor for the median step, and the largest memory in MB of all of them."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    for _ in range(warm_up):
        step()
    seconds, processor = [], []
    for _ in range(steps):
        before, used = time.perf_counter(), time.process_time()
        step()
        seconds.append(time.perf_counter() - before)
        processor.append(time.process_time() - used)
    return {
        "seconds": statistics.median(seconds),
        "processor": statistics.median(processor),
        "memory": memory_of_process("VmHWM"),
    }


def run_one(options: argparse.Namespace, name: str) -> Result:
    """Both kinds of step of one contender, in this process."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = torch.randn(options.batch, 3, options.crop, options.crop)
    masks = torch.randint(options.classes, (options.batch, options.crop, options.crop))
    empty = memory_of_process("VmRSS")
    settings = dict(options.setting).get(name, {})
    is_peer = name == PEER
    if settings.pop("channels_last", False):
        images = images.contiguous(memory_format=torch.channels_last)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.pop("bf16", False))
    recomputed = settings.pop("recomputed", [])
    network, weights, architecture = build_peer(options) if is_peer else build_ours(options, settings)
    recompute_activations(network, recomputed)
    network.train()
    optimizers = {
        "weights": torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4),
        "architecture": torch.optim.Adam(architecture, 3e-3, weight_decay=1e-3),
    }
    groups = {"weights": weights, "architecture": architecture}

    def loss() -> Tensor:
        with autocast:
            output = network(images)
        return nn.functional.cross_entropy(output.float(), masks)

    def take(kind: str) -> None:
        for each in chain(weights, architecture):
            each.requires_grad_(is_peer)
        for each in groups[kind]:
            each.requires_grad_(True)
        optimizers[kind].zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizers[kind].step()

    def look() -> None:
        with torch.no_grad():
            loss()

    result = {"empty": empty, "parameters": float(sum(each.numel() for each in weights))}
    for kind in options.kinds:
        step = look if kind == FORWARD else partial(take, kind)
        for measure, value in measure_steps(step, options.steps, options.warm_up).items():
            result[f"{kind} {measure}"] = value
        print(name, kind, f"{result[f'{kind} seconds']:.2f} s", file=sys.stderr, flush=True)  # minutes in between
    return result


def run_in_process(name: str) -> Result:
    """The same in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    result: Result = json.loads(done.stdout.splitlines()[-1])
    print(name, json.dumps({key: round(value, 3) for key, value in result.items()}), file=sys.stderr, flush=True)
    return result


def print_table(rounds: list[dict[str, Result]]) -> None:
    """The medians, and in brackets the ratios to the public code."""
    parts = ("seconds", "processor", "memory")
    measures = [each for each in next(iter(rounds[0].values())) if each.rpartition(" ")[2] in parts]
    print("| | " + " | ".join(measures) + " |")
    print("|---" * (len(measures) + 1) + "|")
    for name in rounds[0]:
        cells = []
        for measure in measures:
            cell = f"{statistics.median(each[name][measure] for each in rounds):.2f}"
            if name != PEER and PEER in rounds[0]:
                ratios = [each[PEER][measure] / each[name][measure] for each in rounds]
                cell += f" ({statistics.median(ratios):.2f})"
            cells.append(cell)
        print(f"| {name} | " + " | ".join(cells) + " |")


def setting(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of `name={...}`."""
    name, _, arguments = text.partition("=")
    return name, json.loads(arguments or "{}")


def main() -> None:
    """Measure all contenders in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=Path, nargs="?", help="folder of the public code; without it only ours")
    parser.add_argument(
        "--setting",
        type=setting,
        action="append",
        default=[],
        help='a contender of ours: name={"argument of AutoDeepLabSupernet": value}; also "bf16", "channels_last": true '
        'and "recomputed": ["cells.*"], see trainer.checkpoint_activations',
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--filter-multiplier", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="counted steps of each kind in a run")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before them, the first of which reserves memory")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--output", type=Path, help="JSON file for all runs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one == PEER:
        with runnable_on_a_processor(options.peer):
            print(json.dumps(run_one(options, PEER)))
        return
    if options.one:
        print(json.dumps(run_one(options, options.one)))
        return
    names = [*([PEER] if options.peer else []), *dict(options.setting)]
    require_result_file(options.output, lambda text: "parameters" in next(iter(json.loads(text)[0].values())))
    rounds = []
    for number in range(options.rounds):
        order = names if number % 2 == 0 else names[::-1]
        results = {name: run_in_process(name) for name in order}
        rounds.append({name: results[name] for name in names})
        if options.output:
            options.output.write_text(json.dumps(rounds, indent=2) + "\n")
    print_table(rounds)


if __name__ == "__main__":
    main()
