"""Results that are no number, results of one name, and data without a label that counts: refused with the reason."""

import json
import math
import re

import cv2
import numpy as np
import pytest
import torch
from test_train import changed, small  # noqa: F401 (a fixture)
from torch import nn

import test as test_command
from base import BaseDataLoader, Callback, Metric
from base.base_metric import check_result_names
from base.samples import is_counted
from build import build_metrics, build_training
from config import DataSpec
from config.cli import run_command
from models.losses.common import AuxiliaryLoss, WeightedLoss
from models.metrics.confusion import ClassIoU, MeanIoU
from search.worker.runner import run_task
from tests.support.tiny import tiny_trainer
from train import main, parser, train
from trainer.checkpoints.resume import Start, restore
from trainer.checkpoints.saving import Checkpoints, RunRecords
from trainer.evaluation import MetricSet
from utils.checkpoint_file import read_checkpoint
from utils.errors import ConfigError, DataError, TrainingError


class Scripted(Metric):
    """Counts samples; its n-th result after the first batch is the n-th of `values`."""

    def __init__(self, values, name="accuracy"):
        self.values, self.name = list(values), name
        self.reset()

    def reset(self):
        self.counts = torch.zeros(1, dtype=torch.float64)

    def update(self, logits, target):
        self.counts = self.counts + len(target)

    def compute(self):
        return {self.name: self.values[0] if self.counts.any() else math.nan}


class NextValue(Callback):
    """Moves a scripted metric to its next value."""

    def on_epoch_end(self, trainer, metrics):
        del trainer.validation_metrics.metrics[0].values[0]


def scripted_trainer(values, *callbacks, **plan):
    trainer = tiny_trainer([*callbacks, NextValue()], **plan)
    trainer.validation_metrics = MetricSet([Scripted([*values, math.nan])])
    return trainer


def strict(file):
    def refuse(constant):
        raise ValueError(constant)

    return json.loads(file.read_text(), parse_constant=refuse)


def test_a_monitor_that_is_nan_ends_the_run_and_another_one_continues_it(tmp_path):
    nan = math.nan
    message = (
        r"^trainer.monitor: val_accuracy is NaN in epoch 1: in the validation data Scripted computed it from what it "
        r"counted. No epoch can be the best by it. Correct the data, or follow another result.$"
    )
    trainer = scripted_trainer([nan, nan, nan], Checkpoints(tmp_path, {"name": "tiny"}))
    with pytest.raises(TrainingError, match=message):
        trainer.fit()
    assert trainer.epoch == 1
    state = read_checkpoint(tmp_path / "checkpoint-last.pth")
    assert state["monitor_best"] is None
    other = tiny_trainer(monitor="min val_loss")
    restore(other, Start({}, state=state))
    assert other.fit().epochs == 3
    assert [row["epoch"] for row in other.history] == [1, 2, 3]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_nan_after_a_number_ends_the_run_and_names_the_best_epoch(mode, tmp_path):
    files = Checkpoints(tmp_path, {"name": "tiny"})
    trainer = scripted_trainer([0.5, math.nan, 0.4], files, monitor=f"{mode} val_accuracy")
    message = r"val_accuracy is NaN in epoch 2: .* computed it from what it counted\. Epoch 1 is the best by it\."
    with pytest.raises(TrainingError, match=message):
        trainer.fit()
    assert read_checkpoint(tmp_path / "model_best.pth")["epoch"] == 1
    assert read_checkpoint(tmp_path / "checkpoint-last.pth")["epoch"] == 2


def test_infinity_is_a_number():
    assert scripted_trainer([-math.inf, 0.1, 0.2]).fit().best["epoch"] == 3


def test_a_result_that_nobody_follows_may_be_nan(tmp_path):
    records = RunRecords(tmp_path, {}, {})
    result = scripted_trainer([math.nan] * 3, records, monitor="min val_loss").fit()
    assert all(math.isnan(row["val_accuracy"]) for row in result.history)
    content = strict(tmp_path / "result.json")
    assert content["last"]["val_accuracy"] is content["best"]["val_accuracy"] is None
    assert content["last"]["val_loss"] == result.history[-1]["val_loss"]


