"""Faults of the machine: loader workers, signals, shared memory, disk, network, processes."""

import errno
import http.client
import os
import resource
import shutil
import signal
import socket
import ssl
import urllib.error
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import get_worker_info

from benchmarks.fault_rows.bench import PATIENCE, Bench, Fault
from data_loader.segmentation.loader import SegmentationDataset
from trainer.runtime import failures
from utils.checkpoint_file import read_checkpoint
from utils.errors import DataError

FIRST = 4  # samples that are loaded before one fails
During = Callable[[Bench], None]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
LONG = {"trainer.epochs": 500, "trainer.early_stop": None}


def when_loaded(fault: Callable[[], Any], first: int = FIRST) -> During:
    """Return what lets the loading of samples fail, from some call of each loading process on."""

    def patch(bench: Bench) -> None:
        original, calls = SegmentationDataset.sample, [0]

        def sample(self: Any, index: int, generator: Any) -> Any:
            calls[0] += 1
            if calls[0] > first:
                fault()
            return original(self, index, generator)

        SegmentationDataset.sample = sample  # type: ignore[method-assign]

    return patch


def kill(number: int) -> Callable[[], None]:
    """Return what sends a signal to the process that calls it."""
    return lambda: os.kill(os.getpid(), number)


def in_worker(fault: Callable[[], None]) -> Callable[[], None]:
    """Return a fault of loader workers alone."""
    return lambda: fault() if get_worker_info() is not None else None


def hang() -> None:
    """Wait for ever."""
    while True:
        signal.pause()


def raising(error: Exception) -> Callable[..., Any]:
    """Return a function that raises an error whatever its arguments."""

    def refuse(*_: object, **__: object) -> Any:
        raise error

    return refuse


def with_worker(**more: Any) -> Callable[[Bench], list[str]]:
    """Return what trains with a loader worker."""
    return lambda bench: bench.train({"train_loader.args.n_workers": 1, **more})


def saved_step(bench: Bench) -> str:
    """Return a fault if no checkpoint of a step was saved."""
    files = list((bench.folder / "other").glob("*/checkpoint-last.pth"))
    if not files:
        return "no checkpoint was saved"
    return "" if read_checkpoint(files[0])["global_step"] > 0 else "no step was saved"


def log_says(text: str) -> Callable[[Bench], str]:
    """Return what looks for a text in the info.log of the run."""

    def look(bench: Bench) -> str:
        logs = list((bench.folder / "other").glob("*/info.log"))
        return "" if logs and text in logs[0].read_text() else f"info.log does not say {text!r}"

    return look


def both(*checks: Callable[[Bench], str]) -> Callable[[Bench], str]:
    """Return a check of several things."""
    return lambda bench: next(filter(None, (check(bench) for check in checks)), "")


SAVED = both(saved_step, log_says("The run has ended: "))


def send(number: int, after: str = "Epoch 2/500") -> Callable[[Bench, int], None]:
    """Return what sends a signal to a command that has printed a text."""

    def watch(bench: Bench, process: int) -> None:
        bench.wait_for(after)
        os.kill(process, number)

    return watch


def worker_rows() -> list[Fault]:
    """Return the faults of loader workers."""
    deaths = {
        "killed (SIGKILL)": (kill(signal.SIGKILL), "was killed .SIGKILL.*memory ran out.*n_workers"),
        "bus error (SIGBUS)": (kill(signal.SIGBUS), "bus error .SIGBUS.*--shm-size"),
        "crashes (SIGSEGV)": (kill(signal.SIGSEGV), "died .SIGSEGV.*n_workers to 0"),
        "aborts (SIGABRT)": (kill(signal.SIGABRT), "died .SIGABRT.*n_workers to 0"),
        "illegal instruction (SIGILL)": (kill(signal.SIGILL), "died .SIGILL.*n_workers to 0"),
        "floating point exception (SIGFPE)": (kill(signal.SIGFPE), "died .SIGFPE.*n_workers to 0"),
        "leaves with exit code 3": (lambda: os._exit(3), "died .exit code 3"),
    }
    rows = [
        Fault("machine", f"loader worker {name}", 5, text, with_worker(), when_loaded(fault, 8), check=SAVED)
        for name, (fault, text) in deaths.items()
    ]
    quick = {"trainer.loader_timeout": 1.0}
    rows.append(
        Fault(
            "machine",
            "loader worker hangs",
            5,
            "sent no batch for .*loader_timeout is 1",
            with_worker(**quick),
            when_loaded(hang, 8),
            check=SAVED,
        )
    )
    full = RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")
    files = OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def no_fork(bench: Bench) -> None:
        os.fork = raising(BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)))

    def small_shm(bench: Bench) -> None:
        torch.Tensor.share_memory_ = raising(full)  # type: ignore[method-assign]

    def no_files(bench: Bench) -> None:
        torch.Tensor.share_memory_ = raising(files)  # type: ignore[method-assign]

    rows += [
        Fault(
            "machine", "loader workers cannot be started (ulimit -u)", 5, "cannot be started", with_worker(), no_fork
        ),
        Fault("machine", "shared memory is full when a batch is sent", 5, "--shm-size", with_worker(), small_shm),
        Fault("machine", "no more open files when a batch is sent", 5, "ulimit -n", with_worker(), no_files),
        Fault(
            "machine",
            "loader worker dies in the validation",
            5,
            "was killed",
            lambda bench: bench.train({"valid_loader.args.n_workers": 1}),
            when_loaded(in_worker(kill(signal.SIGKILL)), 0),
            check=SAVED,
        ),
    ]
    return rows


