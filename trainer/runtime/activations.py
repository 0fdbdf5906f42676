"""Parts of a network whose activations are computed again in the backward pass, to save memory (arXiv:1604.06174)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # those of any dimension have no public base
from torch.utils.checkpoint import checkpoint

from utils.errors import ConfigError
from utils.module_subclass import with_forward


def recompute_activations(model: nn.Module, patterns: Sequence[str]) -> None:
    """Replace the parts of these names by ones that store only their inputs; names, weights and results stay the same.

    Dropout draws the same again, and batch norms update their statistics once.

    Args:
        model: Changed in place.
        patterns: Names of parts, with `*` and `?`, e.g. `encoder.stages.*`; parts within a matching part are left out.

    Raises:
        ConfigError: A pattern matches no part.
    """
    # A module may be in two places: both get the one replacement.
    parts = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    chosen: list[str] = []
    for pattern in patterns:
        matching = [name for name in parts if fnmatchcase(name, pattern)]
        if not matching:
            known = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f'trainer.checkpoint_activations: "{pattern}" matches no part of the network. Its parts are '
                f"{known}. Name one, or several with *."
            )
        chosen += matching
    outermost = [name for name in chosen if not any(name.startswith(f"{other}.") for other in chosen)]
    replacements = {parts[name]: with_forward(parts[name], Recomputed) for name in outermost}
    for name in outermost:
        model.set_submodule(name, replacements[parts[name]])


class Recomputed(nn.Module):
    """A mixin for modules that run their forward pass again in the backward pass, instead of storing activations."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Run the forward pass of the module."""
        forward = super().forward
        if not (self.training and torch.is_grad_enabled()):
            return forward(*inputs, **options)

        # The contexts of the pass and of its repetition.
        return checkpoint(
            forward,
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _unchanged_statistics(self)),
            **options,
        )


@contextmanager
def _unchanged_statistics(part: nn.Module) -> Iterator[None]:
    """Let batch norms update copies of their running statistics, which are then dropped."""
    norms = [module for module in part.modules() if isinstance(module, _BatchNorm) and module.training]
    original = [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms]
    try:
        for norm, buffers in original:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())
        yield
    finally:
        for norm, buffers in original:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
