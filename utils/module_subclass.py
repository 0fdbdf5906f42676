"""A module with another forward pass, under the names and with the weights of the one that it replaces."""

import types
from typing import Any

from torch import nn


def with_forward(module: nn.Module, mixin: type[nn.Module], *bases: type) -> nn.Module:
    """Return a module that runs the forward pass of `mixin` around that of `module`, with the same parts and weights.

    It takes the place of `module`. A wrapper would do the same but for a prefix before the name of each weight: its
    names would no longer be those in checkpoints, in the library that the module comes from, and in the patterns of a
    config (`freeze`, `groups`, `checkpoint_activations`).

    Args:
        module: Not to be used afterwards.
        mixin: A class whose `forward` calls `super().forward`, that of the module.
        bases: Further base classes, after that of the module.

    Returns:
        An object of a class named as that of `module`, which inherits from `mixin`, this class and `bases`. It can be
        copied, and its state dict be saved, but not pickled as a whole: no module holds the class.
    """
    module_class = type(module)

    def fill(namespace: dict[str, Any]) -> None:
        namespace["__module__"] = module_class.__module__

    # Not type(...): the metaclass may be another, as that of an abstract base class is.
    subclass = types.new_class(module_class.__name__, (mixin, module_class, *bases), exec_body=fill)
    # As copy.copy does: without the constructor, which a function such as torchvision's builders has called already.
    replacement: nn.Module = object.__new__(subclass)
    vars(replacement).update(vars(module))
    return replacement
