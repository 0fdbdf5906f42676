"""Several devices: one process for each under torchrun, or DataParallel inside one process."""

import gc
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.hardware import devices_named

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class World:
    """This process among those of a run.

    Attributes:
        rank: Number of this process; 0 writes files.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes of a tensor, in a new tensor; a collective call."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def largest(self, number: int) -> int:
        """The largest of every process's number; a collective call."""
        if self.size == 1:
            return number
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        value = torch.tensor(number, device=device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank; a collective call."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Put the main process's values into tensors that every process has; a collective call."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def from_main(self, value: Any) -> Any:
        """The main process's value; a collective call."""
        return self.gather(value)[0]

    def wait(self) -> None:
        """Until every process is here; a collective call."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


def join_world() -> World:
    """Join the processes that torchrun started; alone without it."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return ALONE
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return World(dist.get_rank(), dist.get_world_size())


def leave_world() -> None:
    """Part from the other processes; what holds on to them (a wrapped network) goes first: their threads must end."""
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def choose_devices(n_gpu: int | None, asked: str | None = None) -> list[torch.device]:
    """The devices to train on: those asked for by number, else the first `n_gpu`; never more than there are.

    Args:
        n_gpu: How many GPUs the config wants; None takes one where there is one.
        asked: From the command line: `"0,1"` or `"cpu"`.

    Raises:
        ConfigError: A device that is no number.
    """
    there = torch.cuda.device_count()
    if asked is not None:
        return devices_named(asked)
    if "LOCAL_RANK" in os.environ and there:
        return [torch.device("cuda", int(os.environ["LOCAL_RANK"]) % there)]
    if n_gpu is None:
        n_gpu = min(1, there)
    if n_gpu > there:
        instead = f"{there} GPUs" if there else f"the processor with {torch.get_num_threads()} threads"
        logger.warning("n_gpu is %d and this machine has %d: training on %s.", n_gpu, there, instead)
    count = min(n_gpu, there)
    return [torch.device("cuda", number) for number in range(count)] or [torch.device("cpu")]


def spread(model: nn.Module, devices: list[torch.device], world: World) -> nn.Module:
    """Wrap a model for several devices: DistributedDataParallel under torchrun, else DataParallel, else not at all."""
    if world.size > 1:
        where = [devices[0].index] if devices[0].type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=where)
    if len(devices) > 1:
        return nn.DataParallel(model, device_ids=[device.index for device in devices])
    return model


def synchronise_norms(model: nn.Module) -> nn.Module:
    """Batch norms whose statistics are taken over all processes; only GPUs can, elsewhere each keeps its own."""
    if not all(weight.is_cuda for weight in model.parameters()):
        logger.warning("trainer.sync_batch_norm works on GPUs only: here each process keeps its own statistics.")
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return, no-untyped-call]


def respread(model: nn.Module) -> nn.Module:
    """Wrap anew what changed in which of its weights learn: DistributedDataParallel looks at that when it is made."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return nn.parallel.DistributedDataParallel(model.module, device_ids=model.device_ids)
    return model


@contextmanager
def synchronised(model: nn.Module, is_last: bool) -> Iterator[None]:
    """Let processes share the gradients of a backward pass only if it is the last one of a step."""
    if is_last or not isinstance(model, nn.parallel.DistributedDataParallel):
        yield
        return
    with model.no_sync():
        yield


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, without what spreads or compiles it, so that names of weights carry no prefixes."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        else:
            inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
