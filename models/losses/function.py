"""A loss that is written as a function."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from base.base_model import Output, main_output
from utils.registry import given_arguments


class FunctionLoss(nn.Module):
    """A function (output, target) -> () as a loss, computed in float32 also under autocast.

    Its mean over several batches counts them by their targets that are not ignored.

    Args:
        function: (output, target, further arguments) -> (), the mean over the batch.
        arguments: Further arguments by name.
    """

    def __init__(self, function: Callable[..., Tensor], arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.__name__ = function.__name__  # for messages
        self.function = partial(function, **given_arguments(function, arguments))

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, ...) float, target (B, ...) int64, or all that the function takes -> () float."""
        main = main_output(output).float()
        with torch.autocast(main.device.type, enabled=False):
            return self.function(main, target)
