"""Measure speeds next to those of a peer or of the machine's limit: `python -m benchmarks [NAME ...]`.

Each name is a module of `benchmarks/speed/`; without one all are run, each in a process of its own, so that none
inherits the memory, threads and libraries of another. Printed is a Markdown table for each, with the machine that it
was measured on; `--output` names a folder for the same as JSON. A speed benchmark takes less than ten minutes with the
default number of rounds on two idle cores.

    pip install -r requirements-benchmarks.txt
    python -m benchmarks checkpoint validation --rounds 15 --output speeds
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.result_files import json_object, require_result_file
from benchmarks.speed.comparison import Comparison, as_table
from utils.environment import capture

FOLDER = Path(__file__).resolve().parent / "speed"
SHARED = ("__init__", "comparison", "peers", "photos")  # by several benchmarks
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in SHARED)


def main() -> int:
    """Run the benchmarks that the command line names; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(NAMES)}; default: all")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds of each (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder for NAME.json")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(NAMES)):
        parser.error(f"{', '.join(unknown)}: no such benchmark. There are {', '.join(NAMES)}.")
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: at least one round is needed.")
    if arguments.output is not None:
        for name in arguments.names or NAMES:
            require_result_file(arguments.output / f"{name}.json", json_object("benchmark", "rounds", "rows"))
    if len(arguments.names) == 1:
        run(arguments.names[0], arguments.rounds, arguments.output)
        return 0
    failed = [name for name in arguments.names or NAMES if not run_in_process(name, arguments.rounds, arguments.output)]
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def run(name: str, rounds: int, output: Path | None) -> None:
    """Run one benchmark in this process and print its table."""
    module = importlib.import_module(f"benchmarks.speed.{name}")
    started = time.perf_counter()
    rows: list[Comparison] = module.measure(rounds)
    machine = describe_machine()
    print(f"\n## {name}: {(module.__doc__ or '').splitlines()[0]}\n")
    print(as_table(rows))
    print(f"\n{rounds} rounds on {machine['summary']}; {time.perf_counter() - started:.0f} s", flush=True)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        content = {"benchmark": name, "rounds": rounds, "machine": machine, "rows": [row.as_json() for row in rows]}
        (output / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def run_in_process(name: str, rounds: int, output: Path | None) -> bool:
    """Run one benchmark in a process of its own; return whether it ended well."""
    options = ["--rounds", str(rounds), *(() if output is None else ("--output", str(output)))]
    return subprocess.run([sys.executable, "-m", "benchmarks", name, *options], check=False).returncode == 0


def describe_machine() -> dict[str, Any]:
    """Return the processor, its instructions as torch uses them, its load and the versions of the packages."""
    import torch

    facts = capture()
    instructions = torch.backends.cpu.get_cpu_capability()
    # Not public, but what torch itself asks before it computes in bf16.
    if any(getattr(torch.cpu, check)() for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")):
        instructions += " with bf16"
    if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        instructions += f", oneDNN limited to {limit}"
    load = os.getloadavg()[0]
    processors = facts["cpu"]["available"]
    summary = f"{processors} processors of {facts['cpu']['name']}, {instructions}, load {load:.1f}"
    summary += "".join(f", {name}" for name in facts["devices"]["cuda"])
    return {"summary": summary, "instructions": instructions, "load": load, **facts}


if __name__ == "__main__":
    sys.exit(main())
