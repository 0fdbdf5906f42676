"""Losses against numbers worked out by hand, against plain loops, and against torch and torchvision."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from models.losses import (
    BinaryCrossEntropyLoss,
    BoundaryLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    JaccardLoss,
    LovaszLoss,
    OhemCrossEntropyLoss,
    TverskyLoss,
    WeightedLoss,
    dice_loss_with_sigmoid,
    focal_loss_with_sigmoid,
    pixelwise,
)
from utils.errors import ConfigError

IGNORED = 255


def batch(num_classes: int = 3, samples: int = 2) -> tuple[Tensor, Tensor]:
    """Logits with gradients and a target with a band of ignored pixels."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(samples, num_classes, 5, 7, generator=generator)
    target = torch.randint(0, num_classes, (samples, 5, 7), generator=generator)
    target[:, :2] = IGNORED
    return logits.requires_grad_(), target


def pixels(logits: Tensor, target: Tensor) -> list[tuple[list[float], int]]:
    """Probabilities and label of each valid pixel."""
    probabilities = logits.detach().double().softmax(dim=1).movedim(1, -1).flatten(0, -2).tolist()
    return [pair for pair in zip(probabilities, target.flatten().tolist(), strict=True) if pair[1] != IGNORED]


def slow_dice(logits: Tensor, target: Tensor, smooth: float, first_class: int, absent: str = "skip") -> float:
    """The definition, pixel by pixel."""
    means = []
    for scores, labels in zip(logits.detach().double().softmax(dim=1), target, strict=True):
        losses = []
        for index in range(first_class, len(scores)):
            if absent == "skip" and index not in labels:
                continue
            overlap = predicted = true = 0.0
            for probability, label in zip(scores[index].flatten().tolist(), labels.flatten().tolist(), strict=True):
                if label != IGNORED:
                    overlap += probability * (label == index)
                    predicted += probability
                    true += label == index
            losses.append(1 - (2 * overlap + smooth) / (predicted + true + smooth))
        if losses:
            means.append(sum(losses) / len(losses))
    return sum(means) / len(means)


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


