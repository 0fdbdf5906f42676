"""Laws of accumulation, processes, validation batches and resuming, over the whole grid of tests/support/laws.py.

    python benchmarks/laws.py --output laws.json

A cell is a tiny training with one loss, group of metrics, norm, schedule and number of processes (gloo). With
`--output` each cell is stored when it is done, and the same command continues. Prints the cells and the broken ones for
each value of each part, then each broken cell with what differs; exits with 1 if there is any.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_files import require_result_file
from tests.support.laws import GRID, PROCESSES, Cell, all_cells, broken_laws, check_in_two_processes

PARTS = ("loss", "metrics", "norm", "schedule", "processes")
Results = dict[str, list[str]]


def work(processes: int, done: set[str]) -> None:
    """Check the cells of a number of processes that are not done; print a line of JSON for each."""
    cells = [cell for cell in all_cells() if cell.processes == processes and str(cell) not in done]
    alone = ((cell, broken_laws(cell)) for cell in cells)
    for cell, broken in alone if processes == 1 else check_in_two_processes(cells):
        sys.stdout.write(json.dumps([str(cell), broken]) + "\n")
        sys.stdout.flush()


def run(processes: int, results: Results, store: Callable[[], None]) -> None:
    """Check the cells that are not in `results`, in a process that may die."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    waiting = [str(cell) for cell in all_cells() if cell.processes == processes and str(cell) not in results]
    while waiting:
        command = [sys.executable, __file__, "--work", str(processes)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with (
            tempfile.TemporaryFile("w+") as said,
            subprocess.Popen(command, **pipes, stderr=said, text=True, env=environment) as job,
        ):
            assert job.stdin is not None
            assert job.stdout is not None
            job.stdin.write(json.dumps(list(results)))
            job.stdin.close()
            for line in job.stdout:
                cell, broken = json.loads(line)
                results[cell] = broken
                store()
            job.wait()
            said.seek(0)
            errors = said.read().splitlines()
        waiting = [cell for cell in waiting if cell not in results]
        if job.returncode and waiting:
            results[waiting.pop(0)] = [f"it died with {job.returncode}: {errors[-1] if errors else ''}"]
            store()


def print_table(results: Results) -> int:
    """Print the counts and each broken cell; return the number of these."""
    cells: list[Cell] = [cell for cell in all_cells() if str(cell) in results]
    print(f"{'part':<11}{'value':<22}{'cells':>7}{'broken':>8}")
    for place, (part, values) in enumerate(zip(PARTS, GRID, strict=True)):
        for value in values:
            found = [results[str(cell)] for cell in cells if cell[place] == value]
            print(f"{part:<11}{value!s:<22}{len(found):>7}{sum(map(bool, found)):>8}")
    broken = {cell: laws for cell, laws in results.items() if laws}
    for cell, laws in broken.items():
        for law in laws:
            print(f"    {cell}: {law}")
    print(f"{len(cells)} of {len(all_cells())} cells, {len(broken)} broken")
    return len(broken)


def main() -> int:
    """Check the grid, print a table, and return 1 if a cell is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="FILE", help="stores each cell, and continues from them")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, set(json.loads(sys.stdin.read())))
        return 0
    output: Path | None = arguments.output
    names = {str(cell) for cell in all_cells()}
    require_result_file(output, lambda text: set() < json.loads(text).keys() <= names)
    results: Results = json.loads(output.read_text()) if output is not None and output.exists() else {}

    def store() -> None:
        if output is not None:
            output.write_text(json.dumps(results, indent=0))

    for processes in PROCESSES:
        run(processes, results, store)
    return int(print_table(results) > 0)


if __name__ == "__main__":
    sys.exit(main())
