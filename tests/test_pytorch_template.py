"""The MNIST example of pytorch-template trains as it is, and functions are losses and metrics."""

import json
import logging
import math

import pytest
import torch

import inference
import test as test_command
from build import build_loader, build_loss, build_metrics, registry
from config import DataSpec, load_config, load_plugins, validate
from models.mnist import MnistModel
from tests.support.loader_cases import mnist
from train import for_overfit, main, parser
from trainer.evaluation import MetricSet
from utils.errors import ConfigError, DataError

MNIST = {
    "name": "Mnist_LeNet",
    "n_gpu": 1,
    "arch": {"type": "MnistModel", "args": {}},
    "data_loader": {
        "type": "MnistDataLoader",
        "args": {"data_dir": "data/", "batch_size": 128, "shuffle": True, "validation_split": 0.1, "num_workers": 2},
    },
    "optimizer": {"type": "Adam", "args": {"lr": 0.001, "weight_decay": 0, "amsgrad": True}},
    "loss": "nll_loss",
    "metrics": ["accuracy", "top_k_acc"],
    "lr_scheduler": {"type": "StepLR", "args": {"step_size": 50, "gamma": 0.1}},
    "trainer": {
        "epochs": 100, "save_dir": "saved/", "save_period": 1, "verbosity": 2,
        "monitor": "min val_loss", "early_stop": 10, "tensorboard": True,
    },
}  # fmt: skip
FUNCTIONS = """
import torch
import torch.nn.functional as F
from torch.nn.functional import cross_entropy


def nll_loss(output, target):
    return F.nll_loss(output, target)


def scaled_loss(output: torch.Tensor, target: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return scale * F.cross_entropy(output, target)


def accuracy(output, target):
    with torch.no_grad():
        return torch.sum(torch.argmax(output, dim=1) == target).item() / len(target)


def top_k_acc(output, target, k=3):
    with torch.no_grad():
        found = torch.topk(output, k, dim=1)[1] == target[:, None]
        return found.any(dim=1).float().mean()


def pairs(output, target):
    return output.sum(dim=1)


def make_loss(weight: float):
    return torch.nn.CrossEntropyLoss(label_smoothing=weight)


def of_other_names(output, wanted) -> torch.Tensor:
    return F.nll_loss(output, wanted)
"""
# Its old key renamed, as loading a file does.
TODAY = {**MNIST, "data_loader": {"type": "MnistDataLoader", "args": {"data_dir": "data/"}}}
SPEC = DataSpec(num_classes=4, ignore_index=-1)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    file = tmp_path_factory.mktemp("plugins") / "template_functions.py"
    file.write_text(FUNCTIONS)
    load_plugins([file])
    return str(file)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with made-up files in the place of MNIST's, and the config of the example."""
    mnist(tmp_path / "data", 60)
    (tmp_path / "config.json").write_text(json.dumps(MNIST))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_trains_is_tested_and_used(workplace, capsys):
    quick = ["--epochs", "1", "data_loader.args.n_workers=0"]
    main(parser().parse_intermixed_args(["-c", "config.json", "-d", "cpu", *quick]))
    text = capsys.readouterr().out
    assert "val_top_k_acc" in text
    run = next((workplace / "saved/Mnist_LeNet").iterdir())
    assert {"checkpoint-epoch1.pth", "model_best.pth"} <= {each.name for each in run.iterdir()}
    test_command.main(test_command.parser().parse_args(["--resume", str(run), "--split", "valid"]))
    assert "top_k_acc" in capsys.readouterr().out
    network = inference.load_any(run)
    assert network.preprocess.in_channels == 1


def test_the_parameters_are_those_of_the_template():
    shapes = {name: tuple(weight.shape) for name, weight in MnistModel().state_dict().items()}
    assert shapes == {
        "conv1.weight": (10, 1, 5, 5), "conv1.bias": (10,), "conv2.weight": (20, 10, 5, 5), "conv2.bias": (20,),
        "fc1.weight": (50, 320), "fc1.bias": (50,), "fc2.weight": (10, 50), "fc2.bias": (10,),
    }  # fmt: skip
    probabilities = MnistModel().eval()(torch.rand(3, 1, 28, 28)).exp()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))


