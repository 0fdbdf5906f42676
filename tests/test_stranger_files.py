"""Exported files and checkpoints whose descriptions are wrong: errors that name the file, the value and the repair."""

import copy

import pytest
import torch
from support.checkpoints import write_checkpoint
from test_inference import people_config, save_untrained

import inference
from tests.support.strangers import DESCRIPTION, SIDES, onnx_file
from utils.checkpoint_file import read_checkpoint
from utils.errors import CheckpointError, ConfigError, EspalierError, OutOfMemory


def changed(**changes):
    return {**copy.deepcopy(DESCRIPTION), **changes}


def with_args(**args):
    return changed(loader={"type": "SegmentationDataLoader", "args": {**DESCRIPTION["loader"]["args"], **args}})


def test_a_right_description_is_used(tmp_path):
    network = inference.load(onnx_file(tmp_path / "net.onnx", DESCRIPTION))
    assert network.config["valid_loader"]["args"] == DESCRIPTION["loader"]["args"]
    assert network.model(torch.zeros(2, 3, 8, 8)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (changed(loader="text"), 'loader of its desc.* is wrong: "text"'),
        (
            changed(loader={"type": "SegmentationDataLoader"}),
            r"loader\.args of its desc.* is wrong: .* Field",
        ),
        (
            changed(loader={"type": "SegmentationDataLoader", "args": [1]}),
            r"loader\.args of its desc.* is wrong: \[",
        ),
        (changed(format_version="x"), 'format_version of its desc.* is wrong: "x"'),
        (changed(num_classes=10**12), r"num_classes of its desc.* is wrong: 10+\. Input should be less than"),
        (changed(class_names=5), "class_names of its desc.* is wrong: 5"),
        (changed(sides=[1]), r"sides of its desc.* is wrong: \[1\]"),
        (changed(sides={**SIDES, "height": {"most": 3}}), r"sides\.height\.most of its desc.* is wrong: 3"),
        (
            changed(sides={**SIDES, "height": {"multiple": 0}}),
            r"sides\.height\.multiple of its desc.* is wrong: 0",
        ),
        (
            changed(sides={"batch": {}, "width": {}}),
            "sides of its desc.* is wrong: .* It must name the sides batch",
        ),
        (with_args(resize=[10**6, 10**6]), r"cannot be used \(valid_loader: Wrong resize .* at most 178 megapixels"),
        (with_args(resize="big"), r'cannot be used \(valid_loader\.args\.resize: "big" must be'),
        (with_args(padding_value=[1]), r"cannot be used \(valid_loader\.args\.padding_value: \[1\] must be"),
    ],
)
def test_a_wrong_description_is_an_error_of_the_file(tmp_path, description, message):
    with pytest.raises(CheckpointError, match=rf"net\.onnx: .*{message}") as error:
        inference.load(onnx_file(tmp_path / "net.onnx", description))
    assert "Export the checkpoint again" in str(error.value)


def test_a_network_of_two_outputs_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"net\.onnx: its network has 1 inputs and 2 outputs, and must have"):
        inference.load(onnx_file(tmp_path / "net.onnx", DESCRIPTION, num_outputs=2))


@pytest.mark.parametrize(
    ("description", "shape", "message"),
    [
        (changed(num_classes=4), (1, 3, 8, 8), r"gives 1x3x8x8 \(float32\) for inputs of 1x3x8x8, no logits of 4 c"),
        (DESCRIPTION, (1, 2, 8, 8), r"fails at inputs of 1x2x8x8 \(InvalidArgument"),
        (DESCRIPTION, (1, 3, 8), "takes batch, height, width, and its input has batch, length"),
    ],
)
def test_a_network_that_is_another_than_described_says_so(tmp_path, description, shape, message):
    network = inference.load(onnx_file(tmp_path / "net.onnx", description))
    with pytest.raises(CheckpointError, match=rf"The exported network {message}.* Export the checkpoint again"):
        network.model(torch.zeros(shape))


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = save_untrained(tmp_path_factory.mktemp("run") / "model_best.pth", people_config())
    return read_checkpoint(path)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("arch.args", [1], (ConfigError, r"^arch\.args: \[1\] must be an object")),
        ("arch", [1], (ConfigError, r"^arch: \[1\] must be a class")),
        ("arch.args.num_classes", 10**12, (OutOfMemory, "^Memory ran out")),
        ("arch.args.channels", [10**9, 10**9], (OutOfMemory, "^Memory ran out")),
        ("valid_loader.args", "text", (ConfigError, r'^valid_loader\.args: "text" must be an object')),
        ("valid_loader", 5, (ConfigError, "^valid_loader: 5 must be a class")),
        ("valid_loader.args.resize", [10**6, 10**6], (ConfigError, "^valid_loader: Wrong resize .* smaller size")),
        ("valid_loader.args.resize", {"a": 1}, (ConfigError, r"^valid_loader\.args\.resize: .* must be")),
        (
            "valid_loader.args.normalize",
            "yes",
            (ConfigError, r'^valid_loader\.args\.normalize: "yes" must be tr'),
        ),
        ("name", {1, 2}, (EspalierError, "is not plain JSON|not opened|damaged")),
    ],
)
def test_a_wrong_config_of_a_checkpoint_is_a_clear_error(tmp_path, content, path, value, expected):
    spoiled = copy.deepcopy(content)
    target = spoiled["config"]
    *parents, last = path.split(".")
    for key in parents:
        target = target[key]
    target[last] = value
    write_checkpoint(tmp_path / "x.pth", spoiled)
    error, message = expected
    with pytest.raises(error, match=message):
        inference.load(tmp_path / "x.pth")
