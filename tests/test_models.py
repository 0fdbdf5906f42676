"""One conformance suite: every architecture of the catalogue over every trunk, and the U-Net's own variants."""

import copy
from typing import Any, get_args

import pytest
import torch
from tiny import CLASSIFIERS
from torch import Tensor

from base.base_model import BaseModel
from models import SECTIONS
from models.backbones import TRUNKS, TrunkName
from models.unet import UNet
from utils.catalogue import import_attribute
from utils.errors import ConfigError

NUM_CLASSES = 3
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "unet_plain": ("UNet", {}),
    "unet_full_resolution": ("UNet", {"channels": [8, 16], "stem_stride": 1, "downsample": "pool", "decoder_convs": 2}),
    "unet_one_level": ("UNet", {"channels": [8], "norm": "none"}),
    "unet_six_levels": ("UNet", {"channels": [8, 8, 8, 8, 8, 8], "encoder_convs": 1, "norm": "group", "dropout": 0.2}),
    "unet_group_trunk": ("UNet", {"backbone": "mobilenet_v2", "norm": "group"}),
    "deeplab_stride_8": ("DeepLabV3Plus", {"backbone": "resnet18", "output_stride": 8, "aspp_channels": 16}),
    "deeplab_stride_32": ("DeepLabV3Plus", {"backbone": "mobilenet_v2", "output_stride": 32, "aspp_channels": 16}),
    **{f"unet_{trunk}": ("UNet", {"backbone": trunk}) for trunk in TRUNKS},
    **{f"deeplab_{trunk}": ("DeepLabV3Plus", {"backbone": trunk, "aspp_channels": 32}) for trunk in TRUNKS},
}


def build(case: str, in_channels: int = 3) -> BaseModel:
    """The model of a case, its weights always the same."""
    name, args = CASES[case]
    torch.manual_seed(0)
    model = import_attribute(SECTIONS["arch"].entries[name])(NUM_CLASSES, in_channels, **args)
    assert isinstance(model, BaseModel)
    return model


def pictures(batch: int, height: int, width: int) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest) -> BaseModel:
    return build(request.param)


def test_the_suite_covers_the_catalogue() -> None:
    assert {name for name, _ in CASES.values()} == set(SECTIONS["arch"].entries) - CLASSIFIERS
    assert set(get_args(TrunkName)) == set(TRUNKS)
    assert len(CASES) == 7 + 2 * 6


@pytest.mark.parametrize(("in_channels", "sizes"), [(1, [(33, 47)]), (3, [(1, 70), (101, 3)]), (4, [(64, 96)])])
@pytest.mark.parametrize("case", CASES)
def test_logits_have_the_size_of_the_picture(case: str, in_channels: int, sizes: list[tuple[int, int]]) -> None:
    with torch.device("meta"):  # shapes only: no time for the initialisation
        network = build(case, in_channels)
    network.to_empty(device="cpu").eval()
    with torch.no_grad():
        for height, width in sizes:
            assert network(torch.zeros(2, in_channels, height, width)).shape == (2, NUM_CLASSES, height, width)


def test_a_batch_of_one_pixel_trains_every_parameter(model: BaseModel) -> None:
    model.train().zero_grad()
    logits = model(pictures(1, 1, 1))
    logits.square().sum().backward()
    assert logits.shape == (1, NUM_CLASSES, 1, 1)
    unreached = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert unreached == []


def test_every_weight_matters(model: BaseModel) -> None:
    model.train().zero_grad()
    model(pictures(2, 33, 47)).square().sum().backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


def test_a_state_dict_makes_an_equal_model(model: BaseModel) -> None:
    twin = copy.deepcopy(model).eval()
    for weight in twin.state_dict().values():
        weight.zero_()
    twin.load_state_dict(model.state_dict())
    picture = pictures(1, 33, 47)
    with torch.no_grad():
        assert torch.equal(twin(picture), model.eval()(picture))


def test_evaluation_repeats_itself_in_any_batch_and_layout(model: BaseModel) -> None:
    model.eval()
    batch = pictures(2, 33, 47)
    with torch.no_grad():
        together = model(batch)
        assert torch.equal(together, model(batch))
        single = model(batch[1:].contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(single, together[1:], rtol=1e-3, atol=1e-4)


def test_logits_start_small_enough_to_learn(model: BaseModel) -> None:
    model.train()
    with torch.no_grad():
        logits = model(pictures(2, 64, 64))
    assert 1e-3 < float(logits.std()) < 10


def test_group_norm_makes_training_independent_of_the_batch() -> None:
    network = UNet(2, norm="group").train()
    batch = pictures(3, 64, 64)
    torch.testing.assert_close(network(batch)[:1], network(batch[:1]), rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only() -> None:
    network = UNet(2, norm="none", channels=[8, 8], dropout=0.5)
    batch = pictures(1, 32, 32)
    assert not torch.equal(network(batch), network(batch))
    network.eval()
    assert torch.equal(network(batch), network(batch))


def test_the_plain_encoder_is_as_wide_and_deep_as_asked() -> None:
    network = UNet(2, channels=[4, 6, 10], stem_stride=1, encoder_convs=1)
    features = network.encoder(torch.zeros(1, 3, 20, 12))
    assert [tuple(feature.shape[1:]) for feature in features] == [(4, 20, 12), (6, 10, 6), (10, 5, 3)]


def test_decoder_widths_are_the_encoders_own_where_not_given() -> None:
    assert [level[0][0].out_channels for level in UNet(2, channels=[4, 6, 10]).decoder.levels] == [6, 4]
    assert [level[0][0].out_channels for level in UNet(2, backbone="resnet18").decoder.levels] == [256, 128, 64, 32]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"backbone": "resnet18", "channels": [8, 16]}, r"channels given with backbone 'resnet18': only \"plain\""),
        (
            {"backbone": "resnet18", "stem_stride": 1, "downsample": "pool"},
            "stem_stride, downsample given .* Remove them",
        ),
        ({"weights": "DEFAULT"}, "weights given with backbone 'plain': only a torchvision trunk can use it"),
        ({"channels": []}, r"Wrong channels \[\]: a U-Net has at least one level"),
        ({"decoder_channels": [8]}, r"Wrong decoder_channels \[8\]: with an encoder of 5 levels .* Give 4 widths"),
        ({"backbone": "resnet19"}, "Unknown backbone 'resnet19': there are mobilenet_v2, .* Choose one"),
        ({"backbone": "resnet18", "norm": "none"}, "Wrong norm 'none' for backbone 'resnet18'"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UNet(2, **args)


def test_deeplab_has_three_output_strides() -> None:
    with pytest.raises(ConfigError, match="Wrong output_stride 4: there are 8, 16 and 32"):
        import_attribute(SECTIONS["arch"].entries["DeepLabV3Plus"])(2, output_stride=4)
