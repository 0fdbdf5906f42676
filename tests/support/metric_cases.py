"""Drawn predictions with their truth, for every number of classes and every kind of ignored label."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from base.base_metric import Metric
from models import SECTIONS
from trainer.evaluation import MetricSet, evaluate
from trainer.runtime.devices import ON_CPU, joined_world
from utils.registry import import_attribute

CLASSES = (1, 2, 3, 11, 181, 1000)
IGNORED = ("absent", "outside", "first", "last")
SAMPLES, SIZE = 7, (12, 13)
DISTANCE = 0.1  # of the bands of boundary_iou: 2 pixels


@dataclass(frozen=True)
class Case:
    """Logits (B, K, H, W) or (B, K), their truth (B, H, W) or (B,), and the label that does not count.

    Of 11 classes and more the last but one is only predicted, and the one before it neither true nor predicted.
    """

    num_classes: int
    ignore_index: int | None
    logits: Tensor
    target: Tensor


@cache
def draw_case(num_classes: int, ignored: str, *, of_images: bool = True) -> Case:
    """Return a case; samples 2 and 3 have no pixel that counts."""
    outside = 255 if num_classes <= 255 else 65535
    index = {"absent": None, "outside": outside, "first": 0, "last": num_classes - 1}[ignored]
    generator = torch.Generator().manual_seed(num_classes)
    shape = (SAMPLES, *SIZE) if of_images else (SAMPLES * 10,)
    true = torch.randint(0, num_classes, shape, generator=generator)
    found = torch.randint(0, num_classes, shape, generator=generator)
    found = true.where(torch.rand(shape, generator=generator) < 0.4, found)
    if num_classes >= 11:
        true = torch.where((true == num_classes - 2) | (true == num_classes - 3), 1, true)
        found = torch.where(found == num_classes - 3, 1, found)
    logits = torch.rand(shape[0], num_classes, *shape[1:], generator=generator)
    logits.scatter_add_(1, found[:, None], torch.ones_like(logits))
    if num_classes >= 11:
        logits[:, num_classes - 3] = -1.0
    if index is not None:
        true[torch.rand(shape, generator=generator) < 0.2] = index
        true[2:4] = index
    return Case(num_classes, index, logits, true)


def make_metrics(case: Case, *, of_images: bool = True, **args: Any) -> dict[str, Metric]:
    """Return every metric of the registry by its name in a config, all that there are for samples without contours."""
    top = {"k": max(1, min(5, case.num_classes - 1))}
    extra = {"top_k_accuracy": top, "top_k_acc": top, "boundary_iou": {"distance": DISTANCE}}
    return {
        name: import_attribute(reference)(case.num_classes, case.ignore_index, **extra.get(name, {}), **args)
        for name, reference in SECTIONS["metrics"].entries.items()
        if of_images or name != "boundary_iou"
    }


class NoLoss(nn.Module):
    """A loss that is always 0."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return output.sum() * 0.0


def evaluate_share(folder: Path) -> None:
    """Evaluate every case as one of two processes, with every second sample or all or none, and save the results."""
    with joined_world() as world:
        results = {}
        for num_classes, ignored in all_cases():
            case = draw_case(num_classes, ignored)
            share = range(world.rank, SAMPLES, world.size) if ignored != "first" else range(SAMPLES * (not world.rank))
            results[num_classes, ignored] = evaluate(
                nn.Identity(),
                [(case.logits[index : index + 1], case.target[index : index + 1]) for index in share],
                criterion=NoLoss(),
                metrics=MetricSet(make_metrics(case).values()),
                precision=ON_CPU,
                world=world,
                ignore_index=case.ignore_index,
            )
        torch.save(results, folder / f"{world.rank}.pt")


def all_cases() -> Iterator[tuple[int, str]]:
    """Yield every number of classes with every kind of ignored label."""
    for num_classes in CLASSES:
        for ignored in IGNORED:
            yield num_classes, ignored


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    child = os.fork()  # before torch has a thread; torchrun would import everything three times
    os.environ |= {"RANK": str(int(child == 0)), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo", f"file://{folder}/store", rank=int(child == 0), world_size=2)
    evaluate_share(folder)
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
