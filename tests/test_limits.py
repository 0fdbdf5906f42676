"""What is known of a candidate before its training: shapes, parameters, FLOPs, memory, latency."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode

from build import build_loss, build_model
from config import DataSpec, load_config
from config.variants import without_pretrained_weights
from search.worker.candidate import Limits, check_limits
from tests.support.slow import slow_unless
from trainer.inspection.costs import (
    WORKING_SHARE,
    AnswersZero,
    LiveMemory,
    TrainingStep,
    build_fake,
    optimizer_copies,
    predict_costs,
)
from utils.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parent.parent
PEOPLE = ROOT / "data/people"
CONFIGS = sorted(
    path for folder in ("people", "camvid", "images", "series") for path in (ROOT / f"config/{folder}").glob("*.json")
)
MEGABYTE = 2**20


def is_light(path):
    """A network of a few layers, whose graph is small."""
    return path.parent.name in ("images", "series") or path.stem in ("quickstart", "unet", "encdec")


@pytest.fixture
def small(tmp_path):
    arguments = {"pairs_file": str(PEOPLE / "train_pairs.txt"), "samples": 6, "resize": [64, 48], "batch_size": 4}
    return {
        "name": "small",
        "arch": {"type": "UNet", "args": {"channels": [4, 8]}},
        "train_loader": {"type": "SegmentationDataLoader", "args": {**arguments, "num_classes": 2}},
        "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
        "loss": "ce_loss",
        "trainer": {"epochs": 1, "save_dir": str(tmp_path), "monitor": "off"},
    }


def classes(config):
    return 11 if "camvid" in config["name"] else 3


def network(config):
    told = {"num_classes": classes(config), "in_channels": 1 if "mnist" in config["name"] else 3}
    told |= {"dims": 1} if "Series" in str(config) or "Ucr" in str(config) else {}
    return build_model(without_pretrained_weights(config), DataSpec(**told))


@pytest.mark.parametrize("path", slow_unless(is_light, CONFIGS), ids=lambda path: path.stem)
def test_parameters_and_flops_are_those_of_the_network_itself(path):
    config = load_config(path)
    model = network(config)
    size = (128,) if "series" in str(path) else (28, 28) if "images" in str(path) else (96, 128)
    target = (2,) if len(size) == 1 or "images" in str(path) else (2, *size)
    step = TrainingStep(
        lambda: network(config).train(),
        lambda built: build_loss(config, DataSpec(num_classes=classes(config)), built),
        (2, model.in_channels, *size),
        target,
    )
    found = predict_costs(step)
    assert (found.params, found.flops) == (model.parameter_count(), model.flops(size))
    assert found.memory_mb > 4 * found.params / MEGABYTE


class Dense(nn.Module):
    """(B, 256) -> (B, 512) -> (B, 10), where the memory of a step can be counted by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(256, 512, bias=False), nn.Linear(512, 10, bias=False)

    def forward(self, inputs):
        return self.last(self.first(inputs))


class Sum(nn.Module):
    def forward(self, output, target):
        return output.sum()


def dense_step(**changes):
    return TrainingStep(Dense, lambda model: Sum(), (1000, 256), (1000,), **changes)


def test_memory_is_what_lives_at_the_worst_moment():
    weights = 4 * (256 * 512 + 512 * 10)
    batch = 4 * 1000 * 256 + 8 * 1000
    hidden, output = 4 * 1000 * 512, 4 * 1000 * 10
    # In the backward pass, at the gradient of the first layer's weights: those of the last layer and of the hidden
    # values are there, too, and the hidden values themselves are not needed any more.
    backward = weights + batch + hidden + hidden + output + 4 * 512 * 10
    assert predict_costs(dense_step()).memory_mb * MEGABYTE == pytest.approx((1 + WORKING_SHARE) * backward, rel=0.1)
    plain = predict_costs(dense_step()).memory_mb
    adam = predict_costs(dense_step(optimizer_copies=2.0)).memory_mb
    average = predict_costs(dense_step(has_average=True)).memory_mb
    assert (adam - plain) * MEGABYTE == pytest.approx(2 * weights)
    assert (average - plain) * MEGABYTE == pytest.approx(weights)


def test_accumulated_batches_wait_and_meet_the_gradients():
    one, four = (predict_costs(dense_step(accumulate=count)).memory_mb * MEGABYTE for count in (1, 4))
    waiting = 3 * (4 * 1000 * 256 + 8 * 1000)
    assert four - one >= waiting
    assert four - one <= waiting + (1 + WORKING_SHARE) * 4 * (256 * 512 + 512 * 10)


def test_views_are_counted_once_and_what_is_gone_not_at_all():
    with LiveMemory() as memory:
        whole = torch.zeros(256, 4)
        part = whole[:10].view(-1)
        assert memory.live == 4096
        del whole
        assert memory.live == 4096
        del part
    assert (memory.live, memory.peak) == (0, 4096)


@pytest.mark.parametrize(
    ("build", "copies"),
    [
        (lambda weights: torch.optim.SGD(weights, lr=0.1), 0),
        (lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9), 1),
        (lambda weights: torch.optim.AdamW(weights, lr=0.1), 2),
        (lambda weights: torch.optim.AdamW(weights, lr=0.1, amsgrad=True), 3),
        (lambda weights: torch.optim.RMSprop(weights, lr=0.1), 1),
    ],
)
def test_what_an_optimizer_keeps_of_each_weight(build, copies):
    assert optimizer_copies(build) == copies


class LooksAtValues(nn.Module):
    """Asks for values while it is built and while it runs."""

    def __init__(self):
        super().__init__()
        rates = torch.linspace(0, 0.5, 3).tolist()
        self.layers = nn.Sequential(*[nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(rate)) for rate in rates])

    def forward(self, inputs):
        return inputs if inputs.isnan().any() else self.layers(inputs)


