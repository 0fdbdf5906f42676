"""A step of a training before it begins: its faults, its costs, that it leaves no trace; what a run will take."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from base import BaseDataLoader, Callback
from tests.support.tiny import tiny_trainer
from tests.support.trials import Images, adam, plan, same
from trainer.checkpoints.saving import Checkpoints
from trainer.inspection.costs import WORKING_SHARE, predict_memory
from trainer.inspection.forecast import disk_findings, forecast_run, forecast_text
from trainer.inspection.memory import (
    batch_shapes,
    memory_findings,
    require_room_for_step,
    size_in_words,
    step_memory_findings,
    training_step,
)
from trainer.inspection.step_faults import explained_steps
from trainer.inspection.trial import try_step
from trainer.trainer import Trainer, TrainingPlan
from utils.errors import ConfigError, OutOfMemory

# ---- one step


def trained(trainer, steps=1):
    """A trainer after some steps, as a run leaves it."""
    batch = trainer.train_loader.example()
    for _ in range(steps):
        trainer.run_step([tuple(batch)])
    return trainer


def everything(trainer):
    """The whole state of a trainer, as tensors and plain data."""
    state = copy.deepcopy(trainer.state_dict())
    state["weights"] = copy.deepcopy(trainer.model.state_dict())
    state["modes"] = [part.training for part in trainer.model.modules()]
    state["gradients"] = [None if each.grad is None else each.grad.clone() for each in trainer.model.parameters()]
    state["counts"] = copy.deepcopy([metric.counts for metric in trainer.metrics.metrics])
    return state


OPTIMIZERS = {
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.05),
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, lr=0.01),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("has_started", [False, True])
@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9, "accumulate": 3, "clip_norm": 1.0}])
def test_a_step_leaves_no_trace(optimizer, has_started, options):
    trainer = tiny_trainer(optimizer=OPTIMIZERS[optimizer], **options)
    if has_started:
        trained(trainer, 2)
    before = everything(trainer)
    trial = try_step(trainer, trainer.train_loader.example(), trainer.valid_loader.example())
    assert trial.facts is not None
    assert trial.findings == []
    assert same(everything(trainer), before)


def test_a_training_ends_in_the_same_bytes_with_a_trial_before_it():
    plain, tried = tiny_trainer(), tiny_trainer()
    try_step(tried, tried.train_loader.example(), tried.valid_loader.example())
    torch.manual_seed(9)
    one = plain.fit()
    torch.manual_seed(9)
    assert same(tried.fit().history, one.history)
    assert same(dict(tried.model.state_dict()), dict(plain.model.state_dict()))


def image_trainer(model, loss=None, *, batch_size=4, data=None, optimizer=None, **options):
    """A training of a network on images."""
    data = data or Images(8)
    return Trainer(
        model,
        (optimizer or adam)([weight for weight in model.parameters() if weight.requires_grad]),
        criterion=loss or nn.CrossEntropyLoss(),
        train_loader=BaseDataLoader(data, batch_size, shuffle=True, is_training=True),
        valid_loader=BaseDataLoader(data, batch_size, shuffle=False, is_training=False),
        plan=plan(**options),
    )


def trial_of(model, loss=None, **options):
    trainer = image_trainer(model, loss, **options)
    return try_step(trainer, trainer.train_loader.example(), trainer.valid_loader.example(), section="data_loader")


class Detached(nn.Conv2d):
    def forward(self, inputs):
        return super().forward(inputs).detach().requires_grad_()


class Pair(nn.Module):
    """Two layers, of which one does not reach the output."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Conv2d(1, 3, 1), nn.Conv2d(1, 3, 1)

    def forward(self, inputs):
        return self.used(inputs)


class InDict(nn.Conv2d):
    def forward(self, inputs):
        return {"out": super().forward(inputs)}


class NoLoss(nn.Module):
    def forward(self, output, target):
        return torch.tensor(1.0)


