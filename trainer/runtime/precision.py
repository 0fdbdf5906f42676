"""The arithmetic of a run: which type the network computes in, on which device, and in which memory format."""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
logger = logging.getLogger(__name__)


def processor_has_bf16() -> bool:
    """Whether this processor computes in bf16; elsewhere it is emulated and slower than fp32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def resolve_precision(name: PrecisionName, device: torch.device) -> torch.dtype:
    """The type behind a name; `auto` is bf16 where the device has it, fp16 on other GPUs, fp32 on other processors."""
    if name == "fp16" and device.type == "cpu":
        logger.warning('trainer.precision: "fp16" needs a GPU; the processor computes in fp32 instead.')
        return torch.float32
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if processor_has_bf16() else torch.float32


@dataclass(frozen=True)
class RunPrecision:
    """Where and how a network computes.

    Attributes:
        device: The device of the model and its batches.
        dtype: Type of the automatically cast operations; float32 casts nothing.
        memory_format: `torch.channels_last` makes convolutions faster on most devices.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of forward passes and losses."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32)

    def place(self, tensor: Tensor) -> Tensor:
        """A batch on the device, images in the memory format; the copy does not wait for the device."""
        if tensor.dim() == 4 and tensor.is_floating_point():
            return tensor.to(self.device, non_blocking=True, memory_format=self.memory_format)
        return tensor.to(self.device, non_blocking=True)

    def scaler(self) -> "torch.amp.GradScaler | None":
        """The loss scaler that fp16 needs, and only fp16."""
        return torch.amp.GradScaler(self.device.type) if self.dtype is torch.float16 else None


ON_CPU = RunPrecision(torch.device("cpu"))
