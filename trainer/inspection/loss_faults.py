"""Why a loss cannot compare the output of a network with a target, in the words of the config."""

from typing import Any

import torch
from torch import Tensor, nn

from base.base_model import main_output
from base.inspection.failures import NetworkFault, first_line, size_text


def explain_loss_failure(
    error: Exception,
    model: nn.Module,
    criterion: nn.Module,
    output: Any,
    target: Tensor,
    *,
    ignore_index: int | None = None,
) -> NetworkFault:
    """Return what has to change so that a loss can compare an output with a target.

    Args:
        error: Raised by the loss, its backward pass, or the metrics.
        model: The network.
        criterion: The loss.
        output: Of the network: (B, K, H, W) float, or (B, K), or a list with auxiliary ones.
        target: (B, H, W) int64, or (B,); (B, K) float if mixed.
        ignore_index: Label that does not count.
    """
    network, loss = type(model).__name__, loss_name(criterion)
    if not isinstance(output, Tensor) and not (
        isinstance(output, list | tuple) and output and all(isinstance(each, Tensor) for each in output)
    ):
        return NetworkFault(
            "arch",
            f"{network} returns a {type(output).__name__}. The loss takes logits, one tensor, or a tuple of logits and "
            "auxiliary logits. Return these.",
        )
    logits = main_output(output)
    shapes = f"an output of {size_text(logits.shape)} {_dtype(logits)} with a target of {size_text(target.shape)} "
    shapes += _dtype(target)
    return (
        _other_kind(network, logits, target)
        or _labels_out_of_range(network, logits, target, ignore_index)
        or _other_size(network, logits, target)
        or _soft_targets(loss, target, error)
        or NetworkFault(
            "loss", f"{loss} cannot train on {shapes}: {first_line(error)}. Change the loss or the network."
        )
    )


def loss_name(criterion: nn.Module) -> str:
    """Return the name of a loss; of the losses of a config, those that it adds up."""
    parts = getattr(criterion, "losses", None)
    return " + ".join(loss_name(each) for each in parts) if parts else type(criterion).__name__


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _other_kind(network: str, logits: Tensor, target: Tensor) -> NetworkFault | None:
    """Return the fault of a classifier that gets masks, or of a segmentation network that gets classes."""
    if target.is_floating_point() or logits.dim() == target.dim() + 1:
        return None
    wanted = "a class per pixel" if target.dim() > 1 else "one class per sample"
    return NetworkFault(
        "arch.type",
        f"{network} gives logits of {size_text(logits.shape)}, but the targets are {wanted} "
        f"({size_text(target.shape)}). Use a network for such targets, or a loader for such a network.",
    )


def _labels_out_of_range(network: str, logits: Tensor, target: Tensor, ignore_index: int | None) -> NetworkFault | None:
    """Return the fault of labels for which the network has no channel."""
    if target.is_floating_point() or logits.dim() < 2 or not target.numel():
        return None
    counted = target if ignore_index is None else target[target != ignore_index]
    if not counted.numel():
        return None
    channels, lowest, highest = logits.shape[1], int(counted.min()), int(counted.max())
    if lowest >= 0 and highest < max(2, channels):
        return None
    wrong = highest if lowest >= 0 else lowest
    repair = f"Set num_classes to {highest + 1} in the loader" if lowest >= 0 else "Set ignore_index to it"
    return NetworkFault(
        "arch.args.num_classes",
        f"{channels}: {network} gives logits of {channels} classes, but the label {wrong} occurs. Labels are 0 to "
        f"{max(2, channels) - 1}. {repair}, or correct the labels.",
    )


def _other_size(network: str, logits: Tensor, target: Tensor) -> NetworkFault | None:
    """Return the fault of logits that have not the size of the target, or not its number of samples."""
    spatial = tuple(target.shape[1:]) if not target.is_floating_point() else ()
    if len(logits) != len(target):
        return NetworkFault(
            "arch",
            f"{network} gives {len(logits)} outputs for a batch of {len(target)}. There is one for each sample. "
            "Correct its forward pass.",
        )
    if spatial and tuple(logits.shape[2:]) != spatial:
        return NetworkFault(
            "arch",
            f"{network} gives logits of {size_text(logits.shape[2:])} for masks of {size_text(spatial)}. A loss "
            "compares them pixel by pixel. Let its forward pass end with an interpolation to the size of the input.",
        )
    return None


def _soft_targets(loss: str, target: Tensor, error: Exception) -> NetworkFault | None:
    """Return the fault of a loss that takes only class ids, and gets a share of each class."""
    if target.dtype in (torch.int64, torch.int32):
        return None
    return NetworkFault(
        "loss",
        f"{loss} takes no target of {size_text(target.shape)} {_dtype(target)} ({first_line(error)}). Mixed samples "
        "(mixup, cutmix) have a share of each class. Remove the mixing, or use a loss for it such as ce_loss.",
    )