def test_a_few_batches_that_are_tried_out_show_no_class_by_chance():
    trainer = scripted_trainer([math.nan] * 3, max_validation_batches=1)
    assert trainer.fit().epochs == 3


@pytest.mark.parametrize(
    ("metric", "result", "reason"),
    [
        (ClassIoU(3, class_names=["a", "b", "c"]), "iou_c", 'class "c" is in neither the truth nor the prediction'),
        (MeanIoU(2, ignore_index=0, exclude_background=True), "miou", None),
        (MeanIoU(5, ignore_index=1), "miou", None),
    ],
)
def test_the_reason_is_the_metrics(metric, result, reason):
    class Padded(nn.Module):
        """The network with a logit more for each class that the data lack."""

        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, inputs):
            return nn.functional.pad(self.network(inputs), (0, metric.num_classes - 2), value=-9.0)

    trainer = tiny_trainer(monitor=f"max val_{result}", epochs=1)
    trainer.model = Padded(trainer.model)
    trainer.metrics, trainer.validation_metrics = MetricSet([]), MetricSet([metric])
    if reason is None:
        assert trainer.fit().best is not None
    else:
        with pytest.raises(TrainingError, match=f"in the validation data {reason}"):
            trainer.fit()


def test_nothing_counted_and_a_loss_without_value_are_named():
    trainer = tiny_trainer(epochs=1, monitor="max val_miou")
    trainer.validation_metrics = MetricSet([MeanIoU(2)])
    trainer.valid_loader.dataset.dataset.points[:] = 1.0  # all of class 1
    trainer.validation_metrics = MetricSet([MeanIoU(2, ignore_index=1)])
    with pytest.raises(TrainingError, match="in the validation data nothing was counted, since every target is ign"):
        trainer.fit()

    class Lost(nn.CrossEntropyLoss):
        def forward(self, output, target):
            return super().forward(output, target) * (1.0 if torch.is_grad_enabled() else math.nan)

    with pytest.raises(TrainingError, match="val_loss is NaN in epoch 1: in the validation data no target counts, or "):
        tiny_trainer(loss=Lost(), monitor="min val_loss").fit()


@pytest.mark.parametrize(
    ("metrics", "places", "name"),
    [
        (["miou", "miou"], (0, 1), "miou"),
        (["accuracy", "miou", {"type": "miou", "args": {"exclude_background": True}}], (1, 2), "miou"),
        (["top_k_accuracy", {"type": "top_k_accuracy", "args": {"k": 5}}], (0, 1), "top5_accuracy"),
        (["class_iou", "dice", {"type": "class_iou", "args": {"exclude_background": True}}], (0, 2), "iou_2"),
    ],
)
def test_two_results_of_one_name_are_refused_with_both_paths(metrics, places, name):
    spec = DataSpec(num_classes=7, class_names=[str(index) for index in range(1, 8)])
    with pytest.raises(ConfigError) as caught:
        build_metrics({"metrics": metrics}, spec)
    assert str(caught.value) == (
        f'metrics.{places[1]}: its result "{name}" is one of metrics.{places[0]} already. Each result of an epoch '
        "needs a name of its own. Remove one of them, or rename it."
    )


def test_results_of_different_names_are_accepted_in_any_number():
    tops = [{"type": "top_k_accuracy", "args": {"k": k}} for k in (1, 2, 3)]
    names = ["f1", "macro_f1", "dice", "balanced_accuracy", "mean_accuracy", "accuracy", "class_iou", *tops]
    assert len(build_metrics({"metrics": names}, DataSpec(num_classes=3))) == 10
    assert build_metrics({}, DataSpec()) == []


