"""Numbers of the networks as they are built by default: a config and a seed stand for the same weights and results.

A change of one of these numbers changes the runs of existing configs, and needs a reason.
"""

import inspect
from typing import Any

import pytest
import torch

from models import SECTIONS
from utils.architecture.cells.network import CellOptions, MacroOptions
from utils.registry import import_attribute

SERIES = ("FCN", "ResNet1d", "InceptionTime", "LSTMFCN")
ENCDEC = {"D_blocks": [[["C", 1]], [["H", 2]]], "B_blocks": [[["V", 3]]], "U_blocks": [[["O", 1]], []]}
# Name, arguments, parameters, their mean magnitude with seed 0, and that of the logits of a given input.
NUMBERS: list[tuple[str, dict[str, Any], int, float, float]] = [
    ("UNet", {}, 1_767_811, 0.0314086, 0.090436),
    ("UNetPlus", {}, 16_337_459, 0.0193105, 0.52577),
    ("DeepLabV3Plus", {}, 16_603_299, 0.0230084, 0.45986),
    ("PSPNet", {}, 13_947_910, 0.0225003, 1.1751),
    ("BiSeNet", {}, 13_254_921, 0.0233175, 8.7332),
    ("ICNet", {}, 11_592_745, 0.0211914, 0.36614),
    ("EncDec", ENCDEC, 20_947, 0.104679, 0.043604),
    ("AutoDeepLab", {}, 5_554_639, 0.0634339, 0.037682),
    ("AutoDeepLabSupernet", {"layers": 3, "blocks": 2}, 530_944, 0.106489, 0.059871),
    ("ConvNet", {}, 307_363, 0.0417896, 0.11712),
    ("MnistModel", {"in_channels": 3}, 21_983, 0.0300934, 1.09892),
    ("FCN", {}, 264_579, 0.0464401, 0.14957),
    ("ResNet1d", {}, 502_979, 0.0511523, 0.36066),
    ("InceptionTime", {}, 420_579, 0.0515744, 1.5003),
    ("LSTMFCN", {}, 281_923, 0.0474353, 0.15679),
    ("CellNet", {}, 315_027, 0.0958158, 8143.14),
    ("CellNetSegmenter", {}, 473_811, 0.0879446, 2614.58),
    ("UNet", {"downsample": "pool", "stem_stride": 1}, 1_767_811, 0.0314086, 0.10275),
    ("UNetPlus", {"squeeze": "interpolate"}, 13_726_259, 0.0221889, 1.8381),
    ("DeepLabV3Plus", {"backbone": "mobilenet_v2", "output_stride": 8}, 5_811_171, 0.044334, 0.045751),
    ("UNet", {"backbone": "mobilenet_v3_large", "norm": "group"}, 3_165_347, 0.0652745, 0.1717),
    (
        "AutoDeepLab",
        {"genotype": "random:17", "atrous": "dense", "filter_multiplier": 8, "norm": "group"},
        2_504_227,
        0.0390651,
        0.24564,
    ),
]
OF_CELLS = {
    "in_channels": 3,
    "macro": MacroOptions(motifs=3, normal_cells=2, filters=24, stem="conv"),
    "cells": CellOptions("add", False, True, True, False, "swish"),
    "multi_output": False,
    "drop_path": 0.0,
    "dropout": 0.0,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "UNet": {"in_channels": 3, "backbone": "plain", "norm": "batch", "decoder_convs": 1, "dropout": 0.0},
    "UNetPlus": {
        "in_channels": 3,
        "backbone": "resnet18",
        "norm": "batch",
        "squeeze": "transpose",
        "head_channels": (32, 16),
        "dropout": 0.2,
        "frozen_stages": 0,
        "norm_eval": False,
    },
    "DeepLabV3Plus": {
        "in_channels": 3,
        "backbone": "resnet18",
        "norm": "batch",
        "output_stride": 16,
        "aspp_channels": 256,
        "dropout": 0.5,
    },
    "PSPNet": {"in_channels": 3, "backbone": "resnet18", "norm": "batch", "output_stride": 8, "dropout": 0.1},
    "BiSeNet": {
        "in_channels": 3,
        "backbone": "resnet18",
        "norm": "batch",
        "context_channels": 128,
        "fusion_channels": 256,
    },
    "ICNet": {"in_channels": 3, "backbone": "resnet18", "norm": "batch", "fusion_channels": 128},
    "EncDec": {
        "in_channels": 3,
        "base_channels": 16,
        "dropout_ratio": 0.0,
        "momentum_bn": 0.1,
        "padding_mode": "replicate",
        "activation": "relu",
    },
    "AutoDeepLab": {
        "in_channels": 3,
        "filter_multiplier": 20,
        "atrous": "separable",
        "aspp_channels": 256,
        "norm": "batch",
        "dropout": 0.5,
        "drop_path": 0.0,
    },
    "AutoDeepLabSupernet": {
        "in_channels": 3,
        "layers": 12,
        "blocks": 5,
        "filter_multiplier": 8,
        "atrous": "separable",
        "mixing": "inputs",
        "partial_channels": 1,
        "norm": "batch",
    },
    "ConvNet": {"in_channels": 3, "blocks": 1, "dropout": 0.0, "stem_stride": 1},
    "MnistModel": {"num_classes": 10, "in_channels": 1},
    "FCN": {"in_channels": 1, "dropout": 0.0},
    "ResNet1d": {"in_channels": 1, "dropout": 0.0},
    "InceptionTime": {"in_channels": 1, "depth": 6, "width": 32, "bottleneck": 32, "dropout": 0.0},
    "LSTMFCN": {"in_channels": 1, "cells": 64, "dropout": 0.8},
    "CellNet": {**OF_CELLS, "dims": 2},
    "CellNetSegmenter": {**OF_CELLS, "decoder": "deeplab"},
    "ce_loss": {"max_weight_ratio": 10.0, "label_smoothing": 0.0},
    "ohem_loss": {"threshold": 0.7, "min_kept": 10000, "max_weight_ratio": 10.0},
    "focal_loss": {"gamma": 2.0, "max_weight_ratio": 10.0, "sigmoid": False},
    "dice_loss": {"smooth": 1.0, "exclude_background": False, "absent": "skip", "sigmoid": False},
    "jaccard_loss": {"smooth": 1.0, "exclude_background": False, "absent": "skip", "sigmoid": False},
    "tversky_loss": {
        "alpha": 0.3,
        "beta": 0.7,
        "smooth": 1.0,
        "exclude_background": False,
        "absent": "skip",
        "sigmoid": False,
    },
    "lovasz_loss": {"per_image": True, "exclude_background": False, "sigmoid": False},
    "boundary_loss": {"exclude_background": True},
    "bce_loss": {"max_weight_ratio": 10.0, "label_smoothing": 0.0},
    "focal_loss_with_sigmoid": {"gamma": 2.0, "alpha": 0.25},
    "dice_loss_with_sigmoid": {"smooth": 1.0, "absent": "skip"},
    "jaccard_loss_with_sigmoid": {"smooth": 1.0, "absent": "skip"},
    "tversky_loss_with_sigmoid": {"alpha": 0.3, "beta": 0.7, "smooth": 1.0, "absent": "skip"},
    "lovasz_loss_with_sigmoid": {"per_image": True},
}


