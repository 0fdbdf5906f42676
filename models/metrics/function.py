"""A metric that is written as a function."""

import logging
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from base.base_metric import Metric
from utils.errors import ConfigError
from utils.registry import given_arguments

logger = logging.getLogger(__name__)


class FunctionMetric(Metric):
    """A function (output, target) -> number of a batch as a metric: the mean of its values, weighted by the samples.

    For a ratio whose denominator differs between batches (IoU, F1) that is not the value over the data set, and depends
    on the batch size; the log says so once. The result has the name of the function.

    Args:
        function: (output, target, further arguments) -> a number, as a Python number or a tensor of one.
        arguments: Further arguments by name.
    """

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        self.name = function.__name__
        self.function = partial(function, **given_arguments(function, arguments))
        self.reset()

    def reset(self) -> None:
        """Set the counts to zero."""
        self.counts = torch.zeros(2, dtype=torch.float64)  # sum of the values times samples, samples

    @torch.no_grad()
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch: logits (B, K, ...) float, target (B, ...) int64.

        Raises:
            ConfigError: The function did not return one number.
        """
        say_that_batches_are_averaged(self.name)
        value = self.function(logits, target)
        if isinstance(value, Tensor) and value.numel() == 1:
            number = value.to(logits.device, torch.float64).reshape(())
        elif isinstance(value, int | float):  # no tensor of it, whose copy to a GPU would be waited for
            number = torch.full((), value, dtype=torch.float64, device=logits.device)
        else:
            found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:200]
            raise ConfigError(
                f"metrics: {self.name} returned {found}. A function is a metric if it returns one number for a batch. "
                "Return a mean over the batch, or write a subclass of Metric."
            )
        samples = torch.full_like(number, len(target))
        self.counts = self.counts.to(logits.device) + torch.stack((number * samples, samples))

    def compute(self) -> dict[str, float]:
        """Return the mean under the name of the function, NaN if nothing was added."""
        total, samples = self.counts.tolist()
        return {self.name: total / samples if samples else float("nan")}


@cache
def say_that_batches_are_averaged(name: str) -> None:
    """Log once for each function how its values become a result."""
    logger.info(
        "metrics: %s is a function of a batch; its values are averaged, weighted by the samples of each batch. "
        "For a ratio over the data set write a subclass of Metric.",
        name,
    )