def test_a_network_that_looks_at_values_is_foreseen_all_the_same():
    step = TrainingStep(LooksAtValues, lambda model: nn.CrossEntropyLoss(), (2, 3, 8, 8), (2, 8, 8))
    found = predict_costs(step)
    assert (found.params, found.flops) == (36, 3 * 2 * 9 * 64)
    assert found.memory_mb > 0


class Tied(nn.Module):
    """Asks for a value while it is built, and uses one weight in two modules."""

    def __init__(self):
        super().__init__()
        self.rate = torch.linspace(0, 1, 3).tolist()[1]
        self.first, self.last = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.last.weight = self.first.weight
        self.register_buffer("scale", torch.ones(4))
        self.bias = nn.Parameter(torch.zeros(4))
        self.first.weight.requires_grad = False

    def forward(self, inputs):
        return self.last(self.first(inputs)) * self.scale + self.bias


def test_weights_that_are_replaced_stay_shared_and_frozen():
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = build_fake(Tied, mode, torch.device("cpu"))
    assert model.last.weight is model.first.weight
    assert [isinstance(each, FakeTensor) for each in (*model.parameters(), *model.buffers())] == [True] * 3
    assert not model.first.weight.requires_grad
    facts = predict_costs(TrainingStep(Tied, lambda model: Sum(), (2, 4), (2,)))
    assert facts.params == 16 + 4
    assert facts.memory_mb is not None


def test_the_private_parts_of_torch_do_what_the_costs_rely_on():
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = torch.ones(2, 3)
        assert isinstance(fake, FakeTensor)
        assert (fake.device.type, fake.untyped_storage().nbytes()) == ("cpu", 24)
        assert mode.from_tensor(torch.ones(5)).shape == (5,)
        with pytest.raises(DataDependentOutputException):
            fake.sum().item()
        with AnswersZero():
            assert (fake.sum().item(), fake.int().sum().item(), bool(fake.all())) == (0.0, 0, False)
        with LiveMemory() as memory:
            both = fake.sort()
        assert memory.live == sum(each.untyped_storage().nbytes() for each in both) == 24 + 48


class LossOfSome(nn.Module):
    def forward(self, output, target):
        return output.permute(0, 2, 3, 1)[target == 0].mean()


def test_a_loss_that_decides_by_values_has_a_stand_in():
    step = TrainingStep(lambda: nn.Conv2d(3, 2, 1), lambda model: LossOfSome(), (2, 3, 8, 8), (2, 8, 8))
    assert predict_costs(step).memory_mb > 0


def test_a_network_that_cannot_take_the_input_is_refused():
    step = TrainingStep(lambda: nn.Conv2d(4, 2, 1), lambda model: nn.CrossEntropyLoss(), (2, 3, 8, 8), (2, 8, 8))
    with pytest.raises(ConfigError, match=r"cannot take an input of 2x3x8x8: RuntimeError: .*Change its arguments"):
        predict_costs(step)


def test_targets_of_another_kind_are_not_a_fault_of_the_input(caplog):
    step = TrainingStep(lambda: nn.Conv2d(3, 2, 1), lambda model: nn.CrossEntropyLoss(), (2, 3, 8, 8), (2,))
    with pytest.raises(ConfigError, match=r"^arch.type: Conv2d gives logits of 2x2x8x8, but the targets are one class"):
        predict_costs(step)
    assert not [each for each in caplog.records if each.levelname == "ERROR"], "torch logs tracebacks of its own"


def test_a_candidate_within_its_limits_may_be_trained(small):
    facts, refusal = check_limits(small, Limits(max_params=10_000, max_latency_ms=60_000.0))
    assert refusal == ""
    assert set(facts.known()) == {"params", "flops", "memory_mb", "latency_ms"}


def test_nothing_but_shapes_is_needed_without_a_limit_of_latency(small):
    assert check_limits(small)[0].latency_ms is None


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_params": 100}, r"^params [\d,]+ is more than max_params 100$"),
        ({"max_flops": 1000, "max_latency_ms": 1e-9}, r"^flops [\d,]+ is more than max_flops 1,000$"),
        ({"max_memory_mb": 0.01}, r"^memory_mb [\d.]+ is more than max_memory_mb 0.01$"),
        ({"max_latency_ms": 1e-9}, r"^latency_ms [\d.]+ is more than max_latency_ms 1e-09$"),
    ],
)
def test_the_first_limit_that_is_exceeded_is_told(small, limits, reason):
    facts, refusal = check_limits(small, Limits(**limits))
    assert re.search(reason, refusal), refusal
    assert facts.params > 100
    assert (facts.latency_ms is None) == ("latency" not in refusal)


def test_flops_are_stated_at_the_size_that_the_limits_name(small):
    here, there = check_limits(small)[0], check_limits(small, Limits(input_size=(128, 96)))[0]
    assert there.flops == 4 * here.flops
    assert there.memory_mb == here.memory_mb


def test_what_cannot_be_built_is_refused_with_its_message(small):
    small["arch"] = {"type": "UNet", "args": {"channels": [4, 8], "backbone": "no such"}}
    assert "arch" in check_limits(small)[1]
    small["arch"] = {"type": "EncDec", "args": {"D_blocks": [], "B_blocks": [], "U_blocks": []}}
    assert check_limits(small)[1]


def test_data_that_is_not_there_is_no_fault_of_the_candidate(small):
    small["train_loader"]["args"]["pairs_file"] = "nowhere.txt"
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        check_limits(small)


def test_judging_draws_nothing_from_the_generators(small):
    before = torch.get_rng_state()
    check_limits(small)
    assert torch.equal(torch.get_rng_state(), before)
