"""Memory of one candidate given back before the next one begins."""

import ctypes
import gc
import sys

import torch


def release_memory() -> None:
    """Let go of what a training left: rings of objects, the GPU's cache, and pages that the allocator holds back.

    Without it a worker grows by some megabytes with each candidate. The first call takes what is loaded by then for
    permanent, so that later ones need not look through it.
    """
    gc.collect()
    if gc.get_freeze_count() == 0:
        gc.freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; other libraries have none
        if trim is not None:
            trim(0)
