"""AutoDeepLab: the published networks, its operations and cells, paths of every kind, genotypes, drop path."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from base import Callback
from base.base_trainer import StopRequest
from build import build_model, build_predictor
from config import DataSpec
from models.auto_deeplab import AutoDeepLab
from models.auto_deeplab.cell import CellInput, DeepLabCell, shrink
from models.auto_deeplab.heads import LevelHead
from models.auto_deeplab.operations import build_operation
from models.layers.drop_path import DropPath
from search.worker.candidate import canonical
from tests.support.people import people_loader
from train import train
from utils.architecture.genotype import OPERATIONS, Genotype
from utils.architecture.reading import published_genotype
from utils.checkpoint_file import read_checkpoint
from utils.errors import CheckpointError, ConfigError, Interrupted

BLOCKS = [
    {"two_back": "skip", "one_back": "sep_conv_3x3"},
    {"one_back": "atrous_conv_3x3", "block_1": "max_pool_3x3"},
]
SMALL = {"filter_multiplier": 2, "stem_channels": [4, 4, 6], "aspp_channels": 8}


def network(*strides: int, blocks: list[dict[str, str]] | None = None, **changes: Any) -> AutoDeepLab:
    torch.manual_seed(0)
    return AutoDeepLab(3, genotype={"strides": list(strides), "blocks": blocks or BLOCKS}, **{**SMALL, **changes})


# --- the published networks ---

# F; as published: million parameters, billion multiply-adds; the convolutions alone as released, and in our order.
PUBLISHED = [(20, 10.15, 333.25, 317.5, 309.5), (32, 21.62, 460.93, 435.0, 417.7), (48, 44.42, 695.03, 653.6, 617.5)]


def as_released(model: AutoDeepLab, height: int, width: int) -> float:
    """Multiply-adds of the convolutions in billions, computed in the order of the released code.

    That code has the 1x1 convolutions of a cell's inputs at the larger size: before the stride of the layer and after
    the enlargement of the one before; and it enlarges the mean of the map before the pyramid's last convolution.
    """
    total = model.flops((height, width)) / 2
    sources = [2, 4, *model.encoder.strides]
    for place, (cell, stride) in enumerate(zip(model.encoder.layers, model.encoder.strides, strict=True)):
        finer = min(sources[place + 1], stride)
        for name, source in zip(("two_back", "one_back"), sources[place:], strict=False):
            weights = cell.inputs[name].convolution.weight.numel()
            here = max(source, stride)
            total += weights * height * width * (1 / finer**2 - 1 / here**2)
    total += model.aspp.image_level[-1].weight.numel() * height * width / model.encoder.stride**2
    return total / 1e9


@pytest.mark.slow
@pytest.mark.parametrize(("multiplier", "parameters", "multiply_adds", "released", "ours"), PUBLISHED)
def test_the_published_networks_have_their_size(
    multiplier: int, parameters: float, multiply_adds: float, released: float, ours: float
) -> None:
    with torch.device("meta"):
        model = AutoDeepLab(19, filter_multiplier=multiplier, atrous="dense")
    assert model.parameter_count() / 1e6 == pytest.approx(parameters, rel=0.005)
    counted = as_released(model, 1024, 2048)
    assert counted == pytest.approx(released, abs=0.1)
    assert counted == pytest.approx(multiply_adds, rel=0.07)
    assert model.flops((1024, 2048)) / 2e9 == pytest.approx(ours, abs=0.1)


def test_separable_atrous_convolutions_make_the_small_one_half_as_large() -> None:
    with torch.device("meta"):
        model = AutoDeepLab(19)
    assert model.parameter_count() == 5_558_751


# --- operations ---


@pytest.mark.parametrize(
    ("name", "atrous", "weights"),
    [
        ("max_pool_3x3", "separable", 0),
        ("avg_pool_3x3", "separable", 0),
        ("skip", "separable", 0),
        ("sep_conv_3x3", "separable", 2 * (9 * 6 + 36 + 12)),
        ("sep_conv_5x5", "dense", 2 * (25 * 6 + 36 + 12)),
        ("atrous_conv_3x3", "separable", 9 * 6 + 36 + 12),
        ("atrous_conv_5x5", "separable", 25 * 6 + 36 + 12),
        ("atrous_conv_3x3", "dense", 9 * 36 + 12),
        ("atrous_conv_5x5", "dense", 25 * 36 + 12),
    ],
)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_operations_have_the_weights_of_their_definition_and_preserve_the_size(
    name: str, atrous: Any, weights: int, norm: Any
) -> None:
    operation = build_operation(name, 6, atrous=atrous, norm=norm)
    assert sum(weight.numel() for weight in operation.parameters()) == weights
    assert operation(torch.rand(2, 6, 5, 7)).shape == (2, 6, 5, 7)
    assert name in OPERATIONS


def test_the_mean_at_the_border_is_that_of_the_pixels_that_there_are() -> None:
    pool = build_operation("avg_pool_3x3", 1, atrous="separable", norm="batch")[0]
    assert torch.equal(pool(torch.ones(1, 1, 3, 3)), torch.ones(1, 1, 3, 3))


def test_atrous_convolutions_reach_two_pixels() -> None:
    for atrous in ("separable", "dense"):
        operation = build_operation("atrous_conv_3x3", 2, atrous=atrous, norm="batch").eval()
        impulse = torch.zeros(1, 2, 9, 9)
        impulse[:, :, 4, 4] = 1
        touched = operation(impulse)[0, 0].nonzero().tolist()
        assert touched == [[row, column] for row in (2, 4, 6) for column in (2, 4, 6)]


# --- cells ---


def test_a_cell_adds_concatenates_and_rectifies() -> None:
    genotype = Genotype.from_json({"strides": [4], "blocks": [{"two_back": "skip", "one_back": "skip"}, BLOCKS[1]]})
    cell = DeepLabCell(genotype, 2, 4, two_back=(3, 4), one_back=(5, 4), atrous="dense", norm="batch").eval()
    two_back, one_back = torch.randn(1, 3, 6, 7), torch.randn(1, 5, 6, 7)
    with torch.no_grad():
        first = cell.inputs["two_back"].norm(cell.inputs["two_back"].convolution(two_back))
        second = cell.inputs["one_back"].norm(cell.inputs["one_back"].convolution(one_back))
        atrous, pool = cell.blocks[1]["one_back"], cell.blocks[1]["block_1"]
        expected = torch.cat([first + second, atrous(second.relu()) + pool(first + second)], dim=1).relu()
        torch.testing.assert_close(cell(two_back, one_back, (6, 7)), expected)


@pytest.mark.parametrize(("source", "stride", "at"), [(4, 8, 8), (2, 8, 8), (8, 4, 8), (32, 8, 32), (16, 16, 16)])
def test_the_1x1_convolution_runs_at_the_smaller_size(source: int, stride: int, at: int) -> None:
    part = CellInput(3, 2, source_stride=source, stride=stride, norm="batch").eval()
    sizes: list[torch.Size] = []
    part.convolution.register_forward_hook(lambda _layer, _inputs, output: sizes.append(output.shape[2:]))
    for height, width in ((64, 96), (65, 33), (67, 95), (1, 40)):
        size = ((height + stride - 1) // stride, (width + stride - 1) // stride)
        maps = torch.rand(1, 3, -(-height // source), -(-width // source))
        assert part(maps, size).shape == (1, 2, *size)
        assert sizes[-1] == (-(-height // at), -(-width // at))


def test_shrinking_is_the_bilinear_resize_and_every_pixel_stays_at_its_place_at_odd_sides() -> None:
    maps = torch.rand(2, 3, 8, 6)
    torch.testing.assert_close(shrink(maps, 2), F.interpolate(maps, scale_factor=0.5, mode="bilinear"))
    ramp = torch.arange(7.0).expand(1, 1, 7, 7)
    assert shrink(ramp, 2)[0, 0, 0].tolist() == [0.5, 2.5, 4.5, 6.0]
    assert shrink(ramp, 4)[0, 0, 3 // 2].tolist() == [1.5, 5.0]
    assert shrink(ramp, 1) is ramp


def test_edges_that_are_not_chosen_have_no_weights() -> None:
    names = [name for name, _ in network(4).encoder.layers[0].named_parameters()]
    assert {".".join(name.split(".")[:3]) for name in names if name.startswith("blocks")} == {
        "blocks.0.one_back",
        "blocks.1.one_back",
    }


# --- paths ---


@pytest.mark.parametrize(
    ("strides", "low_level", "rates"),
    [
        ((4, 4, 8, 16), 4, (6, 12, 18)),  # the second layer's
        ((4, 8, 4, 8), 4, (12, 24, 36)),  # the third layer's
        ((8, 16, 32), 6, (3, 6, 9)),  # no layer has stride 4: the stem's
        ((4, 8, 4), 4, (24, 48, 72)),  # that of the last layer itself
        ((4, 4), 4, (24, 48, 72)),  # it never leaves stride 4
    ],
)
def test_low_level_features_and_rates_follow_the_path(strides: Any, low_level: int, rates: Any) -> None:
    model = network(*strides).eval()
    assert model.encoder.low_level_channels == low_level
    assert tuple(branch[0].dilation[0] for branch in list(model.aspp.branches)[1:]) == rates
    with torch.no_grad():
        fine, coarse = model.encoder(torch.rand(1, 3, 70, 45))
    assert fine.shape[1:] == (low_level, 18, 12)
    assert coarse.shape[1:] == (strides[-1], -(-70 // strides[-1]), -(-45 // strides[-1]))  # 2 blocks, F = 2
    assert model(torch.rand(1, 3, 70, 45)).shape == (1, 3, 70, 45)


@pytest.mark.parametrize("seed", range(2))
def test_random_genotypes_train(seed: int) -> None:
    model = AutoDeepLab(3, genotype=f"random:{seed}", filter_multiplier=1, stem_channels=[2, 2, 4], aspp_channels=4)
    logits = model.train()(torch.rand(2, 3, 45, 70))
    logits.square().sum().backward()
    assert logits.shape == (2, 3, 45, 70)
    assert all(weight.grad is not None for weight in model.parameters())


def test_layouts_and_half_the_precision_give_the_same() -> None:
    model = network(4, 8, 16, 8).eval()
    image = torch.rand(2, 3, 50, 41)
    with torch.no_grad():
        expected = model(image)
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)(
            image.contiguous(memory_format=torch.channels_last)
        )
        with torch.autocast("cpu", torch.bfloat16):
            half = model(image)
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.05 * float(expected.abs().max()))


def test_a_head_of_the_supernet_reaches_equally_far_at_each_level() -> None:
    for stride in (4, 8, 16, 32):
        head = LevelHead(4, 6, 3, stride=stride, norm="batch")
        assert stride * head[0].branches[1][0].dilation[0] == 96
        assert head(torch.rand(2, 4, 3, 5)).shape == (2, 3, 3, 5)


# --- genotypes ---


def test_every_form_of_a_genotype_is_one_network_to_a_search(tmp_path: Path) -> None:
    genotype = {"strides": [4, 8], "blocks": BLOCKS}
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps(genotype))
    turned = {"strides": [4, 8], "blocks": [dict(reversed(block.items())) for block in BLOCKS]}
    for form in (genotype, str(file), turned):
        config = {"arch": {"type": "AutoDeepLab", "args": {"genotype": form, "filter_multiplier": 4}}}
        assert canonical(config)["arch"]["args"] == {"genotype": genotype, "filter_multiplier": 4}
    assert AutoDeepLab.canonical_arguments({}) == {"genotype": published_genotype().to_json()}
    drawn = AutoDeepLab.canonical_arguments({"genotype": "random:17"})
    assert drawn == AutoDeepLab.canonical_arguments(drawn)
    wrong = {"genotype": {"strides": [5], "blocks": BLOCKS}}
    assert AutoDeepLab.canonical_arguments(wrong) == wrong
    with pytest.raises(ConfigError, match=r"genotype\.strides.0 is 5: .* Set 4 or 8"):
        AutoDeepLab(2, **wrong)


# --- drop path ---


def test_paths_are_dropped_more_often_the_deeper_and_the_later() -> None:
    model = network(4, 8, 16, 8, drop_path=0.4)
    parts = [layer.drop_path for layer in model.encoder.layers]
    assert [float(part.current) for part in parts] == [0.0] * 4
    model.set_progress(0.5)
    assert [float(part.current) for part in parts] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert not [name for name in model.state_dict() if "drop_path" in name]
    assert not [part for part in network(4, 8).modules() if isinstance(part, DropPath)]


def test_dropping_a_path_preserves_the_mean_and_drops_whole_samples() -> None:
    part = DropPath(0.5)
    part.set_progress(0.5)
    torch.manual_seed(0)
    dropped = part.train()(torch.ones(4000, 2, 2, 2))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert bool((dropped.flatten(1).std(dim=1) == 0).all())
    assert float(dropped.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(part.eval()(torch.ones(4, 2, 2, 2)), torch.ones(4, 2, 2, 2))


def test_drop_path_acts_in_training_only_and_never_on_a_skip() -> None:
    model = network(4, 8, drop_path=0.5)
    model.set_progress(1.0)
    image = torch.rand(2, 3, 32, 32)
    model.train()
    assert not torch.equal(model.encoder(image)[1], model.encoder(image)[1])
    model.eval()
    assert torch.equal(model(image), model(image))
    skips = network(4, 8, drop_path=0.9, blocks=[{"two_back": "skip", "one_back": "skip"}]).train()
    skips.set_progress(1.0)
    assert torch.equal(skips.encoder(image)[1], skips.encoder(image)[1])


# --- training ---


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "genotype.json").write_text(json.dumps({"strides": [4, 8, 16, 8], "blocks": BLOCKS}))
    args = {"genotype": str(tmp_path / "genotype.json"), "drop_path": 0.5, **SMALL}
    return {
        "name": "small",
        "seed": 1,
        "n_gpu": 0,
        "arch": {"type": "AutoDeepLab", "args": args},
        "train_loader": people_loader("train", 10, flip_hor=0.5),
        "valid_loader": people_loader("valid", 4, is_training=False, shuffle=False),
        "optimizer": {"type": "SGD", "args": {"lr": 0.05, "momentum": 0.9}},
        "loss": "ce_loss",
        "metrics": ["miou"],
        "trainer": {"epochs": 2, "save_dir": str(tmp_path / "saved"), "verbosity": 0, "tensorboard": False},
    }


class StopInSecondEpoch(Callback):
    """Ends a training inside its second epoch."""

    def on_step_end(self, trainer: Any, report: Any) -> None:
        if trainer.global_step == 4:
            trainer.stop_request = StopRequest.from_signal(15)


def test_a_run_with_drop_path_resumes_to_the_same_bytes(config: dict[str, Any]) -> None:
    whole = train({**config, "name": "whole"})
    with pytest.raises(Interrupted):
        train(config, [StopInSecondEpoch()])
    resumed = train(config, resume="auto")
    contents = [read_checkpoint(result.run_folder / "checkpoint-last.pth") for result in (whole, resumed)]
    assert resumed.epochs == whole.epochs == 2
    assert resumed.history == whole.history
    for name, weight in contents[0]["state_dict"].items():
        assert torch.equal(weight, contents[1]["state_dict"][name]), name


def test_a_checkpoint_is_rebuilt_without_the_file_of_its_genotype(config: dict[str, Any], tmp_path: Path) -> None:
    config["trainer"]["epochs"] = 1
    result = train(config)
    genotype = json.loads((tmp_path / "genotype.json").read_text())
    (tmp_path / "genotype.json").unlink()
    saved = read_checkpoint(result.run_folder / "checkpoint-last.pth")
    assert saved["config"]["arch"]["args"]["genotype"] == genotype
    assert json.loads((result.run_folder / "config.json").read_text())["arch"] == saved["config"]["arch"]
    model = build_predictor(result.checkpoint).model
    model.load_state_dict(saved["state_dict"])
    assert model.genotype.to_json() == genotype
    rebuilt = build_model(saved["config"], DataSpec.from_config(saved["config"]))
    assert rebuilt.state_dict().keys() == saved["state_dict"].keys()


def test_a_run_does_not_continue_with_another_genotype(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(config, [StopInSecondEpoch()])
    # As many weights of the same names: only the genotypes differ.
    other = [BLOCKS[0], {"one_back": "atrous_conv_3x3", "block_1": "avg_pool_3x3"}]
    (tmp_path / "genotype.json").write_text(json.dumps({"strides": [4, 8, 16, 8], "blocks": other}))
    with pytest.raises(CheckpointError, match=r"arch\.args\.genotype is not that of the checkpoint"):
        train(config, resume="auto")
