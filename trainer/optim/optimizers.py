"""Additions to the optimizers of torch: SGD with decoupled decay, and lookahead for any of them."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.sgd import sgd

SLOW, STEPS = "lookahead_slow", "lookahead_steps"


class SGDW(Optimizer):
    """SGD with decoupled weight decay (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 1).

    Each step multiplies the weights by 1 - lr * weight_decay, as `torch.optim.AdamW` does, and the decay is in no
    momentum.

    Args:
        params: Weights, or groups of them.
        lr: The learning rate.
        momentum: Of the gradients.
        weight_decay: Decay, in terms of the learning rate.
        nesterov: Whether the momentum is Nesterov's.
    """

    def __init__(
        self,
        params: Any,
        lr: Annotated[float, Field(ge=0)] = 1e-3,
        momentum: Annotated[float, Field(ge=0)] = 0.0,
        weight_decay: Annotated[float, Field(ge=0)] = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Decay the weights and make a step of SGD."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            buffers = [self.state.get(weight, {}).get("momentum_buffer") for weight in weights]
            for weight in weights:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
            sgd(
                weights,
                [weight.grad for weight in weights],
                buffers,
                weight_decay=0.0,  # it would be in the momentum
                dampening=0.0,
                maximize=False,
                **{name: group[name] for name in ("lr", "momentum", "nesterov")},
            )
            if group["momentum"]:
                for weight, buffer in zip(weights, buffers, strict=True):  # which the first step has filled in
                    self.state[weight]["momentum_buffer"] = buffer
        return loss


class Lookahead:
    """Slow weights that follow an optimizer (Zhang et al. 2019, https://arxiv.org/abs/1907.08610, algorithm 1).

    Every `sync_period` steps the slow weights move a part of the way to those of the optimizer, which continues from
    there. Slow weights and steps are in the optimizer's state, and so in its checkpoints.

    Args:
        sync_period: Steps between two moves.
        slow_step_size: Part of the way.
    """

    def __init__(self, sync_period: int = 6, slow_step_size: float = 0.5) -> None:
        self.sync_period = sync_period
        self.slow_step_size = slow_step_size
        self._begun: dict[Tensor, Tensor] = {}  # weights before the first step

    def follow(self, optimizer: Optimizer) -> None:
        """Follow the steps of an optimizer from now on."""
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    @torch.no_grad()
    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                # Not into the state yet: optimizers see by an empty state that the step is their first.
                if weight.grad is not None and SLOW not in optimizer.state.get(weight, {}):
                    self._begun[weight] = weight.detach().clone()

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for weight, begun in self._begun.items():
            optimizer.state[weight][SLOW] = begun
        self._begun.clear()
        for group in optimizer.param_groups:
            group[STEPS] = group.get(STEPS, 0) + 1
            if group[STEPS] % self.sync_period:
                continue
            for weight in group["params"]:
                slow = optimizer.state.get(weight, {}).get(SLOW)
                if slow is not None:
                    slow.lerp_(weight, self.slow_step_size)
                    weight.copy_(slow)


def with_lookahead(optimizer: Optimizer, section: Mapping[str, Any]) -> Optimizer:
    """Return an optimizer, followed by slow weights if its section of the config has the arguments of `Lookahead`."""
    if section.get("lookahead") is not None:
        Lookahead(**section["lookahead"]).follow(optimizer)
    return optimizer
