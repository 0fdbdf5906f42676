"""Write a checkpoint to one file; compare what two hold."""

import torch

from utils import checkpoint_file


def write_checkpoint(path, content):
    """Write `content` (tensors and plain data only) to `path`, with its checksum."""
    checkpoint_file.write_checkpoint(content, [path])


def same(one, other):
    """Whether two contents are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
