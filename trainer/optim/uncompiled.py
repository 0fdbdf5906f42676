"""Optimizers of torch that do not load its compiler."""

import functools
import inspect
from typing import Any

import torch
from torch.optim import Optimizer

# Of every optimizer, marked as not to be compiled.
MARKED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


@functools.cache
def without_compiler(kind: type[Optimizer]) -> type[Optimizer]:
    """Return a subclass of an optimizer of torch that computes the same and leaves `torch._dynamo` unloaded.

    The methods of torch's optimizers load it when they are first called, to keep themselves out of a compilation that
    does not take place: that takes almost as long as loading torch. The methods inside are those of `inspect.unwrap`.

    Args:
        kind: A class of `torch.optim`.
    """
    compute = inspect.unwrap(kind.step)

    @functools.wraps(compute)
    def step(self: Optimizer, *args: Any, **options: Any) -> Any:
        # As torch's wrapper does it.
        with torch.set_grad_enabled(bool(self.defaults.get("differentiable"))):
            return compute(self, *args, **options)

    def reduce(self: Optimizer) -> Any:  # by its name, pickle would find torch's class
        return _built_anew, (kind,), self.__getstate__()

    methods = {name: inspect.unwrap(getattr(kind, name)) for name in MARKED} | {"__reduce__": reduce}
    names = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), {**names, **methods, "step": step})


def _built_anew(kind: Any) -> Optimizer:
    """Return an optimizer of `without_compiler` without its state, for pickle."""
    light: type[Optimizer] = without_compiler(kind)
    return light.__new__(light)
