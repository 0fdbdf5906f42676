"""How the C library keeps the memory that a training frees and takes again in each step."""

import ctypes
import sys
from contextlib import suppress

# Parameters of glibc's mallopt(3), by their numbers in malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


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
