"""Losses against numbers worked out by hand and against plain, slow references."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import SECTIONS
from models.losses import CrossEntropyLoss, DiceLoss, WeightedLoss
from utils.catalogue import import_attribute
from utils.errors import ConfigError

IGNORED = 255
ARGS: dict[str, list[dict[str, Any]]] = {
    "ce_loss": [{}, {"weight": [1.0, 2.0, 0.5]}],
    "dice_loss": [{}, {"exclude_background": True}, {"smooth": 0.1}],
    "WeightedLoss": [{"losses": [CrossEntropyLoss(IGNORED), DiceLoss(IGNORED)], "weights": [1.0, 0.5]}],
}
CASES = [(name, args) for name, variants in ARGS.items() for args in variants]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'-'.join(case[1])}")
def loss(request: pytest.FixtureRequest) -> nn.Module:
    name, args = request.param
    ignore = {} if name == "WeightedLoss" else {"ignore_index": IGNORED}
    criterion = import_attribute(SECTIONS["loss"].entries[name])(**ignore, **args)
    assert isinstance(criterion, nn.Module)
    return criterion


def batch(num_classes: int = 3, samples: int = 2) -> tuple[Tensor, Tensor]:
    """Logits with gradients and a target with a band of ignored pixels."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(samples, num_classes, 5, 7, generator=generator)
    target = torch.randint(0, num_classes, (samples, 5, 7), generator=generator)
    target[:, :2] = IGNORED
    return logits.requires_grad_(), target


def slow_dice(logits: Tensor, target: Tensor, smooth: float, first_class: int) -> float:
    """The definition, pixel by pixel."""
    losses = []
    for scores, labels in zip(logits.detach().double().softmax(dim=1), target, strict=True):
        for index in range(first_class, len(scores)):
            overlap = predicted = true = 0.0
            for probability, label in zip(scores[index].flatten().tolist(), labels.flatten().tolist(), strict=True):
                if label != IGNORED:
                    overlap += probability * (label == index)
                    predicted += probability
                    true += label == index
            losses.append(1 - (2 * overlap + smooth) / (predicted + true + smooth))
    return sum(losses) / len(losses)


def test_the_suite_covers_the_catalogue() -> None:
    assert set(ARGS) == set(SECTIONS["loss"].entries)
    assert len(CASES) == 6


def test_nothing_valid_costs_nothing_and_changes_nothing(loss: nn.Module) -> None:
    logits, target = batch()
    value = loss(logits, torch.full_like(target, IGNORED))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_ignored_pixels_have_no_say(loss: nn.Module) -> None:
    logits, target = batch()
    changed = logits.detach().clone()
    changed[:, :, :2] = 50.0
    changed[:, 0, :2] = -50.0
    torch.testing.assert_close(loss(changed, target), loss(logits, target))


def test_auxiliary_logits_are_not_judged(loss: nn.Module) -> None:
    logits, target = batch()
    assert torch.equal(loss((logits, logits * 3), target), loss(logits, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_judged_in_float32(loss: nn.Module, dtype: torch.dtype) -> None:
    logits, target = batch()
    half = (1000 * logits.detach()).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, target)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(half.float(), target))
    assert half.grad is not None
    assert torch.isfinite(half.grad).all()


def test_good_logits_cost_less_than_bad_ones(loss: nn.Module) -> None:
    _, target = batch()
    truth = nn.functional.one_hot(target.where(target != IGNORED, 0), 3).permute(0, 3, 1, 2).float()
    assert loss(20 * truth, target) < loss(2 * truth, target) < loss(-2 * truth, target)


def test_a_step_down_the_gradient_lowers_the_loss(loss: nn.Module) -> None:
    logits, target = batch()
    value = loss(logits, target)
    value.backward()
    assert logits.grad is not None
    assert loss(logits.detach() - logits.grad, target) < value


