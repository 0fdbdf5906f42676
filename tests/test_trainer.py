"""The loop: what it reports, when it stops, and that going on ends in the same bytes."""

import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from base import BaseTrainer, Callback
from base.base_trainer import LearningRateSchedule, Monitor
from tests.support.checkpoints import same
from tests.support.tiny import Accuracy, tiny_trainer
from trainer.checkpoints.resume import Start, restore
from trainer.checkpoints.saving import Checkpoints, stop_at_next_step
from trainer.runtime.devices import World
from utils.checkpoint_file import read_checkpoint
from utils.errors import CheckpointError, ConfigError, Interrupted, TrainingError

STEPS_PER_EPOCH = 6  # 22 samples in batches of 4


class StopAt(Callback):
    """Sends a signal to this process at one step, or in the validation after it."""

    def __init__(self, step, number=signal.SIGTERM, in_validation=False):
        self.step, self.number, self.in_validation = step, number, in_validation

    def on_step_end(self, trainer, report):
        if trainer.global_step == self.step and not self.in_validation:
            os.kill(os.getpid(), self.number)

    def on_validation_batch(self, trainer, inputs, target, output):
        if trainer.global_step == self.step and self.in_validation:
            os.kill(os.getpid(), self.number)


def assert_same_run(folder, reference):
    for name in ("checkpoint-last.pth", "model_best.pth"):
        one, other = read_checkpoint(folder / name), read_checkpoint(reference / name)
        assert same(one, other), [key for key in one if not same(one[key], other[key])]


def run(folder, *callbacks, state=None, **options):
    folder.mkdir(exist_ok=True)
    trainer = tiny_trainer([*callbacks, Checkpoints(folder, {"name": "tiny"})], **options)
    if state:
        restore(trainer, Start({}, state=state))
    with stop_at_next_step(trainer):
        return trainer.fit()


SCHEDULES = {
    "StepLR": lambda o: {"scheduler": lr_scheduler.StepLR(o, 1, 0.5)},
    "MultiStepLR": lambda o: {"scheduler": lr_scheduler.MultiStepLR(o, [1, 2])},
    "CosineAnnealingLR": lambda o: {"scheduler": lr_scheduler.CosineAnnealingLR(o, 18), "interval": "step"},
    "OneCycleLR": lambda o: {"scheduler": lr_scheduler.OneCycleLR(o, 0.1, total_steps=18), "interval": "step"},
    "LambdaLR": lambda o: {"scheduler": lr_scheduler.LambdaLR(o, lambda step: 0.9**step), "interval": "step"},
    "ReduceLROnPlateau": lambda o: {
        "scheduler": lr_scheduler.ReduceLROnPlateau(o, patience=0),
        "watched": "val_accuracy",
    },
    "warm-up and MultiStepLR": lambda o: {  # in a checkpoint its milestones are a plain dictionary
        "scheduler": lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.MultiStepLR(o, [2, 9])], [5]
        ),
        "interval": "step",
    },
    "SequentialLR": lambda o: {
        "scheduler": lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.ExponentialLR(o, 0.9)], [3]
        ),
        "interval": "step",
    },
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_resumed_at_any_step_ends_in_the_same_bytes(name, tmp_path):
    schedule = SCHEDULES[name]
    run(tmp_path / "whole", schedule=schedule)
    stops = [1, 4, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 3, 3 * STEPS_PER_EPOCH - 1]
    state = None
    for stop in stops:
        with pytest.raises(Interrupted, match="the state was saved"):
            run(tmp_path / "cut", StopAt(stop), state=state, schedule=schedule)
        state = read_checkpoint(tmp_path / "cut/checkpoint-last.pth")
        assert state["global_step"] == stop
    run(tmp_path / "cut", state=state, schedule=schedule)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_resumed_after_a_stop_in_validation(tmp_path):
    run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", StopAt(STEPS_PER_EPOCH, in_validation=True))
    state = read_checkpoint(tmp_path / "cut/checkpoint-last.pth")
    assert (state["epoch"], state["loop"]["batch"]) == (0, STEPS_PER_EPOCH)
    run(tmp_path / "cut", state=state)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_resumed_with_len_epoch_and_other_workers(tmp_path):
    run(tmp_path / "whole", len_epoch=4, n_workers=1)
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", StopAt(7), len_epoch=4, n_workers=0)
    run(tmp_path / "cut", state=read_checkpoint(tmp_path / "cut/checkpoint-last.pth"), len_epoch=4, n_workers=1)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert read_checkpoint(tmp_path / "cut/checkpoint-last.pth")["global_step"] == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_signals_save_and_say_their_exit_code(number, tmp_path):
    with pytest.raises(Interrupted, match=f"Interrupted by {number.name}; ") as caught:
        run(tmp_path / "run", StopAt(2, number))
    assert caught.value.exit_code == 128 + number
    assert read_checkpoint(tmp_path / "run/checkpoint-last.pth")["global_step"] == 2


