"""One conformance suite: every architecture of the registry over every backbone, and other libraries' networks."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from base.base_model import BaseModel
from config.objects import instantiate
from models import SECTIONS
from models.backbones import TORCHVISION_BACKBONES, TorchvisionName
from models.unet import UNet
from tests.support.slow import slow_unless
from tests.support.tiny import CLASSIFIERS
from utils.errors import ConfigError
from utils.registry import import_attribute

NUM_CLASSES = 3
LIGHT_BACKBONES = ("mobilenet_v2", "resnet18", "timm:mobilenetv3_small_100")
HEAVY_BACKBONES = tuple(backbone for backbone in TORCHVISION_BACKBONES if backbone not in LIGHT_BACKBONES)
OVER_BACKBONES: dict[str, dict[str, Any]] = {
    "UNet": {},
    "UNetPlus": {},
    "DeepLabV3Plus": {"aspp_channels": 16},
    "PSPNet": {"decoder_channels": 16},
    "BiSeNet": {"context_channels": 16, "fusion_channels": 16},
    "ICNet": {"fusion_channels": 16},
}
C, H, V, POINT = ["C", 1], ["H", 2], {"op": "V", "dilation": 3}, {"op": "O"}
BLOCKS = [
    {"two_back": "skip", "one_back": "sep_conv_5x5"},
    {"one_back": "atrous_conv_3x3", "block_1": "avg_pool_3x3"},
    {"two_back": "max_pool_3x3", "block_2": "sep_conv_3x3"},
]
SMALL_CELLS = {"filter_multiplier": 4, "stem_channels": [8, 8, 16], "aspp_channels": 16}

Case = tuple[str, dict[str, Any]]
VARIANTS: dict[str, Case] = {
    "unet_plain": ("UNet", {}),
    "unet_full_resolution": ("UNet", {"channels": [8, 16], "stem_stride": 1, "downsample": "pool", "decoder_convs": 2}),
    "unet_one_level": ("UNet", {"channels": [8], "norm": "none"}),
    "unet_six_levels": ("UNet", {"channels": [8, 8, 8, 8, 8, 8], "encoder_convs": 1, "norm": "group", "dropout": 0.2}),
    "unet_group_trunk": ("UNet", {"backbone": "mobilenet_v2", "norm": "group"}),
    "unet_four_maps": ("UNet", {"backbone": "timm:convnext_atto"}),
    "unetplus_interpolate": ("UNetPlus", {"squeeze": "interpolate", "norm": "group", "head_channels": []}),
    "unetplus_frozen": (
        "UNetPlus",
        {"backbone": "timm:mobilenetv3_small_100", "frozen_stages": 2, "norm_eval": True, "decoder_channels": [4] * 4},
    ),
    "deeplab_stride_8": ("DeepLabV3Plus", {"backbone": "resnet18", "output_stride": 8, "aspp_channels": 16}),
    "deeplab_stride_32": ("DeepLabV3Plus", {"backbone": "mobilenet_v2", "output_stride": 32, "aspp_channels": 16}),
    "deeplab_four_maps": ("DeepLabV3Plus", {"backbone": "timm:convnext_atto", "aspp_channels": 16}),
    "pspnet_stride_32": ("PSPNet", {"output_stride": 32, "norm": "group"}),
    "bisenet_narrow": ("BiSeNet", {"spatial_channels": [8, 8, 16], "norm": "group"}),
    "encdec_smallest": ("EncDec", {"D_blocks": [[]], "B_blocks": [[C]], "U_blocks": [[]], "base_channels": 8}),
    "encdec_all_layers": (
        "EncDec",
        {
            "D_blocks": [[H, V], [], [POINT]],
            "B_blocks": [[C, H], [["C", 7]]],
            "U_blocks": [[V], [POINT, H], []],
            "activation": "elu",
            "padding_mode": "zeros",
        },
    ),
    "auto_deeplab_to_32": (
        "AutoDeepLab",
        {**SMALL_CELLS, "genotype": {"strides": [4, 8, 16, 32, 16], "blocks": BLOCKS}},
    ),
    "auto_deeplab_skips_4": ("AutoDeepLab", {**SMALL_CELLS, "genotype": {"strides": [8, 16], "blocks": BLOCKS}}),
    "auto_deeplab_at_4": (
        "AutoDeepLab",
        {**SMALL_CELLS, "genotype": {"strides": [4, 8, 4], "blocks": BLOCKS}, "norm": "group", "atrous": "dense"},
    ),
    "supernet": ("AutoDeepLabSupernet", {"layers": 4, "blocks": 2, "filter_multiplier": 6}),
    "supernet_of_averages": (
        "AutoDeepLabSupernet",
        {"layers": 3, "blocks": 1, "filter_multiplier": 3, "mixing": "inputs", "atrous": "dense", "norm": "group"},
    ),
    "cells_with_pyramid": ("CellNetSegmenter", {"filters": 4, "dropout": 0.1}),
    "cells_in_u": (
        "CellNetSegmenter",
        {"decoder": "unet", "filters": 4, "motifs": 2, "normal_cells": 1, "stem": "strided", "multi_output": True},
    ),
    "smp_unet": ("segmentation_models_pytorch.Unet", {"encoder_name": "mobilenet_v2"}),
}
OTHERS: dict[str, Case] = {  # for images in colour alone
    "smp_segformer": ("segmentation_models_pytorch.Segformer", {"encoder_name": "mit_b0"}),
    "lraspp": ("torchvision.models.segmentation.lraspp_mobilenet_v3_large", {}),
    "fcn": ("torchvision.models.segmentation.fcn_resnet50", {"aux_loss": True}),
}


def over(backbones: Iterable[str], names: Iterable[str] = OVER_BACKBONES) -> dict[str, Case]:
    return {
        f"{name}-{backbone}": (name, {"backbone": backbone, **OVER_BACKBONES[name]})
        for name in names
        for backbone in backbones
    }


ANY_CHANNELS = {**VARIANTS, **over(LIGHT_BACKBONES)}
CASES = {**ANY_CHANNELS, **over(HEAVY_BACKBONES), **OTHERS}
TRAINED = {**VARIANTS, **over(["resnet18"]), **over([*LIGHT_BACKBONES, *HEAVY_BACKBONES], ["UNet"]), **OTHERS}
del TRAINED["fcn"]  # heavy


def is_light(case: str) -> bool:
    """The variants, every network over one backbone, and one network over the light ones."""
    name, _, backbone = case.partition("-")
    return backbone in ("", "resnet18") or (name == "UNet" and backbone not in ("resnet50", "resnet101"))


def build(case: str, in_channels: int = 3) -> BaseModel:
    """The model of a case, its weights always the same."""
    name, args = CASES[case]
    torch.manual_seed(0)
    values = {"num_classes": NUM_CLASSES, "in_channels": in_channels}
    model = instantiate({"arch": {"type": name, "args": args}}, "arch", SECTIONS, runtime=values)
    assert isinstance(model, BaseModel)
    return model


def build_without_weights(case: str, in_channels: int) -> BaseModel:
    """The same without values: shapes are known without the time for an initialisation and for sums."""
    with torch.device("meta"):
        return build(case, in_channels)


def outputs(model: BaseModel, batch: Tensor) -> list[Tensor]:
    """The logits and, in training mode, the auxiliary ones."""
    output = model(batch)
    return [output] if isinstance(output, Tensor) else list(output)


def images(batch: int, height: int, width: int) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=slow_unless(is_light, TRAINED))
def model(request: pytest.FixtureRequest) -> BaseModel:
    return build(request.param)


def test_the_suite_covers_the_registry_and_every_trunk(record_property: Callable[[str, object], None]) -> None:
    ours = {name for name, _ in CASES.values() if "." not in name}
    assert ours == set(SECTIONS["arch"].entries) - CLASSIFIERS
    assert set(get_args(TorchvisionName)) == set(TORCHVISION_BACKBONES)
    assert {*LIGHT_BACKBONES, *HEAVY_BACKBONES} > set(TORCHVISION_BACKBONES)
    cases = f"{len(CASES)} cases, {len(TRAINED)} of them trained"
    record_property(
        "covered", f"models: {len(ours)} architectures over {len(TORCHVISION_BACKBONES)} backbones and timm, {cases}"
    )


@pytest.mark.parametrize("case", slow_unless(is_light, CASES))
def test_logits_have_the_size_of_the_image_and_auxiliary_ones_their_own(case: str) -> None:
    sizes = {1: (1, 70), 3: (50, 101), 5: (64, 48)} if case in ANY_CHANNELS else {3: (50, 101)}
    for in_channels, (height, width) in sizes.items():
        network = build(case, in_channels) if case in TRAINED else build_without_weights(case, in_channels)
        image = torch.zeros(2, in_channels, height, width, device=next(network.parameters()).device)
        with torch.no_grad():
            main, *auxiliary = outputs(network.train(), image)
            logits = network.eval()(image)
        assert network.in_channels == in_channels
        assert main.shape == (2, NUM_CLASSES, height, width)
        assert len(auxiliary) == len(network.auxiliary_weights)
        for each in auxiliary:
            fitting = ((-(-height // stride), -(-width // stride)) for stride in (1, 2, 4, 8, 16, 32))
            assert each.shape[:2] == (2, NUM_CLASSES)
            assert each.shape[2:] in fitting
        assert logits.shape == main.shape


def test_a_batch_of_one_pixel_trains_every_parameter(model: BaseModel) -> None:
    model.train().zero_grad()
    logits = outputs(model, images(1, 1, 1))
    torch.stack([each.square().sum() for each in logits]).sum().backward()
    assert {each.shape for each in logits} == {(1, NUM_CLASSES, 1, 1)}
    unreached = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert unreached == []


def test_every_weight_matters(model: BaseModel) -> None:
    model.train().zero_grad()
    torch.stack([each.square().sum() for each in outputs(model, images(2, 33, 47))]).sum().backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None or not gradient.any()] == []
    assert all(torch.isfinite(gradient).all() for gradient in trained.values() if gradient is not None)


def test_a_state_dict_makes_an_equal_model(model: BaseModel) -> None:
    twin = copy.deepcopy(model).eval()
    for weight in twin.state_dict().values():
        weight.zero_()
    twin.load_state_dict(model.state_dict())
    image = images(1, 33, 47)
    with torch.no_grad():
        assert torch.equal(twin(image), model.eval()(image))


def test_evaluation_repeats_itself_in_any_batch_and_layout(model: BaseModel) -> None:
    model.eval()
    batch = images(2, 33, 47)
    with torch.no_grad():
        together = model(batch)
        assert torch.equal(together, model(batch))
        single = model(batch[1:].contiguous(memory_format=torch.channels_last))
    # The sums of a deep network that was never trained are in the thousands, and so are their rounding errors.
    torch.testing.assert_close(single, together[1:], rtol=1e-3, atol=max(1e-4, 3e-5 * float(together.abs().max())))


def test_logits_start_small_enough_to_learn(model: BaseModel) -> None:
    model.train()
    with torch.no_grad():
        spreads = [float(logits.std()) for logits in outputs(model, images(2, 64, 64))]
    assert all(1e-3 < spread < 10 for spread in spreads), spreads


def test_group_norm_makes_training_independent_of_the_batch() -> None:
    network = UNet(2, norm="group").train()
    batch = images(3, 64, 64)
    torch.testing.assert_close(network(batch)[:1], network(batch[:1]), rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only() -> None:
    network = UNet(2, norm="none", channels=[8, 8], dropout=0.5)
    batch = images(1, 32, 32)
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
        ({"weights": "DEFAULT"}, "weights given with backbone 'plain': only a backbone of a library can use it"),
        ({"channels": []}, r"Wrong channels \[\]: a U-Net has at least one level"),
        ({"decoder_channels": [8]}, r"Wrong decoder_channels \[8\]: with an encoder of 5 levels .* Give 4 widths"),
        (
            {"backbone": "resnet19"},
            "Unknown backbone 'resnet19': there are mobilenet_v2, .* and timm:NAME .* Choose one",
        ),
        ({"backbone": "resnet18", "norm": "none"}, "Wrong norm 'none' for backbone 'resnet18'"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UNet(2, **args)


def test_deeplab_has_three_output_strides() -> None:
    with pytest.raises(ConfigError, match="Wrong output_stride 4: there are 8, 16 and 32"):
        import_attribute(SECTIONS["arch"].entries["DeepLabV3Plus"])(2, output_stride=4)