def test_cross_entropy_by_hand() -> None:
    # Probabilities 1/4 and 3/4 for the two classes; the second of the three pixels is ignored.
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    target = torch.tensor([[[0, IGNORED, 1]]])
    expected = -(math.log(0.25) + math.log(0.75)) / 2
    assert CrossEntropyLoss(IGNORED)(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_weighted_cross_entropy_divides_by_the_weights() -> None:
    logits, target = batch()
    weight = [0.2, 3.0, 1.0]
    expected = nn.CrossEntropyLoss(torch.tensor(weight), ignore_index=IGNORED)(logits, target)
    torch.testing.assert_close(CrossEntropyLoss(IGNORED, weight=weight)(logits, target), expected)


def test_cross_entropy_has_torchs_gradient() -> None:
    logits, target = batch()
    twin = logits.detach().clone().requires_grad_()
    CrossEntropyLoss(IGNORED)(logits, target).backward()
    nn.CrossEntropyLoss(ignore_index=IGNORED)(twin, target).backward()
    torch.testing.assert_close(logits.grad, twin.grad)


def test_a_class_weight_per_class() -> None:
    with pytest.raises(ConfigError, match=r"2 class weights \[1.0, 2.0\] for 3 classes: each class needs one"):
        CrossEntropyLoss(weight=[1.0, 2.0], num_classes=3)


def test_dice_by_hand() -> None:
    # Four pixels, two of each class; every pixel gets 1/4 for class 0 and 3/4 for class 1.
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    target = torch.tensor([[[0, 0], [1, 1]]])
    background = 1 - (2 * 0.5 + 1) / (1.0 + 2 + 1)
    foreground = 1 - (2 * 1.5 + 1) / (3.0 + 2 + 1)
    assert DiceLoss()(logits, target).item() == pytest.approx((background + foreground) / 2)
    assert DiceLoss(exclude_background=True)(logits, target).item() == pytest.approx(foreground)


@pytest.mark.parametrize("num_classes", [2, 3, 11])
@pytest.mark.parametrize("first_class", [0, 1])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dice_equals_its_definition(num_classes: int, first_class: int, memory_format: torch.memory_format) -> None:
    logits, target = batch(num_classes)
    value = DiceLoss(IGNORED, smooth=0.5, exclude_background=bool(first_class))(
        logits.contiguous(memory_format=memory_format), target
    )
    assert value.item() == pytest.approx(slow_dice(logits, target, 0.5, first_class), rel=1e-5)


def test_dice_of_a_batch_is_the_mean_over_its_samples() -> None:
    logits, target = batch(samples=4)
    loss = DiceLoss(IGNORED)
    single = torch.stack([loss(logits[index : index + 1], target[index : index + 1]) for index in range(4)])
    torch.testing.assert_close(loss(logits, target), single.mean())


def test_samples_without_valid_pixels_do_not_dilute_dice() -> None:
    logits, target = batch()
    target[1] = IGNORED
    loss = DiceLoss(IGNORED)
    torch.testing.assert_close(loss(logits, target), loss(logits[:1], target[:1]))


@pytest.mark.parametrize("loss_class", [CrossEntropyLoss, DiceLoss])
def test_a_class_may_be_ignored(loss_class: type[CrossEntropyLoss] | type[DiceLoss]) -> None:
    logits, target = batch()
    renamed = target.where(target != 2, IGNORED).where(target != IGNORED, IGNORED)
    as_class = renamed.where(renamed != IGNORED, 2)
    torch.testing.assert_close(loss_class(2)(logits, as_class), loss_class(IGNORED)(logits, renamed))


def test_weighted_losses_add_up() -> None:
    logits, target = batch()
    parts = [CrossEntropyLoss(IGNORED), nn.CrossEntropyLoss(ignore_index=IGNORED)]
    total = WeightedLoss(parts, [2.0, 0.5])(logits, target)
    torch.testing.assert_close(total, 2.5 * parts[0](logits, target))


@pytest.mark.parametrize(("count", "weights"), [(0, []), (2, [1.0])])
def test_weighted_losses_need_a_weight_each(count: int, weights: list[float]) -> None:
    with pytest.raises(ConfigError, match=f"{count} losses with {len(weights)} weights"):
        WeightedLoss([DiceLoss() for _ in range(count)], weights)
