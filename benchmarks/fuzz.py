"""Reads files that a fuzzer makes, led by the code that they reach: our errors only, no read over 5 s or 1 GB.

    pip install -r requirements-benchmarks.txt
    python benchmarks/fuzz.py --target ts --minutes 10 --output fuzz.json
    python benchmarks/fuzz.py --minutes 10 --output fuzz.json      (each target in turn)

Targets: config, override, space, ts, idx, npz, pairs, list, checkpoint, journal, and annotations: coco, labelme, cvat,
yolo. Each runs in a process of its own with atheris (libFuzzer), whose input is written to a file and read as the
program does. The whole file is the first input. The number of runs, the lines reached and the faults of each target are
stored in `--output`.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_files import json_values, require_result_file

SECONDS, MEGABYTES = 5, 1024
BASE_MEGABYTES = 1024  # of the program itself, with torch


def targets() -> dict[str, tuple[Callable[[Path], bytes], Callable[[Path], Any], str]]:
    """Return for each target a maker of a whole file, its reader, and the name of the file."""
    from benchmarks import readers
    from build import registry
    from config import load_config, validate
    from config.loading.load import parse_override
    from search.space.space import Space

    quick = (Path(__file__).resolve().parents[1] / "config/people/unet.json").read_bytes()
    space = {
        "a": {"$choice": [1, {"$range": [1, 9, 2]}, {"b": {"$uniform": [0.0, 1.0]}}]},
        "c": {"$repeat": {"of": {"$var": "w"}, "times": {"$choice": [1, 2]}}},
        "$defs": {"w": {"$logrange": [8, 64]}},
    }

    def draw(path: Path) -> None:
        drawn_from = Space(load_config(path))
        for number in range(3):
            drawn_from.config(drawn_from.random(number))
        str(drawn_from.extent)

    def kind(name: str) -> tuple[Callable[[Path], bytes], Callable[[Path], Any], str]:
        found = readers.KINDS[name]
        return found.make, found.read, found.suffix if found.suffix[0] != "." else f"file{found.suffix}"

    return {
        "config": (lambda _: quick, lambda path: validate(load_config(path), registry()), "file.json"),
        "override": (
            lambda _: b'a.0.b={"c": [1, 2.5]}',
            lambda path: parse_override(path.read_bytes().decode("utf-8", "surrogateescape")),
            "file.txt",
        ),
        "space": (lambda _: json.dumps(space).encode(), draw, "file.json"),
        "ts": kind("series ts"),
        "idx": kind("idx"),
        "npz": kind("series npz"),
        "pairs": kind("pairs"),
        "list": kind("classes"),
        "checkpoint": kind("checkpoint"),
        "journal": kind("journal"),
        "coco": kind("coco"),
        "labelme": kind("labelme"),
        "cvat": kind("cvat"),
        "yolo": kind("yolo"),
    }


def fuzz(target: str, seconds: int, folder: Path) -> None:
    """Run one target in this process until the time is over or a fault is found."""
    import atheris

    with atheris.instrument_imports(include=["config", "search", "data_loader", "utils"]):
        make, read, name = targets()[target]
        from utils.errors import EspalierError
    corpus, path = folder / "corpus", folder / name
    corpus.mkdir(exist_ok=True)
    whole = make(folder)
    (corpus / "whole").write_bytes(whole)
    for listed in ("images/{}.jpg", "masks/{}.png"):  # the files of the lists
        (folder / listed).parent.mkdir(exist_ok=True)
        for number in range(9):
            (folder / listed.format(number)).touch()

    def run(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(EspalierError):
            read(path)

    run(whole)  # what is imported by the first read does not count
    limits = [f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={BASE_MEGABYTES + MEGABYTES}"]
    options = [*limits, "-max_len=60000", f"-artifact_prefix={folder}/", "-print_final_stats=1", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], run)
    atheris.Fuzz()


def result_of(log: str, code: int) -> dict[str, Any]:
    """Return what the log of a target says: runs, lines of code reached, largest memory, and the fault, if any."""
    counts = {name: int(value) for name, value in re.findall(r"stat::(\w+):\s+(\d+)", log)}
    runs = counts.get("number_of_executed_units") or max(map(int, re.findall(r"^#(\d+)", log, re.MULTILINE)), default=0)
    reached = max(map(int, re.findall(r"cov: (\d+)", log)), default=0)
    fault = re.search(r"=== Uncaught Python exception: ===\n(.*)|(ERROR: libFuzzer: .*)", log)
    return {
        "runs": runs,
        "reached": reached,
        "megabytes": counts.get("peak_rss_mb", 0),
        "fault": (fault[1] or fault[2])[:300] if fault else "" if code == 0 else f"ended with {code}",
    }


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--target", action="append", help="by default all")
    options.add_argument("--minutes", type=float, default=10, help="of each target")
    options.add_argument("--output", type=Path, default=Path("fuzz.json"))
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.folder is not None:  # the process of one target
        os.chdir(arguments.folder)
        fuzz(arguments.target[0], int(arguments.minutes * 60), arguments.folder)
        return
    require_result_file(arguments.output, json_values("runs", "reached", "megabytes", "fault"))
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for target in arguments.target or list(targets()):
        with tempfile.TemporaryDirectory() as folder:
            words = ["--target", target, "--minutes", str(arguments.minutes), "--folder", folder]
            ended = subprocess.run(
                [sys.executable, __file__, *words], capture_output=True, text=True, errors="replace", check=False
            )
            found = result_of(ended.stdout + ended.stderr, ended.returncode)
            crashes = [path for path in Path(folder).iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]
            if crashes:
                found["input"] = repr(crashes[0].read_bytes()[:2000])
                found["log"] = (ended.stdout + ended.stderr)[-3000:]
        results[target] = found
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")
        sys.stdout.write(f"{target:12} {found['runs']:10,} runs  {found['reached']:6,} reached  {found['fault']}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
