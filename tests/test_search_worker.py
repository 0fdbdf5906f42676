"""What a worker of the search makes of a task: where it begins, which weights it leaves, and how each fault ends."""

import copy
import errno
import json
import math
import os
import shutil

import pytest
import torch

from search.executors.ownership import owner_of, take_over
from search.results.record import Tally, parse_constraints, parse_objectives
from search.worker import runner
from search.worker.callbacks import BestByObjective
from search.worker.fence import Fence
from search.worker.latency import shortest_pass
from search.worker.runner import plain_data, run_task
from tests.support.people import people_config, people_loader
from tests.support.tiny import tiny_trainer
from tests.test_candidates import assert_same
from trainer.checkpoints.saving import Checkpoints
from utils.checkpoint_file import BEST, LAST, read_checkpoint, write_checkpoint
from utils.errors import SearchError


@pytest.fixture
def config(tmp_path):
    schedule = {"type": "StepLR", "args": {"step_size": 2, "gamma": 0.5}}
    return {**people_config(tmp_path, 6), "lr_scheduler": schedule}


class Search:
    """Receives reports, and decides by the epoch; "continue" where it says nothing."""

    def __init__(self, **decisions):
        self.rows, self.messages = [], []
        self.decisions = {int(name.removeprefix("epoch")): decision for name, decision in decisions.items()}

    def __call__(self, message):
        self.messages.append(message)
        if "epoch" not in message:
            return "continue"
        self.rows.append(message["row"])
        return self.decisions.get(message["epoch"], "continue")


def work(config, folder, search=None, **more):
    task = {"kind": "train", "config": config, "folder": str(folder), "reported": 0}
    return run_task(task | more, search or Search())


def changed(config, **values):
    new = copy.deepcopy(config)
    for path, value in values.items():
        section, _, name = path.partition("__")
        new[section]["args" if section in ("optimizer", "arch") else name] |= {name: value}
    return new


def test_a_run_that_is_ahead_of_its_search_reports_up_to_the_next_decision(config, tmp_path):
    folder = tmp_path / "run"
    work(config, folder, Search(epoch3="pause"))
    search = Search(epoch1="pause")  # its journal was cut
    assert not work(config, folder, search)["is_finished"]
    assert [row["epoch"] for row in search.rows] == [1]
    search = Search(epoch4="stop")
    work(config, folder, search, reported=1)
    assert [row["epoch"] for row in search.rows] == [2, 3, 4]


# ---- beginning with another's state


@pytest.fixture
def parent(config, tmp_path):
    """A run that was paused after its third epoch."""
    assert not work(config, tmp_path / "parent", Search(epoch3="pause"), objectives=["min val_loss"])["is_finished"]
    return tmp_path / "parent"


def child_of(config, lr):
    return {**config, "optimizer": {"type": "SGD", "args": {"lr": lr, "momentum": 0.5, "weight_decay": 0.01}}}


def test_a_task_begins_with_the_state_of_another_and_its_own_values(config, parent, tmp_path):
    search = Search(epoch4="pause")
    more = {"begins_from": str(parent), "reported": 3}
    work(child_of(config, 0.0), tmp_path / "child", search, **more)
    before, after = (read_checkpoint(folder / LAST) for folder in (parent, tmp_path / "child"))
    # Nothing was learned in the epoch: the weights are the parent's.
    assert_same(after["state_dict"], before["state_dict"])
    assert after["epoch"] == before["epoch"] + 1
    assert after["history"][:3] == before["history"]
    assert [row["epoch"] for row in search.rows] == [4]
    (group,) = after["optimizer"]["param_groups"]
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0.01)
    assert after["config"]["optimizer"]["args"]["lr"] == 0.0
    assert json.loads((tmp_path / "child/config.json").read_text())["optimizer"]["args"]["lr"] == 0.0
    assert read_checkpoint(parent / LAST)["epoch"] == 3  # the parent is as it was


