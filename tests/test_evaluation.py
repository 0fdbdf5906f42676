"""The loss over a data set is the mean over all labels that count, however they are distributed over batches."""

import pytest
import torch
from torch import nn

from models.losses import CrossEntropyLoss
from trainer.evaluation import MetricSet, evaluate
from trainer.runtime.devices import RunPrecision

IGNORED = 255
ON_CPU = RunPrecision(torch.device("cpu"))


def loss_of(batches, ignore_index):
    criterion = CrossEntropyLoss(ignore_index)
    return evaluate(
        nn.Identity(),
        batches,
        criterion=criterion,
        metrics=MetricSet([]),
        precision=ON_CPU,
        ignore_index=ignore_index,
    )["loss"]


def test_ignored_pixels_have_no_weight_in_the_validation_loss():
    # Logits (0, 0) cost ln 2 and (0, 10) of class 0 about 10; three pixels of the second batch do not count.
    easy, hard = torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4)
    hard[:, 1] = 10.0
    labels = torch.zeros(1, 1, 4, dtype=torch.int64)
    partly = labels.clone()
    partly[..., 1:] = IGNORED
    of_hard = float(torch.log1p(torch.tensor(10.0).exp()))
    expected = (4 * 0.6931472 + 1 * of_hard) / 5
    assert loss_of([(easy, labels), (hard, partly)], IGNORED) == pytest.approx(expected)


def test_all_pixels_have_weight_if_none_is_ignored():
    logits = torch.randn(3, 2, 1, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[[0, 1, 0, 1]]]).expand(3, 1, 4)
    halves = [(logits[:1], labels[:1]), (logits[1:], labels[1:])]
    assert loss_of(halves, None) == pytest.approx(loss_of([(logits, labels)], None))
    assert loss_of([(logits, torch.full_like(labels, IGNORED))], IGNORED) != loss_of(halves, None)


def test_soft_targets_count_if_they_have_any_probability():
    logits = torch.tensor([[0.0, 0.0], [0.0, 10.0], [0.0, 10.0]])
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]])
    of_hard = float(torch.log1p(torch.tensor(10.0).exp()))
    batches = [(logits[:1], targets[:1]), (logits[1:], targets[1:])]
    assert loss_of(batches, None) == pytest.approx((0.6931472 + of_hard) / 2)
