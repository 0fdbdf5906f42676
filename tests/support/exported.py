"""Every network of the registry that segments, as an exported file: small variants, and the law that they must obey."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from base.base_model import main_output
from models import SECTIONS
from models.export.files import from_bytes, to_bytes
from models.export.tracing import trace
from tests.support.tiny import CLASSIFIERS
from utils.architecture.cells.network import MacroOptions
from utils.registry import import_attribute

CPU = torch.device("cpu")
SIZE = (64, 96)
# Small variants, so that the suite is quick. A network of the registry that
# is not named here is made with its own defaults, so that every network is exported; one that does not take images
# (B, C, H, W) is named below.
SMALL: dict[str, list[dict[str, Any]]] = {
    "UNet": [{"channels": [4, 8]}, {"backbone": "resnet18", "decoder_channels": [4, 4, 4, 4]}],
    "DeepLabV3Plus": [{"backbone": "resnet18", "aspp_channels": 8}],
    "UNetPlus": [{"backbone": "timm:test_resnet", "decoder_channels": [4, 4, 4, 4]}],
    "PSPNet": [{"backbone": "resnet18", "decoder_channels": 8}],
    "BiSeNet": [{"spatial_channels": [8, 8, 16], "context_channels": 8, "fusion_channels": 8}],
    "ICNet": [{"backbone": "timm:test_resnet", "fusion_channels": 8}],
    "EncDec": [{"D_blocks": [[["C", 1]]], "B_blocks": [[["H", 2]]], "U_blocks": [[["V", 1]]], "base_channels": 4}],
    "AutoDeepLab": [
        {
            "genotype": {
                "strides": [8, 4],
                "blocks": [
                    {"two_back": "sep_conv_3x3", "one_back": "atrous_conv_3x3"},
                    {"one_back": "max_pool_3x3", "block_1": "avg_pool_3x3"},
                ],
            },
            "filter_multiplier": 2,
            "stem_channels": [4, 4, 8],
            "aspp_channels": 8,
        }
    ],
    "CellNetSegmenter": [
        {"macro": MacroOptions(filters=4, motifs=2, normal_cells=1)},
        {"macro": MacroOptions(filters=4, motifs=2, normal_cells=1, stem="strided"), "decoder": "unet"},
    ],
}
ONE_SIZE = {"ICNet", "UNetPlus"}  # torch cannot follow how they round sizes
NO_IMAGES = CLASSIFIERS  # see test_export_classifiers.py
NOT_EXPORTED = NO_IMAGES | {"AutoDeepLabSupernet"}  # what a supernet is for is the decoded network
CASES = [
    (name, args) for name in SECTIONS["arch"].entries if name not in NOT_EXPORTED for args in SMALL.get(name, [{}])
]
DESCRIPTION = {"format_version": 1, "num_classes": 3, "class_names": [], "loader": {"type": "x", "args": {}}}


def built(name: str, args: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = import_attribute(SECTIONS["arch"].entries[name])(num_classes=3, **args).eval()
    for module in model.modules():  # statistics of its own, so that a norm that is folded wrongly shows
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    return model


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def check_every_size(name: str, args: dict[str, Any], forms: Sequence[str]) -> None:
    """The file gives what the network gives, at every size that it says it takes."""
    model = built(name, args)
    traced = trace(model, 3, SIZE)
    assert traced.num_classes == 3
    one_size = dict(zip(("height", "width"), SIZE, strict=True)) if name in ONE_SIZE else {}
    free = dict.fromkeys(("batch", "height", "width"))
    assert {side: each.fixed for side, each in traced.sides.items()} == {**free, **one_size}
    step = traced.sides["height"].multiple
    for form in forms:
        network, description = from_bytes(to_bytes(traced, DESCRIPTION, form), form, CPU)
        assert description["sides"] == {side: asdict(each) for side, each in traced.sides.items()}
        others = [] if one_size else [(3, SIZE[0] + step, SIZE[1] - 3 * step), (2, 2 * SIZE[1], SIZE[0])]
        for batch, height, width in ((1, *SIZE), (3, *SIZE), *others):
            inputs = images(batch, 3, height, width)
            with torch.no_grad():
                torch.testing.assert_close(network(inputs), main_output(model(inputs)), rtol=1e-3, atol=1e-4)
