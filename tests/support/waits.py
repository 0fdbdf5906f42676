"""What would make a step wait for a GPU, found on a processor."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

# They read a tensor's values, or their shapes depend on them; and copies of numbers to the device as tensors.
_WAITING: list[Any] = [
    torch.tensor,
    torch.as_tensor,
    torch.nonzero,
    torch.unique,
    torch.masked_select,
    *(
        getattr(Tensor, name)
        for name in (
            *("__bool__", "__float__", "__int__", "__index__"),
            *("cpu", "item", "masked_select", "nonzero", "numpy", "tolist", "unique"),
        )
    ),
]


class Waits(TorchFunctionMode):
    """Collects the calls in a block for which a GPU would have to be awaited.

    Attributes:
        found: Names of the functions that were called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        has_mask = func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype == torch.bool
        if func in _WAITING or has_mask:
            self.found.append(resolve_name(func) or str(func))
        return func(*args, **(kwargs or {}))
