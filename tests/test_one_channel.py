"""A binary network with one channel, from the JSON through training, testing and inference."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_search_auto_deeplab import small_config
from test_train import PEOPLE, changed, small  # noqa: F401 (a fixture)

import inference
import test as test_command
from base.base_model import class_logits
from build import build_model
from config import DataSpec, load_config, shared_values
from export import export
from search.worker.launch import checked_parts, open_study
from train import train
from utils.checkpoint_file import read_checkpoint
from utils.errors import ConfigError


def test_one_logit_is_a_pair() -> None:
    logits = torch.tensor([[[0.0, -2.0, 3.0]]])
    pair = class_logits(logits)
    assert pair.tolist() == [[[0.0, 0.0, 0.0], [0.0, -2.0, 3.0]]]
    torch.testing.assert_close(pair.softmax(dim=1)[:, 1], logits[:, 0].sigmoid())
    assert class_logits(pair) is pair


def test_it_trains_tests_and_infers(small, tmp_path) -> None:  # noqa: F811
    losses = [{"type": "bce_loss", "args": {"weight": "balanced"}}, {"type": "dice_loss_with_sigmoid"}]
    metrics = ["miou", "class_iou", "boundary_iou", {"type": "top_k_accuracy", "args": {"k": 1}}]
    config = changed(small, arch__args__num_classes=1, loss=losses, metrics=metrics)
    result = train(config)
    content = read_checkpoint(result.checkpoint)
    assert content["config"]["arch"]["args"]["num_classes"] == 1
    shapes = [tensor.shape for tensor in content["state_dict"].values()]
    assert (1,) in shapes  # the bias of its only channel

    judged = test_command.test(content["config"], content["state_dict"], split="valid", images=tmp_path)
    best = {name: result.best[f"val_{name}"] for name in judged["metrics"]}
    assert judged["metrics"] == best
    assert list(judged["per_class"]) == ["class_0", "class_1"]

    segmenter = inference.load(result.checkpoint)
    assert segmenter.class_id("1") == 1
    image = cv2.imread(str(PEOPLE / "images/test/0005.jpg"))[..., ::-1]
    (probabilities,) = segmenter.probabilities([image])
    assert probabilities.shape == (2, *image.shape[:2])
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    (mask,) = segmenter.masks([image])
    assert np.array_equal(mask, probabilities[1] > probabilities[0])


@pytest.mark.slow
def test_a_supernet_of_one_channel_is_decoded_retrained_exported_and_used(tmp_path) -> None:
    config = small_config(tmp_path / "saved")
    supernet = config["search"]["strategy"]["args"]["supernet"]
    supernet["trainer"]["epochs"] = 1
    for network in (config["arch"], supernet["arch"]):
        network["args"]["num_classes"] = 1
    config |= {"loss": [{"type": "bce_loss"}, {"type": "dice_loss_with_sigmoid"}], "metrics": ["miou", "class_iou"]}
    record = open_study(config).run()
    best = Path(record.folder) / "best"
    assert load_config(best / "config.json")["arch"]["args"]["num_classes"] == 1
    content = read_checkpoint(best / "model_best.pth")
    (run,) = record.retrained
    tested = test_command.test(content["config"], content["state_dict"], split="test")["metrics"]
    assert {f"test_{name}": value for name, value in tested.items()} == pytest.approx(run.test)
    assert np.isfinite(tested["miou"])

    image = cv2.imread(str(PEOPLE / "images/test/0005.jpg"))[..., ::-1]
    export(best / "model_best.pth", tmp_path / "net.onnx", source=str(PEOPLE / "images/test/0005.jpg"))
    assert b"sigmoid(z) is the probability of class 1" in (tmp_path / "net.onnx").read_bytes()
    for segmenter in (inference.load(best / "model_best.pth"), inference.load(tmp_path / "net.onnx")):
        (probabilities,) = segmenter.probabilities([image])
        assert probabilities.shape == (2, *image.shape[:2])
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


@pytest.mark.slow
def test_one_channel_that_only_one_of_the_two_networks_has_is_found_at_the_start(tmp_path) -> None:
    for is_final, place in ((True, "search.strategy.args.supernet"), (False, "arch")):
        config = small_config(tmp_path / "saved") | {"loss": {"type": "bce_loss"}}
        network = config["arch"] if is_final else config["search"]["strategy"]["args"]["supernet"]["arch"]
        network["args"]["num_classes"] = 1
        with pytest.raises(
            ConfigError, match=rf"^{place}: bce_loss got 2 logits per pixel: .* Set num_classes of arch"
        ):
            checked_parts(config)


def test_both_say_two_classes(small) -> None:  # noqa: F811
    config = changed(small, arch__args__num_classes=1)
    assert shared_values(config)["num_classes"] == 2
    model = build_model(config, DataSpec(num_classes=2, in_channels=3))
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 1, 16, 16)


def test_three_classes_need_three_channels(small) -> None:  # noqa: F811
    config = changed(small, arch__args__num_classes=1, train_loader__args__num_classes=3)
    message = r"num_classes: 3, but arch.args.num_classes \(1: one channel for two classes\) is 2. Both must agree"
    with pytest.raises(ConfigError, match=message):
        shared_values(config)