@pytest.mark.parametrize("name", ["loss", "epoch", "step", "lr"])
def test_a_metric_does_not_hide_a_column_of_the_loop(name):
    with pytest.raises(ConfigError, match=f'metrics.0: its result "{name}" is one of the trainer already'):
        check_result_names({"metrics.0": Scripted([1.0], name)})
    with pytest.raises(ConfigError, match=r'metrics.1: its result "val_found" is one of metrics.0 already'):
        check_result_names({"metrics.0": Scripted([1.0], "found"), "metrics.1": Scripted([1.0], "val_found")})


def test_a_metric_names_its_results():
    class Bare(Scripted):
        def compute(self):
            return 0.5

    with pytest.raises(
        ConfigError, match=r'metrics.3: Bare.compute returned 0.5, .* Return for example {"found": 0.5}'
    ):
        check_result_names({"metrics.3": Bare([1.0])})


def test_classes_of_one_name_are_refused():
    with pytest.raises(ConfigError, match=r"class names \['a', 'a'\] for 2 classes: each needs one of its own"):
        ClassIoU(2, class_names=["a", "a"])


@pytest.fixture
def pairs(tmp_path):
    """Writes a list of as many pairs as there are label values, each a mask of this one value."""

    def write(name, *values):
        lines = []
        for number, value in enumerate(values):
            photo, mask = tmp_path / f"{name}{number}.png", tmp_path / f"{name}{number}_mask.png"
            cv2.imwrite(str(photo), np.full((32, 24, 3), 30 * number + 20, np.uint8))
            cv2.imwrite(str(mask), np.full((32, 24), value, np.uint8))
            lines.append(f"{photo.name},{mask.name}")
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
        return str(tmp_path / f"{name}.txt")

    return write


def with_pairs(config, train_file, valid_file, ignore_index=255):
    for section, file in (("train_loader", train_file), ("valid_loader", valid_file)):
        config = changed(
            config, **{f"{section}__args__{key}": value for key, value in (("pairs_file", file), ("samples", None))}
        )
        config[section]["args"]["ignore_index"] = ignore_index
    return config


def test_validation_without_a_label_that_counts_is_found_before_training(small, pairs, tmp_path, capsys):  # noqa: F811
    config = with_pairs(small, pairs("train", 0, 1), pairs("valid", 255, 255))
    message = (
        r"^valid_loader: every label of its 2 samples is 255 \(ignored\) or of no class. There is nothing to evaluate "
        r"on. Correct the masks, or name other samples.$"
    )
    with pytest.raises(DataError, match=message):
        train(config)
    assert not (tmp_path / "saved").exists()
    (tmp_path / "c.json").write_text(json.dumps(config))
    assert run_command(main, parser(), ["-c", str(tmp_path / "c.json"), "--check"]) == 3
    assert re.search(r"valid_loader +every label of its 2 samples is 255", capsys.readouterr().out)
    outcome = run_task({"kind": "train", "config": config, "folder": str(tmp_path / "x"), "reported": 0}, str)
    assert outcome == {"status": "failed", "reason": message[1:-1].replace("\\", "")}


def test_the_last_sample_may_be_the_only_one_that_counts(small, pairs):  # noqa: F811
    config = with_pairs(small, pairs("train", 255, 255, 1), pairs("valid", 255, 255, 0))
    assert build_training(config).valid_loader.num_samples == 3


def test_an_ignored_class_counts_as_no_label_and_so_does_training_data(small, pairs):  # noqa: F811
    with pytest.raises(DataError, match=r"^valid_loader: every label of its 1 samples is 0 \(ignored\)"):
        build_training(with_pairs(small, pairs("train", 0, 1), pairs("valid", 0), ignore_index=0))
    with pytest.raises(DataError, match=r"^train_loader: every label .* There is nothing to train on"):
        build_training(with_pairs(small, pairs("train", 255, 255), pairs("valid", 0)))


