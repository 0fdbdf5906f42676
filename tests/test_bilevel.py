"""Bilevel training: halves of the data, steps of weights and architecture, and exact resume of both."""

import dataclasses
import errno
import json
import logging
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from base import BaseDataLoader, Callback
from base.base_trainer import StopRequest
from base.halves import split_halves
from build import build_loader, build_training
from tests.support.bilevel import EPOCHS, SETTINGS, STEPS, bilevel_config, bilevel_trainer, loader_of, same_content
from tests.support.laws import Remember, differences, outcome_of, packed, unpacked
from tests.support.tiny import Blobs
from train import check_config, for_dev_run, train
from trainer.bilevel.architecture import (
    ArchitectureFile,
    ArchitectureOptions,
    architecture_notes,
    entropy_share,
    entry_of,
    epochs_unchanged,
)
from trainer.inspection.costs import predict_memory
from trainer.inspection.forecast import forecast_run, forecast_text
from trainer.inspection.memory import predict_largest_pass, training_step
from trainer.inspection.trial import try_step
from utils.architecture.decoding import decode, encode, entropy_shares
from utils.architecture.genotype import Genotype
from utils.environment import is_disk_full
from utils.errors import CheckpointError, ConfigError, DataError, Diverged, Interrupted, TrainingError

ROOT = Path(__file__).resolve().parent.parent
LEARNING = {"architecture_from_epoch": 1, "architecture_lr": 0.05}


class Named:
    """Samples with names, in any order."""

    def __init__(self, names):
        self.names = list(names)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return torch.full((1,), float(self.names[index].removeprefix("s"))), torch.tensor(0)

    def sample_identity(self, index):
        return self.names[index]


def names_in(loader):
    return {loader.dataset.dataset.names[index] for index in loader.keys.indices}


@pytest.mark.parametrize("count", [2, 3, 10, 11, 100])
def test_halves_are_disjoint_and_equal_and_the_first_has_the_odd_sample(count):
    first, second = (each.keys.indices.tolist() for each in split_halves(loader_of(Blobs(count))))
    assert sorted(first + second) == list(range(count))
    assert len(first) - len(second) == count % 2
    if count == 100:  # by chance, not the first and the last ones
        assert 10 < sum(index < 50 for index in first) < 40


def test_halves_depend_on_names_and_seed_alone():
    names = [f"s{number}" for number in range(20)]
    first, second = split_halves(loader_of(Named(names), seed=1))
    turned, _ = split_halves(loader_of(Named(names[::-1]), seed=1, n_workers=1))
    assert names_in(first) == names_in(turned)
    assert names_in(first) != names_in(split_halves(loader_of(Named(names), seed=2))[0])
    # Of a part of the data set, only that is divided, and the decoded samples are those of one data set.
    part = split_halves(loader_of(Named(names), seed=1, indices=range(5, 15)))
    assert [half.num_samples for half in part] == [5, 5]
    assert names_in(part[0]) | names_in(part[1]) == set(names[5:15])
    assert first.dataset is second.dataset


def test_halves_read_every_sample_once_a_pass_and_each_in_an_order_of_its_own():
    halves = split_halves(loader_of(Named(f"s{number}" for number in range(16)), seed=1))
    places = []
    for half in halves:
        order = half.keys.indices.tolist()
        for epoch in range(2):
            half.set_position(epoch)
            seen = [int(value) for inputs, _ in half for value in inputs]
            assert sorted(seen) == order
            places.append([order.index(value) for value in seen])
    assert len({tuple(each) for each in places}) == 4


def test_data_that_cannot_be_halved_is_refused():
    with pytest.raises(DataError, match="1 sample, and is divided into two halves"):
        split_halves(loader_of(Blobs(1)))
    with pytest.raises(ConfigError, match=r"each half of the 6 training samples has 3, .*: 3 or less"):
        split_halves(BaseDataLoader(Blobs(6), 4, is_training=True, drop_last=True))


