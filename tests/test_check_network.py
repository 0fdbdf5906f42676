"""A network as a table, one that cannot take its input, and one that is too large to be built."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from base.inspection.failures import explain_failure
from base.inspection.summary import TABLE_ROWS, network_summary
from build import DataSpec, build_model
from config import load_config
from config.variants import without_pretrained_weights
from tests.support.trials import adam, plan
from trainer.inspection.size import build_within_memory
from trainer.trainer import TrainingPlan
from utils.errors import ConfigError, OutOfMemory

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(path for path in ROOT.glob("config/*/*.json") if path.parent.name not in ("search", "studies"))

# ---- the summary


class Repeated(nn.Module):
    """No BaseModel: a list of layers, one of them used twice, and an output in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 2)])
        self.unused = nn.Linear(4, 4)

    def forward(self, inputs):
        return {"out": self.layers[1](self.layers[0](self.layers[0](inputs)))}


def test_any_module_has_a_summary_and_a_part_that_runs_twice_costs_twice():
    text = network_summary(Repeated(), torch.zeros(7, 4))
    rows = [line.split() for line in text.splitlines()]
    assert rows[2:4] == [
        ["layers.0", "Linear", "4", "20", str(2 * 2 * 4 * 4)],
        ["layers.1", "Linear", "2", "10", str(2 * 4 * 2)],
    ]
    assert "Repeated: an input of 1x4 gives an output of out 1x2" in text
    assert "Parameters: 50 (50 trainable)" in text
    assert "unused" not in text


def test_series_and_images_are_summarised_at_the_size_of_the_example():
    conv = nn.Sequential(nn.Conv1d(3, 5, 3, padding=1), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    text = network_summary(conv, torch.zeros(2, 3, 40))
    assert re.search(r"0 +Conv1d +5x40 +50 +3,600", text)  # 2 · 40 · 5 · 3 · 3
    assert "FLOPs for an input of 1x3x40: 3,600 (1,800" in text


@pytest.mark.parametrize("count", [1, TABLE_ROWS, TABLE_ROWS + 1, 300])
def test_a_summary_stays_readable(count):
    deep = nn.Sequential(*[nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(count)])
    lines = network_summary(deep, torch.zeros(1, 2)).splitlines()
    assert len(lines) <= TABLE_ROWS + 7
    assert ("more parts" in " ".join(lines)) == (count > TABLE_ROWS)
    if count > TABLE_ROWS:
        middle = next(number for number, line in enumerate(lines) if "more parts" in line)
        assert lines[middle].split()[1] == str(count - TABLE_ROWS)
        assert lines[middle - 1].startswith(f"{TABLE_ROWS // 2 - 1} ")
        assert lines[middle + 1].startswith(f"{count - TABLE_ROWS // 2} ")


# ---- a network that cannot take its input


class Join(nn.Module):
    """Halves, doubles and adds: only even sizes work."""

    def forward(self, inputs):
        return inputs + nn.functional.interpolate(nn.functional.avg_pool2d(inputs, 2), scale_factor=2.0)


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3)), (2, 1, 8, 8), r"arch\.args\.in_channels: 3: .*part 0 \(Conv2d\).*yields 1"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(5, 4, 1)), (2, 3, 8, 8), r"part 1 .*takes 5 channels, but gets 4"),
        (nn.Sequential(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 4, 5)), (2, 3, 6, 6), r"resize: 6x6: .*part 1 \(Conv2d\)"),
        (nn.Sequential(nn.MaxPool2d(4), nn.MaxPool2d(4)), (2, 3, 8, 8), r"resize: 8x8: .*part 1 \(MaxPool2d\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(75, 2)), (2, 3, 8, 8), r"for 75 values, but gets 192.*3x8x8"),
        (nn.Sequential(nn.Conv1d(3, 4, 9)), (2, 3, 8), r"^arch: 8: .*part 0 \(Conv1d\).*series of this length"),
        (Join(), (2, 3, 9, 8), r"resize: 9x8: .* are 9 and 8\. .*Set resize to \[32, 32\]"),
        (nn.Sequential(nn.Conv2d(3, 4, 1)), (2, 3, 8), r"arch\.type: .*than 1x3x8, which are series"),
        (nn.Sequential(nn.Conv1d(3, 4, 1)), (2, 3, 8, 8), r"arch\.type: .*than 1x3x8x8, which are images"),
        (nn.Sequential(nn.BatchNorm2d(3), nn.LSTM(7, 2)), (2, 3, 8, 8), r"arch: .*part 1 \(LSTM\): \w+Error: "),
    ],
)
def test_a_network_that_cannot_take_the_example_names_the_part_and_the_argument(network, shape, message):
    with pytest.raises(ConfigError, match=message) as caught:
        network_summary(network, torch.zeros(shape))
    assert "\n" not in str(caught.value)