def test_the_schedule_is_where_it_would_be_with_the_new_rate(config, parent, tmp_path):
    search = Search(epoch4="pause")
    work(child_of(config, 0.4), tmp_path / "child", search, begins_from=str(parent), reported=3)
    # StepLR halves the rate after epochs 2 and 4.
    assert search.rows[0]["lr"] == pytest.approx(0.2)
    assert read_checkpoint(tmp_path / "child" / LAST)["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize("killed", ["before its first checkpoint", "after it"])
def test_a_child_that_was_killed_ends_in_the_same_bytes(config, parent, tmp_path, killed):
    values = {"begins_from": str(parent), "reported": 3, "objectives": ["min val_loss"]}
    new = child_of(config, 0.1)
    assert work(new, tmp_path / "whole", **values)["is_finished"]
    if killed == "before its first checkpoint":

        def die(_message):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            work(new, tmp_path / "killed", die, **values)
        work(config, parent, reported=3)  # the parent has moved meanwhile
    else:
        work(new, tmp_path / "killed", Search(epoch4="pause"), **values)
    assert work(new, tmp_path / "killed", **values)["is_finished"]
    for name in (LAST, BEST):
        assert_same(read_checkpoint(tmp_path / "killed" / name), read_checkpoint(tmp_path / "whole" / name))
    assert not (tmp_path / "killed/begin").exists() or (tmp_path / "killed" / LAST).exists()


def test_the_best_weights_of_the_parent_are_those_of_a_child_that_gets_no_better(config, parent, tmp_path):
    work(child_of(config, 10.0), tmp_path / "child", begins_from=str(parent), reported=3, objectives=["min val_loss"])
    history = read_checkpoint(tmp_path / "child" / LAST)["history"]
    best = min(history, key=lambda row: row["val_loss"])
    assert read_checkpoint(tmp_path / "child" / BEST)["epoch"] == best["epoch"]


def test_another_optimizer_cannot_take_over_a_state(config, parent, tmp_path):
    other = {**config, "optimizer": {"type": "AdamW", "args": {"lr": 0.1}}}
    outcome = work(other, tmp_path / "child", begins_from=str(parent), reported=3)
    assert outcome["status"] == "failed"
    assert "was trained with SGD, and the task has AdamW" in outcome["reason"]
    outcome = work(config, tmp_path / "orphan", begins_from=str(tmp_path / "nowhere"), reported=3)
    assert outcome["status"] == "failed"
    assert "nowhere" in outcome["reason"]


# ---- the weights of the reported value


def epoch_of(folder, name=BEST):
    return read_checkpoint(folder / name)["epoch"]


@pytest.mark.slow
@pytest.mark.parametrize("monitor", ["max val_miou", "off"])
def test_the_best_weights_are_those_of_the_reported_value(config, tmp_path, monitor):
    config["trainer"]["monitor"] = monitor
    for rule, choose in (("min val_loss", min), ("max val_loss", max)):
        search = Search(epoch4="pause")
        outcome = work(config, tmp_path / rule, search, objectives=[rule])
        work(config, tmp_path / rule, search, objectives=[rule], reported=4)  # also after a resume
        best = choose(search.rows, key=lambda row: row["val_loss"])["epoch"]
        assert epoch_of(tmp_path / rule) == best
        assert outcome["artefacts"] == {"best": BEST, "last": LAST}


def test_early_stopping_follows_the_monitor_of_the_user(tmp_path):
    trainer = tiny_trainer(epochs=9, monitor="max val_accuracy", early_stop=2)
    rows = iter([(0.5, 9.0), (0.6, 8.0), (0.6, 7.0), (0.5, 6.0), (0.9, 5.0)])  # val_accuracy, val_loss
    trainer.validate_epoch = lambda: dict(zip(("accuracy", "loss"), next(rows), strict=True))
    trainer.callbacks = [BestByObjective(["min val_loss"]), Checkpoints(tmp_path, {})]
    assert trainer.fit().epochs == 4  # epoch 2 was the last with a better accuracy
    assert epoch_of(tmp_path) == 4


@pytest.mark.parametrize(
    ("objectives", "constraints", "best"),
    [
        (["max val_accuracy"], ["val_loss <= 6"], 4),
        (["max val_accuracy"], ["val_loss <= 4", "params <= 9"], 5),  # none keeps it: the least violation
        (["min params", "max val_accuracy", "min val_loss"], [], 3),  # in the second epoch the loss is not finite
        (["min params"], ["val_accuracy >= 0.5"], 1),  # the first one that keeps it
        (["min training_time", "max val_accuracy"], [], 2),  # though the last epoch took the least time
        (["max val_accuracy"], ["training_time <= 2"], 2),
    ],
)
def test_the_best_weights_are_those_of_the_epoch_that_the_search_takes(tmp_path, objectives, constraints, best):
    trainer = tiny_trainer(epochs=5, monitor="max val_accuracy")
    results = [(0.5, 9.0), (0.9, math.nan), (0.8, 7.0), (0.6, 6.0), (0.5, 5.0)]  # val_accuracy, val_loss
    rows = iter(results)
    trainer.validate_epoch = lambda: dict(zip(("accuracy", "loss"), next(rows), strict=True))
    trainer.callbacks = [BestByObjective(objectives, constraints), Checkpoints(tmp_path, {})]
    trainer.fit()
    tally = Tally(parse_objectives(objectives), {"params": 99}, parse_constraints(constraints))
    for epoch, (accuracy, loss) in enumerate(results, start=1):
        tally.add({"epoch": epoch, "val_accuracy": accuracy, "val_loss": loss, "training_time": 6 - epoch})
    assert epoch_of(tmp_path) == tally.best_epoch == best


# ---- outcomes


def test_a_search_without_test_data_has_no_results_of_a_test(config, tmp_path):
    config["trainer"]["epochs"] = 1
    outcome = work(config, tmp_path / "run", kind="retrain")
    assert outcome["status"] == "ended"
    assert "test" not in outcome
    with_test = {**config, "test_loader": people_loader("valid", 4, is_training=False)}
    outcome = work(with_test, tmp_path / "tested", kind="retrain")
    assert outcome["test"]["test_loss"] == pytest.approx(
        read_checkpoint(tmp_path / "tested" / LAST)["history"][0]["val_loss"]
    )


@pytest.mark.parametrize(("epoch", "is_exported"), [(None, False), (1, False), (2, True)])
def test_a_task_that_only_exports_trains_nothing(tmp_path, monkeypatch, epoch, is_exported):
    folder, config = tmp_path / "run", {"trainer": {"epochs": 2}}
    if epoch is not None:
        folder.mkdir()
        write_checkpoint({"epoch": epoch}, [folder / LAST])
    monkeypatch.setattr(runner, "_export", lambda folder, _plugins: {"agreement": 1.0, "folder": str(folder)})
    outcome = work(config, folder, kind="retrain", reported=2, onnx=True, only_export=True)
    exported = outcome.pop("onnx")
    assert outcome == {"status": "ended", "is_finished": True}
    if is_exported:
        assert exported == {"agreement": 1.0, "folder": str(folder)}
    else:
        assert "there is no good checkpoint of epoch 2, the last one of this retraining. Put" in exported["reason"]
    assert [path.name for path in folder.glob("*")] == ([] if epoch is None else [LAST])


def test_a_test_that_fails_is_an_outcome(config, tmp_path):
    missing = people_loader("valid", 4, is_training=False)
    missing["args"]["pairs_file"] = str(tmp_path / "missing.txt")
    config["trainer"]["epochs"] = 1
    outcome = work({**config, "test_loader": missing}, tmp_path / "run", kind="retrain")
    assert outcome["status"] == "failed"
    assert "missing.txt" in outcome["reason"]


@pytest.mark.parametrize("at", [1, 6])
def test_a_full_disk_at_any_checkpoint_is_an_outcome_and_destroys_nothing(config, tmp_path, monkeypatch, at):
    work(config, tmp_path / "run", Search(epoch2="pause"))
    replaced, calls = os.replace, []

    def replace(source, target):
        if str(target).endswith(LAST):
            calls.append(target)
            if len(calls) >= at - 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        replaced(source, target)

    monkeypatch.setattr(os, "replace", replace)
    outcome = work(config, tmp_path / "run", reported=2)
    assert outcome["status"] == "failed"
    assert "the disk is full" in outcome["reason"]
    assert outcome["is_disk_full"], "which is no fault of the candidate"
    assert epoch_of(tmp_path / "run", LAST) == max(2, at - 1)


PLUGIN = """
import sys
import numpy
import torch
from trainer.trainer import Trainer

class Fails(Trainer):
    def fit(self):
        result = super().fit()
        {fate}
        return result

class Reports(Trainer):
    def validate_epoch(self):
        return super().validate_epoch() | {{"extra": {value}}}
"""


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        ("raise ValueError('after the end')", "ValueError at PLUGIN:10: after the end"),
        ("raise ValueError", "ValueError at PLUGIN:10: ValueError"),
        ("sys.exit(3)", "SystemExit at PLUGIN:10: 3"),
        ("raise Faulty", "RuntimeError at PLUGIN:19: RuntimeError"),  # its text cannot even be read
        ("raise MemoryError('no more')", "Memory ran out (no more)"),
    ],
)
def test_whatever_is_raised_after_the_last_report_is_an_outcome(config, tmp_path, fate, reason):
    plugin = tmp_path / f"after_{abs(hash(fate))}.py"  # each is a module of its own
    faulty = "\nclass Faulty(Exception):\n    def __str__(self):\n        raise RuntimeError\n"
    plugin.write_text(PLUGIN.format(fate=fate, value=0) + faulty)
    config["trainer"] |= {"epochs": 1, "type": f"{plugin.stem}.Fails"}
    search = Search()
    outcome = work(config, tmp_path / "run", search, plugins=[str(plugin)])
    assert len(search.rows) == 1
    assert outcome["status"] == ("out_of_memory" if "Memory" in fate else "failed")
    assert outcome["reason"].startswith(reason.replace("PLUGIN", plugin.name))
    json.dumps(outcome)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("numpy.float64(0.5)", 0.5), ("float('nan')", math.nan), ("torch.zeros(2)", None), ("sys", None)],
)
def test_only_plain_data_is_reported(config, tmp_path, value, expected):
    plugin = tmp_path / f"odd_{abs(hash(value))}.py"
    plugin.write_text(PLUGIN.format(fate="", value=value))
    config["trainer"] |= {"epochs": 1, "type": f"{plugin.stem}.Reports"}
    search = Search()
    outcome = work(config, tmp_path / "run", search, plugins=[str(plugin)])
    if expected is None:
        assert outcome["status"] == "failed"
    else:
        assert outcome["status"] == "ended", outcome
        assert type(search.rows[0]["val_extra"]) is float
        assert search.rows[0]["val_extra"] == pytest.approx(expected, nan_ok=True)


