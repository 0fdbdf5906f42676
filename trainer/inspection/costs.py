"""The costs of a training without running it: one step through tensors that have shapes and no content.

Legend: B batch, C channels of the input, K classes.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any
from weakref import finalize

import torch

# torch has no public way to run a network by shapes alone on a given device (tensors of the device "meta" do not know
# another one), nor to see every operation and its results. A test runs all private parts that are used here.
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from base.base_loss import compute_loss
from base.base_model import Output
from base.inspection.failures import first_line, size_text
from base.inspection.flops import flop_counter
from trainer.inspection.loss_faults import explain_loss_failure
from trainer.runtime.devices import ON_CPU, RunPrecision
from utils.environment import is_out_of_memory
from utils.errors import ConfigError

MEGABYTE = 2**20
# Memory of operations on a CPU in addition to their tensors (reordered copies of oneDNN, gaps of the allocator) as a
# share of these: the middle of the measurements of benchmarks/predicted_memory.py.
WORKING_SHARE = 0.25
_DEFAULT_COPIES = 2.0  # as Adam has, for an optimizer that fails on a small weight
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingStep:
    """A step of a training, with nothing built yet.

    Attributes:
        build_model: Builds the network in training mode, prepared and frozen as it will be trained; or one that is
            built, which stays as it is.
        build_criterion: Builds the loss of a network: (output, target) -> ().
        input_shape: (B, C, ...) of a training batch.
        target_shape: Of its target.
        target_dtype: Integer, or floating for a mixed target.
        precision: Device, precision and memory format.
        optimizer_copies: Numbers that the optimizer stores per trainable weight.
        has_average: Whether there is a moving average of all weights.
        accumulate: Batches per optimizer step.
        held_bytes: Of gradients and optimizer's state of weights that this step does not train, but another one does.
    """

    build_model: Callable[[], nn.Module] | nn.Module
    build_criterion: Callable[[nn.Module], nn.Module]
    input_shape: Sequence[int]
    target_shape: Sequence[int]
    target_dtype: torch.dtype = torch.int64
    precision: RunPrecision = ON_CPU
    optimizer_copies: float = 0.0
    has_average: bool = False
    accumulate: int = 1
    held_bytes: float = 0.0

    def placed_model(self) -> nn.Module:
        """Build the network on its device."""
        built = copy.deepcopy(self.build_model) if isinstance(self.build_model, nn.Module) else self.build_model()
        return built.to(self.precision.device).to(memory_format=self.precision.memory_format)

    def zeros(self) -> tuple[Tensor, Tensor]:
        """Return inputs and target of a batch of zeros, on the device."""
        device = self.precision.device
        # Costs follow from the shapes; a network whose operations depend on values is not predicted in full.
        inputs = self.precision.place(torch.zeros(*self.input_shape, device=device))
        return inputs, torch.zeros(*self.target_shape, dtype=self.target_dtype, device=device)

    def loss_of(self, model: nn.Module, criterion: nn.Module) -> Tensor:
        """Return the loss of a batch of zeros."""
        inputs, target = self.zeros()
        with self.precision.autocast():
            return compute_loss(criterion, model(inputs), target)


@dataclass(frozen=True)
class Facts:
    """The costs of a candidate; None if they are unknown.

    Attributes:
        params: Weights of the network, including those that are not trained.
        flops: FLOPs of one sample's forward pass, as `BaseModel.flops` counts them.
        memory_mb: Predicted peak memory of a training step in megabytes.
        latency_ms: Measured milliseconds of one sample's forward pass.
    """

    params: int | None = None
    flops: int | None = None
    memory_mb: float | None = None
    latency_ms: float | None = None

    def known(self) -> dict[str, float]:
        """Return the known costs by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def predict_costs(step: TrainingStep, input_size: Sequence[int] | None = None) -> Facts:
    """Return parameters, FLOPs and memory of a training, without allocating its memory or computing it.

    A network or loss whose operations depend on values cannot be followed through shapes: a small batch is then run
    for real, and if it is the network, its memory remains unknown.

    Args:
        step: The training step.
        input_size: (H, W), or (T,) of a series, of the FLOPs; by default that of the training.

    Raises:
        ConfigError: The network cannot be built, or cannot take the input.
    """
    batch, channels, *trained_size = step.input_shape
    sample = (1, channels, *(trained_size if input_size is None else input_size))
    try:
        return _costs_from_shapes(step, sample)
    except Exception as error:  # an invalid network, or one that cannot be followed: the other way shows which
        logger.debug("Shapes alone do not suffice: %s", error)
    few = min(batch, 2)  # batch normalization fails on a single sample
    small = replace(step, input_shape=(few, *step.input_shape[1:]), target_shape=(few, *step.target_shape[1:]))
    model = small.placed_model()
    criterion = small.build_criterion(model).to(small.precision.device)
    has_loss = False
    try:
        with torch.no_grad():
            small.loss_of(model, criterion)
        has_loss = True
        flops = _count_flops(model, sample)
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, ConfigError):
            raise
        fault = None if has_loss else _fault_of_loss(small, model, criterion, error)
        shape = sample if has_loss else small.input_shape
        raise ConfigError(
            fault
            or f"arch: the network cannot take an input of {size_text(shape)}: {first_line(error)}. Change its "
            "arguments or the size of the input."
        ) from error
    facts = Facts(sum(weight.numel() for weight in model.parameters()), flops)
    del model, criterion  # before others are built
    try:
        return _costs_from_shapes(replace(step, build_criterion=lambda _: _StandInLoss()), sample)
    except Exception as error:
        logger.debug("The network depends on values: %s", error)
        return facts