@pytest.mark.parametrize(("name", "args", "parameters", "weight", "logit"), NUMBERS)
def test_weights_and_logits_follow_from_the_seed(
    name: str, args: dict[str, Any], parameters: int, weight: float, logit: float
) -> None:
    torch.manual_seed(0)
    network = import_attribute(SECTIONS["arch"].entries[name])(3, **args).eval()
    if name in SERIES:
        inputs = torch.linspace(0, 1, 2 * 1 * 40).reshape(2, 1, 40).sin()
    else:
        inputs = (torch.arange(3 * 40 * 52).reshape(1, 3, 40, 52) * 0.37).sin()
    with torch.no_grad():
        logits = network(inputs)
    weights = torch.cat([each.detach().double().flatten() for each in network.parameters()])
    assert len(weights) == parameters
    assert float(weights.abs().mean()) == pytest.approx(weight, rel=1e-4)
    assert float(logits.double().abs().mean()) == pytest.approx(logit, rel=2e-3)


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_defaults_are_part_of_the_format(name: str) -> None:
    entries = {**SECTIONS["arch"].entries, **SECTIONS["loss"].entries}
    parameters = inspect.signature(import_attribute(entries[name])).parameters.values()
    absent = (inspect.Parameter.empty, None)
    assert {each.name: each.default for each in parameters if each.default not in absent} == DEFAULTS[name]


def test_every_network_is_here() -> None:
    assert {name for name, *_ in NUMBERS} == set(SECTIONS["arch"].entries)