def test_a_plugin_that_cannot_be_loaded_is_an_outcome(config, tmp_path):
    outcome = work(config, tmp_path / "run", plugins=[str(tmp_path / "nowhere.py")])
    assert outcome["status"] == "failed"
    assert "nowhere.py" in outcome["reason"]


def test_plain_data_has_plain_types():
    given = {"a": torch.tensor(2), 3: (1, True, None), "b": torch.tensor([0.5]).numpy()[0]}
    plain = plain_data(given)
    assert plain == {"a": 2, "3": [1, True, None], "b": 0.5}
    assert [type(each) for each in plain.values()] == [int, list, float]
    with pytest.raises(TypeError, match="reports a object"):
        plain_data([object()])


def test_a_run_that_died_between_its_first_two_checkpoints_is_resumed(config, tmp_path):
    work(config, tmp_path / "run", Search(epoch1="pause"))
    (tmp_path / "run" / LAST).unlink()
    search = Search()
    assert work(config, tmp_path / "run", search, reported=1)["is_finished"]
    assert [row["epoch"] for row in search.rows] == [2, 3, 4, 5, 6]


def test_a_run_that_is_resumed_sends_its_results_to_the_place_that_the_search_names(config, tmp_path):
    pytest.importorskip("mlflow")
    config = {**config, "visualization": {"mlflow": {"tracking_uri": str(tmp_path / "tracked")}}}
    work(config, tmp_path / "run", Search(epoch1="pause"))
    search = Search(epoch2="stop")
    outcome = work(config, tmp_path / "run", search, reported=1)
    assert outcome["status"] == "ended", outcome
    assert [row["epoch"] for row in search.rows] == [2]
    assert len(list((tmp_path / "tracked").rglob("val_loss"))) == 1  # one entry, also after the pause


