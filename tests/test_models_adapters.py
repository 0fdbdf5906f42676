"""Networks of other libraries, and those with auxiliary outputs, are trained, tested and used like all others."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision

import inference
import test as command
from base.base_model import BaseModel
from config.objects import instantiate
from models import SECTIONS
from train import train
from utils.checkpoint_file import read_checkpoint
from utils.errors import ConfigError

DATA = Path(__file__).resolve().parent.parent / "data" / "people"
UNET = {"type": "segmentation_models_pytorch.Unet", "args": {"encoder_name": "mobilenet_v2", "encoder_depth": 3,
        "decoder_channels": [8, 8, 8]}}  # fmt: skip
BISENET = {"type": "BiSeNet", "args": {"backbone": "timm:mobilenetv3_small_100", "context_channels": 8}}
LRASPP = {"type": "torchvision.models.segmentation.lraspp_mobilenet_v3_large", "args": {}}


def make(arch: Any, **values: Any) -> Any:
    return instantiate({"arch": arch}, "arch", SECTIONS, runtime={"num_classes": 2, "in_channels": 3, **values})


def config_of(arch: Any, folder: Path) -> dict[str, Any]:
    pairs = folder / "pairs.txt"
    pairs.write_text("\n".join((DATA / "train_pairs.txt").read_text().splitlines()[:4]) + "\n")
    arguments = {"pairs_file": str(pairs), "data_root": str(DATA), "classes": ["background", "person"]}
    loader = {"type": "SegmentationDataLoader", "args": {**arguments, "resize": [40, 24], "batch_size": 2}}
    held = copy.deepcopy(loader)
    held["args"] |= {"is_training": False, "shuffle": False}
    return {
        "name": "foreign",
        "n_gpu": 0,
        "arch": arch,
        "train_loader": loader,
        "valid_loader": held,
        "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
        "loss": "ce_loss",
        "metrics": ["miou"],
        "trainer": {"epochs": 1, "save_dir": str(folder / "saved"), "monitor": "max val_miou", "tensorboard": False,
                    "verbosity": 0},
    }  # fmt: skip


@pytest.mark.parametrize("arch", [UNET, LRASPP, BISENET], ids=["smp", "torchvision", "auxiliary"])
def test_a_checkpoint_goes_through_training_test_and_inference(arch: Any, tmp_path: Path) -> None:
    result = train(config_of(arch, tmp_path))
    checkpoint = read_checkpoint(result.checkpoint)
    told = {**arch["args"], "classes" if arch is UNET else "num_classes": 2}
    assert checkpoint["config"]["arch"]["args"] == (told if arch is LRASPP else told | {"in_channels": 3})
    judged = command.test(checkpoint["config"], checkpoint["state_dict"], split="valid")
    assert judged["metrics"] == {name: result.best[f"val_{name}"] for name in ("loss", "miou")}
    mask = inference.predict(result.checkpoint, [np.zeros((37, 51, 3), np.uint8)])[0]
    assert mask.shape == (37, 51)


def test_the_weights_have_the_librarys_own_names() -> None:
    adapted = make(UNET)
    own = smp.Unet("mobilenet_v2", encoder_weights=None, encoder_depth=3, decoder_channels=[8, 8, 8], classes=2).eval()
    own.load_state_dict(adapted.state_dict())
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert torch.equal(adapted.eval()(image), own(image))
    assert isinstance(adapted, BaseModel)
    assert isinstance(adapted, smp.Unet)
    assert type(adapted).__name__ == "Unet"


@pytest.mark.parametrize("arch", [UNET, LRASPP], ids=["smp", "torchvision"])
def test_names_and_their_order_are_the_librarys(arch: Any) -> None:
    adapted = make(arch)
    library = (
        smp.Unet("mobilenet_v2", encoder_weights=None, encoder_depth=3, decoder_channels=[8, 8, 8], classes=2)
        if arch is UNET
        else torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=2)
    )
    assert [name for name, _ in adapted.named_modules()] == [name for name, _ in library.named_modules()]
    assert [name for name, _ in adapted.named_parameters()] == [name for name, _ in library.named_parameters()]
    assert list(adapted.state_dict()) == list(library.state_dict())
    adapted.load_state_dict(library.state_dict())
    library.load_state_dict(adapted.state_dict())
    assert type(adapted).__name__ == type(library).__name__


@pytest.mark.slow
@pytest.mark.parametrize("arch", [UNET, LRASPP], ids=["smp", "torchvision"])
def test_copies_are_independent_and_can_be_exported(arch: Any) -> None:
    adapted = make(arch).eval()
    twin = copy.deepcopy(adapted)
    image = torch.rand(1, 3, 33, 40)
    with torch.no_grad():
        expected = adapted(image)
        assert torch.equal(twin(image), expected)
        traced = torch.export.export(adapted, (image,)).module()
        torch.testing.assert_close(traced(image), expected, rtol=1e-4, atol=1e-4)
        next(twin.parameters()).zero_()
        assert torch.equal(adapted(image), expected)
        assert not torch.equal(twin(image), expected)


def test_a_classifier_beside_is_left_out() -> None:
    arch = {**UNET, "args": {**UNET["args"], "aux_params": {"classes": 5}}}
    with torch.no_grad():
        assert make(arch).eval()(torch.zeros(2, 3, 9, 9)).shape == (2, 2, 9, 9)


def test_auxiliary_logits_of_torchvision_count_half_and_only_while_training() -> None:
    with torch.device("meta"):
        network = make({"type": "torchvision.models.segmentation.fcn_resnet50", "args": {"aux_loss": True}})
        assert isinstance(network, torchvision.models.segmentation.FCN)
        assert network.auxiliary_weights == (0.5,)
        assert [logits.shape for logits in network.train()(torch.zeros(2, 3, 40, 56))] == [(2, 2, 40, 56)] * 2
        assert network.eval()(torch.zeros(2, 3, 40, 56)).shape == (2, 2, 40, 56)
    assert make(LRASPP).auxiliary_weights == ()


def test_channels_and_classes_come_from_the_data_and_must_agree() -> None:
    network = make(UNET, in_channels=5, num_classes=3)
    assert network.in_channels == 5
    assert network(torch.zeros(2, 5, 8, 8)).shape == (2, 3, 8, 8)
    stated = {**UNET, "args": {**UNET["args"], "classes": 4}}
    with pytest.raises(ConfigError, match=r"arch.args.classes: 4, but the run has classes 2. Both must agree"):
        make(stated)


def test_nothing_is_fetched_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("fetches")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    assert make(UNET) is not None
    assert make(LRASPP) is not None
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    by_name = {"type": "torchvision.models.get_model", "args": {"name": "lraspp_mobilenet_v3_large"}}
    with torch.device("meta"):
        assert make(by_name) is not None
        assert make({**by_name, "args": {"name": "resnet18"}}) is not None  # it has no such argument
        asked = {**by_name, "args": {**by_name["args"], "weights_backbone": "DEFAULT"}}
        with pytest.raises(ConfigError, match="fetches"):
            make(asked)
        with pytest.raises(ConfigError, match="Unknown model nothing"):
            make({**by_name, "args": {"name": "nothing"}})


def test_other_networks_of_torchvision_stay_as_they_are() -> None:
    with torch.device("meta"):
        network = make({"type": "torchvision.models.resnet18", "args": {"num_classes": 7}}, num_classes=7)
        assert type(network) is torchvision.models.ResNet
        assert network(torch.zeros(2, 3, 40, 56)).shape == (2, 7)