class OutOfRoom(nn.Conv2d):
    def forward(self, inputs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")


def normed(channels=3):
    return nn.Sequential(nn.Conv2d(1, channels, 1), nn.BatchNorm2d(channels))


FAULTS = {
    "one value per channel": (
        lambda: trial_of(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), normed(), nn.Flatten()),
            batch_size=1,
            data=Images(8, is_mask=False),
        ),
        "data_loader.args.batch_size",
        r"^1: in Sequential at its part 1\.1 \(BatchNorm2d\) .*one value per channel \(1x3x1x1\)",
    ),
    "channels": (lambda: trial_of(nn.Conv2d(3, 3, 1)), "arch.args.in_channels", "^3: .* but the loader yields 1"),
    "kernel": (lambda: trial_of(nn.Conv2d(1, 3, 9)), "data_loader.args.resize", "^8x8: in Conv2d nothing is left"),
    "series network": (lambda: trial_of(nn.Conv1d(1, 3, 1)), "arch.type", "which are images"),
    "too few classes": (
        lambda: trial_of(nn.Conv2d(1, 3, 1), data=Images(8, num_labels=5)),
        "arch.args.num_classes",
        r"^3: Conv2d gives logits of 3 classes, but the label 4 occurs\. Labels are 0 to 2\. Set num_classes to 5",
    ),
    "classifier gets masks": (
        lambda: trial_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))),
        "arch.type",
        r"logits of 4x3, but the targets are a class per pixel \(4x8x8\)",
    ),
    "masks from a class": (
        lambda: trial_of(nn.Conv2d(1, 3, 1), data=Images(8, is_mask=False)),
        "arch.type",
        r"logits of 4x3x8x8, but the targets are one class per sample \(4\)",
    ),
    "half the size": (
        lambda: trial_of(nn.Conv2d(1, 3, 2, stride=2)),
        "arch",
        r"logits of 4x4 for masks of 8x8.*end with an interpolation",
    ),
    "batch in the channels": (
        lambda: trial_of(nn.Sequential(nn.Conv2d(1, 6, 1), nn.Unflatten(1, (2, 3)), nn.Flatten(0, 1))),
        "arch",
        "gives 8 outputs for a batch of 4",
    ),
    "dict": (lambda: trial_of(InDict(1, 3, 1)), "arch", "InDict returns a dict.*takes logits"),
    "loss": (
        lambda: trial_of(nn.Conv2d(1, 3, 1), nn.BCEWithLogitsLoss()),
        "loss",
        r"^BCEWithLogitsLoss cannot train on an output of 4x3x8x8 float32 with a target of 4x8x8 int64: ValueError: ",
    ),
    "no gradient": (lambda: trial_of(nn.Conv2d(1, 3, 1), NoLoss()), "loss", "depends on no weight"),
    "nothing learns": (
        lambda: trial_of(Detached(1, 3, 1)),
        "arch",
        "none of the 2 weights of Detached gets a gradient",
    ),
    "memory": (
        lambda: trial_of(OutOfRoom(1, 3, 1)),
        "data_loader.args.batch_size",
        "^4: memory ran out in a step.*4x1x8x8",
    ),
    "closure": (
        lambda: trial_of(nn.Conv2d(1, 3, 1), optimizer=torch.optim.LBFGS),
        "optimizer",
        "LBFGS cannot make a step: TypeError: .*closure.*Use another",
    ),
    "not finite": (
        lambda: trial_of(nn.Conv2d(1, 3, 1), nn.CrossEntropyLoss(weight=torch.tensor([1.0, float("nan"), 1.0]))),
        "loss",
        "first batch is not finite",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_torch_would_refuse_is_a_fault_with_its_place_and_repair(case):
    run, place, message = FAULTS[case]
    trial = run()
    faults = [each for each in trial.findings if each.is_fault]
    assert trial.facts is None
    assert [(each.kind, each.place) for each in faults] == [("config", place)]
    assert re.search(message, faults[0].message), faults[0].message
    assert "\n" not in faults[0].message


@pytest.mark.parametrize("case", ["channels", "kernel", "too few classes", "half the size", "loss"])
def test_a_training_itself_ends_with_the_same_fault(case, monkeypatch):
    made = []
    monkeypatch.setitem(globals(), "trial_of", lambda *args, **options: made.append(image_trainer(*args, **options)))
    run, place, message = FAULTS[case]
    run()
    with pytest.raises(ConfigError) as caught, explained_steps(made[0], "data_loader"):
        made[0].fit()
    assert str(caught.value).startswith(f"{place}: ")
    assert re.search(message.removeprefix("^"), str(caught.value))


class Failing(Callback):
    def on_step_end(self, trainer, report):
        raise ValueError("of the callback")


def test_an_error_of_something_else_stays_as_it_is():
    trainer = image_trainer(nn.Conv2d(1, 3, 1))
    trainer.callbacks = [Failing()]
    with pytest.raises(ValueError, match="of the callback"), explained_steps(trainer, "data_loader"):
        trainer.fit()


def test_an_error_of_a_data_set_of_ones_own_stays_as_it_is():
    def broken(index):
        raise ValueError(f"of sample {index}")

    trainer = image_trainer(nn.Conv2d(1, 3, 1))
    trainer.train_loader.dataset.is_keyed = False
    trainer.train_loader.dataset.dataset = type("Broken", (), {"__getitem__": lambda _, index: broken(index)})()
    with pytest.raises(ValueError, match="of sample") as caught, explained_steps(trainer, "data_loader"):
        trainer.fit()
    assert caught.value.__suppress_context__


class SmallerInValidation(nn.Conv2d):
    def forward(self, inputs):
        return super().forward(inputs if self.training else inputs[:, :, ::2])


def test_a_fault_of_the_validation_alone_names_its_loader():
    trial = trial_of(SmallerInValidation(1, 3, 1))
    assert trial.facts is None
    assert re.search("logits of 4x8 for masks of 8x8", trial.findings[0].message)


def test_weights_without_gradient_are_named_and_the_step_is_measured():
    trial = trial_of(Pair())
    assert trial.facts is not None
    [warning] = trial.findings
    assert not warning.is_fault
    assert warning.message.startswith("2 of 4 weights of Pair get no gradient: idle.weight, idle.bias.")


@pytest.mark.parametrize(("num_classes", "is_warned"), [(None, False), (2, True), (3, False), (4, False)])
def test_more_logits_than_classes_are_warned_of(num_classes, is_warned):
    trainer = image_trainer(nn.Conv2d(1, 3, 1), data=Images(8, num_labels=2))
    trainer.train_loader.num_classes = num_classes
    findings = try_step(trainer, trainer.train_loader.example()).findings
    assert [(each.is_fault, each.message[:60]) for each in findings] == (
        [(False, "3: Conv2d gives logits of 3 classes, and the data has 2. The")] if is_warned else []
    )


class Counting(nn.Conv2d):
    """Counts its calls in a plain attribute, and in a buffer that it replaces."""

    def __init__(self):
        super().__init__(1, 3, 1)
        self.calls = 0
        self.register_buffer("total", torch.zeros(()))

    def forward(self, inputs):
        self.calls, self.total, self.last = self.calls + 1, self.total + 1, inputs
        return super().forward(inputs)


def test_what_a_network_notes_of_itself_is_restored():
    network = Counting()
    total = network.total
    assert trial_of(network).facts is not None
    assert (network.calls, network.total is total, float(total), hasattr(network, "last")) == (0, True, 0.0, False)


def test_a_network_is_not_compiled_for_a_trial():
    def compiler(graph, example):
        raise AssertionError("compiled")

    trainer = image_trainer(nn.Conv2d(1, 3, 1))
    trainer.model.compile(backend=compiler)
    assert try_step(trainer, trainer.train_loader.example(), trainer.valid_loader.example()).facts is not None


def test_a_learning_rate_that_explodes_is_no_fault_of_the_first_step():
    trial = trial_of(nn.Conv2d(1, 3, 1), optimizer=lambda weights: torch.optim.SGD(weights, lr=1e38))
    assert trial.facts is not None
    assert trial.facts.seconds > 0


def test_a_gradient_of_zero_everywhere_is_a_warning():
    ignored = Images(8)
    ignored.targets[:] = -100  # the label that cross-entropy leaves out: NaN as a mean, so summed here
    trial = trial_of(nn.Conv2d(1, 3, 1), nn.CrossEntropyLoss(reduction="sum"), data=ignored)
    assert [each.message[:38] for each in trial.findings] == ["every gradient of the first step is 0:"]


@pytest.mark.parametrize(
    ("samples", "batch_size", "message"),
    [
        (8, 1, "^1: each of the 1 batch norms .1. takes its statistics from one sample"),
        (1, 4, "takes its statistics from one sample"),
        (9, 4, "^4: of 9 samples one is left over"),
        (8, 4, None),
        (10, 4, None),
    ],
)
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3), nn.GroupNorm(1, 3)])
def test_batch_norms_on_one_sample_are_warned_of(samples, batch_size, message, norm):
    trial = trial_of(
        nn.Sequential(nn.Conv2d(1, 3, 1), copy.deepcopy(norm)), batch_size=batch_size, data=Images(samples)
    )
    messages = [each.message for each in trial.findings if not each.is_fault]
    if message is None or isinstance(norm, nn.GroupNorm):
        assert messages == []
    else:
        assert re.search(message, messages[0])
    assert trial.facts is not None


