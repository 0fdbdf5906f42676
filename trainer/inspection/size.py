"""Building a network that may be too large: it is refused before the machine swaps or the system ends the process."""

import inspect
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode  # torch has no public way to see a tensor before it exists

from base.inspection.failures import size_text
from base.inspection.summary import num_weights
from trainer.inspection.costs import optimizer_copies
from trainer.inspection.memory import free_memory, size_in_words
from trainer.trainer import TrainingPlan
from utils.errors import OutOfMemory
from utils.seeding import generator_state, restore_generator_state

# A network whose tensors fit into memory so many times needs no closer look: weights, gradients, two moments of Adam, a
# moving average, and as much again.
_SURELY = 10
# The deepest published networks have some thousands of weights and buffers; each takes kilobytes of Python.
MANY_TENSORS, MOST_TENSORS = 50_000, 100_000
_FACTORIES = {"empty", "empty_strided", "zeros", "ones", "full", "rand", "randn", "new_empty", "new_zeros", "new_full"}
logger = logging.getLogger(__name__)


class TooLarge(BaseException):
    """A network has outgrown its limit while it was built."""


class SizeLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that ends the construction of a network when all tensors that it has made are larger than a limit.

    Args:
        max_bytes: Of all tensors together, those that exist no more included.
        max_tensors: Number of these.

    Attributes:
        num_bytes: So far.
        num_tensors: So far.
        last: Shape of the last one: of the one that was too much, if there was.
    """

    def __init__(self, max_bytes: float, max_tensors: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.max_bytes, self.max_tensors = max_bytes, max_tensors
        self.num_bytes = self.num_tensors = 0
        self.last: Sequence[int] = ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, unless it makes a tensor that is too much."""
        options = kwargs or {}
        if func.overloadpacket.__name__ in _FACTORIES:
            self.last = next((each for each in args if isinstance(each, list | tuple)), ())
            dtype = options.get("dtype") or torch.get_default_dtype()
            self.num_bytes += math.prod(self.last) * dtype.itemsize
            self.num_tensors += 1
            if self.num_bytes > self.max_bytes or self.num_tensors > self.max_tensors:
                raise TooLarge
        return func(*args, **options)


# torch wraps the method so that its first call loads torch._dynamo, to keep it out of a compilation.
SizeLimit.__torch_dispatch__ = inspect.unwrap(SizeLimit.__torch_dispatch__)  # type: ignore[method-assign]


def build_within_memory(
    build: Callable[[], nn.Module],
    plan: TrainingPlan,
    build_optimizer: Callable[[list[nn.Parameter]], Optimizer],
) -> nn.Module:
    """Build a network, unless it cannot be trained in the memory that is free.

    Weights and random numbers are those of `build()` alone. A network that is large for this machine is first built
    without memory, on the device "meta", and its weights, gradients and optimizer's state are counted.

    Args:
        build: Builds the network on the processor.
        plan: Of the training: device, moving average, and frozen parts.
        build_optimizer: Builds the optimizer of some parameters.

    Raises:
        OutOfMemory: It does not fit.
    """
    room, on_processor = free_memory(plan.precision.device), free_memory(torch.device("cpu"))  # it is built there first
    generators = generator_state()
    limit = SizeLimit(min(room, on_processor) / _SURELY, MANY_TENSORS)
    try:
        with limit:
            return build()
    except TooLarge:
        logger.debug("The network is large (%s): it is counted first.", size_in_words(limit.num_bytes))
    # Here, so that the tensors of the first attempt are freed.
    restore_generator_state(generators)
    counting = SizeLimit(math.inf, MOST_TENSORS)
    try:
        with warnings.catch_warnings(), torch.device("meta"), counting:
            warnings.simplefilter("ignore")  # values that are loaded are of no use there
            counted = build()
        _require_room(counted, plan, optimizer_copies(build_optimizer), room, on_processor)
        del counted
    except TooLarge:
        raise OutOfMemory(
            f"arch: the network has more than {MOST_TENSORS:,} tensors of weights, the most that is built here. "
            "Make it less deep."
        ) from None
    except OutOfMemory:
        raise
    except Exception as error:  # it reads values while it is built, or has a size that no tensor can have
        logger.debug("The network cannot be counted without building it: %s", error)
        restore_generator_state(generators)
        limit = SizeLimit(on_processor, MOST_TENSORS)
        try:
            with limit:
                return build()
        except TooLarge:
            raise OutOfMemory(
                f"arch: the network builds more than {size_in_words(limit.num_bytes)} of weights (the last tensor is "
                f"{size_text(limit.last)}), and {size_in_words(limit.max_bytes)} are free. Make it narrower or less "
                "deep."
            ) from None
    restore_generator_state(generators)
    return build()


def _require_room(model: nn.Module, plan: TrainingPlan, copies: float, room: int, on_processor: int) -> None:
    """Refuse a network whose weights, with all that a training has for each of them, do not fit.

    Args:
        model: Built, perhaps without memory.
        plan: Of the training.
        copies: Numbers that the optimizer stores per trained weight.
        room: Bytes that are free on the device.
        on_processor: Bytes that are free on the processor.

    Raises:
        OutOfMemory: They do not.
    """
    if plan.freezing.patterns and plan.freezing.until_epoch is None:
        plan.freezing.apply(model, epoch=1)
    tensors = {id(each): each for each in (*model.parameters(), *model.buffers())}.values()
    weights = sum(each.nbytes for each in tensors)
    trained = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
    average = weights if plan.ema_decay is not None else 0
    needed = int(weights + trained * (1 + copies) + average)
    if needed <= room and weights <= on_processor:
        return
    largest = max(model.named_parameters(), key=lambda item: item[1].numel())
    parts = "weights, gradients and the optimizer's state" + (" and the moving average" if average else "")
    raise OutOfMemory(
        f"arch: {num_weights(model):,} weights (the largest, {largest[0]}, is {size_text(largest[1].shape)}): {parts} "
        f"take {size_in_words(needed)}, and {size_in_words(room)} are free on {plan.precision.device}. A network must "
        "fit into memory. Make it narrower or less deep."
    )
