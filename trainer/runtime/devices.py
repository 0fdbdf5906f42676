"""Where and how a run computes: its devices, its precision, and the processes that share its work."""

import gc
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.runtime.activations import recompute_activations
from trainer.runtime.cpu_convolutions import replace_convolutions
from trainer.runtime.failures import leave_world, watch_failures
from trainer.runtime.norms import repair_instance_norms
from utils.environment import devices_named, keep_freed_memory
from utils.errors import TrainingError
from utils.seeding import seed_everything

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
logger = logging.getLogger(__name__)


def choose_devices(n_gpu: int | None, asked: str | None = None) -> list[torch.device]:
    """Return the devices to train on: those asked for by number, else the first `n_gpu`, at most those that exist.

    Args:
        n_gpu: Number of GPUs that the config wants; None takes one if there is one.
        asked: From the command line: `"0,1"` or `"cpu"`.

    Raises:
        ConfigError: A device is not a number.
    """
    available = torch.cuda.device_count()
    if asked is not None:
        return devices_named(asked)
    if "LOCAL_RANK" in os.environ and available:  # one process for each GPU, under torchrun
        return [torch.device("cuda", int(os.environ["LOCAL_RANK"]) % available)]
    if n_gpu is None:
        n_gpu = min(1, available)
    if n_gpu > available:
        instead = f"{available} GPUs" if available else f"the processor with {torch.get_num_threads()} threads"
        logger.warning("n_gpu is %d and this machine has %d: training on %s.", n_gpu, available, instead)
    return [torch.device("cuda", number) for number in range(min(n_gpu, available))] or [torch.device("cpu")]


def seed_run(seed: int, device: torch.device, *, deterministic: bool = True) -> None:
    """Seed the random numbers that building draws, and choose between exact and fast operations of a GPU.

    Args:
        seed: Of the run.
        device: Its first device; operations of a processor are deterministic in any case.
        deterministic: Equal runs end in the same bytes; otherwise cuDNN tries out its algorithms for each new shape and
            takes the fastest, and other operations may add in any order.
    """
    if device.type == "cuda":
        if deterministic:  # cuBLAS repeats itself only with a fixed workspace
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Both are set in both cases: a worker of a search trains one candidate after another.
        torch.backends.cudnn.benchmark = not deterministic
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    seed_everything(seed)


