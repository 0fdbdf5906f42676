"""Validation at 512x512 with masks of their own sizes, against the forward pass of the same batches.

Cross-entropy and all metrics that count classes, on the processor; the batches are in memory, so no loader is measured.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from base.samples import NamedMask
from benchmarks.speed.comparison import Comparison, alternate
from models.losses.pixelwise import CrossEntropyLoss
from models.metrics.confusion import ClassIoU, Dice, FrequencyWeightedIoU, MeanAccuracy, MeanIoU, Precision, Recall
from models.unet import UNet
from trainer.evaluation import MetricSet, evaluate
from trainer.runtime.devices import RunPrecision
from utils.geometry import letterbox_geometry

SIZE = (512, 512)
ORIGINAL = (427, 640)  # of most photos in COCO
BARS = {2: 1.05, 21: 1.4, 150: 2.2}
IGNORED = 255
METRICS = (MeanIoU, ClassIoU, Dice, Precision, Recall, MeanAccuracy, FrequencyWeightedIoU)
BATCHES, BATCH_SIZE = 2, 2


def measure(rounds: int) -> list[Comparison]:
    """Return one row of wall time and one of processor time for each number of classes."""
    return [row for num_classes in BARS for row in compare(num_classes, rounds)]


def compare(num_classes: int, rounds: int) -> list[Comparison]:
    """Return the rows of one number of classes."""
    generator = torch.Generator().manual_seed(1)
    model = UNet(num_classes=num_classes, backbone="mobilenet_v2").to(memory_format=torch.channels_last).eval()
    precision = RunPrecision.from_options(torch.device("cpu"), {"precision": "auto", "channels_last": True})
    batches = [make_batch(num_classes, generator) for _ in range(BATCHES)]
    metrics = MetricSet(metric(num_classes, IGNORED) for metric in METRICS)
    criterion = CrossEntropyLoss(IGNORED)

    @torch.no_grad()
    def forward() -> None:
        for inputs, _, _ in batches:
            with precision.autocast():
                model(precision.place(inputs))

    def validate() -> None:
        evaluate(model, batches, criterion=criterion, metrics=metrics, precision=precision, ignore_index=IGNORED)

    rows, clocks = [], (("", time.perf_counter, BARS.get(num_classes)), (", processor time", time.process_time, None))
    for kind, clock, bar in clocks:
        values = alternate({"ours": timed(validate, clock), "other": timed(forward, clock)}, rounds)
        name = f"{num_classes} classes{kind}"
        rows.append(Comparison(name, "s", values["ours"], values["other"], "forward pass", is_limit=True, bar=bar))
    return rows


def make_batch(num_classes: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
    """Return inputs, targets and the masks at their own size, in blocks as large as objects are."""
    geometry = letterbox_geometry(ORIGINAL, SIZE)
    coarse = torch.randint(num_classes, (BATCH_SIZE, 1, 8, 8), generator=generator).float()
    masks = torch.nn.functional.interpolate(coarse, size=ORIGINAL).long()[:, 0]
    target = torch.full((BATCH_SIZE, *SIZE), IGNORED)
    (top, left), (height, width) = geometry.offset, geometry.resized
    inside = torch.nn.functional.interpolate(coarse, size=(height, width)).long()[:, 0]
    target[:, top : top + height, left : left + width] = inside
    samples = [NamedMask(index=i, name=str(i), target=mask, geometry=geometry) for i, mask in enumerate(masks)]
    return torch.randn(BATCH_SIZE, 3, *SIZE, generator=generator), target, samples


def timed(run: Callable[[], None], clock: Callable[[], float]) -> Callable[[], float]:
    """Return a function that runs another one and returns its seconds by a clock."""

    def measured() -> float:
        started = clock()
        run()
        return clock() - started

    return measured