def test_early_stop_counts_epochs_without_a_new_best_and_survives_a_resume(tmp_path):
    class Constant(Accuracy):
        def compute(self):
            return {"accuracy": 0.5}

    def fit(epochs, state=None):
        trainer = tiny_trainer(epochs=epochs, early_stop=2)
        trainer.validation_metrics.metrics[0] = Constant()
        if state:
            trainer.load_state_dict(state)
        return trainer, trainer.fit()

    assert fit(50)[1].epochs == 3
    trainer, _ = fit(2)
    assert fit(50, trainer.state_dict())[1].epochs == 3


def test_best_is_kept_whatever_the_save_period(tmp_path):
    result = run(tmp_path / "run", epochs=5)
    assert result.checkpoint == tmp_path / "run/model_best.pth"
    best = read_checkpoint(result.checkpoint)
    assert best["epoch"] == result.best["epoch"]
    assert best["monitor_best"] == result.best["val_accuracy"] == max(row["val_accuracy"] for row in result.history)


def test_save_period_keeps_every_nth_epoch(tmp_path):
    trainer = tiny_trainer([Checkpoints(tmp_path, {}, save_period=2)], epochs=5)
    trainer.fit()
    assert {path.name for path in tmp_path.glob("checkpoint-epoch*")} == {
        "checkpoint-epoch2.pth",
        "checkpoint-epoch4.pth",
    }


def test_a_wrong_monitor_is_found_before_the_first_step():
    trainer = tiny_trainer(monitor="max val_iou")
    with pytest.raises(
        ConfigError, match='"val_iou" is not among the results of an epoch, which are loss, accuracy, val_'
    ):
        trainer.fit()
    assert trainer.global_step == 0
    with pytest.raises(ConfigError, match='"best val_loss" is not a rule'):
        Monitor("best val_loss")


def test_a_loss_that_is_not_finite_stops_before_the_optimizer_step(tmp_path):
    class Breaks(nn.CrossEntropyLoss):
        calls = 0

        def forward(self, output, target):
            self.calls += 1
            return super().forward(output, target) * (float("nan") if self.calls == 3 else 1.0)

    trainer = tiny_trainer([Checkpoints(tmp_path, {}, save_every_steps=1)], loss=Breaks())
    with pytest.raises(TrainingError, match="not finite at epoch 1, step 3"):
        trainer.fit()
    saved = read_checkpoint(tmp_path / "checkpoint-last.pth")["state_dict"]
    assert all(
        torch.equal(saved[name], tensor)
        for name, tensor in trainer.model.state_dict().items()
        if "num" not in name and "running" not in name
    )


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    class Poison(Callback):
        def on_step_end(self, trainer, report):
            if trainer.global_step == 2:
                next(trainer.model.parameters()).data[0] = float("inf")

    with pytest.raises(TrainingError, match="not finite after step 2"):
        tiny_trainer([Poison(), Checkpoints(tmp_path, {}, save_every_steps=1)]).fit()
    assert read_checkpoint(tmp_path / "checkpoint-last.pth")["global_step"] == 1


def test_results_of_an_epoch_do_not_depend_on_the_batch_size():
    trainer = tiny_trainer(epochs=1)
    with torch.no_grad():
        trainer.model.eval()
        whole = nn.CrossEntropyLoss()(*_all_samples(trainer))
    assert trainer.validate_epoch()["loss"] == pytest.approx(float(whole), rel=1e-6)


def _all_samples(trainer):
    inputs, targets = zip(*[(inputs, target) for inputs, target, *_ in trainer.valid_loader], strict=True)
    return trainer.model(torch.cat(inputs)), torch.cat(targets)


class Pair(World):
    """The process of a rank beside one with a sum of its own."""

    def gather(self, value):
        other = torch.tensor([0.1, 3.0], dtype=torch.float64)
        return [value, other] if self.is_main else [other, value]

    def sum(self, tensor):
        return tensor