@dataclass(frozen=True)
class RunPrecision:
    """Device, dtype and memory format in which a network computes.

    Attributes:
        device: The device of the model and its batches.
        dtype: Type of the automatically cast operations; float32 casts nothing.
        memory_format: `torch.channels_last` makes convolutions faster on most devices.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format

    @classmethod
    def from_options(cls, device: torch.device, options: Mapping[str, Any]) -> "RunPrecision":
        """Return the precision that a complete `trainer` section asks for.

        `precision` "auto" is bf16 if the device has it, fp16 on other GPUs, else fp32.
        """
        name: PrecisionName = options["precision"]
        memory_format = torch.channels_last if options["channels_last"] else torch.contiguous_format
        if name == "fp16" and device.type == "cpu":
            logger.warning('trainer.precision: "fp16" needs a GPU; the processor computes in fp32 instead.')
            name = "fp32"
        if name != "auto":
            return cls(device, _DTYPES[name], memory_format)
        if device.type == "cuda":
            has_bf16, otherwise = torch.cuda.is_bf16_supported(), torch.float16
        else:  # without these instructions bf16 is emulated, which is slower than fp32
            checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
            has_bf16, otherwise = any(getattr(torch.cpu, check, lambda: False)() for check in checks), torch.float32
        return cls(device, torch.bfloat16 if has_bf16 else otherwise, memory_format)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of forward passes and losses."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32)

    def place(self, tensor: Tensor) -> Tensor:
        """Return a batch on the device, images in the memory format; the copy does not wait for the device."""
        if tensor.dim() == 4 and tensor.is_floating_point():
            return tensor.to(self.device, non_blocking=True, memory_format=self.memory_format)
        return tensor.to(self.device, non_blocking=True)


ON_CPU = RunPrecision(torch.device("cpu"))


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: Number of this process; process 0 writes files.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes, as a new tensor; a collective call."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def largest(self, number: int) -> int:
        """Return the largest of every process's number; a collective call."""
        if self.size == 1:
            return number
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"  # NCCL reduces tensors of a GPU only
        value = torch.tensor(number, device=device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, by rank; a collective call."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Copy the main process's values into tensors that every process has; a collective call."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


ALONE = World()
# Processes agree on stopping and saving only every few steps, since an agreement makes them wait for each other.
AGREE_EVERY_STEPS = 8


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that torchrun started for the length of a block; without torchrun there is one.

    Everything that refers to the process group (a wrapped network) must be gone at the end of the block: the threads of
    DistributedDataParallel have to end before the group is left. A process that leaves the block with an error ends the
    others, too.

    Raises:
        TrainingError: The processes cannot join, or another one has failed.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    watch = None
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"The processes of this run do not find each other ({str(error).splitlines()[0]}). RANK and WORLD_SIZE "
                "are set, as torchrun does. Start them with torchrun, or unset both for a single process."
            ) from error
        watch = watch_failures(dist.get_rank(), dist.get_world_size())
    failure = None
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    except BaseException as error:
        failure = error if watch is None else watch.explained(error)
        if failure is error:
            raise
        raise failure from error
    finally:
        if watch is not None:
            watch.stop()
        gc.collect()  # networks and trainers refer to each other: the reference count alone does not free them
        leave_world(failure)


def prepare_for_training(
    model: nn.Module,
    options: Mapping[str, Any],
    precision: RunPrecision,
    world: World,
    devices: Sequence[torch.device] = (),
) -> nn.Module:
    """Apply the options of the `trainer` section that change a network, in place if possible, and wrap it for devices.

    The wrapper is DistributedDataParallel under torchrun, else DataParallel if there are several devices.

    Args:
        model: The network, on its first device.
        options: The complete `trainer` section.
        precision: Device, dtype and memory format.
        world: The processes that share the work.
        devices: Those of this process.

    Raises:
        ConfigError: A name in `checkpoint_activations` is no part of the network.
    """
    if precision.device.type == "cpu":
        keep_freed_memory()
        model = replace_convolutions(model, in_bf16=precision.dtype is torch.bfloat16)
        repair_instance_norms(model)
    if options["sync_batch_norm"] and world.size > 1:
        if all(weight.is_cuda for weight in model.parameters()):
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        else:
            logger.warning("trainer.sync_batch_norm works on GPUs only: here each process keeps its own statistics.")
    if options["checkpoint_activations"]:
        recompute_activations(model, options["checkpoint_activations"])
    # After all that replaces layers.
    if options["compile"]:
        model.compile()
    if world.size > 1:
        device_ids = [precision.device.index] if precision.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=device_ids)
    if len(devices) > 1:
        return nn.DataParallel(model, device_ids=[device.index for device in devices])
    return model


def registered_anew(model: nn.Module, *, finds_unused: bool | None = None) -> nn.Module:
    """Return a model whose wrapper knows which weights are trained now; DistributedDataParallel registers them once.

    Args:
        model: Wrapped or not; only one of DistributedDataParallel is wrapped again.
        finds_unused: Whether some weights get no gradient in some steps; None: as before.
    """
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        return model
    unused = model.find_unused_parameters if finds_unused is None else finds_unused
    return nn.parallel.DistributedDataParallel(model.module, device_ids=model.device_ids, find_unused_parameters=unused)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model without its wrappers, so that the names of weights carry no prefixes."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        else:
            inner = getattr(model, "_orig_mod", None)  # torch.compile has no public way to its module
        if not isinstance(inner, nn.Module):
            return model
        model = inner
