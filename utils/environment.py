"""This process and its machine: devices, processors, memory, signals, and the versions for `environment.json`."""

import ctypes
import errno
import logging
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import ConfigError, DiskFull, EspalierError, OutOfMemory, TrainingError

if TYPE_CHECKING:  # torch loads only in the functions that need it
    import torch

logger = logging.getLogger(__name__)
# Parameters of glibc's mallopt(3), by their numbers in malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "albumentations",
    "pydantic",
    "tensorboard",
    "timm",
    "segmentation-models-pytorch",
)
GIT_SECONDS = 10
DECODING_THREADS = 4  # threads that decode files, at most: more wait for the disk
REPOSITORY = Path(__file__).resolve().parents[1]
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def devices_named(asked: str) -> "list[torch.device]":
    """Return the devices that `-d` names; missing ones are left out with a warning, and the best device replaces all.

    Args:
        asked: `"cpu"`, or numbers of GPUs: `"0,1"`.

    Raises:
        ConfigError: The text is neither.
    """
    import torch

    if asked == "cpu":
        return [torch.device("cpu")]
    names = [name.strip().removeprefix("cuda:") for name in asked.split(",")]
    wrong = [name for name in names if not name.isdecimal()]
    if wrong:
        raise ConfigError(f'-d {asked}: "{wrong[0]}" is no device. GPUs are counted from 0. Write e.g. 0,1 or cpu.')
    count = torch.cuda.device_count()
    numbers = list(dict.fromkeys(map(int, names)))
    present = [torch.device("cuda", number) for number in numbers if number < count]
    if len(present) == len(numbers):
        return present
    used = present or [torch.device("cuda", 0) if count else torch.device("cpu")]
    logger.warning("-d %s: there are %d GPUs here; %s is used.", asked, count, ", ".join(map(str, used)))
    return used


SHARE_OF_PROCESSORS = "ESPALIER_PROCESSORS"
"""Variable of the environment: processors for a worker of a search, which shares the machine with others."""


def available_processors() -> int:
    """Return the number of processors that this process may use."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get(SHARE_OF_PROCESSORS, "")
    return min(found, max(1, int(share))) if share.isdecimal() else found


def known_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes free within the limits of this process's container; None if the system does not say.

    Args:
        root: Of the file system with the system's own files.
    """
    found = []
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")))
        group = root / "sys/fs/cgroup"
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            # Pages of files that were read count as used, but are given up for others.
            pages = [line.split() for line in (group / "memory.stat").read_text().splitlines()]
            files = sum(int(value) for name, value in pages if name in ("active_file", "inactive_file"))
            found.append(int(limit) - int((group / "memory.current").read_text()) + files)
    except (OSError, StopIteration, ValueError):
        pass  # another system, or no limits to read: the values found so far count
    return max(0, min(found)) if found else None


def available_memory() -> int:
    """Return the bytes free within the limits of this process's container; 2 GB if the system does not say."""
    known = known_memory()
    return 2 * 2**30 if known is None else known