def test_a_part_of_the_training_data_may_have_no_label_that_counts(small, pairs):  # noqa: F811
    config = with_pairs(small, pairs("train", *[255] * 6), pairs("valid", 0))
    config["train_loader"]["args"]["validation_split"] = 2
    loader = config.pop("train_loader")
    del config["valid_loader"]
    with pytest.raises(DataError, match=r"^data_loader: every label of its 4 samples"):
        build_training({**config, "data_loader": loader})


def test_a_test_on_nothing_is_refused(small, pairs):  # noqa: F811
    config = with_pairs(small, pairs("train", 0, 1), pairs("valid", 0))
    config = changed(config, valid_loader__args__pairs_file=pairs("test", 255))
    with pytest.raises(DataError, match=r"^valid_loader: every label of its 1 samples"):
        test_command.test(config, {}, split="valid")


@pytest.mark.parametrize(
    ("target", "num_classes", "ignore_index", "expected"),
    [
        (3, 4, None, True), (3, 3, None, False), (-100, 3, -100, False), (-100, None, -100, False), (2, None, 1, True),
        (np.array([[255, 255]], np.uint8), 2, 255, False), (np.array([[255, 1]], np.uint8), 2, 255, True),
        (np.array([[300]], np.uint16), 1000, 255, True), (np.array([0.5, 0.5]), 2, None, True),
        (torch.tensor([1, 1]), 2, 1, False), (torch.tensor([1, 0]), 2, 1, True),
    ],
)  # fmt: skip
def test_a_target_that_counts(target, num_classes, ignore_index, expected):
    assert is_counted(target, num_classes, ignore_index) is expected