def test_damaged_checkpoints_are_replaced_by_a_new_beginning(config, tmp_path):
    work(config, tmp_path / "run", Search(epoch2="pause"))
    for name in (BEST, LAST):
        (tmp_path / "run" / name).write_bytes(b"damaged" * 100)
    search = Search()
    assert work(config, tmp_path / "run", search)["is_finished"]
    assert len(search.rows) == 6


# ---- the fence


def test_a_run_folder_has_one_worker_at_a_time(config, tmp_path):
    folder = tmp_path / "run"

    def overtaken(message):
        if message.get("epoch") == 2:  # another machine has got the folder
            Fence(folder, 8).claim()
        return "continue"

    outcome = work(config, folder, overtaken, token=7)
    assert outcome["status"] == "failed"
    assert "task 7 was taken over by task 8" in outcome["reason"]
    assert epoch_of(folder, LAST) == 2
    late = work(config, folder, token=6, reported=2)
    assert "task 6 was taken over by task 8" in late["reason"]
    assert owner_of(folder) == 8
    assert take_over(folder) == 9
    assert work(config, folder, token=9, reported=2)["is_finished"]


def test_the_fence_stands_before_each_save_inside_an_epoch(config, tmp_path):
    fence = Fence(tmp_path, 1, save_every_steps=2)
    fence.claim()
    Fence(tmp_path, 2).claim()
    trainer = tiny_trainer(epochs=1, callbacks=[fence])
    with pytest.raises(SearchError, match="taken over by task 2"):
        trainer.fit()
    shutil.rmtree(tmp_path)
    Fence(tmp_path, 1).check()  # nobody's


