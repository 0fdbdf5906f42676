"""Cause the faults of a machine, of files and of users on a small real run: a table fault / expected / seen.

    python benchmarks/faults.py
    python benchmarks/faults.py --group machine --match worker

Each fault is caused in a folder with a copy of a finished run on data/people, and shown to the real command (train,
test, inference, export, search) in a process of its own. A row is as expected if the exit code and the message are,
nothing is printed as a traceback, no code of a file was run, and what must not be lost is unchanged.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.fault_rows import checkpoints, configs, data_files, exported, machine
from benchmarks.fault_rows.bench import Bench, Fault, base_config, verdict
from benchmarks.result_files import beginning, require_result_file

HEADER = "| | group | fault | expected | seen |"
ROWS: list[Fault] = [*machine.ROWS, *checkpoints.ROWS, *configs.ROWS, *data_files.ROWS, *exported.ROWS]


def finished_run(folder: Path) -> Path:
    """Train the small run and return its folder."""
    import train

    return Path(str(train.train(base_config(str(folder))).run_folder))


def main() -> None:
    """Cause the faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", help="only the rows of a group")
    parser.add_argument("--match", default="", help="only rows whose name has this text")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    require_result_file(arguments.output, beginning(HEADER), ".md")
    torch.set_num_threads(1)
    rows = [row for row in ROWS if arguments.group in (None, row.group) and arguments.match in row.name]
    lines = [HEADER, "|---|---|---|---|---|"]
    num_wrong, started = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        run = finished_run(Path(scratch) / "made")
        print("\n".join(lines), flush=True)
        for number, fault in enumerate(rows, start=1):
            folder = Path(scratch) / str(number)
            shutil.copytree(run, folder / "small" / run.name)
            bench = Bench(folder, folder / "small" / run.name)
            seen = bench.attempt(fault)
            wrong = verdict(bench, fault, seen)
            num_wrong += bool(wrong)
            text = seen.line().replace(scratch, "")[:160].replace("|", "\\|")
            expected = fault.expected.replace("|", "\\|")
            name, mark = fault.name.replace("|", "\\|"), "**" if wrong else ""
            line = f"| {number} | {fault.group} | {name} | {fault.code}: {expected} | {mark}{seen.code}: {text}"
            lines.append(f"{line}{f' ({wrong})' if wrong else ''}{mark} |")
            print(lines[-1], flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{len(rows)} faults, {num_wrong} not as expected, {time.monotonic() - started:.0f} s")
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")
    raise SystemExit(int(num_wrong > 0))


if __name__ == "__main__":
    main()
