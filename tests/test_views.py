"""Sliding windows, flips and scales: hand-computed, and the same numbers from test.py as from inference.py."""

import json
from itertools import pairwise

import pytest
import torch
from test_inference import PEOPLE, people_config, save_untrained
from torch import nn

import inference
import test as command
from build import build_loader, registry
from config import cli
from config.variants import window_options
from data_loader.images.files import read_image
from models.inference.views import (
    LEAST_WEIGHT,
    AveragedViews,
    SlidingWindows,
    Views,
    gaussian_weight,
    window_starts,
    with_views,
)
from utils.checkpoint_file import read_checkpoint
from utils.errors import ConfigError


class Recorder(nn.Module):
    """Logits (x, -x) of a one-channel image, plus one at its left rim; notes the shapes that it saw."""

    def __init__(self, rim=0.0):
        super().__init__()
        self.rim = rim
        self.seen = []

    def forward(self, inputs):
        self.seen.append(tuple(inputs.shape))
        logits = torch.cat([inputs, -inputs], dim=1)
        logits[:, 0, :, 0] += self.rim
        return logits, logits.mean()  # an auxiliary output that nobody wants


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


# --- windows ---


@pytest.mark.parametrize(
    ("length", "window", "overlap", "starts"),
    [
        (10, 4, 0.5, [0, 2, 4, 6]),
        (10, 4, 0.0, [0, 3, 6]),  # two windows leave a gap: three, evenly spread
        (8, 4, 0.0, [0, 4]),
        (9, 4, 0.25, [0, 3, 5]),
        (4, 4, 0.5, [0]),
        (5, 1, 0.99, [0, 1, 2, 3, 4]),
    ],
)
def test_windows_begin_at_the_rim_and_end_at_the_rim(length, window, overlap, starts):
    assert window_starts(length, window, overlap) == starts


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5, 0.9])
def test_windows_leave_no_gap_and_overlap_as_asked(overlap):
    for length in range(7, 60):
        starts = window_starts(length, 7, overlap)
        assert (starts[0], starts[-1]) == (0, length - 7)
        assert all(0 < right - left <= max(1, round(7 * (1 - overlap))) for left, right in pairwise(starts))


def test_the_weight_is_greatest_in_the_middle_and_never_zero():
    weight = gaussian_weight((65, 32))
    assert weight.shape == (65, 32)
    assert float(weight.min()) == pytest.approx(LEAST_WEIGHT)
    torch.testing.assert_close(weight, weight.flip((0, 1)))
    assert float(weight.max()) == pytest.approx(0.9922, abs=1e-3)
    assert float(gaussian_weight((2, 1))[0, 0]) == pytest.approx(2.718281828**-2)  # a quarter is two deviations


def test_one_window_over_the_image_is_the_network_itself():
    network = Recorder()
    inputs = images(2, 1, 9, 5)
    assert torch.equal(SlidingWindows(network, (9, 8))(inputs), network(inputs)[0])
    assert network.seen == [(2, 1, 9, 5)] * 2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("window", "overlap"), [((16, 12), 0.0), ((16, 12), 0.5), ((5, 100), 0.3), ((1, 1), 0.0)])
