"""A norm whose gradient torch gets wrong on a processor."""

from typing import Any

import torch
from torch import Tensor, nn


def repair_instance_norms(model: nn.Module) -> None:
    """Let every instance norm of a network get its gradient in the memory format that it computes with.

    torch computes an instance norm as a batch norm of one sample with B C channels, contiguous. If the batch has one
    sample, and the next layer returns a channels-last gradient, as convolutions of a channels-last network do, the
    gradient of its input is wrong (torch 2.14; benchmarks/laws.py). Functions of `torch.nn.functional` are not reached.

    Args:
        model: On a processor; its modules get hooks, their names and weights stay.
    """
    for module in model.modules():
        if isinstance(module, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d):
            module.register_forward_hook(_with_contiguous_gradient)


def _with_contiguous_gradient(_: nn.Module, __: Any, output: Tensor) -> None:
    if output.requires_grad and not torch.compiler.is_compiling():
        output.register_hook(lambda gradient: gradient.contiguous())  # type: ignore[no-untyped-call]
