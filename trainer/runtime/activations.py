"""Parts of a network whose activations are computed again in the backward pass, to save memory (arXiv:1604.06174)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from utils.errors import ConfigError


def recompute_activations(model: nn.Module, patterns: Sequence[str]) -> None:
    """Let the parts of these names keep only their inputs; names, weights and results stay what they were.

    Dropout draws the same again, and statistics of batch norms are counted once.

    Args:
        model: Changed in place.
        patterns: Names of parts, with `*` and `?`, e.g. `encoder.stages.*`; within a part, its own parts are left out.

    Raises:
        ConfigError: A pattern names no part.
    """
    parts = {name: module for name, module in model.named_modules() if name}
    chosen: list[str] = []
    for pattern in patterns:
        matching = [name for name in parts if fnmatchcase(name, pattern)]
        if not matching:
            known = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f'trainer.checkpoint_activations: "{pattern}" is the name of no part of the network. Its parts are '
                f"{known}. Name one, or several with *."
            )
        chosen += matching
    for name in chosen:
        if not any(name.startswith(f"{other}.") for other in chosen):
            part = parts[name]
            part.forward = partial(_forward, part, part.forward)


def _forward(part: nn.Module, forward: Any, *inputs: Any, **options: Any) -> Any:
    if not (part.training and torch.is_grad_enabled()):
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, part), **options)


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What surrounds the forward pass, and its repetition."""
    return nullcontext(), _statistics_kept(part)


@contextmanager
def _statistics_kept(part: nn.Module) -> Iterator[None]:
    """Let batch norms count on copies of their running statistics, which are then forgotten."""
    norms = [module for module in part.modules() if isinstance(module, _BatchNorm) and module.training]
    kept = [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms]
    try:
        for norm, buffers in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())
        yield
    finally:
        for norm, buffers in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