# ---- latency


class Machine:
    """A network whose passes last as given, in milliseconds; a negative one was interrupted."""

    def __init__(self, *times):
        self.times, self.now, self.passes, self.interrupted = times, 0.0, 0, 0

    def run(self):
        milliseconds = self.times[self.passes % len(self.times)]
        self.passes += 1
        self.now += abs(milliseconds) / 1000
        self.interrupted += milliseconds < 0

    def latency(self, **options):
        return shortest_pass(self.run, clock=lambda: self.now, count_interruptions=lambda: self.interrupted, **options)


def test_the_latency_is_the_shortest_pass():
    machine = Machine(3.0, 2.5, 2.0, 9.0, 2.05, 7.0, 2.1)
    assert machine.latency(min_seconds=0.0) == pytest.approx(2.0)
    assert machine.passes == 3 + 15


def test_passes_are_spread_and_repeated_until_the_shortest_agree():
    steady = Machine(2.0)
    steady.latency(min_seconds=2.0)
    assert steady.now == pytest.approx(2.0, rel=0.01)
    restless = Machine(*[10.0 + number for number in range(50)])  # no two alike: it goes on until enough are
    assert restless.latency() == pytest.approx(10.0)
    assert restless.passes > 200


def test_an_interrupted_pass_counts_only_if_there_is_no_other():
    assert Machine(-1.0, 2.0).latency() == pytest.approx(2.0)
    assert Machine(-3.0, -1.0).latency() == pytest.approx(1.0)


def test_the_costs_alone_are_a_task(config, tmp_path):
    task = {"kind": "measure", "config": config, "reported": 0, "limits": {"input_size": [64, 64]}}
    outcome = run_task(task, Search())
    assert outcome["status"] == "ended"
    assert outcome["facts"]["latency_ms"] > 0
    assert outcome["facts"]["params"] > 0
    config["arch"]["args"]["channels"] = "many"
    assert run_task({**task, "config": config}, Search())["status"] == "failed"