# Texts of a plain RuntimeError: torch on CPUs and GPUs, oneDNN if it cannot allocate its buffers.
_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "std::bad_alloc",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "could not create a primitive",
    "could not create a memory",
    "can't start new thread",  # each thread needs a stack
)
# Begins like one of these, but means that the library has no such operation.
_OTHERWISE = ("could not create a primitive descriptor",)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python, NumPy, OpenCV or torch means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error)
    if type(error).__module__.partition(".")[0] == "cv2":
        return "Insufficient memory" in text
    is_said = isinstance(error, RuntimeError) and any(words in text for words in _WORDS)
    return is_said and not any(words in text for words in _OTHERWISE)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or one that it was raised from, says that the disk takes no more."""
    return any(
        isinstance(each, DiskFull) or (isinstance(each, OSError) and each.errno in DISK_FULL) for each in _causes(error)
    )


# The packages whose errors are those of the network, by name: importing them takes long.
_NETWORK_PACKAGES = {
    "aiohttp", "http", "httpcore", "httpx", "httpx2", "huggingface_hub", "requests", "socket", "ssl", "urllib",
    "urllib3",
}  # fmt: skip


def is_network_error(error: BaseException) -> bool:
    """Return whether an error, or one that it was raised from, says that something could not be fetched."""
    return any(_is_of_network(each) for each in _causes(error))


def _is_of_network(error: BaseException) -> bool:
    if isinstance(error, BrokenPipeError):  # mostly of a process
        return False
    if isinstance(error, TimeoutError) and error.filename is not None:  # of a disk elsewhere
        return False
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or not packages.isdisjoint(_NETWORK_PACKAGES)


def not_fetched(who: str, error: BaseException) -> str:
    """Return the message for an error of the network.

    Args:
        who: The JSON path and class, or the command, that fetches something.
        error: Its error.
    """
    reason = (str(error).strip() or "no reason is given").splitlines()[0]
    return (
        f"{who} cannot fetch what it needs ({type(error).__name__}: {reason}). The network or the server is out of "
        "reach. Fetch it on a machine with a connection and copy its cache here (TORCH_HOME, HF_HOME), name a local "
        "file, or leave the pretrained weights out (null)."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that it was raised from."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, None if each.__suppress_context__ else each.__context__]


@contextmanager
def resource_errors() -> Iterator[None]:
    """Turn the errors of a block that ran out of memory or disk, or of the network, into those that name the repair.

    Raises:
        OutOfMemory: Instead of the error of the library that found it.
        TrainingError: The disk is full, or something cannot be fetched.
    """
    try:
        yield
    except EspalierError:
        raise
    except Exception as error:
        text = str(error)
        if is_out_of_memory(error):
            raise OutOfMemory(
                f"Memory ran out ({text.splitlines()[0] if text else 'no more is available'}). The network and a step "
                "of its training must fit into it. Lower batch_size (--bs) or the images' resize; earlier checkpoints "
                "are good."
            ) from error
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise TrainingError(
                f"The disk is full ({error}). A run writes its curves, records and checkpoints. Free some space and "
                "run the same command with --resume auto; earlier checkpoints are good."
            ) from error
        if is_network_error(error):
            raise TrainingError(not_fetched("This run", error)) from error
        raise


@contextmanager
def record_signals(
    names: Sequence[str], was_recorded: Callable[[], bool], note: Callable[[int], None]
) -> Iterator[None]:
    """Record signals during a block instead of obeying them; a second SIGINT ends at once.

    Outside the main thread signals cannot be caught and the block changes nothing.

    Args:
        names: Such as `SIGTERM`; signals that the system does not have are left out, and SIGHUP if it is ignored.
        was_recorded: Returns whether a signal was recorded before.
        note: Receives the number of the signal.
    """

    def ask(number: int, _frame: object) -> None:
        if was_recorded() and number == signal.SIGINT:
            raise KeyboardInterrupt
        note(number)

    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # started with nohup
        numbers = [number for number in numbers if number != signal.SIGHUP]
    try:
        previous = {number: signal.signal(number, ask) for number in numbers}
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Stopped(KeyboardInterrupt):
    """A signal other than SIGINT that ends a command which has no state to save.

    Attributes:
        signal_number: The signal that arrived.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a block as SIGINT does, so that its files are closed; an ignored SIGHUP stays so.

    Outside the main thread signals cannot be caught and the block changes nothing.

    Raises:
        Stopped: One of them arrived.
    """
    process = os.getpid()

    def stop(number: int, _frame: object) -> None:
        if os.getpid() == process:
            raise Stopped(number)
        os._exit(128 + number)  # a process that was just forked

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [
        number for number in (getattr(signal, name) for name in names) if signal.getsignal(number) is signal.SIG_DFL
    ]
    try:
        previous = {number: signal.signal(number, stop) for number in numbers}
    except ValueError:
        previous = {}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def capture() -> dict[str, Any]:
    """Return versions, devices, the commit of the code and the command as plain data."""
    import torch

    packages = {}
    for package in PACKAGES:
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another system
        lines = []
    cpu_names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": packages,
        "devices": {
            "cuda": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
            "cuda_version": torch.version.cuda,
            "mps": torch.backends.mps.is_available(),
        },
        "cpu": {
            "name": cpu_names[0] if cpu_names else platform.processor(),
            "available": available_processors(),
            "torch_threads": torch.get_num_threads(),
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        },
        "git": git_state(REPOSITORY),
        "command": list(sys.argv),
    }


# Cached: the commit is the one from which the code of this process was loaded.
@cache
def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of a repository, and whether tracked files have changed since; None without git."""
    answers = []
    for question in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        command = ["git", "-C", str(folder), *question]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        answers.append(done.stdout.strip())
    return {"commit": answers[0], "is_dirty": bool(answers[1])}


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next request; return whether the C library can do so.

    By default glibc gives every large block back to the system as soon as it is freed, and the system fills the next
    one with zeros, page by page: activations and gradients are freed and taken anew in each step. `release_memory` of
    the search's workers, and the end of the process, still give it back.
    """
    if sys.platform != "linux":
        return False
    with suppress(AttributeError, OSError):  # other C libraries have no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
    return False