def with_sums(world, sums=(0.7, 5.0)):
    trainer = tiny_trainer()
    trainer.plan, trainer.is_main_process = replace(trainer.plan, world=world), world.is_main
    trainer.running_loss.sums = torch.tensor(sums, dtype=torch.float64)
    return trainer


@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_takes_back_its_own_sums_of_the_loss(rank):
    state = with_sums(Pair(rank, 2)).loop_state()
    again = with_sums(Pair(rank, 2), (9.0, 9.0))
    again.load_loop_state(state)
    assert again.running_loss.sums.tolist() == [0.7, 5.0]


@pytest.mark.parametrize(("rank", "expected"), [(0, [0.7 + 0.1, 8.0]), (1, [0.0, 0.0])])
def test_another_number_of_processes_keeps_the_sums_of_the_loss_in_the_main_one(rank, expected):
    again = with_sums(World(rank, 3))
    again.load_loop_state(with_sums(Pair(0, 2)).loop_state())
    assert again.running_loss.sums.tolist() == expected


def test_state_of_another_network_is_refused():
    state = tiny_trainer().state_dict()
    with pytest.raises(CheckpointError, match="does not fit this config"):
        restore(tiny_trainer(), Start({}, state={**state, "state_dict": {"other": torch.zeros(1)}}))


def test_base_trainer_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        BaseTrainer(nn.Linear(1, 1), None, epochs=1)


def test_plateau_needs_something_to_watch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ConfigError, match="looks at the result of an epoch"):
        LearningRateSchedule(lr_scheduler.ReduceLROnPlateau(optimizer))


def test_a_callback_can_end_the_run_after_the_epoch():
    class Enough(Callback):
        def on_epoch_end(self, trainer, metrics):
            trainer.request_stop("pruned")

    assert tiny_trainer([Enough()], epochs=9).fit().epochs == 1


class Count(Callback):
    """Counts steps from a number on."""

    def __init__(self, start=0):
        self.number = start

    def on_step_end(self, trainer, report):
        self.number += 1

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


def test_callbacks_of_one_class_each_keep_their_state():
    trainer = tiny_trainer([Count(), Count(100), Count(200)], epochs=1)
    trainer.fit()
    state = trainer.state_dict()
    assert state["callbacks"] == {"Count": {"number": 6}, "Count-2": {"number": 106}, "Count-3": {"number": 206}}
    resumed = tiny_trainer([Count(), Count(), Count()], epochs=2)
    resumed.load_state_dict(state)
    assert [callback.number for callback in resumed.callbacks] == [6, 106, 206]
    older = tiny_trainer([Count(), Count(7)], epochs=2)
    older.load_state_dict({**state, "callbacks": {"Count": {"number": 3}}})
    assert [callback.number for callback in older.callbacks] == [3, 7]


def test_a_stop_signal_set_by_an_older_plug_in_still_stops(tmp_path):
    class Impatient(Callback):
        def on_step_end(self, trainer, report):
            if trainer.global_step == 2:
                with pytest.warns(DeprecationWarning, match="stop_request"):
                    trainer.stop_signal = 15

    trainer = tiny_trainer([Impatient(), Checkpoints(tmp_path, {})])
    with pytest.raises(Interrupted, match="SIGTERM"):
        trainer.fit()
    assert trainer.stop_signal == trainer.stop_request.signal_number == 15
    with pytest.warns(DeprecationWarning, match="stop_request"):
        trainer.stop_signal = None
    assert trainer.stop_request is None
    assert read_checkpoint(tmp_path / "checkpoint-last.pth")["global_step"] == 2


def test_the_old_name_of_the_precision_still_works():
    trainer = tiny_trainer()
    with pytest.warns(DeprecationWarning, match=r"TrainingPlan\.precision"):
        assert trainer.plan.arithmetic is trainer.plan.precision


def test_every_callback_is_closed_also_after_the_error_of_one():
    closed = []

    class Faulty(Callback):
        def on_close(self, trainer):
            closed.append(self)
            raise OSError("no space")

    first, second, third = Faulty(), Faulty(), Count()
    third.on_close = lambda trainer: closed.append(third)
    with pytest.raises(OSError, match="no space"):
        tiny_trainer([first, second, third], epochs=1).fit()
    assert closed == [first, second, third]
