"""Evaluation of a model over a data set: one function for validation and test.py, so that their numbers agree."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from base.base_metric import MetricSet
from base.base_model import class_logits, main_output
from base.samples import NamedMask
from trainer.runtime.devices import ALONE, RunPrecision, World, unwrap
from utils.geometry import restore_logits

OnBatch = Callable[[Tensor, Tensor, Tensor], None]
OnSample = Callable[[Any, Tensor, Tensor], None]


def count_valid(target: Tensor, ignore_index: int | None) -> Tensor:
    """Return () float64, the number of targets that count: the weight of a batch's mean loss.

    Of soft targets (B, K) those count that have any weight.
    """
    if target.is_floating_point():
        return (target.sum(dim=1) > 0).sum(dtype=torch.float64)
    if ignore_index is None:
        return torch.tensor(float(target.numel()), dtype=torch.float64, device=target.device)
    return (target != ignore_index).sum(dtype=torch.float64)


class RunningLoss:
    """A mean over targets, summed on the device without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, weight: Tensor) -> None:
        """Add a batch's mean loss and the number of targets that it is the mean of."""
        self.sums += torch.stack((loss.detach().double() * weight, weight))

    def mean(self, world: World) -> float:
        """Return the mean over everything added in all processes, NaN if nothing was added."""
        total, weight = world.sum(self.sums).tolist()
        return total / weight if weight else float("nan")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    criterion: nn.Module,
    metrics: MetricSet,
    precision: RunPrecision,
    world: World = ALONE,
    ignore_index: int | None = None,
    max_batches: int | None = None,
    on_batch: OnBatch | None = None,
    on_sample: OnSample | None = None,
) -> dict[str, float]:
    """Evaluate a model on every sample of a loader; a collective call if there are several processes.

    Metrics are computed at each mask's own size if the loader yields the masks as `NamedMask`, else at the network's.

    Args:
        model: On the device of `precision`; left in evaluation mode.
        loader: Yields (inputs, target) or (inputs, target, samples).
        criterion: (output, target) -> ().
        metrics: Reset first; afterwards they hold the counts over all processes.
        precision: Device and precision.
        world: The processes that share the work.
        ignore_index: Label of the targets that do not count.
        max_batches: Evaluate the first batches only.
        on_batch: Gets inputs (B, C, H, W), target (B, H, W), logits (B, K, H, W); in classification (B,) and (B, K).
        on_sample: Gets each `NamedMask`, its input (C, H, W) and its logits (K, h, w) at the mask's own size; in
            classification each `NamedSample`, its input and its logits (K,).

    Returns:
        The loss and every metric.
    """
    model = unwrap(model).eval()
    metrics.reset()
    running = RunningLoss(precision.device)
    for batch_inputs, batch_target, *rest in islice(loader, max_batches):
        inputs, target = precision.place(batch_inputs), precision.place(batch_target)
        with precision.autocast():
            output = model(inputs)
            loss = criterion(output, target)
        running.add(loss, count_valid(target, ignore_index))
        # A binary network has one channel, auxiliary outputs do not count: metrics see K >= 2 logits.
        logits = class_logits(main_output(output).float())
        samples = rest[0] if rest else []
        # Masks at their own sizes do not fit into one tensor: each is counted by itself.
        has_own_sizes = bool(samples) and isinstance(samples[0], NamedMask)
        if not has_own_sizes:
            metrics.update(logits, target)
        for position, sample in enumerate(samples):
            sample_logits = logits[position]
            if has_own_sizes:
                height, width = sample.target.shape[-2:]
                sample_logits = restore_logits(sample_logits, sample.geometry, (height, width))
                mask = sample.target[None].to(logits.device, torch.int64, non_blocking=True)
                metrics.update(sample_logits[None], mask)
            if on_sample is not None:
                on_sample(sample, inputs[position], sample_logits)
        if on_batch is not None:
            on_batch(inputs, target, logits)
    metrics.set_counts([world.sum(counts) for counts in metrics.counts()])
    return {"loss": running.mean(world), **metrics.compute()}
