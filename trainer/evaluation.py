"""Judging a model over a data set: the one function behind validation and test.py, so that their numbers agree."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from base.base_metric import MetricSet
from base.base_model import class_logits, main_output
from base.data.samples import NamedMask, NamedSample
from trainer.runtime.devices import ALONE, RunPrecision, World, unwrap
from utils.geometry import restore_logits

OnBatch = Callable[[Tensor, Tensor, Tensor], None]
OnSample = Callable[[Any, Tensor, Tensor], None]


def count_valid(target: Tensor, ignore_index: int | None) -> Tensor:
    """() float64: how many targets of a batch count, which is the weight of its mean loss.

    Of soft targets (B, K) those count that have any weight.
    """
    if target.is_floating_point():
        return (target.sum(dim=1) > 0).sum(dtype=torch.float64)
    if ignore_index is None:
        return torch.tensor(float(target.numel()), dtype=torch.float64, device=target.device)
    return (target != ignore_index).sum(dtype=torch.float64)


def hard_labels(target: Tensor) -> Tensor:
    """The ids of a target: its own, or of a soft one (B, K) the class with the largest weight, (B,)."""
    return target.argmax(dim=1) if target.is_floating_point() else target


class RunningLoss:
    """A mean over targets, summed on the device without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, weight: Tensor) -> None:
        """Add a batch's mean loss with the number of targets behind it."""
        self.sums += torch.stack((loss.detach().double() * weight, weight))

    def mean(self, world: World) -> float:
        """The mean over everything added in all processes; NaN where nothing was."""
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
    """Judge a model on every sample of a loader; a collective call where there are several processes.

    Metrics are taken at each mask's own size where the loader hands over its sources, else at the network's.

    Args:
        model: On the device of `precision`; left in evaluation mode.
        loader: Yields (inputs, target) or (inputs, target, sources).
        criterion: (output, target) -> ().
        metrics: Reset here, and holding the counts over all processes afterwards.
        precision: Device and precision.
        world: The processes that share the work.
        ignore_index: Targets that do not count.
        max_batches: Look at the first batches only.
        on_batch: Gets inputs (B, C, H, W), target (B, H, W), logits (B, K, H, W); in classification (B,) and (B, K).
        on_sample: Gets each `NamedMask`, its input (C, H, W) and its logits (K, h, w) at the source's own size; in
            classification each `NamedSample`, its input and its logits (K,).

    Returns:
        loss and every metric.
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
        logits = class_logits(main_output(output).float())
        sources = rest[0] if rest else []
        if sources and isinstance(sources[0], NamedMask):
            _judge_sources(sources, inputs, logits, metrics, on_sample)
        else:
            metrics.update(logits, target)
            _show_samples(sources, inputs, logits, on_sample)
        if on_batch is not None:
            on_batch(inputs, target, logits)
    metrics.set_counts([world.sum(counts) for counts in metrics.counts()])
    return {"loss": running.mean(world), **metrics.compute()}


def _judge_sources(
    sources: list[NamedMask], inputs: Tensor, logits: Tensor, metrics: MetricSet, on_sample: OnSample | None
) -> None:
    """Count each sample of a batch at its mask's own size."""
    for position, source in enumerate(sources):
        restored = restore_logits(logits[position], source.geometry, (source.target.shape[-2], source.target.shape[-1]))
        metrics.update(restored[None], source.target[None].to(logits.device, torch.int64, non_blocking=True))
        if on_sample is not None:
            on_sample(source, inputs[position], restored)


def _show_samples(samples: list[NamedSample], inputs: Tensor, logits: Tensor, on_sample: OnSample | None) -> None:
    """Hand over each sample of a batch whose targets were counted already."""
    if on_sample is not None:
        for position, sample in enumerate(samples):
            on_sample(sample, inputs[position], logits[position])
