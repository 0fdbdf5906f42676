"""Losses report the weights of their means: batches, accumulation and processes change neither loss nor gradient."""

import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from test_losses import CASES, ONE_CHANNEL, Case, make
from torch import Tensor, nn

from base.base_loss import loss_terms
from base.base_metric import class_ids
from models.losses import CrossEntropyLoss, DiceLoss, OhemCrossEntropyLoss
from tests.support.loss_laws import AUXILIARY, IGNORED, LOSSES, SAMPLES, Masks, Squared, gradient_of, split, trainer_of
from tests.support.tiny import tiny_trainer
from tests.support.waits import Waits
from trainer.evaluation import MetricSet, RunningLoss, count_valid, evaluate, term_weights
from trainer.runtime.devices import ALONE, ON_CPU, World
from trainer.trainer import Trainer
from utils.errors import ConfigError


def is_of_a_batch(case: Case) -> bool:
    """Whether docs/losses.md names the loss as a statistic of a batch."""
    return case[0] == "ohem_loss" or case[1].get("per_image") is False


def mean_over_batches(loss: nn.Module, batches: Any) -> Tensor:
    """The sum over terms of (sum of mean times weight) / (sum of weights)."""
    parts = [loss_terms(loss, *batch) for batch in batches]
    values = torch.stack([torch.stack([term.value() for term in terms]) for terms in parts])
    weights = torch.stack([term_weights(terms, IGNORED) for terms in parts])
    return (values.double() * weights / weights.sum(dim=0)).sum()


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())])[:50])
@pytest.mark.parametrize("sizes", [(4, 4), (1, 3, 2, 1, 1)])
def test_a_loss_over_batches_is_that_of_one_batch(case: Case, sizes: tuple[int, ...]) -> None:
    data, loss = Masks(), make(*case)
    logits = 2 * data.images[:, :1] if case[0] in ONE_CHANNEL else 2 * data.images
    target = data.masks.where(data.masks != 2, 1) if case[0] in ONE_CHANNEL else data.masks
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    whole = loss(one, target)
    divided = mean_over_batches(loss, split((other, target), sizes))
    whole.backward()
    divided.backward()
    if is_of_a_batch(case):
        assert [term.weight() for term in loss_terms(loss, one, target)] == [None]
        return
    assert divided.item() == pytest.approx(whole.item(), rel=1e-5)
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("absent", ["skip", "count"])
@pytest.mark.parametrize("loss", [CrossEntropyLoss, DiceLoss])
def test_shares_of_classes_have_weights_as_well(loss: Any, absent: str) -> None:
    shares = torch.tensor([[0.3, 0.7, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    criterion = (
        loss(weight=[3.0, 1.0, 2.0]) if loss is CrossEntropyLoss else loss(exclude_background=True, absent=absent)
    )
    divided = mean_over_batches(criterion, split((logits, shares), (1, 3)))
    assert divided.item() == pytest.approx(criterion(logits, shares).item(), rel=1e-6)


@pytest.mark.parametrize("ignore_index", [None, 1])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_step_waits_for_a_gpu(accumulate: int, ignore_index: int | None) -> None:
    trainer = tiny_trainer(accumulate=accumulate, ema_decay=0.9)
    trainer.ignore_index = ignore_index
    batches = trainer.next_batches(trainer._steps)
    with Waits() as waits:
        trainer.add_gradients(batches, trainer.train_step)
        trainer.average.update(trainer.model)
    assert not waits.found


@pytest.mark.parametrize("name", [*LOSSES, *AUXILIARY])
@pytest.mark.parametrize(("accumulate", "batch_size"), [(2, 4), (4, 2), (3, 3)])
def test_accumulated_batches_have_the_gradient_of_one(name: str, accumulate: int, batch_size: int) -> None:
    one = trainer_of(name, SAMPLES)
    expected = gradient_of(one)
    several = trainer_of(name, batch_size, accumulate=accumulate)
    torch.testing.assert_close(gradient_of(several), expected, rtol=1e-4, atol=1e-7)
    assert several.running_loss.mean(ALONE) == pytest.approx(one.running_loss.mean(ALONE), rel=1e-5)


@pytest.mark.parametrize("name", [*LOSSES, *AUXILIARY])
@pytest.mark.parametrize(("accumulate", "batch_size"), [(2, 4), (3, 3)])
def test_the_loss_of_a_step_is_that_of_one_batch(name: str, accumulate: int, batch_size: int) -> None:
    one, several = trainer_of(name, SAMPLES), trainer_of(name, batch_size, accumulate=accumulate)
    expected, shown = (trainer.run_step(next(trainer._steps)).item() for trainer in (one, several))
    assert shown == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", [*LOSSES, *AUXILIARY])
def test_the_validation_loss_does_not_depend_on_the_batch_size(name: str) -> None:
    # torch's own cross-entropy of a batch without valid targets is NaN.
    sizes = (SAMPLES, 4, 3, 2) if name.startswith("torch") else (SAMPLES, 4, 3, 2, 1)
    losses = [trainer_of(name, size).validate_epoch()["loss"] for size in sizes]
    assert losses == pytest.approx([losses[0]] * len(sizes), rel=1e-6)


def test_the_gradient_of_a_sum_by_hand() -> None:
    # Two pixels a sample; the classes weigh 1 and 3. Batches: [0 0] and [1 1], so the weights of them are 2 and 6.
    logits = torch.zeros(2, 2, 1, 2, requires_grad=True)
    target = torch.tensor([[[0, 0]], [[1, 1]]])
    loss = CrossEntropyLoss(weight=[1.0, 3.0])
    mean_over_batches(loss, split((logits, target), (1, 1))).backward()
    assert logits.grad is not None
    assert logits.grad[0, :, 0, 0].tolist() == pytest.approx([-0.5 * 1 / 8, 0.5 * 1 / 8])
    assert logits.grad[1, :, 0, 0].tolist() == pytest.approx([0.5 * 3 / 8, -0.5 * 3 / 8])


def images(classes: int = 3, samples: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(samples, classes, 4, 5, generator=generator)
    target = torch.randint(0, classes, (samples, 4, 5), generator=generator)
    target[0], target[1, :3] = 1, IGNORED
    return logits, target


def numbers(positive: bool = False) -> tuple[Tensor, Tensor]:
    output, target = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(3))
    return output, target.sigmoid() if positive else target


WEIGHT = torch.tensor([0.2, 3.0, 1.0])
OF_TORCH: dict[str, tuple[nn.Module, Any]] = {
    "cross-entropy": (nn.CrossEntropyLoss(ignore_index=IGNORED), images()),
    "weighted cross-entropy": (nn.CrossEntropyLoss(WEIGHT, ignore_index=IGNORED, label_smoothing=0.2), images()),
    "cross-entropy of classes": (nn.CrossEntropyLoss(WEIGHT), (images()[0][..., 0, 0], images()[1][:, 0, 0] % 3)),
    "cross-entropy of shares": (nn.CrossEntropyLoss(WEIGHT), (images()[0], images()[0].flip(0).softmax(dim=1))),
    "NLL": (nn.NLLLoss(WEIGHT, ignore_index=IGNORED), (images()[0].log_softmax(dim=1), images()[1])),
    "BCE": (nn.BCELoss(), (numbers()[0].sigmoid(), numbers(True)[1])),
    "BCE with logits": (nn.BCEWithLogitsLoss(WEIGHT[:, None], pos_weight=torch.tensor(4.0)), numbers(True)),
    "MSE": (nn.MSELoss(), numbers()),
    "MSE of one number": (nn.MSELoss(), (numbers()[0][:, 0, 0], numbers()[1][:, 0, 0])),
    "L1": (nn.L1Loss(), numbers()),
    "smooth L1": (nn.SmoothL1Loss(beta=0.5), numbers()),
    "Huber": (nn.HuberLoss(), numbers()),
    "Kullback-Leibler": (nn.KLDivLoss(reduction="batchmean"), (numbers()[0].log_softmax(dim=1), numbers(True)[1])),
    "multi-label": (nn.MultiLabelSoftMarginLoss(), (numbers()[0][..., 0], (numbers()[1][..., 0] > 0).float())),
    "margin": (nn.MultiMarginLoss(weight=WEIGHT), (images()[0][..., 0, 0], images()[1][:, 0, 0] % 3)),
}


@pytest.mark.parametrize("name", OF_TORCH)
@pytest.mark.parametrize("sizes", [(1, 5), (3, 2, 1)])
def test_the_weights_of_torchs_losses_are_known(name: str, sizes: tuple[int, ...]) -> None:
    loss, (output, target) = OF_TORCH[name]
    one, other = output.clone().requires_grad_(), output.clone().requires_grad_()
    loss(one, target).backward()
    divided = mean_over_batches(loss, split((other, target), sizes))
    divided.backward()
    assert divided.item() == pytest.approx(loss(output, target).item(), rel=1e-5)
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-8)
    with Waits() as waits:
        term_weights(loss_terms(loss, output, target), IGNORED)
    assert not waits.found


def test_a_sum_of_torch_and_its_subclasses_report_nothing() -> None:
    class Halved(nn.CrossEntropyLoss):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return super().forward(output, target) / 2

    logits, target = images()
    for loss in (nn.CrossEntropyLoss(reduction="sum"), nn.MSELoss(reduction="sum"), Halved(), OwnLoss()):
        assert [term.weight() for term in loss_terms(loss, logits, target)] == [None]


def test_numbers_of_any_sign_count_as_targets() -> None:
    targets = torch.tensor([[-1.0, 0.5], [0.0, 0.0], [-2.0, -1.0]])
    assert count_valid(targets, None) == 2  # a stand-in of shares is all 0
    assert count_valid(torch.tensor([-1.0, 0.0, 2.0]), None) == 3
    assert class_ids(torch.tensor([-1.0, 2.0])).tolist() == [-1.0, 2.0]


class OwnLoss(nn.Module):
    """A plug-in's: a mean that reports nothing."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target, torch.tensor([0.2, 3.0, 1.0]), ignore_index=IGNORED)


class OwnForward(Trainer):
    """A plug-in's, written before a trainer had `loss_of`."""

    def forward(self, inputs: Tensor, target: Tensor) -> tuple[Any, Tensor]:
        output = self.model(inputs)
        return output, self.criterion(output, target) + 0.1 * output.square().mean()


def test_a_loss_that_reports_nothing_counts_by_its_valid_targets() -> None:
    trainer = trainer_of("torch", 4, loss=OwnLoss(), accumulate=2)
    gradient = gradient_of(trainer)
    data = Masks()
    batches = split((data.images, data.masks), (4, 4))
    counts = [float((target != IGNORED).sum()) for _, target in batches]
    trainer.optimizer.zero_grad()
    for (images, target), count in zip(batches, counts, strict=True):
        (OwnLoss()(trainer.model(images), target) * (count / sum(counts))).backward()
    torch.testing.assert_close(gradient, torch.cat([w.grad.flatten() for w in trainer.model.parameters()]))


@pytest.mark.parametrize("loss", [OwnLoss(), OhemCrossEntropyLoss(IGNORED, min_kept=3), CrossEntropyLoss(IGNORED)])
def test_a_loss_that_counts_by_its_targets_is_the_criterions_to_the_last_bit(loss: nn.Module) -> None:
    trainer = trainer_of("torch", 4, loss=loss, accumulate=2)
    gradient_of(trainer)  # the weights of a step are known from here on
    for images, target in zip(Masks().images.split(4), trainer.batch_targets, strict=True):
        output = trainer.model(images)
        assert torch.equal(trainer.loss_of(output, target), loss(output, target))


class Odd(Squared):
    """A plug-in's that reports another kind of number, or none."""

    def __init__(self, weight: Any) -> None:
        super().__init__()
        self.weight = weight

    def batch_weight(self, target: Tensor) -> Any:
        return self.weight(super().batch_weight(target))


@pytest.mark.parametrize("kind", [float, lambda weight: int(weight.item()), lambda weight: weight.float()[None]])
def test_a_weight_may_be_any_number(kind: Any) -> None:
    expected = gradient_of(trainer_of("plugin", SAMPLES))
    torch.testing.assert_close(gradient_of(trainer_of("plugin", 4, loss=Odd(kind), accumulate=2)), expected)


@pytest.mark.parametrize(("kind", "found"), [(lambda _: torch.ones(3), r"a tensor of shape \(3,\)"), (str, "'tensor")])
def test_a_weight_that_is_no_number_is_refused(kind: Any, found: str) -> None:
    with pytest.raises(ConfigError, match=rf"batch_weight of Odd returned {found}.* Return the sum of the weights"):
        trainer_of("plugin", 4, loss=Odd(kind)).validate_epoch()


@pytest.mark.parametrize("name", ["plain", "torch"])
def test_a_forward_of_a_plugin_has_the_loss_that_it_returns(name: str) -> None:
    # Each image has the same number of valid pixels here, so that the penalty of the outputs is exact, too.
    results = []
    for batch_size, accumulate in ((SAMPLES, 1), (4, 2)):
        trainer = trainer_of(name, batch_size, trainer=OwnForward, accumulate=accumulate)
        trainer.train_loader.dataset.dataset.masks.clamp_(max=2)
        results.append(gradient_of(trainer))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-7)


def test_terms_without_any_weight_cost_nothing_and_nothing_at_all_is_nan() -> None:
    data = Masks()
    background = data.masks.where(data.masks == IGNORED, 0)
    loss = LOSSES["sum"]()  # Dice without the background has nothing to measure
    rows = [
        evaluate(nn.Identity(), [(data.images, target)], criterion=loss, metrics=MetricSet([]), precision=ON_CPU)
        for target in (background, torch.full_like(background, IGNORED))
    ]
    expected = loss.losses[0](data.images, background).item()
    assert rows[0]["loss"] == pytest.approx(expected, rel=1e-6)
    assert RunningLoss(torch.device("cpu")).mean(ALONE) != RunningLoss(torch.device("cpu")).mean(ALONE)  # NaN


def results_of_a_process(rank: int, folder: str) -> None:
    """Compute the gradients of every loss, of one batch and of two accumulated ones, and its validation loss."""
    timeout = datetime.timedelta(minutes=10)  # of a busy machine
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timeout
    )
    world, results = World(rank, 2), {}
    for name in [*LOSSES, *AUXILIARY]:
        for batch_size, accumulate in ((SAMPLES, 1), (4, 2)):
            trainer = trainer_of(name, batch_size, accumulate=accumulate, world=world)
            for loader in (trainer.train_loader, trainer.valid_loader):
                loader.shard(rank, 2)
            trainer.model = nn.parallel.DistributedDataParallel(trainer.model)
            results[f"{name} {accumulate}"] = gradient_of(trainer)
        results[f"{name} loss"] = trainer.validate_epoch()["loss"]
    del trainer  # DistributedDataParallel ends before the processes part
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradient_and_the_validation_loss_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(results_of_a_process, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    results = torch.load(tmp_path / "results.pt")
    assert len(results) == 3 * len([*LOSSES, *AUXILIARY])
    for name in [*LOSSES, *AUXILIARY]:
        one = trainer_of(name, SAMPLES)
        expected = gradient_of(one)
        for accumulate in (1, 2):
            torch.testing.assert_close(results[f"{name} {accumulate}"], expected, rtol=1e-4, atol=1e-7)
        assert results[f"{name} loss"] == pytest.approx(one.validate_epoch()["loss"], rel=1e-6)
