"""Evaluation of a model over a data set: one function for validation and test.py, so that their numbers agree.

Training uses its sums over batches and its check of losses, too.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from base.base_loss import Loss, LossTerm, loss_terms
from base.base_metric import Metric
from base.base_model import Output, class_logits, main_output
from base.samples import NamedMask
from trainer.runtime.devices import ALONE, RunPrecision, World, unwrap
from utils.geometry import restore_logits

OnBatch = Callable[[Tensor, Tensor, Tensor], None]
OnSample = Callable[[Any, Tensor, Tensor], None]


def count_valid(target: Tensor, ignore_index: int | None) -> Tensor:
    """Return () float64, the number of targets that count: the weight of a batch's mean loss.

    Of soft targets (B, K) those count that have any value but 0.
    """
    if target.is_floating_point() and target.dim() > 1:
        return (target != 0).any(dim=1).sum(dtype=torch.float64)
    if ignore_index is None or target.is_floating_point():
        return torch.full((), target.numel(), dtype=torch.float64, device=target.device)
    return (target != ignore_index).sum(dtype=torch.float64)


def output_at(output: Output, target: Tensor, other: Tensor) -> Output:
    """Return an output with the resolutions that it would have for another target; its values mean nothing.

    A resolution that halvings explain, each rounded up, is found by the same ones; another by the ratio of the sizes.

    Args:
        output: The logits for `target`, or several, each at a resolution of its own.
        target: (B, H, W), (B, K, H, W), or without sizes.
        other: Such a target of another batch of the same data.
    """
    sides, others = target.shape[-2:], other.shape[-2:]
    if isinstance(output, Tensor) or target.dim() < 3 or others == sides:
        return output

    def resized(logits: Tensor) -> Tensor:
        found = [_side_at(*each) for each in zip(logits.shape[2:], sides, others, strict=False)]
        return logits.detach().flatten()[:1].expand(len(other), logits.shape[1], *found)

    return [resized(each) for each in output]


def _side_at(side: int, whole: int, other: int) -> int:
    """Return the side of logits for a side `other` of targets, given that it is `side` for `whole`."""
    power = next((2**count for count in range(8) if -(-whole // 2**count) == side), None)
    return max(1, round(side * other / whole) if power is None else -(-other // power))


def term_weights(terms: Sequence[LossTerm], ignore_index: int | None) -> Tensor:
    """Return (T,) float64, the weight of each term's mean: its own, else the number of targets that count."""
    weights = [(term.weight(), term.target) for term in terms]
    return torch.stack([count_valid(target, ignore_index) if own is None else own for own, target in weights])


def weights_of_step(
    loss: Loss, output: Output, target: Tensor, targets: Sequence[Tensor], ignore_index: int | None
) -> Tensor:
    """Return (T,) float64, the weight of each term's mean over all batches of a step, of which one has an output.

    Args:
        loss: The loss.
        output: Of one of the batches; only the resolutions of auxiliary logits are used.
        target: Of this batch.
        targets: Of all batches.
        ignore_index: Label of targets that do not count.
    """
    batches = [loss_terms(loss, output_at(output, target, each), each) for each in targets]
    return torch.stack([term_weights(each, ignore_index) for each in batches]).sum(dim=0)


class RunningLoss:
    """A mean over targets, or a sum of such means with a weight each, summed on the device without waiting for it.

    Attributes:
        sums: (2,) float64, the sum of means times their weights, and that of the weights; (T, 2) for T terms.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, weight: Tensor) -> None:
        """Add a batch's mean loss and the weight of that mean, such as its number of targets: () each, or (T,)."""
        self.sums = self.sums + torch.stack((loss.detach().double() * weight, weight), dim=-1)

    def mean(self, world: World) -> float:
        """Return the mean over everything added in all processes, NaN if nothing was added."""
        sums = self.sums.reshape(-1, 2)
        # A process without any batch does not know the number of terms.
        sums = sums.expand(world.largest(len(sums)), 2).contiguous()
        means = [total / weight for total, weight in world.sum(sums).tolist() if weight]
        return sum(means) if means else float("nan")


@dataclass(eq=False)
class FiniteCheck:
    """Checks that losses are finite; the result is read before the optimizer's step.

    On a GPU the result is copied while the backward pass runs: reading it waits for the forward pass alone.
    """

    _results: list[tuple[Tensor, Any]] = field(default_factory=list, init=False)

    def add(self, loss: Tensor) -> None:
        """Check a loss, () float, before its backward pass starts."""
        result, event = loss.detach().isfinite(), None
        if loss.is_cuda:
            result = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(result, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._results.append((result, event))

    def all_finite(self) -> bool:
        """Return whether every loss since the last call is finite."""
        results, self._results = self._results, []
        for _, event in results:
            if event is not None:
                event.synchronize()
        return all(bool(result) for result, _ in results)


class MetricSet:
    """Several metrics that are updated together; those that count the same thing share one tensor.

    Args:
        metrics: Metrics whose `counts_key` are equal share their counts.
    """

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = list(metrics)
        groups: dict[object, list[Metric]] = {}
        for metric in self.metrics:
            groups.setdefault(metric.counts_key(), []).append(metric)
        self._groups = list(groups.values())

    def reset(self) -> None:
        """Set all counts to zero."""
        for metric in self.metrics:
            metric.reset()

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch: logits (B, K, H, W) float, target (B, H, W) int64; or (B, K) and (B,)."""
        for group in self._groups:
            group[0].update(logits, target)

    def counts(self) -> list[Tensor]:
        """Return the counts, one tensor per group, to be summed over processes or saved."""
        return [group[0].counts for group in self._groups]

    def set_counts(self, counts: Iterable[Tensor]) -> None:
        """Replace the counts by (summed) ones."""
        for group, tensor in zip(self._groups, counts, strict=True):
            for metric in group:
                metric.counts = tensor

    def compute(self) -> dict[str, float]:
        """Return name -> value of every metric, in the order given."""
        for first, *others in self._groups:
            for metric in others:
                metric.counts = first.counts  # only the first of a group is updated
        return {name: value for metric in self.metrics for name, value in metric.compute().items()}


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
        criterion: (output, target) -> (); a `BaseLoss` reports the weights of its means.
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
            terms = loss_terms(criterion, output, target)
            values = torch.stack([term.value() for term in terms])
        running.add(values, term_weights(terms, ignore_index))
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
                mask = sample.target[None]
                if logits.is_cuda:  # from other memory the process may wait for what the GPU computes
                    mask = mask.pin_memory()
                metrics.update(sample_logits[None], mask.to(logits.device, torch.int64, non_blocking=True))
            if on_sample is not None:
                on_sample(sample, inputs[position], sample_logits)
        if on_batch is not None:
            on_batch(inputs, target, logits)
    # A process without a batch has its counts on the processor still.
    metrics.set_counts([world.sum(counts.to(precision.device)) for counts in metrics.counts()])
    return {"loss": running.mean(world), **metrics.compute()}
