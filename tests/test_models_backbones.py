"""Backbones: strides, dilation, and weights from elsewhere."""

import copy
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from models.backbones import TORCHVISION_BACKBONES, TorchvisionEncoder
from models.backbones.weights import adapt_input_channels
from utils.errors import CheckpointError, ConfigError


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", TORCHVISION_BACKBONES)
def test_the_pyramid_halves_until_the_output_stride(name: Any, output_stride: int) -> None:
    with torch.device("meta"):  # shapes only: no time for the initialisation
        backbone = TorchvisionEncoder(name, output_stride=output_stride)
    with torch.no_grad():
        features = backbone.to_empty(device="cpu").eval()(torch.zeros(1, 3, 64, 96))
    strides = [min(stride, output_stride) for stride in (2, 4, 8, 16, 32)]
    assert [tuple(feature.shape) for feature in features] == [
        (1, channels, 64 // stride, 96 // stride) for channels, stride in zip(backbone.channels, strides, strict=True)
    ]


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet50"])
def test_dilation_computes_the_same_at_more_places(name: Any) -> None:
    torch.manual_seed(0)
    strided = TorchvisionEncoder(name).eval()
    dilated = TorchvisionEncoder(name, output_stride=8).eval()
    dilated.load_state_dict(strided.state_dict())
    image = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        coarse, fine = strided(image)[-1], dilated(image)[-1]
    torch.testing.assert_close(fine[:, :, ::4, ::4], coarse, rtol=1e-3, atol=1e-4)


def test_running_statistics_follow_a_short_run() -> None:
    momenta = {
        part.momentum for part in TorchvisionEncoder("mobilenet_v3_large").modules() if isinstance(part, nn.BatchNorm2d)
    }
    assert momenta == {0.1}


def save_classifier(path: Path, name: str = "resnet18") -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    state = torchvision.models.get_model(name, weights=None).state_dict()
    torch.save(state, path)
    return state


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_large"])
def test_a_file_of_weights_fills_the_trunk(tmp_path: Path, name: Any) -> None:
    state = save_classifier(tmp_path / "weights.pth", name)
    backbone = TorchvisionEncoder(name, weights=str(tmp_path / "weights.pth"))
    loaded = {tensor.numpy().tobytes() for tensor in backbone.state_dict().values()}
    assert loaded <= {tensor.numpy().tobytes() for tensor in state.values()}


def test_weights_may_lie_in_a_checkpoint_of_a_wrapped_model(tmp_path: Path) -> None:
    state = save_classifier(tmp_path / "weights.pth")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "checkpoint.pth")
    backbone = TorchvisionEncoder("resnet18", weights=str(tmp_path / "checkpoint.pth"))
    assert torch.equal(backbone.state_dict()["stages.0.0.weight"], state["conv1.weight"])


def test_a_grey_image_is_seen_as_grey_rgb(tmp_path: Path) -> None:
    save_classifier(tmp_path / "weights.pth")
    colour = TorchvisionEncoder("resnet18", 3, weights=str(tmp_path / "weights.pth")).eval()
    grey = TorchvisionEncoder("resnet18", 1, weights=str(tmp_path / "weights.pth")).eval()
    image = torch.rand(1, 1, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(grey(image)[-1], colour(image.expand(-1, 3, -1, -1))[-1], rtol=1e-3, atol=1e-3)


def test_further_channels_repeat_the_filters_at_equal_strength() -> None:
    weight = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    assert adapt_input_channels(weight, 3) is weight
    assert adapt_input_channels(weight, 1).flatten().tolist() == [9.0]
    assert adapt_input_channels(weight, 4).flatten().tolist() == [0.75, 1.5, 4.5, 0.75]


def test_weights_of_another_network_are_listed(tmp_path: Path) -> None:
    save_classifier(tmp_path / "weights.pth", "resnet18")
    with pytest.raises(
        CheckpointError, match=r"weights.pth are not those of resnet34: missing layer1.2.conv1.weight.*and \d+ more"
    ):
        TorchvisionEncoder("resnet34", weights=str(tmp_path / "weights.pth"))


def test_a_weight_of_another_shape_is_listed(tmp_path: Path) -> None:
    state = copy.copy(save_classifier(tmp_path / "weights.pth"))
    state["bn1.weight"] = torch.zeros(7)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"bn1.weight is \(7,\), needed \(64,\)"):
        TorchvisionEncoder("resnet18", weights=str(tmp_path / "weights.pth"))


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    save_classifier(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"Cannot read the weights .*weights\.pth: the file is damaged"):
        TorchvisionEncoder("resnet18", weights=str(path))
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match=r"Wrong content of the weights .*weights\.pth: a state dict"):
        TorchvisionEncoder("resnet18", weights=str(path))


def test_weights_that_do_not_exist_are_named() -> None:
    with pytest.raises(ConfigError, match="No such weights 'IMAGENET' for resnet18: neither a file nor one of DEFAULT"):
        TorchvisionEncoder("resnet18", weights="IMAGENET")


def test_torchvisions_weights_need_batch_norm() -> None:
    with pytest.raises(ConfigError, match="Wrong norm 'group' together with weights"):
        TorchvisionEncoder("resnet18", weights="DEFAULT", norm="group")


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1"])
def test_without_a_network_the_error_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    place = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    with pytest.raises(ConfigError, match=f"no network.* Put that file at {place}, or .*null"):
        TorchvisionEncoder("resnet18", weights=weights)


def test_weights_in_the_cache_are_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    place.parent.mkdir(parents=True)
    state = save_classifier(place)
    assert torch.equal(
        TorchvisionEncoder("resnet18", weights="DEFAULT").state_dict()["stages.0.0.weight"], state["conv1.weight"]
    )