def test_memory_disk_and_time_by_hand():
    """A linear layer of 1000 x 1000 on a batch of 8: weights, gradients, moments, and nothing else to speak of."""
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(1000, 1000, bias=False))
    data = Images(20, is_mask=False)
    data.images = torch.rand(20, 1, 10, 100)
    trainer = Trainer(
        wide,
        adam(wide.parameters()),
        criterion=nn.CrossEntropyLoss(),
        train_loader=BaseDataLoader(data, 8, shuffle=True, is_training=True),
        valid_loader=BaseDataLoader(data, 5, shuffle=False, is_training=False),
        plan=TrainingPlan(epochs=10, ema_decay=0.99),
    )
    facts = try_step(trainer, trainer.train_loader.example(), trainer.valid_loader.example()).facts
    weights = 4 * 1000 * 1000
    assert facts.weight_bytes == weights
    assert facts.optimizer_bytes == pytest.approx(2 * weights, abs=100)
    assert facts.batch_bytes == 8 * 1000 * 4 + 8 * 8
    # In the update: weights, gradients, two moments, two results on the way; and the average. The activations of 8
    # samples are 1 % of a weight matrix.
    assert facts.peak_bytes == pytest.approx(7 * weights, rel=0.02)

    facts = replace(facts, seconds=2.0, validation_seconds=0.5)
    found = forecast_run(trainer, facts, save_dir=Path("nowhere/at/all"), save_period=4, load_seconds=0.25)
    assert (found.steps, found.checkpoint_files) == (3, 3 + 10 // 4)  # 20 samples in 8s: 8, 8, 4
    assert found.epoch_seconds == 3 * (2.0 + 0.25) + 4 * 0.5
    assert found.total_seconds == 10 * found.epoch_seconds
    assert found.checkpoint_bytes == pytest.approx(4 * weights, rel=0.01)
    assert found.disk_bytes == 5 * found.checkpoint_bytes
    assert "8.8 s per epoch of 3 steps, 1:28 for all epochs" in forecast_text(found)


def test_the_forecast_of_a_checkpoint_is_the_size_of_its_file(tmp_path):
    trainer = tiny_trainer([Checkpoints(tmp_path, {"name": "x"}, save_period=2)], ema_decay=0.9)
    facts = try_step(trainer, trainer.train_loader.example()).facts
    found = forecast_run(trainer, facts, save_dir=tmp_path, save_period=2)
    trainer.fit()
    files = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert files == ["checkpoint-epoch2.pth", "checkpoint-last.pth", "model_best.pth"]
    assert found.checkpoint_files == len(files) + 1  # one may be in the writing
    assert found.checkpoint_bytes == pytest.approx((tmp_path / files[0]).stat().st_size, rel=0.1)


@pytest.mark.parametrize(("needed", "words"), [(79, None), (81, "little is left"), (101, "they do not fit")])
def test_a_disk_that_is_nearly_full_is_a_warning(needed, words):
    findings = disk_findings(needed * 1e9, 100e9, Path("saved"), 4)
    assert [each.is_fault for each in findings] == ([] if words is None else [False])
    assert all(words in each.message and "the 4 checkpoints of this run need" in each.message for each in findings)


# ---- memory before the first step


@pytest.fixture
def little_memory(monkeypatch):
    """10 MB are free."""
    monkeypatch.setattr("trainer.inspection.memory.known_memory", lambda: 10_000_000)


def test_a_step_is_foreseen_as_it_is_then_measured():
    trainer = Trainer(
        nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 3, 1)),
        None,
        criterion=nn.CrossEntropyLoss(),
        train_loader=BaseDataLoader(Images(8), 8, shuffle=True, is_training=True),
        plan=plan(),
    )
    trainer.optimizer = adam(trainer.model.parameters())
    before = copy.deepcopy(trainer.model.state_dict())
    foreseen = predict_memory(training_step(trainer, (8, 1, 8, 8), (8, 8, 8)))
    assert same(dict(trainer.model.state_dict()), dict(before))
    facts = try_step(trainer, trainer.train_loader.example()).facts
    assert foreseen == pytest.approx(facts.peak_bytes, rel=0.1)
    # The images of 64 channels after the first two layers are stored for the backward pass.
    assert foreseen > (1 + WORKING_SHARE) * 2 * 4 * 8 * 64 * 64