def test_a_batch_of_one_value_per_channel_is_explained():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="Expected more than 1 value") as caught:
        network(torch.zeros(1, 3, 4, 4))
    fault = explain_failure(caught.value, network, (1, 3, 4, 4), "1")
    assert fault.place == "batch_size"
    assert fault.message.startswith(
        "1: in Sequential at its part 1 (BatchNorm2d) a batch norm gets one value per channel (1x3x1x1)"
    )


# ---- the size of a network before it is built


@pytest.fixture
def little_memory(monkeypatch):
    """10 MB are free."""
    monkeypatch.setattr("trainer.inspection.memory.known_memory", lambda: 10_000_000)


def linear(inputs, outputs):
    return lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(inputs, outputs, bias=False))


@pytest.mark.parametrize("size", [(100, 100), (500, 1000)])
def test_a_network_that_fits_has_the_weights_and_random_numbers_of_the_constructor(little_memory, size):
    torch.manual_seed(3)
    expected, then = linear(*size)(), torch.rand(1)
    torch.manual_seed(3)
    built = build_within_memory(linear(*size), plan(), adam)  # 4 · (2 MB + 80 B) of 10 MB: the larger one is counted
    assert torch.equal(torch.rand(1), then)
    assert all(torch.equal(one, other) for one, other in zip(built.parameters(), expected.parameters(), strict=True))


def test_weights_gradients_moments_and_the_average_must_fit(little_memory):
    weights = 4 * (1000 * 625 + 20)  # 2.5 MB: four times that is 320 bytes too much
    with pytest.raises(OutOfMemory, match=r"^arch: 625,020 weights \(the largest, 2\.weight, is 625x1000\).* 10\.0 MB"):
        build_within_memory(linear(1000, 625), plan(), adam)
    sgd = build_within_memory(linear(1000, 625), plan(), lambda weights: torch.optim.SGD(weights, lr=0.1))
    assert sum(each.nbytes for each in sgd.parameters()) == weights
    with pytest.raises(OutOfMemory, match=r"and the moving average take 12\.0 MB, and 10\.0 MB are free on cpu"):
        build_within_memory(linear(1000, 600), plan(ema_decay=0.9), adam)
    frozen = TrainingPlan.from_options(OPTIONS | {"freeze": ["2"]})
    assert build_within_memory(linear(1000, 2000), frozen, adam)


OPTIONS = {
    "epochs": 1,
    "len_epoch": None,
    "monitor": "off",
    "early_stop": None,
    "accumulate": 1,
    "clip_norm": None,
    "clip_value": None,
    "freeze": [],
    "unfreeze_epoch": None,
    "ema": None,
}


class Values(nn.Module):
    """Reads values while it is built, which "meta" cannot give."""

    def __init__(self, size):
        super().__init__()
        self.rate = torch.linspace(0, 1, 3).tolist()[1]
        self.layer = nn.Linear(size, 1000)


def test_a_class_that_cannot_be_counted_is_built_up_to_the_limit(little_memory):
    assert build_within_memory(lambda: Values(1000), plan(), adam).rate == 0.5
    with pytest.raises(OutOfMemory, match=r"builds more than 40\.0 MB of weights \(the last tensor is 1000x10000\)"):
        build_within_memory(lambda: Values(10_000), plan(), adam)


@pytest.mark.parametrize("shape", [(10**5, 10**6), (10**9, 10**9)])
def test_sizes_that_no_machine_has_are_refused_in_a_line(shape):
    with pytest.raises((OutOfMemory, ConfigError)) as caught:
        build_within_memory(lambda: nn.Linear(*shape), plan(), adam)
    assert "\n" not in str(caught.value)
    assert re.search(r"free|overflow", str(caught.value))


class Deep(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(depth))


def test_a_network_without_end_is_refused(monkeypatch):
    monkeypatch.setattr("trainer.inspection.size.MANY_TENSORS", 50)
    monkeypatch.setattr("trainer.inspection.size.MOST_TENSORS", 100)
    assert len(build_within_memory(lambda: Deep(100), plan(), adam).layers) == 100
    with pytest.raises(OutOfMemory, match=r"^arch: the network has more than 100 tensors of weights.*less deep"):
        build_within_memory(lambda: Deep(10**9), plan(), adam)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_network_of_every_shipped_configuration_is_summed_up_on_a_screen(path):
    config = load_config(path)
    dims = 1 if path.parent.name == "series" else None
    spec = DataSpec(num_classes=11, in_channels=1 if path.parent.name in ("images", "series") else 3, dims=dims)
    size = (128,) if path.parent.name == "series" else (28, 28) if path.parent.name == "images" else (128, 160)
    with torch.device("meta"):  # shapes suffice
        model = build_model(without_pretrained_weights(config), spec)
        text = network_summary(model, torch.zeros(4, spec.in_channels, *size))
    assert 10 < len(text.splitlines()) <= 39
    assert f"Parameters: {sum(weight.numel() for weight in model.parameters()):,} (" in text
    assert "FLOPs for an input of 1x" in text