def _fault_of_loss(step: TrainingStep, model: nn.Module, criterion: nn.Module, error: Exception) -> str | None:
    """Return with its JSON path why the loss of a batch of zeros fails; None if the network fails before."""
    inputs, target = step.zeros()
    try:
        with torch.no_grad(), step.precision.autocast():
            output = model(inputs)
    except Exception:
        return None
    fault = explain_loss_failure(error, model, criterion, output, target)
    return f"{fault.place}: {fault.message}"


def predict_memory(step: TrainingStep) -> int | None:
    """Return the bytes of a training step at the worst moment, from shapes alone: nothing is allocated or computed.

    On a processor they are 0.79 to 1.06 times the bytes by which trainings of the shipped networks grow
    (`benchmarks/predicted_memory.py`).

    Returns:
        None if the network cannot be followed through shapes.
    """
    for build_criterion in (step.build_criterion, lambda _: _StandInLoss()):
        try:
            facts = _costs_from_shapes(replace(step, build_criterion=build_criterion), (1, *step.input_shape[1:]))
        except Exception as error:
            logger.debug("The step cannot be followed through shapes: %s", error)
        else:
            return None if facts.memory_mb is None else int(facts.memory_mb * MEGABYTE)
    return None


def _costs_from_shapes(step: TrainingStep, sample: Sequence[int]) -> Facts:
    """Return the costs by a step through fake tensors: of shape, type and device, but without memory.

    The memory is the peak of a step that is not the first, so that the optimizer has its state.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = build_fake(step.build_model, mode, step.precision.device)
    with _no_tracebacks_of_torch(), mode, AnswersZero(), step.precision.device:  # type: ignore[no-untyped-call]
        flops = _count_flops(model, sample)
        criterion = step.build_criterion(model)
        with LiveMemory() as memory:
            # These exist before the step; gradients and activations are counted when they are made.
            for tensor in (*model.parameters(), *model.buffers(), *criterion.buffers()):
                memory.add(tensor)
            weights = memory.live
            for _ in range(min(step.accumulate, 2)):  # the gradients of the first batch exist during the second
                torch.autograd.backward(step.loss_of(model, criterion))
    is_cpu = step.precision.device.type == "cpu"
    trainable = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
    batches = memory.peak * (1 + (WORKING_SHARE if is_cpu else 0))
    # On a GPU the optimizer updates all weights at once, with a temporary copy of them.
    update = weights + trainable * (1 if is_cpu else 2)
    state = trainable * step.optimizer_copies + step.held_bytes + (weights if step.has_average else 0)
    # The batches of a step are loaded together, and are on the device before the first one is used.
    batch = math.prod(step.input_shape) * torch.float32.itemsize
    batch += math.prod(step.target_shape) * step.target_dtype.itemsize
    waiting = (step.accumulate - 1) * batch
    peak: float = max(batches, update) + state + waiting
    return Facts(sum(weight.numel() for weight in model.parameters()), flops, peak / MEGABYTE)


@contextmanager
def _no_tracebacks_of_torch() -> Iterator[None]:
    """Within, torch does not log the traceback of an operation that shapes do not suffice for; it is raised, too."""
    noisy = logging.getLogger(FakeTensorMode.__module__)
    was_disabled, noisy.disabled = noisy.disabled, True
    try:
        yield
    finally:
        noisy.disabled = was_disabled


def _count_flops(model: nn.Module, shape: Sequence[int]) -> int:
    """Return the FLOPs of a forward pass in evaluation mode, and restore the modes of all modules."""
    like = next(model.parameters(), torch.zeros(()))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    counter = flop_counter()
    with counter, torch.no_grad():
        model(torch.zeros(*shape, device=like.device, dtype=like.dtype))
    for module, was_training in modes:
        module.training = was_training
    return int(counter.get_total_flops())


class _StandInLoss(nn.Module):
    """A loss with about as much memory as others, for one whose operations depend on values."""

    def forward(self, output: Output, _target: Tensor) -> Tensor:
        """Return the mean of the log-probabilities."""
        logits = [output] if isinstance(output, Tensor) else output
        return torch.stack([each.float().log_softmax(dim=1).mean() for each in logits]).sum()


def optimizer_copies(build: Callable[[list[nn.Parameter]], Optimizer]) -> float:
    """Return how many numbers an optimizer stores per weight, measured by a step on a small weight.

    Args:
        build: Builds the optimizer of some parameters.
    """
    weight = nn.Parameter(torch.zeros(8, 8))
    weight.grad = torch.ones_like(weight)
    optimizer = build([weight])
    try:
        optimizer.step(lambda: 0.0)
    except Exception as error:
        logger.debug("%s fails on a small weight: %s", type(optimizer).__name__, error)
        return _DEFAULT_COPIES
    tensors = [each for each in tree_leaves(list(optimizer.state.values())) if isinstance(each, Tensor)]
    return sum(each.numel() for each in tensors if each.dim()) / weight.numel()  # scalars are counts of steps


def build_fake(build: Callable[[], nn.Module] | nn.Module, mode: FakeTensorMode, device: torch.device) -> nn.Module:
    """Build a network whose weights have no content.

    Some classes read values when they are built (drop rates of a `linspace`): these are built for real, and their
    weights then replaced.

    Args:
        build: Builds the network; or one that is built, of which a copy is made.
        mode: In which the network will be used.
        device: Apparent device of its weights.
    """
    if not isinstance(build, nn.Module):
        try:
            with mode, device:  # on the device at once, as weights without content cannot be moved
                return build()
        except Exception as error:
            logger.debug("The network cannot be built from shapes alone: %s", error)
    model = build if isinstance(build, nn.Module) else build()
    fakes: dict[int, Any] = {}  # by the identity of what they replace, so that the copy takes them over

    with mode:
        for tensor in (*model.parameters(), *model.buffers()):  # a weight of several modules comes once
            empty = torch.empty_like(mode.from_tensor(tensor.detach()), device=device)
            is_weight = isinstance(tensor, nn.Parameter)
            fakes[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_weight else empty
    return copy.deepcopy(model, fakes)


class AnswersZero(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode in which reading the value of a fake tensor gives 0 or False, as if all values were zero."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        try:
            return func(*args, **(kwargs or {}))
        except DataDependentOutputException:
            if func is not torch.ops.aten._local_scalar_dense.default:
                raise
            dtype = args[0].dtype
            return False if dtype is torch.bool else 0.0 if dtype.is_floating_point else 0


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that counts the bytes of the tensors that exist at the same time.

    Attributes:
        live: Bytes now.
        peak: Maximum so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def add(self, tensor: Tensor) -> None:
        """Count a tensor until its storage is freed, once for all views of it."""
        storage = tensor.untyped_storage()
        # Views share the storage of their tensor, which is freed with the last of them.
        if storage not in self._known:
            self._known[storage] = num_bytes = storage.nbytes()
            self.live += num_bytes
            self.peak = max(self.peak, self.live)
            finalize(storage, self._remove, num_bytes)

    def _remove(self, num_bytes: int) -> None:
        self.live -= num_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count its results."""
        results = func(*args, **(kwargs or {}))
        for each in tree_leaves(results):
            if isinstance(each, Tensor):
                self.add(each)
        return results
