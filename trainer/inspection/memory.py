"""The memory that a training may take, next to the memory that it needs."""

import torch

from utils.environment import known_memory
from utils.findings import Finding

CROWDED = 0.8  # share of the free disk or memory above which a warning says so
HOPELESS = 1.5  # a forecast so many times the memory that there is: no error of the forecast explains it
_UNKNOWN = 2**62  # bytes: nothing is refused for want of memory that nobody knows


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process may still take on a device; a great number if the system does not say."""
    if device.type != "cuda":
        known = known_memory()
        return _UNKNOWN if known is None else known
    free, _ = torch.cuda.mem_get_info(device)
    # What torch holds without using it is free for this process, too.
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def memory_findings(needed: float, available: float, *, place: str = "train_loader.args.batch_size") -> list[Finding]:
    """Return a fault if memory is far too small for a training, a warning if it is scarce, else nothing.

    Args:
        needed: Bytes at the worst moment.
        available: Bytes that there are.
        place: JSON path to change.
    """
    if needed <= CROWDED * available:
        return []
    compared = f"a step of the training needs about {size_in_words(needed)}, and {size_in_words(available)} are free"
    repair = "Lower batch_size or resize, use a smaller network, or trainer.accumulate and checkpoint_activations"
    if needed > HOPELESS * available:
        return [Finding("config", place, f"{compared}: it does not fit. {repair}.")]
    return [Finding("config", place, f"{compared}: it may not fit. {repair}.", is_fault=False)]


def size_in_words(num_bytes: float) -> str:
    """Return a number of bytes as text: 512 B, 3.4 MB, 1.2 GB; of 1000 each."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            break
        num_bytes /= 1000
    return f"{num_bytes:.0f} {unit}" if num_bytes >= 100 or unit == "B" else f"{num_bytes:.1f} {unit}"