def test_training_and_test_files_are_told_apart(workplace):
    (workplace / "data/MNIST/raw/train-images-idx3-ubyte.gz").unlink()  # only those of the test are whole
    config = {**load_config("config.json"), "test_loader": {"type": "MnistDataLoader", "args": {"data_dir": "data"}}}
    assert build_loader(config, "test").num_samples == 60
    with pytest.raises(DataError, match=r"data_dir data: train-images-idx3-ubyte is not there.*Put .*data/MNIST/raw"):
        build_loader(config, "train")
    overfitting = for_overfit(config, 4)
    with pytest.raises(DataError, match="train-images"):  # the same samples in validation, not those of the test
        build_loader(overfitting, "valid")


def test_functions_are_losses(plugin):
    output, target = torch.randn(6, 4).log_softmax(dim=1), torch.tensor([0, 1, 2, 3, 1, 1])
    scaled = {"type": "template_functions.scaled_loss", "args": {"scale": 2.0}}
    for spec, expected in (
        ("nll_loss", torch.nn.functional.nll_loss(output, target)),
        ("template_functions.nll_loss", torch.nn.functional.nll_loss(output, target)),
        ("template_functions.cross_entropy", torch.nn.functional.nll_loss(output, target)),
        (scaled, 2 * torch.nn.functional.nll_loss(output, target)),
        ([scaled, {"type": "template_functions.nll_loss", "weight": 0.5}], 2.5 * -output[range(6), target].mean()),
    ):
        config = {**TODAY, "loss": spec}
        validate(config, registry())
        torch.testing.assert_close(build_loss(config, SPEC, torch.nn.Identity())(output, target), expected)
    with torch.autocast("cpu", torch.bfloat16):
        half = build_loss({**TODAY, "loss": scaled}, SPEC, torch.nn.Identity())(output.bfloat16(), target)
    assert half.dtype == torch.float32


def test_an_ignored_label_reaches_a_function_that_asks_for_it(plugin):
    output, target = torch.zeros(2, 4), torch.tensor([0, -1])
    loss = build_loss({**TODAY, "loss": "template_functions.cross_entropy"}, SPEC, torch.nn.Identity())
    torch.testing.assert_close(loss(output, target), torch.tensor(4.0).log())


def test_functions_are_metrics_averaged_by_samples_and_that_is_said_once(plugin, caplog):
    config = {**TODAY, "metrics": ["template_functions.accuracy", "template_functions.top_k_acc"]}
    validate(config, registry())
    metrics = MetricSet(build_metrics(config, SPEC))
    target = torch.tensor([0, 1, 2, 3, 3])
    output = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 0]), 4) - 0.1 * torch.arange(4)
    with caplog.at_level(logging.INFO):
        for part in (slice(0, 4), slice(4, 5)):
            metrics.update(output[part], target[part])
    assert metrics.compute() == {"accuracy": pytest.approx(3 / 5), "top_k_acc": pytest.approx(3 / 5)}
    said = [record.getMessage() for record in caplog.records if "averaged" in record.getMessage()]
    assert len(said) == 2
    assert said[0].startswith("metrics: accuracy is a function of a batch")
    metrics.reset()
    assert all(math.isnan(value) for value in metrics.compute().values())


def test_a_metric_that_gives_no_number_is_refused(plugin):
    metric = build_metrics({**TODAY, "metrics": ["template_functions.pairs"]}, SPEC)[0]
    with pytest.raises(ConfigError, match=r"pairs returned a tensor of shape \(3,\).* Return a mean"):
        metric.update(torch.zeros(3, 4), torch.zeros(3))


def test_a_function_that_builds_a_loss_is_still_called(plugin):
    config = {**TODAY, "loss": {"type": "template_functions.make_loss", "args": {"weight": 0.25}}}
    assert build_loss(config, SPEC, torch.nn.Identity()).label_smoothing == 0.25


def test_wrong_arguments_and_other_functions_are_faults_of_the_file(plugin):
    unknown = {"type": "template_functions.scaled_loss", "args": {"scal": 2.0}}
    with pytest.raises(ConfigError, match=r'loss\.args\.scal: .*Did you mean "scale"'):
        validate({**TODAY, "loss": unknown}, registry())
    with pytest.raises(ConfigError, match=r"or a function \(output, target\) of a file named with --plugin"):
        validate({**TODAY, "loss": "template_functions.of_other_names"}, registry())
    with pytest.raises(ConfigError, match="is a function that is not annotated"):  # of a library: only its classes
        validate({**TODAY, "loss": "torch.nn.functional.nll_loss"}, registry())
