"""The batches of a step that went wrong, kept for a look at them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from utils.files import write_atomically


def keep_batches(folder: Path, step: int, rank: int, batches: Sequence[tuple[Tensor, Tensor]]) -> Path:
    """Write the batches of a step: `torch.load(file)["batches"]` is a list of (inputs, target).

    Args:
        folder: The run's folder.
        step: The step of the run, from 1.
        rank: Number of this process.
        batches: Inputs (B, C, H, W) float and target (B, H, W) int64, as the network got them.
    """
    file = folder / f"not-finite-step{step}{f'-process{rank}' if rank else ''}.pt"
    content = {"step": step, "batches": [(inputs.cpu(), target.cpu()) for inputs, target in batches]}
    write_atomically(file, lambda open_file: torch.save(content, open_file))
    return file
