"""What every loss of the registry promises, one suite over all of them. Numbers are in test_losses_numbers.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from base.base_loss import loss_terms
from models import SECTIONS
from models.losses import CrossEntropyLoss, DiceLoss, JaccardLoss, TverskyLoss
from tests.support.waits import Waits
from trainer.evaluation import term_weights
from utils.errors import ConfigError
from utils.registry import import_attribute

IGNORED = 255
COUNTS = {"class_counts": [70, 20, 10]}
WEIGHTS: list[dict[str, Any]] = [
    {},
    {"weight": [1.0, 2.0, 0.5]},
    *({"weight": rule, **COUNTS} for rule in ("balanced", "log", "bounded")),
]
ARGS: dict[str, list[dict[str, Any]]] = {
    "ce_loss": [*WEIGHTS, {"label_smoothing": 0.1}],
    "ohem_loss": [*WEIGHTS, {"threshold": 0.3, "min_kept": 4}],
    "focal_loss": [*WEIGHTS, {"gamma": 0.5}],
    "dice_loss": [{}, {"exclude_background": True}, {"smooth": 0.1}, {"absent": "count"}],
    "jaccard_loss": [{}, {"exclude_background": True}, {"smooth": 0.1}, {"absent": "count"}],
    "tversky_loss": [{}, {"exclude_background": True, "absent": "count"}, {"alpha": 0.8, "beta": 0.2}],
    "lovasz_loss": [{}, {"per_image": False}, {"exclude_background": True}],
    "boundary_loss": [{}, {"exclude_background": False}],
    "bce_loss": [{}, {"weight": [1.0, 2.0]}, {"weight": "balanced", "class_counts": [3, 1]}, {"label_smoothing": 0.1}],
    "focal_loss_with_sigmoid": [{}, {"gamma": 0.5, "alpha": None}],
    "dice_loss_with_sigmoid": [{}, {"absent": "count"}],
    "jaccard_loss_with_sigmoid": [{}],
    "tversky_loss_with_sigmoid": [{}],
    "lovasz_loss_with_sigmoid": [{}, {"per_image": False}],
    "nll_loss": [{}],
    "WeightedLoss": [{"losses": [CrossEntropyLoss(IGNORED), DiceLoss(IGNORED)], "weights": [1.0, 0.5]}],
}
ONE_CHANNEL = {name for name in ARGS if name.endswith("_with_sigmoid") or name == "bce_loss"}
OF_IMAGES = {"boundary_loss"}
CASES = [(name, args) for name, variants in ARGS.items() for args in variants]
Case = tuple[str, dict[str, Any]]


def make(name: str, args: dict[str, Any]) -> nn.Module:
    ignore = {} if name == "WeightedLoss" else {"ignore_index": IGNORED}
    criterion = import_attribute(SECTIONS["loss"].entries[name])(**ignore, **args)
    assert isinstance(criterion, nn.Module)
    return criterion


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())])[:50])
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def loss(case: Case) -> nn.Module:
    return make(*case)


@pytest.fixture
def batch(case: Case) -> tuple[Tensor, Tensor]:
    """Logits with gradients, of one channel where the loss wants that, and a target with a band of ignored pixels."""
    return random_batch(1 if case[0] in ONE_CHANNEL else 3)


def random_batch(channels: int, samples: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(samples, channels, 5, 7, generator=generator)
    target = torch.randint(0, max(2, channels), (samples, 5, 7), generator=generator)
    target[:, :2] = IGNORED
    return logits.requires_grad_(), target


def logits_of(target: Tensor, channels: int) -> Tensor:
    """Logits that are right everywhere."""
    labels = target.where(target != IGNORED, 0)
    if channels == 1:
        return (2.0 * labels - 1)[:, None]
    return torch.moveaxis(nn.functional.one_hot(labels, channels), -1, 1).float()


def test_the_suite_covers_the_registry(record_property: Callable[[str, object], None]) -> None:
    assert set(ARGS) == set(SECTIONS["loss"].entries)
    record_property("covered", f"losses: {len(ARGS)} in {len(CASES)} cases")


def test_nothing_valid_costs_nothing_and_changes_nothing(loss: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    value = loss(logits, torch.full_like(target, IGNORED))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_no_loss_waits_for_a_gpu(case: Case, loss: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    with Waits() as waits:
        sum(term.value() for term in loss_terms(loss, logits, target)).backward()
        term_weights(loss_terms(loss, logits, target), IGNORED)
    # Distances to a contour are computed on the processor.
    assert waits.found == (["torch.Tensor.cpu", "torch.Tensor.numpy"] if case[0] == "boundary_loss" else [])


def test_ignored_pixels_have_no_say(loss: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    changed = logits.detach().clone()
    changed[:, :, :2] = 50.0
    changed[:, :1, :2] = -50.0
    torch.testing.assert_close(loss(changed, target), loss(logits, target))


def test_auxiliary_logits_are_not_judged(loss: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    assert torch.equal(loss((logits, logits * 3), target), loss(logits, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_judged_in_float32(loss: nn.Module, batch: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    logits, target = batch
    half = (1000 * logits.detach()).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, target)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(half.float(), target))
    assert half.grad is not None
    assert torch.isfinite(half.grad).all()


def test_good_logits_cost_less_than_bad_ones(loss: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    truth = logits_of(target, logits.shape[1])
    assert loss(2.5 * truth, target) < loss(0.5 * truth, target) < loss(-2 * truth, target)


def test_a_step_down_the_gradient_lowers_the_loss(loss: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    value = loss(logits, target)
    value.backward()
    assert logits.grad is not None
    assert loss(logits.detach() - logits.grad, target) < value


def test_what_is_ignored_may_be_a_class(case: Case) -> None:
    name, args = case
    if name == "WeightedLoss":
        pytest.skip("its terms are told one by one")
    channels = 1 if name in ONE_CHANNEL else 3
    logits, target = random_batch(channels)
    last = max(1, channels - 1)
    renamed = target.where(target != last, IGNORED)
    as_class = renamed.where(renamed != IGNORED, last)
    criterion = import_attribute(SECTIONS["loss"].entries[name])
    ignoring = criterion(last, **args)
    # A rule gives the other classes other weights if it counts this one.
    numbers = {"weight": ignoring.weight.tolist()} if "class_counts" in args else {}
    expected = criterion(IGNORED, **args | numbers)
    torch.testing.assert_close(ignoring(logits, as_class), expected(logits, renamed))


@pytest.mark.parametrize("ignored", [-1, 65536, 65536 + 1, -100_000, 2**40])
def test_what_is_ignored_may_be_any_number(case: Case, ignored: int) -> None:
    name, args = case
    if name == "WeightedLoss":
        pytest.skip("its terms are told one by one")
    logits, target = random_batch(1 if name in ONE_CHANNEL else 3)
    criterion, renamed = import_attribute(SECTIONS["loss"].entries[name]), target.where(target != IGNORED, ignored)
    expected = criterion(IGNORED, **args)
    torch.testing.assert_close(criterion(ignored, **args)(logits, renamed), expected(logits, target), rtol=0, atol=0)
    assert criterion(ignored, **args).batch_weight(renamed) == expected.batch_weight(target)


@pytest.mark.parametrize(
    ("loss", "num_classes"), [(DiceLoss, 200), (JaccardLoss, 200), (TverskyLoss, 200), (DiceLoss, 40_000)]
)
def test_regions_of_many_classes_are_found(loss: Any, num_classes: int) -> None:
    target = torch.tensor([[0, num_classes - 1, IGNORED, 150, 150]])
    logits = 40.0 * nn.functional.one_hot(target.where(target != IGNORED, 0), num_classes).movedim(-1, 1)
    assert loss(IGNORED)(logits, target).item() == pytest.approx(0.0, abs=1e-4)
    assert loss(IGNORED)(logits.flip(-1), target).item() > 0.2


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss, TverskyLoss])
def test_fewer_pixels_than_classes_are_judged_as_with_ignored_ones_beside_them(loss: Any, soft: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    logits, more = torch.randn(2, 7, 5, generator=generator), torch.randn(2, 7, 9, generator=generator)
    target: Tensor = torch.tensor([[0, 1, 6, IGNORED, 6], [3, 3, 2, 5, 0]])
    rest: Tensor = torch.full((2, 9), IGNORED)
    if soft:
        target, rest = torch.rand(2, 7, 5, generator=generator).softmax(1), torch.zeros(2, 7, 9)
    values = []
    for output, truth in ((logits, target), (torch.cat([logits, more], -1), torch.cat([target, rest], -1))):
        output.requires_grad_()
        value = loss(IGNORED)(output, truth)
        value.backward()
        assert output.grad is not None
        values.append((value.detach(), output.grad[..., :5]))
    torch.testing.assert_close(values[0], values[1])


def test_it_judges_classification_or_says_why_not(case: Case, loss: nn.Module) -> None:
    channels = 1 if case[0] in ONE_CHANNEL else 3
    target = torch.tensor([0, 1, IGNORED, 1, 0])
    logits = torch.randn(5, channels, generator=torch.Generator().manual_seed(1)).requires_grad_()
    if case[0] in OF_IMAGES:
        with pytest.raises(ConfigError, match=r"boundary_loss got a target of shape \(5,\): it needs masks"):
            loss(logits, target)
        return
    value = loss(logits, target)
    value.backward()
    assert value.shape == ()
    assert logits.grad is not None
    assert logits.grad[[0, 1, 3, 4]].abs().sum(dim=1).gt(0).any()
    assert not logits.grad[2].any()
    assert loss(2.5 * logits_of(target, channels), target) < value


def test_the_same_numbers_every_time(loss: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    results = []
    for _ in range(2):
        twin = logits.detach().clone().requires_grad_()
        value = loss(twin, target)
        value.backward()
        results.append((value.item(), twin.grad))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_shares_of_classes_are_judged_or_refused(case: Case, loss: nn.Module) -> None:
    if case[0] in ONE_CHANNEL:
        return
    target = torch.tensor([0, 2, 1])
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    shares = nn.functional.one_hot(target, 3).float()
    if case[0] in ("ohem_loss", "focal_loss", "lovasz_loss", "boundary_loss"):
        with pytest.raises(ConfigError, match=rf"{case[0]} got a target of \(3, 3\) shares per class.*Use ce_loss"):
            loss(logits, shares)
        return
    torch.testing.assert_close(loss(logits, shares), loss(logits, target))


@pytest.mark.parametrize("name", sorted(ONE_CHANNEL))
def test_sigmoid_losses_refuse_several_channels(name: str) -> None:
    logits, target = random_batch(3)
    with pytest.raises(ConfigError, match=f"{name} got 3 logits per pixel: it is for a binary network with one"):
        make(name, {})(logits, target)


@pytest.mark.parametrize(
    ("name", "same", "args"),
    [
        ("bce_loss", "ce_loss", {}),
        ("dice_loss_with_sigmoid", "dice_loss", {"exclude_background": True}),
        ("jaccard_loss_with_sigmoid", "jaccard_loss", {"exclude_background": True}),
        ("tversky_loss_with_sigmoid", "tversky_loss", {"exclude_background": True}),
        ("lovasz_loss_with_sigmoid", "lovasz_loss", {"exclude_background": True}),
    ],
)
def test_one_channel_is_two_classes(name: str, same: str, args: dict[str, Any]) -> None:
    logits, target = random_batch(1)
    pair = torch.cat((torch.zeros_like(logits), logits), dim=1)
    expected = make(same, args)(pair, target)
    torch.testing.assert_close(make(name, {})(logits, target), expected)
    torch.testing.assert_close(make(same, args)(logits, target), expected)
