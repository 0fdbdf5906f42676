"""Two processes of one run of which one fails: as a program, each case with the exit codes and errors of both.

They are forked from a program of their own: a fork of a test's process, with the threads of all tests before, may wait
for ever for a lock that no thread of it holds.
"""

import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer.runtime import failures
from trainer.runtime.devices import joined_world
from utils.errors import DataError, EspalierError, Interrupted

SECONDS_TO_END = 60
Work = Callable[[Any], None]


def add_up(world: Any) -> None:
    """Take part in a collective call."""
    world.sum(torch.ones(1))


def refuse(_world: Any) -> None:
    """Fail by an error of the user's."""
    raise DataError("photo 7 is damaged.")


def stop(_world: Any) -> None:
    """End by a signal."""
    raise Interrupted(15)


def hang(_world: Any) -> None:
    """Answer to nothing."""
    threading.Event().wait()


# The work of each process, and the seconds that a process has to leave a call by itself.
CASES: dict[str, tuple[Work, Work, float]] = {
    "one fails, one waits for it": (add_up, refuse, 10.0),
    "one fails, one answers to nothing": (hang, refuse, 0.1),
    "both end": (add_up, add_up, 10.0),
    "both are stopped": (stop, stop, 10.0),
}


def run(rank: int, port: int, work: Work, errors: Path) -> int:
    """Run one of two processes, and return its exit code; its error is written to a file."""
    # Should nothing else end it.
    timer = threading.Timer(SECONDS_TO_END, os._exit, (98,))
    timer.daemon = True
    timer.start()
    known = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in known.items()})
    try:
        with joined_world() as world:
            work(world)
    except EspalierError as error:
        errors.write_text(f"{type(error).__name__}: {error}")
        return error.exit_code
    except BaseException as error:
        errors.write_text(f"{type(error).__name__}: {error}")
        return 99
    return 0


def outcome(works: tuple[Work, Work], patience: float, folder: Path) -> dict[str, list[Any]]:
    """Run one function in each of two processes; return exit code and error of each."""
    failures._SECONDS_TO_LEAVE = patience
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children, files = [], [folder / "0", folder / "1"]
    for rank, work in enumerate(works):
        child = os.fork()
        if child == 0:
            code = 99
            try:
                code = run(rank, port, work, files[rank])
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return {"codes": codes, "errors": [file.read_text() if file.exists() else "" for file in files]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    failures.POLL_SECONDS = 0.05
    results = {}
    for name, (first, second, seconds) in CASES.items():
        with tempfile.TemporaryDirectory() as place:
            results[name] = outcome((first, second), seconds, Path(place))
    sys.stdout.write(json.dumps(results))
