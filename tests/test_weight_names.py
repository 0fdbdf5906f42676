"""Weights that another program saved under names with a prefix of its own."""

import logging

import pytest
import torch
import torchvision
from torch import nn

from models.backbones.torchvision_encoder import TorchvisionEncoder
from models.unet import UNet
from trainer.checkpoints.resume import load_all_weights, load_matching_weights, weights_of
from utils.errors import CheckpointError
from utils.weight_names import fit_names


def network():
    torch.manual_seed(1)
    return UNet(2, channels=[4, 8])


def other_weights():
    torch.manual_seed(2)
    return UNet(2, channels=[4, 8]).state_dict()


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("model.", 'the prefix "model." was left out of the names'),
        ("net.", 'the prefix "net." was left out of the names'),
        ("_orig_mod.", '"_orig_mod.", the mark of torch.compile, was left out of the names'),
        ("_orig_mod.module.", 'torch.compile, was left out of the names; the prefix "module." was left out'),
        ("module._orig_mod.", "torch.compile, was left out of the names"),
        ("lightning.student.net.", 'the prefix "lightning.student.net." was left out'),
        ("module.", ""),
        ("", ""),
    ],
)
def test_a_common_prefix_is_left_out_and_said(prefix, said):
    weights, model = other_weights(), network()
    lines = load_matching_weights(model, weights_of({"state_dict": {prefix + name: t for name, t in weights.items()}}))
    assert len(lines) == bool(said)
    assert said in "".join(lines)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_weights_outside_the_prefix_and_of_another_shape_are_listed():
    weights = {f"model.{name}": tensor for name, tensor in other_weights().items()}
    head = next(name for name in reversed(weights) if name.endswith("weight"))
    weights |= {head: torch.zeros(7, 3), "criterion.weight": torch.ones(2)}
    lines = load_matching_weights(network(), weights)
    assert lines[0] == 'the prefix "model." was left out of the names'
    assert sorted(lines[1:]) == sorted(
        [
            f"{head.removeprefix('model.')}: (7, 3) does not fit the model's "
            f"{tuple(network().state_dict()[head.removeprefix('model.')].shape)}, not loaded",
            "criterion.weight: not in the model, not loaded",
        ]
    )


def test_a_missing_prefix_is_put_in_front():
    torch.manual_seed(3)
    model, plain = nn.ModuleDict({"backbone": network(), "head": nn.Conv2d(2, 2, 1)}), other_weights()
    lines = load_matching_weights(model, plain)
    assert lines[0] == 'the prefix "backbone." was put in front of the names'
    assert [line.partition(":")[0] for line in lines[1:]] == ["head.weight", "head.bias"]
    assert all(torch.equal(model["backbone"].state_dict()[name], tensor) for name, tensor in plain.items())


def test_prefixes_that_fit_equally_well_are_named_and_none_is_chosen():
    weights = {f"{part}.{name}": t for part in ("student", "teacher") for name, t in other_weights().items()}
    with pytest.raises(CheckpointError, match=r"fit by more than one prefix: student\., teacher\.\. Save the weights"):
        load_matching_weights(network(), weights)


def test_other_names_are_shown_on_both_sides():
    weights = {f"layer{number}.w": torch.zeros(3) for number in range(4)}
    own = list(network().state_dict())
    message = (
        rf"None of the checkpoint's 4 weights \(layer0\.w, layer1\.w, layer2\.w, \.\.\.\) .* {len(own)} \({own[0]}, "
    )
    with pytest.raises(CheckpointError, match=message):
        load_matching_weights(network(), weights)


def test_one_weight_that_fits_by_chance_makes_no_prefix():
    saved = {"a.bias": (4,), "b.weight": (3, 3), "c.weight": (9,)}
    wanted = {"bias": (4,), "x.weight": (1,), "y.weight": (2,), "z": (8,)}
    assert fit_names(saved, wanted).names == {name: name for name in saved}


def test_names_that_fit_already_stay_even_if_parts_are_called_model():
    saved = {"model.a": (1,), "model.b": (2,), "c": (3,)}
    assert fit_names(saved, dict(saved)).change == ""
    assert fit_names({"_orig_mod.a": (1,)}, {"_orig_mod.a": (1,)}).change == ""


def test_a_test_takes_compiled_weights_and_says_so(caplog):
    weights, model = other_weights(), network()
    with caplog.at_level(logging.INFO):
        load_all_weights(model, {f"_orig_mod.{name}": tensor for name, tensor in weights.items()})
    assert 'Weights: "_orig_mod.", the mark of torch.compile, was left out' in caplog.text
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_a_backbone_takes_weights_that_lie_under_a_prefix(tmp_path):
    torch.manual_seed(4)
    weights = torchvision.models.resnet18().state_dict()
    torch.save({"state_dict": {f"encoder.{name}": tensor for name, tensor in weights.items()}}, tmp_path / "w.pth")
    encoder = TorchvisionEncoder("resnet18", weights=str(tmp_path / "w.pth"))
    assert any(torch.equal(tensor, weights["conv1.weight"]) for tensor in encoder.state_dict().values())
