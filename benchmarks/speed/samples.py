"""Many samples: seconds until a loader has its index, and the memory of loader workers that share decoded samples.

The index is compared with the reading of the list alone; the aim is three seconds more for 100,000 samples, with their
files looked up. Memory is the proportional set size (PSS) of a process and its workers, so that pages which several
processes share count once. Seconds of the processor.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from benchmarks.speed.comparison import Comparison, alternate
from benchmarks.speed.loader import make_loader
from benchmarks.speed.photos import write_pairs

SAMPLES, DECODED = 100_000, 40_000
_SIDE, _WORKERS = 64, 4
_NAMES_PER_FILE = 50_000  # file systems limit the names of one file


def measure(rounds: int) -> list[Comparison]:
    """Return the rows of index and memory."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        pairs = many_pairs(folder, SAMPLES)
        few = folder / "few.txt"
        few.write_text("\n".join(pairs.read_text().splitlines()[:DECODED]))
        return [_index(pairs, rounds), _memory(few, min(rounds, 2))]


def many_pairs(folder: Path, count: int) -> Path:
    """Return the list of `count` pairs, each with names of its own for a few files."""
    files = -(-count // _NAMES_PER_FILE)
    write_pairs(folder, files, (_SIDE, _SIDE))
    (folder / "many").mkdir()
    lines = []
    for number in range(count):
        for suffix in ("jpg", "png"):
            os.link(folder / f"{number % files}.{suffix}", folder / "many" / f"{number}.{suffix}")
        lines.append(f"many/{number}.jpg, many/{number}.png")
    path = folder / "many.txt"
    path.write_text("\n".join(lines))
    return path


def _seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _index(pairs: Path, rounds: int) -> Comparison:
    def read_list() -> list[list[str]]:
        return [line.split(", ") for line in pairs.read_text().splitlines()]

    values = alternate(
        {"ours": lambda: _seconds(lambda: make_loader(pairs)), "list": lambda: _seconds(read_list)}, rounds
    )
    name = f"index of {SAMPLES:,} pairs"
    return Comparison(name, "s", values["ours"], values["list"], "list of paths, no file looked up", True)


def _memory(pairs: Path, rounds: int) -> Comparison:
    def megabytes(workers: int) -> float:
        command = [sys.executable, "-m", "benchmarks.speed.samples", str(pairs), str(workers)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])

    values = alternate({"ours": lambda: megabytes(_WORKERS), "one": lambda: megabytes(0)}, rounds)
    name, other = f"memory of {DECODED:,} decoded pairs, {_WORKERS} workers", "one process"
    return Comparison(name, "MB", values["ours"], values["one"], other, True, 1.1)


def print_memory(pairs: Path, workers: int) -> None:
    """Print the MB of this process and of its loader workers, near the end of an epoch."""
    # As many as asked for, also on a machine with fewer processors.
    with patch("base.base_data_loader.available_processors", return_value=max(1, workers)):
        loader = make_loader(pairs, workers, size=(_SIDE, _SIDE))
    for _ in islice(loader, len(loader) - 2 * workers):
        pass
    running = [] if loader._iterator is None else getattr(loader._iterator, "_workers", [])
    print(sum(map(_megabytes, [os.getpid(), *(worker.pid for worker in running)])))
    loader.close()


def _megabytes(process: int) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    print_memory(Path(sys.argv[1]), int(sys.argv[2]))