@pytest.mark.parametrize("kind", ["files", "arrays", "torchvision"])
def test_halves_of_real_loaders_share_their_images(kind, tmp_path):
    if kind == "files":
        pairs = str(ROOT / "data/people/train_pairs.txt")
        section = {"type": "SegmentationDataLoader", "args": {"pairs_file": pairs, "samples": 8, "num_classes": 2}}
    elif kind == "arrays":
        for number in range(8):
            np.save(tmp_path / f"image{number}.npy", np.zeros((8, 8, 3), np.uint8))
            np.save(tmp_path / f"mask{number}.npy", np.zeros((8, 8), np.uint8))
        (tmp_path / "pairs.txt").write_text("".join(f"image{n}.npy,mask{n}.npy\n" for n in range(8)))
        arguments = {"pairs_file": str(tmp_path / "pairs.txt"), "num_classes": 2}
        section = {"type": "ArraySegmentationDataLoader", "args": arguments}
    else:
        fake = {"type": "torchvision.datasets.FakeData", "args": {"size": 8, "image_size": [3, 8, 8], "num_classes": 2}}
        section = {"type": "ImageClassificationDataLoader", "args": {"dataset": fake, "classes": ["a", "b"]}}
    section["args"] |= {"resize": [16, 16], "batch_size": 2}
    loader = build_loader({"train_loader": section}, "train")
    loader.prepare()
    halves = split_halves(loader)
    assert type(halves[0]) is type(loader)
    decoded = loader.dataset.dataset.cache.samples
    assert [sum(len(inputs) for inputs, *_ in half) for half in halves] == [4, 4]
    assert all(half.dataset.dataset.cache.samples is decoded for half in halves)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch__type": "law_net.LawNet"}, r"arch: LawNet has no architecture_parameters\(\).*AutoDeepLabSupernet"),
        ({"trainer__args": {"architecture_from_epoch": 5}}, r"architecture_from_epoch: 5, but trainer.epochs is 4"),
        ({"trainer__freeze": ["alpha"]}, r"trainer.freeze: \['alpha'\] names alpha"),
        ({"train_loader__args": {"classes": 3, "batch_size": 0}}, r"Wrong batch_size 0"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_training(bilevel_config(**changes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture_lr": 0}, r"trainer.args.architecture_lr: 0 must be a number > 0"),
        (
            {"architecture_from_epoch": "3"},
            r'trainer.args.architecture_from_epoch: "3" must be an integer >= 1 or null',
        ),
        ({"architecture_betas": [0.9]}, r"trainer.args.architecture_betas: \[0.9\] must be a list of 2"),
        ({"stable_epochs": 0}, r"trainer.args.stable_epochs: 0 must be an integer >= 1"),
        ({"entropy_growth": "fast"}, r'trainer.args.entropy_growth: "fast" must be one of "constant", "linear"'),
        ({"entropy": 1}, r'trainer.args.entropy: unknown argument "entropy"'),
        ({"architecture": {}}, r"trainer.args.architecture: unknown argument"),
        ({"plan": {}}, r"trainer.args.plan: {}: plan is given at run time"),
    ],
)
def test_options_are_checked_with_their_paths(arguments, message):
    with pytest.raises(ConfigError, match=message):
        check_config(bilevel_config(trainer__args=arguments))


def test_options_reach_the_trainer_and_the_second_half_learns_by_default():
    arguments = {"architecture_lr": 0.01, "architecture_betas": [0.5, 0.9], "architecture_weight_decay": 0.0}
    trainer = bilevel_trainer(bilevel_config(trainer__args=arguments))
    assert trainer.first_epoch == 3  # of 4 epochs
    (group,) = trainer.architecture_optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.01, (0.5, 0.9), 0.0)
    assert ArchitectureOptions() == ArchitectureOptions(None, 3e-3, (0.9, 0.999), 1e-3, 0.0, "constant", None)
    weights = {id(weight) for each in trainer.optimizer.param_groups for weight in each["params"]}
    learned = {id(each) for each in trainer.network.architecture_parameters()}
    assert weights | learned == {id(each) for each in trainer.model.parameters()}
    assert not weights & learned


