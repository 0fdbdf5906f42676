"""Copies of the tensors of a checkpoint, so that the training continues while they are written."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.checkpoint_file import tensors_in

_ALIGNMENT = 64  # bytes


class TensorSnapshot:
    """Memory for the tensors of one checkpoint, which is used again for the next one.

    Fresh memory would cost about three times as much, since the system clears each page of it at its first use.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def take(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Copy the tensors in `content` to the memory, in place of those of the last call.

        Tensors that share their memory share that of the copy, as `torch.save` expects. Copies of a GPU's tensors are
        on the processor.

        Args:
            content: Tensors, lists, tuples, dictionaries and plain data; nothing but the tensors changes later.

        Returns:
            The same with the copies, which are valid until the next call.
        """
        sources: dict[tuple[torch.device, int], Tensor] = {}
        for tensor in tensors_in(content):
            if (key := storage_key(tensor)) is not None:
                source = storage_bytes(tensor)
                # Tensors of one array may see parts of it of different lengths.
                if key not in sources or len(source) > len(sources[key]):
                    sources[key] = source
        starts, end = {}, 0
        for key, source in sources.items():
            starts[key] = end
            end += -(-len(source) // _ALIGNMENT) * _ALIGNMENT
        if self._memory.numel() != end:
            # A GPU copies to pinned memory several times as fast.
            self._memory = torch.empty(0, dtype=torch.uint8)  # not two at a time
            is_on_gpu = any(source.is_cuda for source in sources.values())
            self._memory = torch.empty(end, dtype=torch.uint8, pin_memory=is_on_gpu)
        for key, source in sources.items():
            copy_bytes(self._memory[starts[key] : starts[key] + len(source)], source)
        whole = self._memory.untyped_storage()
        copies = {key: whole[starts[key] : starts[key] + len(source)] for key, source in sources.items()}
        return {name: _with_copies(value, copies) for name, value in content.items()}


def copy_bytes(copy: Tensor, source: Tensor) -> None:
    """Copy (N,) uint8 to the processor's memory."""
    if source.is_cpu:
        # One thread is at the limit of the memory; torch's would wait for each other at each of hundreds of tensors.
        np.copyto(copy.numpy(), source.numpy())
    else:
        copy.copy_(source)


def storage_key(tensor: Tensor) -> tuple[torch.device, int] | None:
    """Return device and address of a tensor's memory, None if it has none."""
    address = tensor.untyped_storage().data_ptr()
    return (tensor.device, address) if address else None


def storage_bytes(tensor: Tensor) -> Tensor:
    """Return (N,) uint8, the memory of a tensor and of all that share it."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _with_copies(value: Any, copies: Mapping[tuple[torch.device, int], torch.UntypedStorage]) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_copies(item, copies) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_copies(item, copies) for item in value]
    if not isinstance(value, Tensor) or (key := storage_key(value)) is None:
        return value
    copy = torch.empty(0, dtype=value.dtype)
    return copy.set_(copies[key], value.storage_offset(), value.size(), value.stride())
