"""Networks without content: fake tensors have a shape, a type and a device, and take no memory (torch._subclasses)."""

import logging
from collections.abc import Callable
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

logger = logging.getLogger(__name__)


def build_fake(build: Callable[[], nn.Module], mode: FakeTensorMode, device: torch.device) -> nn.Module:
    """A network whose weights have no content.

    Some classes look at values while they are built (drop rates of a `linspace`): those are built in earnest, and
    their weights then forgotten.

    Args:
        build: Makes the network.
        mode: In which the network will be used.
        device: Where its weights are to seem to be.
    """
    try:
        with mode, device:  # made there: weights without content cannot be moved
            return build()
    except Exception as error:
        logger.debug("The network cannot be built from shapes alone: %s", error)
    model = build()
    fakes: dict[int, Tensor] = {}  # a weight may stand in several places

    def forgotten(tensor: Tensor) -> Tensor:
        if id(tensor) not in fakes:
            fakes[id(tensor)] = torch.empty_like(mode.from_tensor(tensor.detach()), device=device)
        return fakes[id(tensor)]

    with mode:
        for module in model.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = nn.Parameter(forgotten(weight), weight.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = forgotten(buffer)
    return model


class AnswersZero(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets a network that asks for a value get the one that it would get of nothing but zeros: 0, or False."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

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
    """Counts the bytes of the tensors that live at the same time.

    Attributes:
        live: Bytes now.
        peak: The most bytes that there were.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def add(self, tensor: Tensor) -> None:
        """Count a tensor until its storage goes, once however many views of it there are."""
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known[storage] = num_bytes = storage.nbytes()
            self.live += num_bytes
            self.peak = max(self.peak, self.live)
            finalize(storage, self._forget, num_bytes)

    def _forget(self, num_bytes: int) -> None:
        self.live -= num_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor):
                self.add(each)
        return made