@pytest.mark.parametrize("num_classes", [2, 3, 11, 40])
@pytest.mark.parametrize("first_class", [0, 1])
@pytest.mark.parametrize("absent", ["skip", "count"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dice_equals_its_definition(
    num_classes: int, first_class: int, absent: Any, memory_format: torch.memory_format
) -> None:
    logits, target = batch(num_classes, samples=3)
    target[2, 2:] = 0  # no object at all
    loss = DiceLoss(IGNORED, smooth=0.5, exclude_background=bool(first_class), absent=absent)
    value = loss(logits.contiguous(memory_format=memory_format), target)
    assert value.item() == pytest.approx(slow_dice(logits, target, 0.5, first_class, absent), rel=1e-5)


def certain_batch(num_classes: int, shown: int, certainty: float = 0.995) -> tuple[Tensor, Tensor]:
    """Two masks (240, 320) of `shown` classes in turn, and logits that are right everywhere with that certainty."""
    target = (torch.arange(2 * 240 * 320).view(2, 240, 320) // 7) % shown
    rest = (1 - certainty) / (num_classes - 1)
    probabilities = nn.functional.one_hot(target, num_classes).movedim(-1, 1) * (certainty - rest) + rest
    return probabilities.log(), target


def test_dice_of_a_good_network_is_small_though_most_classes_are_absent() -> None:
    logits, target = certain_batch(num_classes=11, shown=2)
    theirs = segmentation_models_pytorch.losses.DiceLoss("multiclass")(logits, target).item()
    assert theirs == pytest.approx(0.0005, abs=1e-4)
    # The library divides by all 11 classes, of which 9 cost nothing, and ours by the two that are there.
    assert DiceLoss()(logits, target).item() * 2 / 11 == pytest.approx(theirs, rel=0.01)
    assert DiceLoss(absent="count")(logits, target).item() == pytest.approx(0.798, abs=1e-3)
    shown_alone = segmentation_models_pytorch.losses.DiceLoss("multiclass", classes=[0, 1])(logits, target).item()
    assert DiceLoss()(logits, target).item() == pytest.approx(shown_alone, rel=0.01)


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss, TverskyLoss])
@pytest.mark.parametrize(("num_classes", "shown"), [(2, 1), (3, 2), (19, 4), (11, 11)])
def test_region_losses_of_certainty_do_not_depend_on_the_classes_that_are_absent(
    loss: Any, num_classes: int, shown: int
) -> None:
    logits, target = certain_batch(num_classes, shown, certainty=0.999)
    assert loss()(logits, target).item() == pytest.approx(0.001, rel=1.0)
    if shown < num_classes:
        wider = torch.cat((logits, torch.full_like(logits[:, :1], -50.0)), dim=1)
        torch.testing.assert_close(loss()(wider, target), loss()(logits, target))


def test_a_binary_network_and_samples_without_the_object() -> None:
    # Four pixels with probability 3/4 of class 1; the first sample shows class 1 on two of them, the second on none.
    logits = torch.full((2, 1, 2, 2), math.log(3))
    target = torch.tensor([[[0, 0], [1, 1]], [[0, 0], [0, 0]]])
    found, nothing = 1 - (2 * 1.5 + 1) / (3 + 2 + 1), 1 - 1 / (3 + 1)
    assert dice_loss_with_sigmoid()(logits, target).item() == pytest.approx(found)
    assert dice_loss_with_sigmoid(absent="count")(logits, target).item() == pytest.approx((found + nothing) / 2)
    assert dice_loss_with_sigmoid()(logits[1:], target[1:]).item() == 0
    # With the background in the mean, the second sample costs by what is missing of it: 3/4 of each pixel.
    of_background = [1 - (2 * 0.5 + 1) / (1 + 2 + 1), 1 - (2 * 1 + 1) / (1 + 4 + 1)]
    expected = ((of_background[0] + found) / 2 + of_background[1]) / 2
    assert DiceLoss()(logits, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("absent", ["skip", "count"])
def test_shares_of_zero_are_absent_classes(absent: Any) -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    shares, labels = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([1, 0])
    loss = DiceLoss(absent=absent)
    torch.testing.assert_close(loss(logits, shares), loss(logits, labels))


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


def test_weighted_losses_add_up() -> None:
    logits, target = batch()
    parts = [CrossEntropyLoss(IGNORED), nn.CrossEntropyLoss(ignore_index=IGNORED)]
    total = WeightedLoss(parts, [2.0, 0.5])(logits, target)
    torch.testing.assert_close(total, 2.5 * parts[0](logits, target))


@pytest.mark.parametrize(("count", "weights"), [(0, []), (2, [1.0])])
def test_weighted_losses_need_a_weight_each(count: int, weights: list[float]) -> None:
    with pytest.raises(ConfigError, match=f"{count} losses with {len(weights)} weights"):
        WeightedLoss([DiceLoss() for _ in range(count)], weights)


def test_label_smoothing_by_hand() -> None:
    # Probabilities 1/4 and 3/4; of the target, 0.9 is for the true class 1 and 0.1 for class 0.
    logits, target = torch.tensor([[0.0, math.log(3)]]), torch.tensor([1])
    expected = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    assert CrossEntropyLoss(label_smoothing=0.2)(logits, target).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weight", [None, [0.2, 3.0, 1.0]])
def test_label_smoothing_is_torchs(weight: list[float] | None) -> None:
    logits, target = batch()
    tensor = None if weight is None else torch.tensor(weight)
    expected = nn.CrossEntropyLoss(tensor, ignore_index=IGNORED, label_smoothing=0.1)(logits, target)
    ours = CrossEntropyLoss(IGNORED, weight=weight, label_smoothing=0.1)(logits, target)
    torch.testing.assert_close(ours, expected)


def test_shares_of_two_classes_by_hand() -> None:
    # Two samples with probabilities 1/4 and 3/4; the first is 0.3 of class 0, the second has no share and is ignored.
    logits = torch.tensor([[0.0, math.log(3)]]).expand(2, 2)
    shares = torch.tensor([[0.3, 0.7], [0.0, 0.0]])
    expected = -(0.3 * math.log(0.25) + 0.7 * math.log(0.75))
    assert CrossEntropyLoss()(logits, shares).item() == pytest.approx(expected, rel=1e-6)
    weighted = -(0.3 * 2 * math.log(0.25) + 0.7 * 5 * math.log(0.75)) / (0.3 * 2 + 0.7 * 5)
    assert CrossEntropyLoss(weight=[2.0, 5.0])(logits, shares).item() == pytest.approx(weighted, rel=1e-6)


def test_binary_cross_entropy_is_torchs() -> None:
    logits, target = batch(1)
    target = target.where(target == IGNORED, torch.arange(35).view(5, 7) % 2)
    valid = target != IGNORED
    expected = nn.BCEWithLogitsLoss()(logits[:, 0][valid], target[valid].float())
    torch.testing.assert_close(BinaryCrossEntropyLoss(IGNORED)(logits, target), expected)


def slow_ohem(logits: Tensor, target: Tensor, threshold: float, kept: int) -> float:
    losses = sorted((-math.log(p[label]) for p, label in pixels(logits, target)), reverse=True)
    hard = [loss for loss in losses if loss >= -math.log(threshold)]
    chosen = max(hard, losses[:kept], key=len)
    return sum(chosen) / len(chosen)


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.7, 1), (0.05, 1), (0.05, 6), (0.3, 6), (0.9, 1000)])
def test_ohem_equals_its_definition(threshold: float, min_kept: int) -> None:
    logits, target = batch(samples=2)
    value = OhemCrossEntropyLoss(IGNORED, threshold=threshold, min_kept=min_kept)(logits, target)
    assert value.item() == pytest.approx(slow_ohem(logits, target, threshold, 2 * min_kept), rel=1e-5)


