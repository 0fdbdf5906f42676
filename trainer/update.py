"""One change of the weights: backward passes, a look at the losses, clipping, the optimizer's step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class Clipping:
    """Bounds of the gradients before each step of the optimizer.

    Attributes:
        norm: Largest L2 norm of all gradients together; larger ones are scaled down to it.
        value: Largest absolute value of each number; larger ones are cut off.
    """

    norm: float | None = None
    value: float | None = None

    def apply(self, parameters: list[nn.Parameter]) -> None:
        """Clip the gradients where they are."""
        if self.value is not None:
            nn.utils.clip_grad_value_(parameters, self.value)
        if self.norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.norm)

    def __bool__(self) -> bool:
        return self.norm is not None or self.value is not None


UNCLIPPED = Clipping()


class FiniteCheck:
    """Whether losses are finite, asked when they were computed and answered before the optimizer's step.

    On a GPU the answer travels while the backward pass runs: waiting for it is waiting for the forward pass alone.
    """

    def __init__(self) -> None:
        self._answers: list[tuple[Tensor, Any]] = []

    def ask(self, loss: Tensor) -> None:
        """Ask for a loss, () float, before its backward pass is begun."""
        answer, event = loss.detach().isfinite(), None
        if loss.is_cuda:
            answer = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(answer, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._answers.append((answer, event))

    def all_finite(self) -> bool:
        """Whether every loss asked for since the last call is finite."""
        answers, self._answers = self._answers, []
        for _, event in answers:
            if event is not None:
                event.synchronize()
        return all(bool(answer) for answer, _ in answers)


class Update:
    """Gathers gradients over one or several batches and steps the optimizer.

    Args:
        optimizer: Steps the weights.
        scaler: The loss scaler of fp16; None for other types.
        clipping: Bounds of the gradients.
    """

    def __init__(self, optimizer: Optimizer, scaler: "torch.amp.GradScaler | None", clipping: Clipping) -> None:
        self.optimizer = optimizer
        self.scaler = scaler
        self.clipping = clipping
        self._check = FiniteCheck()

    def begin(self) -> None:
        """Forget the gradients of the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, () float."""
        self._check.ask(loss)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def is_finite(self) -> bool:
        """Whether every loss since the last call was finite; ask before `step`."""
        return self._check.all_finite()

    def step(self) -> None:
        """Clip and step; with fp16, steps whose gradients overflow are left out and the scale is lowered."""
        if self.clipping:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            self.clipping.apply([weight for group in self.optimizer.param_groups for weight in group["params"]])
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