def signal_rows() -> list[Fault]:
    """Return signals in a step, while a batch is awaited, and to commands without a state."""
    rows = []
    for number in SIGNALS:
        code, said = 128 + number, f"Interrupted by {number.name}; the state was saved"
        rows.append(
            Fault(
                "machine",
                f"{number.name} in the training",
                code,
                said,
                lambda bench: bench.train(LONG),
                watch=send(number),
                check=both(saved_step, log_says(said)),
            )
        )
        for workers in (0, 1):
            where = "a loader worker" if workers else "its own process"
            rows.append(
                Fault(
                    "machine",
                    f"{number.name} while a batch of {where} never comes",
                    code,
                    said,
                    lambda bench, workers=workers: bench.train({"train_loader.args.n_workers": workers}),  # type: ignore[misc]
                    when_loaded(notify_and_hang, 9),
                    watch=send(number, "loading"),
                )
            )
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        rows.append(
            Fault(
                "machine",
                f"{number.name} in a test",
                128 + number,
                f"Interrupted by {number.name}",
                lambda bench: ["test", "--resume", str(bench.last)],
                when_loaded(notify_and_hang, 0),
                watch=send(number, "loading"),
            )
        )
    return rows


def notify_and_hang() -> None:
    """Print that a sample is loaded, and wait for ever."""
    os.write(1, b"loading\n")
    hang()


def disk_rows() -> list[Fault]:
    """Return faults of the disk."""

    def limit(bench: Bench) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    def full(bench: Bench) -> None:
        usage = shutil.disk_usage(bench.folder)
        shutil.disk_usage = lambda path: usage._replace(free=1000)

    def save_in_file(bench: Bench) -> list[str]:
        return bench.train({"trainer.save_dir": str(bench.write("a_file", "x"))})

    return [
        Fault(
            "machine",
            "the disk takes no more while a checkpoint is written",
            4,
            "not written .the disk is full",
            lambda bench: bench.train(),
            limit,
        ),
        Fault(
            "machine",
            "no room for checkpoints before the first step",
            4,
            "MB are free.*need about",
            lambda bench: bench.train(),
            full,
        ),
        Fault("machine", "save_dir is a file", 2, "trainer.save_dir.*cannot be written", save_in_file),
        Fault(
            "machine",
            "save_dir in a folder of the system",
            2,
            "trainer.save_dir.*cannot be written",
            lambda bench: bench.train({"trainer.save_dir": "/proc/nowhere"}),
        ),
    ]


def network_rows() -> list[Fault]:
    """Return networks that are out of reach while weights are fetched."""
    errors: dict[str, Exception] = {
        "no name is resolved": urllib.error.URLError(socket.gaierror(-2, "Name or service not known")),
        "connection refused": urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")),
        "time is out": TimeoutError("timed out"),
        "connection closed": http.client.RemoteDisconnected("Remote end closed connection without response"),
        "half an answer": http.client.IncompleteRead(b"half"),
        "certificate refused": ssl.SSLError(1, "certificate verify failed"),
        "server says no": urllib.error.HTTPError(
            "https://example.org", 503, "Unavailable", http.client.HTTPMessage(), None
        ),
    }

    def fetch_fails(error: Exception) -> During:
        def patch(bench: Bench) -> None:
            os.environ["TORCH_HOME"] = str(bench.folder / "torch")
            torch.hub.urlopen = raising(error)  # type: ignore[attr-defined]

        return patch

    ours = {"arch": {"type": "UNetPlus", "args": {"backbone": "resnet18", "weights": "DEFAULT"}}}
    whole = {
        "arch": {
            "type": "torchvision.models.segmentation.lraspp_mobilenet_v3_large",
            "args": {"weights_backbone": "DEFAULT"},
        }
    }
    rows = []
    for name, error in errors.items():
        rows += [
            Fault(
                "machine",
                f"weights of a backbone, {name}",
                2,
                "Cannot fetch the weights.*weights.: null",
                lambda bench: bench.train(ours),
                fetch_fails(error),
            ),
            Fault(
                "machine",
                f"weights of torchvision's network, {name}",
                2,
                "cannot fetch what it needs.*out of reach",
                lambda bench: bench.train(whole),
                fetch_fails(error),
            ),
        ]
    return rows


def process_rows() -> list[Fault]:
    """Return processes of one run of which one fails."""

    def join(bench: Bench) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        is_second = os.fork() == 0
        known = {"RANK": int(is_second), "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in known.items()})
        if is_second:
            when_loaded(raising(DataError("photo 7 is damaged.")), 6)(bench)
        else:
            failures._SECONDS_TO_LEAVE = PATIENCE  # both ways to end are right, and have other exit codes

    return [
        Fault(
            "machine",
            "one of two processes fails in a step",
            5,
            "Process 1 has ended with an error.*photo 7",
            lambda bench: bench.train({"trainer.epochs": 3, "train_loader.args.shuffle": False}),
            join,
        ),
        Fault(
            "machine",
            "RANK is set and nothing else",
            5,
            "do not find each other.*torchrun",
            lambda bench: bench.train(),
            lambda bench: os.environ.update({"RANK": "0", "WORLD_SIZE": "2"}),
        ),
    ]


ROWS = [*worker_rows(), *signal_rows(), *disk_rows(), *network_rows(), *process_rows()]