def test_a_network_without_context_sees_no_windows(window, overlap, layout):
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 1)
    inputs = images(2, 3, 33, 47).contiguous(memory_format=layout)
    with torch.no_grad():
        expected, found = network(inputs), SlidingWindows(network, window, overlap=overlap)(inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(found.argmax(dim=1), expected.argmax(dim=1))


def test_two_windows_are_blended_by_their_weights():
    network = SlidingWindows(Recorder(rim=10.0), (1, 4), overlap=0.5)
    found = network(torch.zeros(1, 1, 1, 6))[0, 0, 0]
    weight = gaussian_weight((1, 4))[0]
    second = 10 * weight[0] / (weight[2] + weight[0])  # the rim of the window at 2, third pixel of the one at 0
    torch.testing.assert_close(
        found,
        torch.stack([torch.tensor(10.0), *[torch.tensor(0.0)] * 5]).index_fill_(0, torch.tensor([2]), float(second)),
    )


def test_windows_run_in_batches_as_large_as_asked():
    network = Recorder()
    SlidingWindows(network, (4, 4), overlap=0.0, windows_at_once=3)(torch.zeros(2, 1, 8, 8))
    assert network.seen == [(3, 1, 4, 4), (3, 1, 4, 4), (2, 1, 4, 4)]


# --- flips and scales ---


def test_flips_are_turned_back_and_their_probabilities_averaged():
    found = AveragedViews(Recorder(rim=2.0), flip="horizontal")(torch.zeros(1, 1, 1, 3)).softmax(dim=1)[0, 0, 0]
    rim = (1 / (1 + 2.718281828**-2) + 0.5) / 2  # one view adds 2 to the left rim, the mirrored one to the right
    assert found.tolist() == pytest.approx([rim, 0.5, rim], abs=1e-6)
    network = Recorder()
    inputs = images(1, 1, 4, 6)
    expected = network(inputs)[0].softmax(dim=1)
    for flip, views in (("horizontal", 2), ("vertical", 2), ("both", 4)):
        network.seen.clear()
        torch.testing.assert_close(AveragedViews(network, flip=flip)(inputs).softmax(dim=1), expected)
        assert len(network.seen) == views


def test_scales_look_at_other_sizes_and_come_back():
    network = Recorder()
    inputs = torch.full((1, 1, 10, 6), 0.7)
    found = AveragedViews(network, scales=(0.5, 1, 1.25))(inputs)
    assert [shape[2:] for shape in network.seen] == [(5, 3), (10, 6), (12, 8)]
    torch.testing.assert_close(found.softmax(dim=1), network(inputs)[0].softmax(dim=1))


class FirstChannel(nn.Module):
    """The image itself as the only logit; stores the images that it got."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, inputs):
        self.seen.append(inputs)
        return inputs


def test_shrinking_averages_areas_and_enlarging_does_not():
    bright_column = torch.zeros(1, 1, 8, 8)
    bright_column[..., 0] = 1.0
    network = FirstChannel()
    AveragedViews(network, scales=(0.25,))(bright_column)
    # A triangle of half-width 4 around the middle, 2, of four columns; the first column's centre is at 0.5.
    weights = [1 - abs(column + 0.5 - 2) / 4 for column in range(6)]
    assert network.seen[0][0, 0, 0].tolist() == pytest.approx([weights[0] / sum(weights), 0.0], abs=1e-6)
    AveragedViews(network, scales=(2.0,))(bright_column)
    assert network.seen[1][0, 0, 0, :4].tolist() == [1.0, 0.75, 0.25, 0.0]


def test_certainty_stays_finite_and_a_single_logit_is_averaged_as_a_sigmoid():
    assert torch.isfinite(AveragedViews(Recorder(), flip="both")(torch.full((1, 1, 2, 2), 300.0))).all()
    identity = nn.Identity()
    inputs = torch.tensor([[[[0.0, 2.0]]]])
    found = AveragedViews(identity, flip="horizontal")(inputs).sigmoid()[0, 0, 0]
    mean = (0.5 + 0.8807970779778823) / 2
    assert AveragedViews(identity, scales=(1.0,))(inputs).sigmoid()[0, 0, 0].tolist() == pytest.approx([0.5, 0.880797])
    assert found.tolist() == pytest.approx([0.5, 0.880797])  # flipped there and back
    assert AveragedViews(_LeftIsTwo(), flip="horizontal")(inputs).sigmoid()[0, 0, 0].tolist() == pytest.approx(
        [mean] * 2
    )


class _LeftIsTwo(nn.Module):
    def forward(self, inputs):
        return torch.tensor([[[[2.0, 0.0]]]]).expand_as(inputs).clone()


def test_without_views_a_network_stays_what_it_is():
    network = Recorder()
    assert with_views(network, Views()) is network
    assert Views().is_plain
    both = with_views(network, Views(window=(4, 4), scales=(0.5,)))
    assert isinstance(both, AveragedViews)
    both(torch.zeros(1, 1, 16, 16))
    assert {shape[2:] for shape in network.seen} == {(4, 4)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": (0, 4)}, r"Wrong window \[0, 4\]: it must be \[height, width\], each 1 or more"),
        ({"overlap": 1.0}, r"Wrong overlap 1.0: it must be from 0 to below 1. Write e.g. 0.25"),
        ({"flip": "left"}, "Wrong flip 'left': it must be horizontal, vertical, both"),
        ({"scales": (1.0, 0.0)}, r"Wrong scales \[1.0, 0.0\]: they must be above 0"),
        ({"scales": ()}, r"Wrong scales \[\]"),
        ({"windows_at_once": 0}, "Wrong windows_at_once 0: it must be 1 or more"),
    ],
)
def test_wrong_views_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Views(**arguments)


# --- the commands ---


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = people_config(batch_size=2)
    config |= {
        "test_loader": config["valid_loader"],
        "optimizer": "SGD",
        "loss": "ce_loss",
        "metrics": ["miou"],
        "trainer": {"epochs": 1, "precision": "fp32"},
        "n_gpu": 0,
    }
    return save_untrained(tmp_path_factory.mktemp("run") / "model_best.pth", config)


@pytest.mark.parametrize(
    ("window", "views"),
    [
        (None, {}),
        ((), {"windows_at_once": 2}),
        ((80, 64), {"overlap": 0.5, "windows_at_once": 2}),
        (None, {"flip": "both", "scales": (0.75, 1.0, 1.25)}),
        ((64,), {"flip": "horizontal", "scales": (0.5,), "windows_at_once": 2}),
    ],
)
def test_a_test_judges_what_inference_predicts(checkpoint, window, views):
    content = read_checkpoint(checkpoint)
    size = None if window is None else window * 2 if len(window) == 1 else window or (48, 32)
    judged = command.test(content["config"], content["state_dict"], views=Views(window=size, **views))
    segmenter = inference.load(checkpoint, window=window, views=Views(**views))
    counts = torch.zeros(2, 2, dtype=torch.int64)
    for _, _, (source, *_) in build_loader(people_config(batch_size=1), "valid"):
        (mask,) = segmenter.masks([read_image(PEOPLE / source.name)])
        pairs = source.target * 2 + torch.from_numpy(mask)
        counts += torch.bincount(pairs.flatten(), minlength=4).reshape(2, 2)
    assert judged["confusion"] == counts.tolist()


@pytest.mark.parametrize(("arguments", "expected"), [({"batch_size": 3}, 3), ({}, 16)])
def test_as_many_windows_at_once_as_samples_in_a_batch_of_the_loader(arguments, expected):
    section = {"type": "SegmentationDataLoader", "args": arguments}
    options = window_options({"test_loader": section}, "test_loader", [64], registry())
    assert options == {"window": (64, 64), "windows_at_once": expected}


def use(main, parser, *argv):
    return cli.run_command(main, parser, [str(argument) for argument in argv])


def test_both_commands_take_windows_flips_and_scales(checkpoint, tmp_path, capsys):
    options = ("--window", 64, 48, "--overlap", 0.5, "--tta-flip", "--tta-scales", 0.5, 1)
    photo = PEOPLE / "images" / "test" / "0005.jpg"
    where = ("-d", "cpu", "--output", tmp_path / "out")
    assert use(inference.main, inference.parser(), "--resume", checkpoint, "--source", photo, *options, *where) == 0
    result = tmp_path / "result.json"
    more = ("--json", result, *where)
    assert use(command.main, command.parser(), "--resume", checkpoint, *options, *more) == 0
    content = read_checkpoint(checkpoint)
    views = Views(window=(64, 48), overlap=0.5, flip="horizontal", scales=(0.5, 1.0), windows_at_once=2)
    expected = command.test(content["config"], content["state_dict"], views=views)
    assert json.loads(result.read_text())["confusion"] == expected["confusion"]
    assert (
        use(inference.main, inference.parser(), "--resume", checkpoint, "--source", photo, *where, "--window", 1, 2, 3)
        == 2
    )
    assert "--window 1 2 3: a window has a height and a width" in capsys.readouterr().err


def test_a_window_needs_a_size_and_a_loader_that_knows_sizes(tmp_path):
    path = save_untrained(tmp_path / "c.pth", people_config(resize=None))
    with pytest.raises(ConfigError, match=r"--window: valid_loader has no resize, .* Write the size of the window"):
        inference.load(path, window=())
    assert inference.load(path, window=(32,)).model.window == (32, 32)