def test_ohem_by_hand() -> None:
    # The true class got 1/2, 1/4 and 9/10: of these, a threshold of 0.6 keeps two, and of 0.3 one.
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)], [math.log(9), 0.0]])
    target = torch.tensor([0, 0, 0])
    two, one = -(math.log(1 / 2) + math.log(1 / 4)) / 2, -math.log(1 / 4)
    assert OhemCrossEntropyLoss(threshold=0.6, min_kept=1)(logits[None].mT, target[None]).item() == pytest.approx(two)
    assert OhemCrossEntropyLoss(threshold=0.3, min_kept=1)(logits[None].mT, target[None]).item() == pytest.approx(one)
    assert OhemCrossEntropyLoss(threshold=0.3, min_kept=2)(logits[None].mT, target[None]).item() == pytest.approx(two)


def test_focal_by_hand() -> None:
    logits, target = torch.tensor([[0.0, math.log(3)]] * 2), torch.tensor([0, 1])
    losses = [-((3 / 4) ** 2) * math.log(1 / 4), -((1 / 4) ** 2) * math.log(3 / 4)]
    assert FocalLoss()(logits, target).item() == pytest.approx(sum(losses) / 2, rel=1e-6)
    weighted = (3 * losses[0] + losses[1]) / 4
    assert FocalLoss(weight=[3.0, 1.0])(logits, target).item() == pytest.approx(weighted, rel=1e-6)


def test_focal_without_gamma_is_cross_entropy() -> None:
    logits, target = batch()
    weight = [0.2, 3.0, 1.0]
    ours = FocalLoss(IGNORED, gamma=0.0, weight=weight)(logits, target)
    torch.testing.assert_close(ours, CrossEntropyLoss(IGNORED, weight=weight)(logits, target))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_equals_its_definition(gamma: float) -> None:
    logits, target = batch()
    losses = [-((1 - p[label]) ** gamma) * math.log(p[label]) for p, label in pixels(logits, target)]
    assert FocalLoss(IGNORED, gamma=gamma)(logits, target).item() == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize(("alpha", "theirs"), [(0.25, 0.25), (None, -1)])
