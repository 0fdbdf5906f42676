"""A small real run on data/people, and the commands that a fault is shown to: each in a forked process of its own."""

import copy
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import export
import inference
import search.__main__ as search_command
import test as test_command
import train
from config import cli

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = ROOT / "data/people"
SIZE = [32, 24]
PATIENCE = 60.0  # seconds for a command
PWNED = "pwned"  # a file that code of a hostile file would write
Config = dict[str, Any]
Make = Callable[["Bench"], Sequence[str]]
_COMMANDS = {
    "train": (train.main, train.parser),
    "test": (test_command.main, test_command.parser),
    "inference": (inference.main, inference.parser),
    "export": (export.main, export.parser),
}


@dataclass(frozen=True)
class Seen:
    """The end of a command.

    Attributes:
        code: Exit code; 128 and more for a signal that ended it, 124 if it took too long.
        text: Standard output and error.
    """

    code: int
    text: str

    def line(self) -> str:
        """Return the line that says most: the error, else the last one."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error:")]
        return (errors or lines[-1:] or [""])[0]


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        group: Line of the issue's kind: machine, checkpoint, hostile file, ...
        name: The fault in a few words.
        code: The exit code that is expected.
        expected: Pattern of the message that is expected.
        make: Causes the fault in a folder, and returns the command line.
        during: Runs in the process of the command before it starts, to break the machine for it.
        watch: Runs next to it with the number of its process, such as to send a signal.
        check: Returns a fault that the files show afterwards; empty if there is none.
    """

    group: str
    name: str
    code: int
    expected: str
    make: Make
    during: Callable[["Bench"], None] | None = None
    watch: Callable[["Bench", int], None] | None = None
    check: Callable[["Bench"], str] | None = None


@dataclass
class Bench:
    """A folder with a copy of a finished run.

    Attributes:
        folder: Of this fault; the commands run in it.
        run: The run's folder below it.
        output: File with what the command printed.
    """

    folder: Path
    run: Path
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        self.output = self.folder / "output.txt"

    @property
    def last(self) -> Path:
        """The last checkpoint of the run."""
        return self.run / "checkpoint-last.pth"

    @property
    def best(self) -> Path:
        """The best checkpoint of the run."""
        return self.run / "model_best.pth"

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file into the folder and return it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def config(self, changes: Config | None = None, name: str = "c.json") -> str:
        """Write the config of the run with some changes, by dotted paths, and return its file."""
        content = base_config(str(self.folder))
        for path, value in (changes or {}).items():
            target: Any = content
            *parents, last = path.split(".")
            for each in parents:
                target = target.setdefault(each, {})
            if value is None and last not in target:
                continue
            target[last] = value
        return str(self.write(name, json.dumps(content)))

    def train(self, changes: Config | None = None, *more: str) -> list[str]:
        """Return the command that trains the changed config."""
        return ["train", "-c", self.config({"name": "other", **(changes or {})}), *more]

    def attempt(self, fault: Fault) -> Seen:
        """Cause a fault, run its command in a forked process, and return how that ended."""
        command, *arguments = fault.make(self)
        child = os.fork()
        if child == 0:
            self._run(command, arguments, fault)
        if fault.watch is not None:
            fault.watch(self, child)
        deadline, status = time.monotonic() + PATIENCE, None
        while status is None:
            done, found = os.waitpid(child, os.WNOHANG)
            if done:
                status = found
            elif time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return Seen(124, self.output.read_text(errors="replace"))
            else:
                time.sleep(0.02)
        code = os.waitstatus_to_exitcode(status)
        return Seen(128 - code if code < 0 else code, self.output.read_text(errors="replace"))

    def _run(self, command: str, arguments: Sequence[str], fault: Fault) -> None:
        """Run a command in this process, which ends with it."""
        code = 1
        try:
            os.chdir(self.folder)
            file = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            for stream in (1, 2):
                os.dup2(file, stream)
            if fault.during is not None:
                fault.during(self)
            if command == "search":
                sys.argv = ["search", *arguments]
                code = search_command.main(list(arguments))
            else:
                main, parser = _COMMANDS[command]
                code = cli.run_command(main, parser(), list(arguments))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait_for(self, text: str) -> None:
        """Wait until the command has printed a text."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.output.exists() and text in self.output.read_text(errors="replace"):
                return
            time.sleep(0.02)


def base_config(save_dir: str) -> Config:
    """Return the config of the small run."""
    loader = {"num_classes": 2, "classes": ["background", "person"], "resize": SIZE, "batch_size": 4}

    def section(split: str, samples: int) -> Config:
        pairs = {"pairs_file": str(PEOPLE / f"{split}_pairs.txt"), "samples": samples}
        return {"type": "SegmentationDataLoader", "args": {**copy.deepcopy(loader), **pairs}}

    return {
        "name": "small",
        "n_gpu": 0,
        "arch": {"type": "UNet", "args": {"channels": [4, 8]}},
        "train_loader": section("train", 12),
        "valid_loader": section("valid", 4),
        "test_loader": section("test", 4),
        "optimizer": {"type": "SGD", "args": {"lr": 0.05}},
        "loss": "ce_loss",
        "metrics": ["miou"],
        "trainer": {
            "epochs": 1,
            "save_dir": save_dir,
            "monitor": "max val_miou",
            "tensorboard": False,
            "precision": "fp32",
        },
    }


def verdict(bench: Bench, fault: Fault, seen: Seen) -> str:
    """Return why a row is not as expected; empty if it is."""
    if seen.code != fault.code:
        return f"exit code {seen.code} instead of {fault.code}"
    if not re.search(fault.expected, seen.text, re.DOTALL):
        return "another message"
    if "Traceback (most recent call last)" in seen.text:
        return "a traceback"
    if any(bench.folder.rglob(PWNED)):
        return "code of the file was run"
    return fault.check(bench) if fault.check is not None else ""