class Sized:
    """The preprocessing of a loader, as far as its size goes."""

    def __init__(self, *size):
        self.size = size


def sized_trainer(side, batch_size=4, **options):
    trainer = tiny_trainer(**options)
    trainer.model = nn.Conv2d(1, 3, 1)
    trainer.optimizer = adam(trainer.model.parameters())
    trainer.train_loader = BaseDataLoader(Images(8), batch_size, shuffle=True, is_training=True)
    trainer.train_loader.preprocessing, trainer.train_loader.in_channels = Sized(side, side), 1
    trainer.valid_loader = None
    return trainer


def test_the_shapes_of_a_batch_are_known_before_it_is_loaded():
    loader = sized_trainer(8, batch_size=3).train_loader
    assert batch_shapes(loader) == ((3, 1, 8, 8), (3, 8, 8))
    assert batch_shapes(loader, num_devices=2) == ((2, 1, 8, 8), (2, 8, 8))
    loader.task = "classification"
    assert batch_shapes(loader) == ((3, 1, 8, 8), (3,))
    loader.preprocessing = None
    assert batch_shapes(loader) is None


@pytest.mark.parametrize(
    ("side", "accumulate", "message"),
    [
        (
            60_000,
            1,
            r"^data_loader\.args\.batch_size: 4: inputs of 4x1x60000x60000 and their targets alone take 173 GB",
        ),
        (500, 1, r"4: inputs of 4x1x500x500 and their targets alone take 12\.0 MB, and 10\.0 MB are free: they cannot"),
        (300, 3, r"targets alone take 13\.0 MB"),
        (
            400,
            1,
            r"4: a step with inputs of 4x1x400x400 needs about [2-4]\d\.\d MB, and 10\.0 MB are free: it cannot fit",
        ),
        (100, 1, None),
    ],
)
def test_inputs_that_cannot_fit_are_refused_before_they_are_loaded(little_memory, side, accumulate, message):
    trainer = sized_trainer(side, accumulate=accumulate)
    if message is None:
        require_room_for_step(trainer, "data_loader")
        assert step_memory_findings(trainer) == []
    else:
        with pytest.raises(OutOfMemory, match=message):
            require_room_for_step(trainer, "data_loader")


def test_a_huge_validation_is_refused_by_its_own_section(little_memory):
    trainer = sized_trainer(8)
    trainer.valid_loader = sized_trainer(5000).train_loader
    [fault] = step_memory_findings(trainer, "train_loader", "valid_loader")
    assert (fault.place, fault.is_fault) == ("valid_loader.args.batch_size", True)


@pytest.mark.parametrize(("needed", "is_fault"), [(79, None), (81, False), (149, False), (151, True)])
def test_memory_that_is_far_too_small_is_a_fault(needed, is_fault):
    findings = memory_findings(needed * 1e9, 100e9, (16, 3, 9, 9), place="train_loader.args.batch_size")
    assert [each.is_fault for each in findings] == ([] if is_fault is None else [is_fault])
    if findings:
        assert findings[0].message.startswith(f"16: a step with inputs of 16x3x9x9 needs about {needed}")


def test_bytes_in_words():
    texts = [size_in_words(number) for number in (7, 1500, 123_400_000, 9.96e9, 2e15)]
    assert texts == ["7 B", "1.5 kB", "123 MB", "10.0 GB", "2000 TB"]
