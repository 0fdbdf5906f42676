"""Backbones of timm, and a UNetPlus parts of which stay as they are."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from models.backbones import TimmEncoder, TorchvisionEncoder, build_backbone, freeze_stages, index_of_stride
from models.unetplus import UNetPlus
from utils.errors import CheckpointError, ConfigError

SMALL = "timm:mobilenetv3_small_100"


@pytest.mark.parametrize(("output_stride", "strides"), [(8, [2, 4, 8, 8, 8]), (16, [2, 4, 8, 16, 16])])
def test_later_stages_keep_the_output_stride(output_stride: int, strides: list[int]) -> None:
    backbone = TimmEncoder(SMALL, 5, output_stride=output_stride).eval()
    assert (backbone.strides, backbone.stride, backbone.first_stride) == (strides, output_stride, 2)
    with torch.no_grad():
        features = backbone(torch.zeros(1, 5, 64, 96))
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (channels, 64 // stride, 96 // stride) for channels, stride in zip(backbone.channels, strides, strict=True)
    ]


def test_odd_sizes_are_padded_to_what_can_be_halved() -> None:
    with torch.no_grad():
        features = TimmEncoder(SMALL).eval()(torch.zeros(1, 3, 33, 64))
    assert [tuple(feature.shape[2:]) for feature in features] == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]


def test_fewer_features_may_be_asked_for() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for backbone in (TimmEncoder(SMALL).eval(), TorchvisionEncoder("resnet18").eval()):
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(backbone(image, 2), backbone(image)[:2], strict=True))


def test_one_name_makes_either_kind() -> None:
    assert isinstance(build_backbone("resnet18"), TorchvisionEncoder)
    backbone = build_backbone("timm:convnext_atto", 1)
    assert isinstance(backbone, TimmEncoder)
    assert backbone.strides == [4, 8, 16, 32]
    assert index_of_stride(backbone, "timm:convnext_atto", 16) == 2
    with pytest.raises(
        ConfigError, match=r"Wrong backbone 'timm:convnext_atto': .* strides \[4, .* one of 2 is needed"
    ):
        index_of_stride(backbone, "timm:convnext_atto", 2)


def test_a_file_of_weights_fills_the_trunk(tmp_path: Path) -> None:
    torch.manual_seed(3)
    classifier = timm.create_model("mobilenetv3_small_100", num_classes=7).eval()  # of another number of classes
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    backbone = TimmEncoder(SMALL, weights=str(tmp_path / "weights.pth"))
    loaded = {tensor.numpy().tobytes() for tensor in backbone.state_dict().values()}
    assert loaded <= {tensor.numpy().tobytes() for tensor in classifier.state_dict().values()}
    grey = TimmEncoder(SMALL, 1, weights=str(tmp_path / "weights.pth"))
    first = classifier.conv_stem.weight.sum(dim=1, keepdim=True)
    torch.testing.assert_close(grey.network.conv_stem.weight, first)


def test_weights_under_a_prefix_are_found(tmp_path: Path) -> None:
    torch.manual_seed(3)
    classifier = timm.create_model("mobilenetv3_small_100", num_classes=7)
    torch.save(
        {f"model._orig_mod.{name}": tensor for name, tensor in classifier.state_dict().items()}, tmp_path / "w.pth"
    )
    backbone = TimmEncoder(SMALL, weights=str(tmp_path / "w.pth"))
    assert torch.equal(backbone.network.conv_stem.weight, classifier.conv_stem.weight)


def test_weights_of_another_network_are_listed(tmp_path: Path) -> None:
    torch.save(TorchvisionEncoder("resnet18").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"are not those of mobilenetv3_small_100: missing conv_stem\.weight"):
        TimmEncoder(SMALL, weights=str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("timm:mobilenetv3_smal", {}, "Unknown backbone 'timm:mobilenetv3_smal': timm has no such network. Similar: m"),
        ("timm:vit_tiny_patch16_224", {}, r"strides \[16, .* Choose another network"),
        (
            "timm:vgg16_bn",
            {"output_stride": 8},
            "with output_stride 8: timm cannot make a feature pyramid of it .AssertionError.. .* output_stride 32",
        ),
        (SMALL, {"norm": "group"}, "Wrong norm 'group' .* a timm network brings its own"),
        (
            SMALL,
            {"weights": "IMAGENET"},
            "No such weights 'IMAGENET' for mobilenetv3_small_100: neither a file nor DEF",
        ),
    ],
)
def test_what_cannot_be_is_refused(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimmEncoder(name, **args)


def test_weights_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"Cannot fetch timm's weights of 'timm:mobilenetv3_small_100' .* null"):
        TimmEncoder(SMALL, weights="DEFAULT")


def test_freezing_follows_the_gradient() -> None:
    backbone = TorchvisionEncoder("resnet18").train()
    statistics = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    parts = freeze_stages(backbone, 2, 3)
    frozen = {name.split(".")[1] for name, weight in backbone.named_parameters() if not weight.requires_grad}
    trained = {name.split(".")[1] for name, weight in backbone.named_parameters() if weight.requires_grad}
    assert (frozen, trained) == ({"0", "1"}, {"2", "3", "4"})
    assert {"stages.0", "stages.0.1", "stages.1.1.0.conv2"} <= set(parts)
    assert not {"", "stages", "stages.2", "stages.2.0"} & set(parts)
    assert all(part.training for part in backbone.modules())
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in backbone.named_buffers())
    assert freeze_stages(backbone, 0, 3) == []


@pytest.mark.parametrize("backbone", ["resnet18", SMALL])
def test_frozen_stages_and_norms_survive_training_mode(backbone: Any) -> None:
    torch.manual_seed(0)
    network = UNetPlus(2, backbone=backbone, frozen_stages=2, norm_eval=True)
    network.eval()
    network.train()
    norms = [part for part in network.encoder.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms
    assert not any(part.training for part in norms)
    assert network.decoder.levels[0].join[0][1].training
    before = {name: tensor.clone() for name, tensor in network.encoder.state_dict().items()}
    optimizer = torch.optim.SGD([weight for weight in network.parameters() if weight.requires_grad], lr=0.1)
    network(torch.rand(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    after = network.encoder.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    held = {f"{name}" for name, weight in network.encoder.named_parameters() if not weight.requires_grad}
    assert changed
    assert held
    assert not changed & held
    assert not any("running" in name for name in changed)


def test_without_freezing_everything_trains() -> None:
    network = UNetPlus(2).train()
    assert all(part.training for part in network.modules())
    assert all(weight.requires_grad for weight in network.parameters())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"frozen_stages": 6}, "Wrong frozen_stages 6: the backbone has 5 stages. Give a number from 0 to 5"),
        ({"decoder_channels": [8]}, r"Wrong decoder_channels \[8\]: with an encoder of 5 levels .* Give 4 widths"),
        ({"squeeze": "bilinear"}, "Wrong squeeze 'bilinear': there are transpose and interpolate"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UNetPlus(2, **args)