def test_every_option_is_listed_with_default_and_meaning():
    section = (ROOT / "docs/bilevel.md").read_text().split("## BilevelTrainer")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^|]+)` \| (.+) \|$", section, re.M)
    defaults = json.loads(json.dumps(vars(ArchitectureOptions())))
    assert {name: json.loads(default) for name, default, _ in rows} == defaults
    hints = get_type_hints(ArchitectureOptions, include_extras=True)
    assert {name: meaning for name, _, meaning in rows} == {
        name: get_args(hint)[1].description for name, hint in hints.items()
    }


def test_a_dev_run_tries_a_step_of_the_architecture(tmp_path):
    config = for_dev_run(bilevel_config(trainer__args={"architecture_from_epoch": 3}), str(tmp_path))
    parts = build_training(config)
    parts.trainer.fit()
    assert parts.trainer.architecture_steps == 2


def test_the_schedule_has_the_steps_of_the_first_half():
    trainer = bilevel_trainer(bilevel_config())
    assert trainer.steps_per_epoch == STEPS
    assert trainer.lr_scheduler.moves == EPOCHS * STEPS
    trainer.fit()
    assert trainer.optimizer.param_groups[0]["lr"] == 0


class Watch(Callback):
    """Notes after each step which parts of the network have changed."""

    def __init__(self):
        self.seen, self.before = [], {}

    def on_fit_start(self, trainer):
        self.before = {name: each.clone() for name, each in trainer.model.state_dict().items()}

    def on_step_end(self, trainer, report):
        now = {name: each.clone() for name, each in trainer.model.state_dict().items()}
        self.seen.append({name for name, each in now.items() if not torch.equal(each, self.before[name])})
        self.before = now


def test_the_architecture_learns_from_its_epoch_on():
    trainer, watch = bilevel_trainer(bilevel_config(arch__args={"norm": "batch"})), Watch()
    trainer.callbacks = [watch]
    history = trainer.fit().history
    learned = {"alpha", "beta"}
    assert [learned & names for names in watch.seen] == [set()] * (2 * STEPS) + [learned] * (2 * STEPS)
    assert all("head.weight" in names for names in watch.seen)
    assert trainer.architecture_steps == 2 * STEPS
    assert [row["genotype_changed"] for row in history[:2]] == [1, 0]
    assert trainer.network.shares == [0, 0.25, 0.5, 0.75]
    assert set(history[0]) - {"epoch", "step", "lr"} == set(trainer.result_names())


def test_a_step_of_the_architecture_changes_alpha_and_beta_alone():
    config = bilevel_config(arch__args={"norm": "batch"}, trainer__args=LEARNING, trainer__ema=0.9)
    trainer = bilevel_trainer(config)
    trainer.model.train()
    trainer.run_step(next(trainer._steps))
    before, average = ({name: each.clone() for name, each in net.state_dict().items()} for net in trainer_nets(trainer))
    gradients = {name: each.grad.clone() for name, each in trainer.model.named_parameters() if each.grad is not None}
    batches = trainer.next_batches(trainer._endless_architecture_steps())
    trainer.run_architecture_step(batches)
    after, average_after = (net.state_dict() for net in trainer_nets(trainer))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"alpha", "beta"}
    assert same_content(average, dict(average_after))
    for name, gradient in gradients.items():
        if name not in ("alpha", "beta"):
            assert torch.equal(trainer.model.get_parameter(name).grad, gradient)
    assert not trainer.network.alpha.requires_grad
    assert trainer.model.norm.track_running_stats
    assert trainer.running_loss.sums[1] == trainer_targets(trainer)


def trainer_nets(trainer):
    return trainer.model, trainer.average.model


def trainer_targets(trainer):
    """Targets of the first batch of the first half: the loss of the architecture is no training loss."""
    trainer.train_loader.set_position(0)
    _, target = next(iter(trainer.train_loader))
    return (target != trainer.ignore_index).sum()


def test_the_gradients_of_a_step_are_those_of_the_loss_on_the_second_half():
    trainer = bilevel_trainer(bilevel_config(trainer__args=LEARNING))
    trainer.model.train()
    ((inputs, target),) = trainer.next_batches(trainer._endless_architecture_steps())
    masks = trainer.architecture_loader.dataset.dataset.masks[trainer.architecture_loader.keys.indices]
    assert all((masks == mask).flatten(1).all(1).any() for mask in target)
    alpha = trainer.network.alpha.detach().clone().double()
    model = trainer.model.double()

    def loss_at(value):
        with torch.no_grad():
            model.alpha.copy_(value)
            return float(trainer.criterion(model(inputs.double()), target))

    delta, expected = 1e-2, torch.zeros_like(alpha)
    for place in [(0, 1), (2, 3), (4, 7)]:
        change = torch.zeros_like(alpha)
        change[place] = delta
        expected[place] = (loss_at(alpha + change) - loss_at(alpha - change)) / (2 * delta)
    loss_at(alpha)
    with trainer.only_architecture():
        trainer.add_gradients([(inputs.double(), target)], trainer.architecture_pass, is_shared=False)
    for place in [(0, 1), (2, 3), (4, 7)]:
        assert model.alpha.grad[place].item() == pytest.approx(expected[place].item(), rel=5e-3)
    assert all(each.grad is None for name, each in model.named_parameters() if name not in ("alpha", "beta"))
    assert model.beta.grad is not None


@pytest.mark.parametrize("norm", ["none", "group"])
def test_batches_that_share_a_step_change_nothing(norm):
    arguments = {"train_loader__args": {"classes": 3, "batch_size": 6}, "arch__args": {"norm": norm}}
    # Adam divides by the size of a gradient: the rounding of one that is nearly zero moves it by a share of the rate.
    learning = {**LEARNING, "architecture_lr": 0.002, "entropy_weight": 0.2}
    config = bilevel_config(**arguments, trainer__args=learning)
    one, two = (outcome_of(bilevel_trainer(config, accumulate=number)) for number in (1, 2))
    assert differences(two, one) == ""


@pytest.mark.parametrize("setting", SETTINGS)
def test_resumed_after_any_step_a_run_ends_in_the_same_bytes(setting):
    class Pack(Callback):
        def __init__(self):
            self.contents = []

        def on_step_end(self, trainer, report):
            self.contents.append(packed(trainer))

    config, pack = SETTINGS[setting], Pack()
    trainer = bilevel_trainer(config)
    trainer.callbacks = [pack]
    trainer.fit()
    expected = unpacked(packed(trainer))
    for step in (0, STEPS - 1, 2 * STEPS - 2, 2 * STEPS, 2 * STEPS + 1, 3 * STEPS - 1):
        if step >= len(pack.contents):
            break
        resumed = bilevel_trainer(config, pack.contents[step])
        resumed.callbacks = []
        resumed.fit()
        assert same_content(unpacked(packed(resumed)), expected), step


def test_stopped_in_a_validation_every_epoch_is_recorded_once():
    config, stop = SETTINGS["plain"], Remember(stops=True)
    straight = outcome_of(bilevel_trainer(config))
    with pytest.raises(Interrupted):
        outcome_of(bilevel_trainer(config), stop)
    assert len(unpacked(stop.content)["architecture"]["epochs"]) == 1
    resumed = outcome_of(bilevel_trainer(config, stop.content))
    assert same_content(unpacked(resumed.content), unpacked(straight.content))
    assert [entry["epoch"] for entry in unpacked(resumed.content)["architecture"]["epochs"]] == [1, 2, 3, 4]


def test_stopped_while_a_loader_dies_nothing_of_the_step_is_saved():
    class Broken:
        def __next__(self):
            raise DataError("A worker process of the loader died.")

    trainer, stop = bilevel_trainer(bilevel_config(trainer__args=LEARNING)), Remember()
    trainer.callbacks, trainer._architecture_batches = [stop], Broken()
    before = unpacked(packed(trainer))
    trainer.stop_request = StopRequest.from_signal(15)
    with pytest.raises(Interrupted):
        trainer.fit()
    assert same_content(unpacked(stop.content)["state_dict"], before["state_dict"])


def test_workers_change_nothing(monkeypatch):
    monkeypatch.setattr("base.base_data_loader.available_processors", lambda: 2)
    found = []
    for workers in (0, 1):
        config = bilevel_config(arch__args={"dropout": 0.3}, trainer__args=LEARNING)
        config["train_loader"]["args"]["n_workers"] = workers
        trainer = bilevel_trainer(config)
        trainer.callbacks = []
        trainer.fit()
        found.append(unpacked(packed(trainer)))
    assert same_content(*found)


def test_a_checkpoint_of_another_trainer_is_refused():
    config = bilevel_config(trainer__type="Trainer", trainer__args={})
    trainer = build_training(config).trainer
    with pytest.raises(CheckpointError, match="not saved by BilevelTrainer"):
        bilevel_trainer(bilevel_config(), packed(trainer))


def test_a_loss_that_is_not_finite_changes_no_architecture(tmp_path):
    trainer = bilevel_trainer(bilevel_config(trainer__args=LEARNING))
    trainer.run_folder = tmp_path
    trainer.model.train()
    batches = trainer.next_batches(trainer._endless_architecture_steps())
    alpha = trainer.network.alpha.detach().clone()
    with torch.no_grad():
        trainer.model.head.bias.fill_(math.nan)
    with pytest.raises(
        Diverged, match=r"loss of the architecture is not finite at epoch 1, step 1.*architecture_lr \(it"
    ):
        trainer.run_architecture_step(batches)
    assert torch.equal(trainer.network.alpha, alpha)
    assert (tmp_path / "not-finite-architecture-step1.pt").exists()


def test_entropy_is_one_when_undecided_and_zero_when_decided():
    alpha, beta = torch.zeros(5, 8), torch.zeros(3, 4, 3)
    assert entropy_share(alpha, beta).item() == pytest.approx(1)
    decided = (torch.from_numpy(np.asarray(each)).float() for each in encode(decode(alpha.numpy(), beta.numpy())))
    assert entropy_share(*decided).item() == pytest.approx(0, abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    alpha, beta = torch.randn(5, 8, generator=generator), torch.randn(3, 4, 3, generator=generator)
    assert entropy_share(alpha, beta).item() == pytest.approx(np.mean(entropy_shares(alpha, beta)), rel=1e-5)
    beta.requires_grad_()
    entropy_share(alpha, beta).backward()
    assert beta.grad.isfinite().all()
    assert beta.grad[0, 1:].eq(0).all()  # nodes that cannot be reached
    assert beta.grad[:, 0, 0].eq(0).all()  # moves that do not exist


def test_the_weight_of_the_entropy_decides_and_may_grow():
    entropies = []
    for weight in (0.0, 10.0):
        arguments = {**LEARNING, "entropy_weight": weight}
        history = bilevel_trainer(bilevel_config(trainer__args=arguments)).fit().history
        entropies.append(history[-1]["alpha_entropy"])
    assert entropies[1] < entropies[0] - 0.01
    arguments = {"architecture_from_epoch": 2, "entropy_weight": 3.0, "entropy_growth": "linear"}
    trainer = bilevel_trainer(bilevel_config(trainer__args=arguments))
    weights = []
    for trainer.epoch in (1, 2, 3):
        weights.append(trainer.entropy_weight())
    assert weights == pytest.approx([1, 2, 3])


def test_unchanged_epochs_are_counted_from_the_first_that_learns():
    entries = [{"epoch": epoch, "genotype": each} for epoch, each in enumerate("aaabbb", start=1)]
    assert [epochs_unchanged(entries[:count], 1) for count in range(7)] == [0, 0, 1, 2, 0, 1, 2]
    assert [epochs_unchanged(entries[:count], 3) for count in range(7)] == [0, 0, 0, 0, 0, 1, 2]


def test_a_stable_genotype_ends_the_run_and_a_resume_of_it_stays_ended(tmp_path, caplog):
    arguments = {"architecture_from_epoch": 2, "architecture_lr": 1e-9, "stable_epochs": 1}
    config = bilevel_config(trainer__args=arguments)
    caplog.set_level(logging.INFO)
    result = train(config, run_folder=tmp_path / "run")
    assert result.epochs == 3  # the second is the first that learns, the third is the same
    assert "the genotype was the same for 1 epochs" in caplog.text
    assert train(None, resume=str(tmp_path / "run")).epochs == 3


def test_early_stopping_waits_until_the_architecture_has_learned(caplog):
    arguments = {"architecture_from_epoch": 3, "architecture_lr": 1e-9}
    # The genotype is new in the first epoch alone, which so remains the best.
    changes = {"trainer__monitor": "max genotype_changed", "trainer__early_stop": 1}
    trainer = bilevel_trainer(bilevel_config(trainer__args=arguments, **changes))
    assert trainer.fit().epochs == 3
    assert [entry["steps"] for entry in trainer.architectures] == [0, 0, STEPS]
    assert not caplog.records


def test_a_run_that_ends_before_its_architecture_learns_says_that_the_genotype_is_random(caplog):
    trainer = bilevel_trainer(bilevel_config(trainer__args={"architecture_from_epoch": 3}))
    trainer.request_stop("a test")
    trainer.epoch = 1
    trainer.fit()
    assert "ended after epoch 1, and its architecture learns from epoch 3 on" in caplog.text
    assert "their genotype is random" in caplog.text


def test_the_file_of_the_architecture_has_every_epoch_and_decodes(tmp_path):
    config = bilevel_config(trainer__args=LEARNING, trainer__tensorboard=True, trainer__pictures=0)
    folder = tmp_path / "run"
    train(config, run_folder=folder)
    epochs = json.loads((folder / "architecture.json").read_text())["epochs"]
    assert [entry["epoch"] for entry in epochs] == [1, 2, 3, 4]
    for entry in epochs:
        assert np.shape(entry["alpha"]) == (5, 8)
        assert np.shape(entry["beta"]) == (3, 4, 3)
        assert decode(entry["alpha"], entry["beta"]) == Genotype.from_json(entry["genotype"])
    state = torch.load(folder / "checkpoint-last.pth", weights_only=True)
    assert np.array_equal(np.float32(epochs[-1]["alpha"]), state["state_dict"]["alpha"].numpy())

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / "train"), {"images": 0, "tensors": 0})
    events.Reload()
    assert {"architecture/alpha", "architecture/beta"} <= set(events.Tags()["images"])
    assert "alpha_entropy" in events.Tags()["scalars"]
    assert "architecture/genotype/text_summary" in events.Tags()["tensors"]
    # A reader of a run that was killed after its second epoch sees two epochs when it continues.
    (folder / "architecture.json").unlink()
    train(None, resume=str(folder))
    assert json.loads((folder / "architecture.json").read_text())["epochs"] == epochs


def test_the_weights_of_edges_learn_and_are_recorded_and_resumed():
    arguments = {"layers": 1, "blocks": 1, "filter_multiplier": 2, "mixing": "inputs", "partial_channels": 2}
    config = bilevel_config(arch={"type": "AutoDeepLabSupernet", "args": arguments}, trainer__args=LEARNING)
    stop = Remember(stops=True)
    straight = outcome_of(bilevel_trainer(config))
    with pytest.raises(Interrupted):
        outcome_of(bilevel_trainer(config), stop)
    resumed = outcome_of(bilevel_trainer(config, stop.content))
    state = unpacked(resumed.content)
    assert same_content(state, unpacked(straight.content))
    assert len(state["architecture"]["optimizer"]["state"]) == 3
    entries = state["architecture"]["epochs"]
    assert entries[0]["edges"] != entries[-1]["edges"]
    for entry in entries:
        decoded = decode(entry["alpha"], entry["beta"], entry["edges"])
        assert decoded == Genotype.from_json(entry["genotype"])


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    trainer = bilevel_trainer(bilevel_config())
    trainer.run_folder = tmp_path / "gone"
    trainer.callbacks = [ArchitectureFile()]
    with pytest.raises(TrainingError, match=r"gone/architecture.json: not written \(No such file"):
        trainer.fit()


def test_heat_maps_frame_the_genotype():
    model = bilevel_trainer(bilevel_config()).network
    notes = architecture_notes(entry_of(model, 7, 0))
    for name, size in (("alpha", 5), ("beta", 12)):
        image = notes[f"architecture/{name}"]
        assert image.dtype == np.uint8
        assert image.shape[0] > 22 * size
        framed = (image == (240, 110, 30)).all(axis=-1).sum()
        # Two edges of each of two blocks, or one move into each of three layers: frames of 2 pixels around 45x21.
        assert framed == {"alpha": 4, "beta": 3}[name] * (45 * 21 - 41 * 17)
    assert "Strides: " in notes["architecture/genotype"]


def test_the_memory_of_both_passes_is_predicted():
    trainer = bilevel_trainer(bilevel_config())
    shapes = ((2, 3, 64, 64), (2, 64, 64))
    largest = predict_largest_pass(trainer, *shapes)
    with trainer.only_architecture():
        architecture = predict_memory(training_step(trainer, *shapes))
    weights = predict_memory(training_step(trainer, *shapes))
    assert largest >= max(weights, architecture)
    assert architecture > weights  # the outputs of all operations are needed for the gradient of alpha
    assert largest == pytest.approx(architecture, rel=0.02)
    assert not trainer.network.alpha.requires_grad


def test_a_full_disk_at_the_file_of_the_architecture_is_known_as_such(tmp_path, monkeypatch):
    trainer = bilevel_trainer(bilevel_config())
    trainer.run_folder = tmp_path
    for code, is_full in ((errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)):
        monkeypatch.setattr(os, "replace", Mock(side_effect=OSError(code, "refused")))
        with pytest.raises(TrainingError, match=r"architecture.json: not written \(refused\)") as caught:
            ArchitectureFile().on_epoch_end(trainer, {})
        assert is_disk_full(caught.value) == is_full


def test_a_tried_step_is_one_of_both_and_leaves_nothing_behind():
    config = bilevel_config()
    trainer = bilevel_trainer(config)
    before, passes = packed(trainer), []
    trainer.model.norm.register_forward_hook(lambda *_: passes.append(trainer.network.alpha.requires_grad))
    trial = try_step(trainer, trainer.train_loader.example())
    assert passes[:3] == [False, True, False]
    assert trial.facts is not None
    assert not any(finding.is_fault for finding in trial.findings)
    assert same_content(unpacked(packed(trainer)), unpacked(before))
    trainer.callbacks = []
    trainer.fit()
    straight = bilevel_trainer(config)
    straight.callbacks = []
    straight.fit()
    state, expected = unpacked(packed(trainer)), unpacked(packed(straight))
    assert same_content(state["state_dict"], expected["state_dict"])


@pytest.mark.parametrize(("first", "early", "total"), [(1, None, 4 * 3 * 5.0), (3, 2.0, 2 * 3 * 2.0 + 2 * 3 * 5.0)])
def test_the_forecast_counts_the_architecture_from_its_first_epoch_on(first, early, total):
    trainer = bilevel_trainer(bilevel_config(trainer__args={"architecture_from_epoch": first}))
    facts = try_step(trainer, trainer.train_loader.example()).facts
    assert (facts.early_seconds is None) == (early is None)
    found = forecast_run(trainer, dataclasses.replace(facts, seconds=5.0, early_seconds=early), save_dir=Path("x"))
    assert (found.epoch_seconds, found.total_seconds, found.early_epochs) == (STEPS * 5.0, total, first - 1)
    assert ("per epoch of 3 steps (6.0 s until epoch 2), 0:42" in forecast_text(found)) == (early is not None)


@pytest.mark.slow
def test_killed_between_the_steps_or_while_saving_and_in_two_processes(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.support.bilevel", str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "broken.json").read_text())
    assert len(results) == len(SETTINGS) + 1
    assert {name: broken for name, broken in results.items() if broken} == {}
