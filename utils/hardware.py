"""The devices and the memory of this machine."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import ConfigError, EspalierError, OutOfMemory, TrainingError

if TYPE_CHECKING:  # torch loads only where a device is chosen
    import torch

logger = logging.getLogger(__name__)
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


def available_processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Return the bytes free within the limits of this process's container; 2 GB if the system does not say."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")))
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, StopIteration, ValueError):
        pass  # another system, or no limits to read: the values found so far count
    return max(0, min(found, default=2 * 2**30))


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


@contextmanager
def resource_errors() -> Iterator[None]:
    """Turn the errors of a block that ran out of memory or disk into errors that name the repair.

    Raises:
        OutOfMemory: Instead of the error of the library that found it.
        TrainingError: The disk is full.
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
        raise