class Returns(nn.Module):
    """A loss that returns what a function makes of the cross-entropy of each sample, (B,)."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, output, target):
        return self.change(nn.functional.cross_entropy(output, target, reduction="none"))


WRONG = {
    "a float": (lambda each: each.mean().item(), r"0\.\d+ \(float\)\. .* Leave out item\(\) and float\(\)\.$"),
    "an int": (lambda each: 0, r"0 \(int\)\. The loss of a batch is one number as a tensor"),
    "nothing": (lambda each: None, r"None\. .* Let it end in a return statement\.$"),
    "a loss per sample": (lambda each: each, r"a tensor of shape \(4,\) and torch.float32\. .* Return its mean"),
    "whole numbers": (lambda each: each.long().sum(), r"a tensor of shape \(\) and torch.int64\."),
    "an array": (lambda each: each.mean().detach().numpy(), r"array\(.*\(ndarray\)\."),
    "a pair": (lambda each: (each.mean(), {}), r"\(tensor\(.*\(tuple\)\."),
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", WRONG)
def test_a_loss_that_is_no_tensor_of_one_number_is_named(kind, accumulate):
    change, message = WRONG[kind]
    with pytest.raises(ConfigError, match=f"^loss: Returns returned {message}"):
        tiny_trainer(loss=Returns(change), accumulate=accumulate).fit()
    good = nn.CrossEntropyLoss()
    with pytest.raises(ConfigError, match=f"^loss: Returns returned {message}"):
        tiny_trainer(loss=WeightedLoss([good, Returns(change)], [1.0, 0.5]), accumulate=accumulate).fit()
    with pytest.raises(ConfigError, match=r"^loss: Returns returned "):
        AuxiliaryLoss(Returns(change), [0.4])((torch.zeros(4, 2), torch.zeros(4, 2)), torch.zeros(4, dtype=torch.long))


def test_a_loss_that_is_wrong_in_validation_alone_is_named():
    loss = Returns(lambda each: each.mean() if torch.is_grad_enabled() else float(each.mean()))
    with pytest.raises(ConfigError, match=r"^loss: Returns returned"):
        tiny_trainer(loss=loss).fit()


@pytest.mark.parametrize("change", [lambda each: each.mean().detach(), lambda each: torch.tensor(1.0)])
def test_a_loss_without_gradient_is_named(change):
    with pytest.raises(ConfigError, match=r"^loss: Returns returned a number that depends on no weight"):
        tiny_trainer(loss=Returns(change)).fit()


def test_a_loss_of_one_element_is_a_number():
    expected = tiny_trainer(loss=Returns(torch.mean), epochs=1).fit().history
    assert tiny_trainer(loss=Returns(lambda each: each.mean().reshape(1, 1)), epochs=1).fit().history == expected


def test_a_loop_of_ones_own_is_held_to_the_same(small):  # noqa: F811
    class Loop(type(tiny_trainer())):
        def forward(self, inputs, target):
            output, loss = super().forward(inputs, target)
            return output, loss.item()

    trainer = tiny_trainer()
    trainer.__class__ = Loop
    with pytest.raises(ConfigError, match=r"^loss: Loop.forward returned [\d.]+ \(float\)"):
        trainer.fit()


def test_a_search_says_which_loss_is_wrong(small, tmp_path):  # noqa: F811
    plugin = tmp_path / "my_losses.py"
    plugin.write_text(
        "from torch import nn\n\n\nclass Forgotten(nn.Module):\n"
        "    def forward(self, output, target):\n        output.mean()\n"
    )
    config = changed(small, loss="my_losses.Forgotten")
    task = {"kind": "train", "config": config, "folder": str(tmp_path / "x"), "reported": 0, "plugins": [str(plugin)]}
    for limits, status in ((None, "failed"), ({"max_params": 10**9}, "refused")):
        outcome = run_task({**task, "limits": limits}, str)
        assert outcome["status"] == status
        assert outcome["reason"].startswith("loss: Forgotten returned None. The loss of a batch is one number")


class OfSamples:
    """A data set of a plug-in that gives samples alone, and counts how many were read."""

    def __init__(self, labels):
        self.labels, self.read = labels, []

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.read.append(index)
        label = self.labels[index]
        if isinstance(label, Exception):
            raise label
        return (torch.zeros(3, 2, 2), label) if label is not None else {"input": torch.zeros(3, 2, 2)}


def loader_of(labels, *, num_classes=3, ignore_index=255):
    loader = BaseDataLoader(OfSamples(labels), 1, shuffle=False, is_training=False)
    loader.num_classes, loader.ignore_index = num_classes, ignore_index
    return loader


@pytest.mark.parametrize(
    ("labels", "read"),
    [
        ([torch.full((2, 2), 1), torch.full((2, 2), 1)], 1),
        ([torch.full((2, 2), 255), torch.full((2, 2), 7), torch.tensor([[0, 255], [255, 255]])], 3),
        ([255, np.int64(255), 2], 3),
        ([torch.tensor([0.0, 0.5]), 255], 1),  # probabilities
        ([None, 255], 1),  # of a form that only the plug-in knows
        ([{"boxes": torch.zeros(0, 4)}, 255], 1),
    ],
)
def test_a_data_set_of_samples_is_read_up_to_the_first_label_that_counts(labels, read):
    loader = loader_of(labels)
    loader.require_counted_targets("valid_loader")
    assert loader.dataset.dataset.read == list(range(read))


def test_a_data_set_of_samples_without_a_label_that_counts_is_refused():
    for labels in ([255, 255], [torch.full((2, 2), 255)], [np.full((2, 2), 3), np.full((2, 2), -1)]):
        with pytest.raises(DataError, match=r"^valid_loader: every label of its \d samples is 255 \(ignored\) or of"):
            loader_of(labels).require_counted_targets("valid_loader")
    with pytest.raises(DataError, match=r"x\.png is cut"):
        loader_of([255, DataError("x.png is cut. Replace it."), 1]).require_counted_targets("valid_loader")
    unknown = loader_of([255, 255], num_classes=None, ignore_index=None)
    unknown.require_counted_targets("valid_loader")  # every label counts
    assert unknown.dataset.dataset.read == []
