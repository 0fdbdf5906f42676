"""What a training will need, found out without doing it: one step through tensors that have shapes and no content.

Legend: B batch, C channels of the input, K classes.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from base.base_model import Output
from search.worker.fake import AnswersZero, LiveMemory, build_fake
from trainer.runtime.devices import ON_CPU, RunPrecision
from utils.errors import ConfigError
from utils.hardware import is_out_of_memory

MEGABYTE = 2**20
# What operations on a processor take beside the tensors (copies that oneDNN reorders, gaps of the allocator), as a
# share of these: the middle of what benchmarks/predicted_memory.py measures.
WORKING_SHARE = 0.25
_DEFAULT_COPIES = 2.0  # an Adam; for an optimizer that will not be tried on a small weight
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingStep:
    """A step of a training, with nothing built yet.

    Attributes:
        build_model: Makes the network in training mode, equipped and frozen as it will be trained.
        build_criterion: Makes the loss of a network: (output, target) -> ().
        input_shape: (B, C, ...) of a training batch.
        target_shape: Of its target.
        target_dtype: Whole numbers, or floats of a target that is mixed.
        precision: Device, precision and memory format.
        optimizer_copies: Numbers that the optimizer keeps for each weight that learns.
        has_average: A moving average of all weights is kept.
        accumulate: Batches whose gradients make one step.
    """

    build_model: Callable[[], nn.Module]
    build_criterion: Callable[[nn.Module], nn.Module]
    input_shape: Sequence[int]
    target_shape: Sequence[int]
    target_dtype: torch.dtype = torch.int64
    precision: RunPrecision = ON_CPU
    optimizer_copies: float = 0.0
    has_average: bool = False
    accumulate: int = 1

    def placed_model(self) -> nn.Module:
        """The network on its device."""
        return self.build_model().to(self.precision.device).to(memory_format=self.precision.memory_format)


@dataclass(frozen=True)
class Foreseen:
    """What a training will need.

    Attributes:
        params: Weights, those that do not learn included.
        flops: FLOPs of one sample's forward pass, as `BaseModel.flops` counts them.
        memory_mb: Most memory of a training step; None where it depends on more than shapes.
    """

    params: int
    flops: int
    memory_mb: float | None


def foresee(step: TrainingStep, input_size: Sequence[int] | None = None) -> Foreseen:
    """Parameters, FLOPs and memory of a training, without its memory and its arithmetic.

    A network or loss that decides by values cannot be followed through shapes: a small batch is then tried out in
    earnest, and where it is the network, its memory remains unknown.

    Args:
        step: What would be trained.
        input_size: (H, W), or (T,) of a series, at which FLOPs are stated; that of the training where not given.

    Raises:
        ConfigError: The network cannot be built, or cannot take the input.
    """
    batch, channels, *trained_size = step.input_shape
    sample = (1, channels, *(trained_size if input_size is None else input_size))
    try:
        return _through_shapes(step, sample)
    except Exception as error:  # an illegal network, or one that cannot be followed: the other way tells which
        logger.debug("Not to be known from shapes alone: %s", error)
    few = min(batch, 2)  # one would not do for a batch norm
    small = replace(step, input_shape=(few, *step.input_shape[1:]), target_shape=(few, *step.target_shape[1:]))
    tried_out = _in_earnest(small, sample)
    try:
        return _through_shapes(replace(step, build_criterion=lambda _: _StandIn()), sample)
    except Exception as error:
        logger.debug("The network decides by values: %s", error)
        return tried_out


def _through_shapes(step: TrainingStep, sample: Sequence[int]) -> Foreseen:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = build_fake(step.build_model, mode, step.precision.device)
    with mode, AnswersZero(), step.precision.device:
        flops = _flops(model, sample)
        return Foreseen(_count(model.parameters()), flops, _peak_bytes(step, model) / MEGABYTE)


def _in_earnest(step: TrainingStep, sample: Sequence[int]) -> Foreseen:
    """The same without the memory, from a small batch and one sample.

    Raises:
        ConfigError: The network cannot take one of them.
    """
    model = step.placed_model()
    criterion = step.build_criterion(model).to(step.precision.device)
    shape: Sequence[int] = step.input_shape
    try:
        with torch.no_grad():
            _forward(step, model, criterion)
        shape = sample
        flops = _flops(model, sample)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"arch: the network cannot take an input of {'x'.join(map(str, shape))}: {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}. Change its arguments or the size of the input."
        ) from error
    return Foreseen(_count(model.parameters()), flops, None)


def _flops(model: nn.Module, shape: Sequence[int]) -> int:
    """FLOPs of a forward pass in evaluation mode; modes are afterwards what they were."""
    like = next(model.parameters(), torch.zeros(()))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(*shape, device=like.device, dtype=like.dtype))
    for module, was_training in modes:
        module.training = was_training
    return int(counter.get_total_flops())


def _peak_bytes(step: TrainingStep, model: nn.Module) -> float:
    """Most bytes at one moment of a step that is not the first: the optimizer has its state by then."""
    criterion = step.build_criterion(model)
    device = step.precision.device
    with LiveMemory() as memory:
        for tensor in (*model.parameters(), *model.buffers(), *criterion.buffers()):
            memory.add(tensor)
        weights = memory.live
        for _ in range(min(step.accumulate, 2)):  # the second batch meets the gradients of the first
            torch.autograd.backward(_forward(step, model, criterion))
    learning = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
    step_bytes = memory.peak * (1 + (WORKING_SHARE if device.type == "cpu" else 0))
    # On a GPU the optimizer works on all weights at once, with a copy of them in between.
    update = weights + learning * (1 if device.type == "cpu" else 2)
    kept = learning * step.optimizer_copies + (weights if step.has_average else 0)
    worst: float = max(step_bytes, update) + kept + _waiting_bytes(step)
    return worst


def _waiting_bytes(step: TrainingStep) -> int:
    """Bytes of the batches of a step that wait for their turn, where they wait in the same memory."""
    if step.precision.device.type != "cpu":
        return 0
    target = math.prod(step.target_shape) * step.target_dtype.itemsize
    return (step.accumulate - 1) * (math.prod(step.input_shape) * torch.float32.itemsize + target)


def _forward(step: TrainingStep, model: nn.Module, criterion: nn.Module) -> Tensor:
    device = step.precision.device
    inputs = step.precision.place(torch.zeros(*step.input_shape, device=device))
    target = torch.zeros(*step.target_shape, dtype=step.target_dtype, device=device)
    with step.precision.autocast():
        loss: Tensor = criterion(model(inputs), target)
        return loss


class _StandIn(nn.Module):
    """A loss that needs about as much memory as others."""

    def forward(self, output: Output, _target: Tensor) -> Tensor:
        """The mean of the log-probabilities."""
        logits = [output] if isinstance(output, Tensor) else output
        return torch.stack([each.float().log_softmax(dim=1).mean() for each in logits]).sum()


def _count(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)


def optimizer_copies(build: Callable[[list[nn.Parameter]], Optimizer]) -> float:
    """Numbers that an optimizer keeps for each weight, found out by a step with a small one.

    Args:
        build: Makes the optimizer of some parameters.
    """
    weight = nn.Parameter(torch.zeros(8, 8))
    weight.grad = torch.ones_like(weight)
    optimizer = build([weight])
    try:
        optimizer.step(lambda: 0.0)
    except Exception as error:
        logger.debug("%s takes no step with a small weight: %s", type(optimizer).__name__, error)
        return _DEFAULT_COPIES
    tensors = [each for each in tree_leaves(list(optimizer.state.values())) if isinstance(each, Tensor)]
    return sum(each.numel() for each in tensors if each.dim()) / weight.numel()