def test_sigmoid_focal_is_torchvisions(alpha: float | None, theirs: float) -> None:
    logits, target = batch(1)
    target = target.where(target == IGNORED, torch.arange(35).view(5, 7) % 2)
    valid = target != IGNORED
    expected = torchvision.ops.sigmoid_focal_loss(
        logits[:, 0][valid], target[valid].float(), alpha=theirs, gamma=2, reduction="mean"
    )
    torch.testing.assert_close(focal_loss_with_sigmoid(IGNORED, alpha=alpha)(logits, target), expected)


def test_a_sure_pixel_has_a_finite_gradient() -> None:
    logits = torch.tensor([[90.0, -90.0]], requires_grad=True)
    FocalLoss(gamma=0.5)(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_jaccard_and_tversky_by_hand() -> None:
    # Four pixels, two of each class; every pixel gets 1/4 for class 0 and 3/4 for class 1.
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    target = torch.tensor([[[0, 0, 1, 1]]])
    jaccard = [(0.5 + 1) / (2 + 1 - 0.5 + 1), (1.5 + 1) / (2 + 3 - 1.5 + 1)]
    assert JaccardLoss()(logits, target).item() == pytest.approx(1 - sum(jaccard) / 2, rel=1e-6)
    # Class 0: hits 1/2, false alarms 1/2, misses 3/2; class 1: 3/2, 3/2, 1/2.
    tversky = [1.5 / (1.5 + 0.3 * 0.5 + 0.7 * 1.5), 2.5 / (2.5 + 0.3 * 1.5 + 0.7 * 0.5)]
    assert TverskyLoss()(logits, target).item() == pytest.approx(1 - sum(tversky) / 2, rel=1e-6)


def test_tversky_holds_dice_and_jaccard() -> None:
    logits, target = batch()
    as_dice = TverskyLoss(IGNORED, alpha=0.5, beta=0.5, smooth=0.5)(logits, target)
    torch.testing.assert_close(as_dice, DiceLoss(IGNORED, smooth=1.0)(logits, target))
    as_jaccard = TverskyLoss(IGNORED, alpha=1.0, beta=1.0)(logits, target)
    torch.testing.assert_close(as_jaccard, JaccardLoss(IGNORED)(logits, target))


def slow_lovasz(found: list[tuple[list[float], int]], first_class: int) -> float:
    """The extension by its definition: errors in falling order times the growth of the Jaccard loss of the set."""
    losses = []
    for index in range(first_class, len(found[0][0])):
        foreground = {place for place, (_, label) in enumerate(found) if label == index}
        if not foreground:
            continue
        errors = [abs((label == index) - p[index]) for p, label in found]
        order = sorted(range(len(found)), key=lambda place: -errors[place])
        jaccard = [0.0]
        for count in range(1, len(order) + 1):
            wrong = set(order[:count])
            jaccard.append(1 - len(foreground - wrong) / len(foreground | wrong))
        growth = [after - before for before, after in pairwise(jaccard)]
        losses.append(sum(errors[place] * step for place, step in zip(order, growth, strict=True)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("first_class", [0, 1])
@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("num_classes", [2, 3, 40])
def test_lovasz_equals_its_definition(num_classes: int, per_image: bool, first_class: int) -> None:
    logits, target = batch(num_classes)
    parts = [(logits[i : i + 1], target[i : i + 1]) for i in range(2)] if per_image else [(logits, target)]
    expected = np.mean([slow_lovasz(pixels(*part), first_class) for part in parts])
    loss = LovaszLoss(IGNORED, per_image=per_image, exclude_background=bool(first_class))
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_lovasz_of_sure_answers_is_one_minus_iou() -> None:
    truth, predicted = torch.tensor([[[0, 0, 0, 1, 1, IGNORED]]]), torch.tensor([[[0, 1, 1, 1, 0, 1]]])
    logits = 200 * nn.functional.one_hot(predicted, 2).permute(0, 3, 1, 2).float()
    assert LovaszLoss(IGNORED)(logits, truth).item() == pytest.approx(1 - (1 / 4 + 1 / 4) / 2)


def slow_boundary(logits: Tensor, target: Tensor, first_class: int) -> float:
    """Every pixel's distance to every other, by loops."""
    costs = []
    for scores, mask in zip(logits.detach().double().softmax(dim=1), target.tolist(), strict=True):
        places = [(y, x, label) for y, row in enumerate(mask) for x, label in enumerate(row) if label != IGNORED]
        diagonal = math.hypot(len(mask), len(mask[0]))
        for y, x, own in places:
            for index in range(first_class, len(scores)):
                inside = [math.hypot(y - b, x - a) for b, a, label in places if label == index]
                outside = [math.hypot(y - b, x - a) for b, a, label in places if label != index]
                if inside and outside:
                    distance = 0.5 - min(outside) if own == index else min(inside) - 0.5
                    costs.append(float(scores[index, y, x]) * distance / diagonal)
    return sum(costs) / int((target != IGNORED).sum())


@pytest.mark.parametrize("first_class", [0, 1])
@pytest.mark.parametrize("num_classes", [2, 3, 11])
def test_boundary_equals_its_definition(num_classes: int, first_class: int) -> None:
    logits, target = batch(num_classes)
    loss = BoundaryLoss(IGNORED, exclude_background=bool(first_class))
    assert loss(logits, target).item() == pytest.approx(slow_boundary(logits, target, first_class), rel=1e-4)


def test_boundary_by_hand() -> None:
    # A row of 4 pixels, class 1 to the right: distances 1.5, 0.5, -0.5, -1.5 of a diagonal of sqrt(17).
    target = torch.tensor([[[0, 0, 1, 1]]])
    chances = torch.tensor([0.5, 0.25, 0.75, 0.5])
    logits = torch.stack((torch.zeros(4), torch.logit(chances))).view(1, 2, 1, 4)
    expected = (1.5 * 0.5 + 0.5 * 0.25 - 0.5 * 0.75 - 1.5 * 0.5) / 4 / math.sqrt(17)
    assert BoundaryLoss()(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("label", [0, 1])
def test_a_image_of_one_class_has_no_boundary(label: int) -> None:
    assert BoundaryLoss(IGNORED)(torch.randn(1, 2, 4, 4), torch.full((1, 4, 4), label)).item() == 0.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cross_entropy_on_a_gpu_is_that_of_the_processor() -> None:
    logits, target = batch()
    ours: Any = CrossEntropyLoss(IGNORED).cuda()
    torch.testing.assert_close(ours(logits.cuda(), target.cuda()).cpu(), CrossEntropyLoss(IGNORED)(logits, target))


@pytest.mark.parametrize("shape", [(2, 3, 70, 64), (1, 21, 96, 96), (2, 40, 130, 47), (3, 40, 33, 48)])
@pytest.mark.parametrize("options", [{}, {"weight": True}, {"label_smoothing": 0.1}])
def test_blocks_of_rows_give_the_same_bits_as_the_whole(shape, options):
    chance = torch.Generator().manual_seed(3)
    logits = (5 * torch.randn(shape, generator=chance)).to(memory_format=torch.channels_last)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=chance)
    target[:, :5] = IGNORED
    if options.get("weight"):
        options = {"weight": torch.rand(shape[1], generator=chance) + 0.1}
    whole = functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none", **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixelwise, "BLOCK_NUMBERS", 1 << 14)
        calls, compute = [], functional.cross_entropy
        patch.setattr(functional, "cross_entropy", lambda *args, **named: calls.append(1) or compute(*args, **named))
        blocks = pixelwise.pixel_cross_entropy(logits, target, ignore_index=IGNORED, **options)
    assert torch.equal(blocks, whole)
    assert len(calls) > 1
