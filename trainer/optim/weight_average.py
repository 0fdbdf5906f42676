"""An exponential moving average of the weights: smoother than the last step's, and mostly better."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Keeps a second network whose weights follow the trained one's slowly.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the first, random weights are soon forgotten
    (as in TensorFlow's ExponentialMovingAverage). Statistics of norm layers are averaged like weights; what is no
    floating-point number is copied.

    Args:
        model: The trained network, without what spreads it over devices.
        decay: Share that the average keeps at each update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follow the network after a step of its optimizer."""
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages: list[Tensor] = []
        currents: list[Tensor] = []
        for average, current in zip(_tensors(self.model), _tensors(model), strict=True):
            if average.is_floating_point():
                averages.append(average)
                currents.append(current)
            else:
                average.copy_(current)
        torch._foreach_lerp_(averages, currents, share)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights by the names of the network, and how often they were updated."""
        return {"state_dict": self.model.state_dict(), "updates": self.updates, "decay": self.decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.model.load_state_dict(state["state_dict"])
        self.updates = state["updates"]


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
