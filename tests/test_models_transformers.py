"""Transformers of timm as backbones: maps in NHWC, one stride only, and positional embeddings for any image."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import tests.support.tiny_transformers  # noqa: F401 (registers two small ones)
from config.loading.load import load_config
from config.objects import instantiate
from config.variants import without_pretrained_weights
from models import SECTIONS
from models.backbones import PlainTransformerEncoder, TimmEncoder, build_backbone, freeze_stages
from models.backbones.plain_transformer import SimpleFeaturePyramid
from models.backbones.timm_network import read_traits
from models.bisenet import BiSeNet
from models.deeplabv3plus import DeepLabV3Plus
from models.icnet import ICNet
from models.pspnet import PSPNet
from models.unet import UNet
from models.unetplus import UNetPlus
from tests.support.pages import ROOT
from trainer.optim.weights import parameter_groups
from utils.errors import ConfigError

VIT, SWIN = "timm:tiny_vit14", "timm:tiny_swin"
NETWORKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "unetplus_vit": (UNetPlus, {"backbone": VIT, "decoder_channels": [4, 4, 4], "norm": "group"}),
    "unetplus_swin": (UNetPlus, {"backbone": SWIN, "decoder_channels": [4, 4, 4]}),
    "deeplab_vit": (DeepLabV3Plus, {"backbone": VIT, "aspp_channels": 8}),
    "deeplab_swin": (DeepLabV3Plus, {"backbone": SWIN, "aspp_channels": 8, "output_stride": 32}),
    "unet_vit": (UNet, {"backbone": VIT, "decoder_channels": [4, 4, 4]}),
    "pspnet_vit": (PSPNet, {"backbone": VIT, "decoder_channels": 8}),
    "bisenet_vit": (BiSeNet, {"backbone": VIT, "context_channels": 16, "fusion_channels": 16}),
    "icnet_vit": (ICNet, {"backbone": VIT, "fusion_channels": 8}),
}


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", NETWORKS)
def test_images_of_any_size_train_every_weight(case: str) -> None:
    torch.manual_seed(0)
    network_class, args = NETWORKS[case]
    network = network_class(3, 5, **args)
    with torch.no_grad():
        for size in ((1, 1), (50, 101)):
            assert network.eval()(images(1, 5, *size)).shape == (1, 3, *size)
        batch = images(2, 5, 33, 47)
        torch.testing.assert_close(network(batch)[1:], network(batch[1:]), rtol=1e-3, atol=1e-4)
    output = network.train()(batch)
    logits = [output] if isinstance(output, torch.Tensor) else output
    torch.stack([each.square().sum() for each in logits]).sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_maps_with_channels_last_are_turned() -> None:
    encoder = build_backbone(SWIN).eval()
    assert isinstance(encoder, TimmEncoder)
    image = images(1, 3, 64, 96)
    with torch.no_grad():
        features = encoder(image)
        library = encoder.network(image)  # (B, h, w, channels)
    assert [tuple(each.shape[1:]) for each in features] == [(8, 16, 24), (16, 8, 12), (32, 4, 6), (64, 2, 3)]
    assert all(torch.equal(ours, theirs.permute(0, 3, 1, 2)) for ours, theirs in zip(features, library, strict=True))


def test_the_pyramid_has_the_strides_4_to_32() -> None:
    encoder = build_backbone(VIT, 1).eval()
    assert isinstance(encoder, PlainTransformerEncoder)
    assert (encoder.strides, encoder.first_stride, encoder.stride) == ([4, 8, 16, 32], 4, 32)
    with torch.no_grad():
        features = encoder(images(1, 1, 40, 96))
        two = encoder(images(1, 1, 40, 96), 2)
    assert [tuple(each.shape[1:]) for each in features] == [(256, 64 // s, 96 // s) for s in (4, 8, 16, 32)]
    assert all(torch.equal(one, other) for one, other in zip(two, features[:2], strict=True))
    kinds = [[type(layer).__name__ for layer in level] for level in encoder.pyramid]
    rest = ["Conv2d", "ChannelNorm"] * 2
    assert kinds == [
        ["ConvTranspose2d", "ChannelNorm", "GELU", "ConvTranspose2d", *rest],
        ["ConvTranspose2d", *rest],
        rest,
        ["MaxPool2d", *rest],
    ]


@pytest.mark.parametrize("stride", [8, 32])
def test_other_patches_have_the_same_pyramid(stride: int) -> None:
    maps = SimpleFeaturePyramid(16, stride, (4, 8, 16, 32), 8)(torch.zeros(1, 16, 64 // stride, 64 // stride))
    assert [tuple(each.shape[2:]) for each in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]


def test_patches_of_14_pixels_become_16_with_the_weights_of_the_pretraining(tmp_path: Path) -> None:
    torch.manual_seed(3)
    classifier = timm.create_model("tiny_vit14", num_classes=7).eval()
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    encoder = PlainTransformerEncoder(VIT, weights=str(tmp_path / "weights.pth")).eval()
    assert torch.equal(encoder.network.blocks[1].mlp.fc1.weight, classifier.blocks[1].mlp.fc1.weight)
    assert torch.equal(encoder.network.pos_embed, classifier.pos_embed)  # one grid of 4x4 patches in both
    assert encoder.network.patch_embed.proj.weight.shape == (16, 3, 16, 16)
    small = images(1, 3, 56, 56)
    # Each patch enlarged from 14x14 to 16x16, as the weights were.
    patches = small.unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 14, 14)
    large = nn.functional.interpolate(patches, (16, 16), mode="bicubic", antialias=True)
    large = large.reshape(1, 4, 4, 3, 16, 16).permute(0, 3, 1, 4, 2, 5).reshape(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.forward_features(small)[:, 1:].transpose(1, 2).reshape(1, 16, 4, 4)
        torch.testing.assert_close(encoder._last_map(large), expected, rtol=1e-3, atol=1e-3)


def test_positional_embeddings_follow_the_image() -> None:
    torch.manual_seed(0)
    encoder = build_backbone(VIT).eval()
    nn.init.normal_(encoder.network.pos_embed)
    flat = torch.full((1, 3, 128, 64), 0.5)
    with torch.no_grad():
        rows = encoder._last_map(flat)[0].mean(dim=2)  # (channels, 8): a flat image differs by its positions alone
    assert float(rows.diff(dim=1).abs().amax(dim=0).min()) > 1e-3


def test_freezing_keeps_the_pyramid_in_training() -> None:
    encoder = build_backbone(VIT).train()
    frozen = freeze_stages(encoder, 1, 3)
    assert {name.split(".")[0] for name, weight in encoder.named_parameters() if weight.requires_grad} == {"pyramid"}
    assert "network" in frozen
    assert not any(name.startswith("pyramid") for name in frozen)
    network = UNetPlus(2, backbone=VIT, decoder_channels=[4, 4, 4], frozen_stages=1).train()
    assert not network.encoder.trunk.network.training
    assert network.encoder.trunk.pyramid.training


@pytest.mark.parametrize(
    ("backbone", "first", "last"),
    [
        (VIT, ("network.cls_token", "network.patch_embed.proj.weight"), ("network.norm.weight", "network.blocks.2.")),
        (SWIN, ("network.patch_embed.proj.weight",), ("network.layers_3.blocks.0.",)),
    ],
)
def test_layers_learn_the_slower_the_earlier_they_are(
    backbone: Any, first: tuple[str, ...], last: tuple[str, ...]
) -> None:
    network = UNetPlus(2, backbone=backbone, decoder_channels=[4, 4, 4])
    names = {id(weight): name.removeprefix("encoder.trunk.") for name, weight in network.named_parameters()}
    rates = {names[id(weight)]: group.get("lr", 1.0) for group in parameter_groups(network, 1.0, layer_decay=0.5)
             for weight in group["params"]}  # fmt: skip
    inside = {name: rate for name, rate in rates.items() if name.startswith("network.")}
    assert {name for name, rate in inside.items() if rate == min(inside.values())} >= set(first)
    slowest, fastest = min(inside.values()), max(inside.values())
    assert all(rate == fastest for name, rate in inside.items() if name.startswith(last))
    blocks = [rate for name, rate in inside.items() if name.endswith("norm1.weight")]
    assert blocks == sorted(blocks)
    assert len(set(blocks)) == len(blocks)
    assert slowest < blocks[0]
    downsampling = [name for name in inside if "downsample" in name]
    assert all(inside[name] > slowest for name in downsampling)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "timm:beit_base_patch16_224",
            r"Wrong image size 64x64 for .* made for 224x224, .* Set resize to \[224, 224\]",
        ),
        ("timm:test_maxvit", r"Wrong image size 64x64 for .* made for 160x160, and timm cannot resize"),
    ],
)
def test_networks_of_one_size_say_so(name: Any, message: str) -> None:
    with torch.device("meta"):
        encoder = build_backbone(name)
        with pytest.raises(ConfigError, match=message):
            encoder(torch.zeros(1, 3, 64, 64))


def test_uneven_strides_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Wrong backbone 'timm:crossvit_tiny_240': .* strides \[12, 17\]"):
        build_backbone("timm:crossvit_tiny_240")


def test_the_traits_of_dinov2() -> None:
    traits = read_traits("timm:vit_small_patch14_dinov2.lvd142m")
    assert (traits.strides, traits.channels, traits.image_size) == ((16, 16, 16), (384, 384, 384), None)
    assert traits.options == {"dynamic_img_size": True, "patch_size": 16, "img_size": (592, 592)}  # 37 * 16


def test_the_config_of_dinov2_names_what_it_fetches() -> None:
    config = load_config(ROOT / "config/people/vit_small_dinov2.json")
    args = config["arch"]["args"]
    assert (args["backbone"], args["weights"]) == ("timm:vit_small_patch14_dinov2.lvd142m", "DEFAULT")
    with torch.device("meta"):
        network = instantiate(
            without_pretrained_weights(config), "arch", SECTIONS, runtime={"num_classes": 2, "in_channels": 3}
        )
        assert network(torch.zeros(1, 3, 256, 176)).shape == (1, 2, 256, 176)
    assert any(name.startswith(config["trainer"]["freeze"][0]) for name, _ in network.named_parameters())


@pytest.mark.parametrize("size", [(64, 64), (50, 101)])
def test_dpt_takes_images_of_any_size(size: tuple[int, int]) -> None:
    arch = {
        "type": "segmentation_models_pytorch.DPT",
        "args": {
            "encoder_name": "tu-test_vit3",
            "encoder_depth": 4,
            "decoder_intermediate_channels": [8, 8, 8, 8],
            "decoder_fusion_channels": 8,
            "decoder_readout": "ignore",
        },
    }
    torch.manual_seed(0)
    network = instantiate({"arch": arch}, "arch", SECTIONS, runtime={"num_classes": 3, "in_channels": 1})
    with torch.no_grad():
        assert network.eval()(images(1, 1, *size)).shape == (1, 3, *size)
