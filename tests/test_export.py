"""export.py: what it writes is the network of the checkpoint, at every size that it says it takes."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_inference import PHOTOS, people_config, save_untrained
from torch import nn

import export
import inference
from config import cli
from data_loader.images.files import read_image, read_mask
from models import SECTIONS
from models.export import tracing
from models.export.comparison import Comparison
from models.export.description import KEY
from models.export.files import from_bytes, open_exported, to_bytes
from models.export.tracing import Side, trace
from tests.support.exported import CASES, CPU, DESCRIPTION, NOT_EXPORTED, SMALL, check_every_size, images
from tests.support.slow import slow_unless
from utils.errors import CheckpointError, ConfigError, DataError, ExportError

ROOT = Path(__file__).parents[1]
AS_ONNX = {"UNet", "PSPNet"}  # all sizes free; with fixed and with free pooling


def test_every_network_of_the_registry_is_exported():
    assert {name for name, _ in CASES} | NOT_EXPORTED == set(SECTIONS["arch"].entries)
    assert len(CASES) >= 3


@pytest.mark.parametrize(("name", "args"), slow_unless(lambda case: case[0] == "EncDec", CASES))
def test_exported_networks_give_what_the_network_gives_at_every_size(name, args):
    # All networks as ONNX: benchmarks/export_sizes.py
    check_every_size(name, args, ["onnx"] if name in AS_ONNX and args == SMALL[name][0] else ["torch"])


# --- what sizes a network takes ---


class FixedSize(nn.Module):
    """Adds a map of weights, so that it takes one size only."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(images(1, 2, 8, 6))

    def forward(self, inputs):
        return inputs[:, :2] * self.weight


class Eighths(nn.Module):
    """Takes sides that are multiples of 8 only."""

    def forward(self, inputs):
        if inputs.shape[2] % 8 or inputs.shape[3] % 8:
            raise RuntimeError("wrong size")
        return inputs.unfold(2, 8, 8).unfold(3, 8, 8).mean((-1, -2)).repeat_interleave(8, 2).repeat_interleave(8, 3)


class Chance(nn.Module):
    """Never gives the same again."""

    def forward(self, inputs):
        return inputs + torch.rand_like(inputs)


def test_a_network_of_one_size_says_so_and_refuses_others():
    model = FixedSize()
    traced = trace(model, 3, (8, 6))
    assert traced.sides == {"batch": Side(), "height": Side(fixed=8), "width": Side(fixed=6)}
    network, _ = from_bytes(to_bytes(traced, {**DESCRIPTION, "num_classes": 2}, "torch"), "torch", CPU)
    inputs = images(3, 3, 8, 6)
    assert torch.equal(network(inputs), model(inputs))
    with pytest.raises(DataError, match="An input of 8x7: the width of the exported network's input must be 6"):
        network(images(1, 3, 8, 7))


def test_a_network_of_multiples_says_so():
    sides = trace(Eighths(), 2, (16, 24)).sides
    assert (sides["height"].multiple, sides["width"].multiple) == (8, 8)
    assert str(sides["height"]) == "8 or more, a multiple of 8"
    assert [sides["height"].takes(length) for length in (0, 8, 12, 24)] == [False, True, False, True]


def test_a_network_that_cannot_be_traced_is_refused():
    with pytest.raises(ExportError, match=r"Chance: torch cannot trace it \(ValueError: the traced program differs"):
        trace(Chance(), 3, (8, 8))


# --- the command ---


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("run") / "model_best.pth", people_config())


@pytest.fixture(scope="module")
def files(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    names = {"onnx": folder / "net.onnx", "torch": folder / "net.pt2"}
    return functools.cache(lambda form: (names[form], export.export(checkpoint, names[form], form=form)))


def run(*argv):
    return cli.run_command(export.main, export.parser(), [str(argument) for argument in argv])


def test_one_channel_is_exported_with_its_recipe(tmp_path):  # as ONNX: test_one_channel.py
    config = people_config()
    config["arch"] = {"type": "UNet", "args": {"channels": [4, 8], "num_classes": 1}}
    checkpoint = save_untrained(tmp_path / "model.pth", config)
    file = tmp_path / "net.pt2"
    found = export.export(checkpoint, file, form="torch")
    assert found.scores[0] == pytest.approx(found.scores[1], abs=1e-4)
    _, description = from_bytes(file.read_bytes(), "torch", CPU)
    assert (description["num_classes"], description["class_names"]) == (2, ["background", "person"])
    recipe = description["preprocessing"]["recipe"]
    assert "sigmoid(z) is the probability of class 1" in recipe
    assert "softmax" not in recipe
    (left,), (right,) = (inference.load(path).probabilities([read_image(PHOTOS[0])]) for path in (file, checkpoint))
    np.testing.assert_allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("form", ["onnx", pytest.param("torch", marks=pytest.mark.slow)])
def test_an_exported_file_predicts_what_the_checkpoint_predicts(checkpoint, files, form, tmp_path):
    file, found = files(form)
    assert found.samples == 4  # those of the config
    assert found.largest_difference < 1e-5
    assert found.scores[0] == pytest.approx(found.scores[1], abs=1e-4)
    photos = [read_image(path) for path in PHOTOS]
    segmenter, original = inference.load(file), inference.load(checkpoint)
    assert segmenter.class_names == original.class_names == ["background", "person"]
    assert segmenter.class_id("person") == 1
    for left, right in zip(segmenter.probabilities(photos), original.probabilities(photos), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
    options = ["--source", str(PHOTOS[0]), "--mode", "mask", "--window", "64", "--tta-flip", "-d", "cpu", "--output"]
    for network, name in (("--model", file), ("--resume", checkpoint)):
        words = [network, str(name), *options, str(tmp_path / f"{network}.png")]
        assert cli.run_command(inference.main, inference.parser(), words) == 0
    assert (read_mask(tmp_path / "--model.png") == read_mask(tmp_path / "--resume.png")).mean() > 0.999


def test_an_onnx_file_says_what_it_is_to_anybody(files):
    model = onnx.load(files("onnx")[0])
    (inputs,), (outputs,) = model.graph.input, model.graph.output
    assert (inputs.name, outputs.name) == ("input", "logits")
    sides = [
        [side.dim_param or side.dim_value for side in each.type.tensor_type.shape.dim] for each in (inputs, outputs)
    ]
    assert sides == [["batch", 3, "height", "width"], ["batch", 2, "height", "width"]]
    (told,) = [json.loads(each.value) for each in model.metadata_props if each.key == "espalier"]
    assert told["class_names"] == ["background", "person"]
    assert told["num_classes"] == 2
    preprocessing = told["preprocessing"]
    assert preprocessing.pop("recipe").startswith("Scale the image to fit into resize [height, width]")
    assert preprocessing == {
        "resize": [48, 32],
        "padding_value": 0,
        "color_channel": "RGB",
        "normalize": True,
        "in_channels": 3,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }


def test_another_size_and_other_images(checkpoint, tmp_path, capsys, caplog):
    file = tmp_path / "deep" / "net.pt2"
    words = ("--format", "torch", "--size", 40, 56, "--source", PHOTOS[0])
    assert run("--resume", checkpoint, "--output", file, *words) == 0
    told = capsys.readouterr().out
    assert told.startswith("1 images: largest difference of a probability ")
    assert "same class for 100.0000% of the pixels" in told
    assert f"python inference.py --model {file} --source PATH" in told
    assert inference.load(file).preprocess.size == (40, 56)
    assert [path.name for path in file.parent.iterdir()] == ["net.pt2"]


@pytest.mark.slow
def test_a_config_whose_data_is_not_there_is_compared_on_other_photos(tmp_path, caplog):
    config = people_config(pairs_file="nowhere.txt", resize=None)
    path = save_untrained(tmp_path / "c.pth", config)
    found = export.export(path, tmp_path / "net.pt2", form="torch")
    assert (found.samples, found.scores) == (16, None)
    assert "The valid data of the config is not used to compare: The list of pairs nowhere.txt" in caplog.text
    shapes = [each.shape[1:] for each in inference.load(tmp_path / "net.pt2").probabilities([read_image(PHOTOS[0])])]
    assert shapes == [read_image(PHOTOS[0]).shape[:2]]


def test_photos_are_asked_for_if_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PEOPLE", tmp_path / "none")
    path = save_untrained(tmp_path / "c.pth", people_config(pairs_file="nowhere.txt"))
    with pytest.raises(DataError, match=r"no photos to compare the networks on. Name some: --source FOLDER"):
        export.export(path, tmp_path / "net.pt2", form="torch")


def test_a_file_that_differs_is_never_written(checkpoint, tmp_path, monkeypatch, capsys):
    real = tracing.trace

    def trace_another(model, *size):
        changed = inference.load(checkpoint).model
        changed.head.bias.data += torch.tensor([0.1, 0.0])
        return real(changed, *size)

    monkeypatch.setattr(tracing, "trace", trace_another)
    assert run("--resume", checkpoint, "--format", "torch", "--output", tmp_path / "net.pt2") == 5
    assert (
        "error: The exported network is not the checkpoint's, and nothing was written. 4 imag"
        in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("difference", [0.2, float("nan")])
def test_a_difference_or_no_number_is_refused(difference):
    with pytest.raises(ExportError, match=r"They may differ by 0.001. Try the other --format, or another --opset"):
        Comparison(1, difference, 1.0, None).require_equal()
    Comparison(1, 1e-3, 1.0, (0.5, 0.5)).require_equal()  # the tolerance itself is allowed


@pytest.mark.parametrize(
    "mistake",
    [
        (["--output", "net.pt2"], 2, "--output net.pt2: a file of this --format ends in .onnx. Write net.onnx"),
        (["--output", "file/net.onnx"], 2, "file/net.onnx: cannot be written (file is not a folder)"),
        (["--output", "folder.onnx"], 2, "cannot be written (it is a folder)"),
        (["--output", "n.onnx", "--opset", "3"], 2, "--opset 3: it must be 18 to"),
        (
            ["--output", "n.pt2", "--format", "torch", "--opset", "18"],
            2,
            "--opset 18: is a version of ONNX's operators",
        ),
        (["--output", "n.onnx", "--resume", "nowhere.pth"], 4, "nowhere.pth: there is no such file"),
        (["--output", "n.pt2", "--format", "torch", "--source", "nowhere"], 3, "--source nowhere does not exist"),
    ],
)
def test_mistakes_end_in_one_line_and_their_code(checkpoint, tmp_path, monkeypatch, capsys, mistake):
    arguments, code, message = mistake
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder.onnx").mkdir()
    assert run("--resume", checkpoint, *arguments) == code
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.onnx"]


def test_packages_that_are_missing_are_named(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    expected = "onnxruntime is not installed. ONNX files need it. Run: pip install onnx onnxscript onnxruntime"
    with pytest.raises(ConfigError, match=expected):
        export.export(checkpoint, tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match=expected):
        from_bytes(b"", "onnx", CPU)


# --- files that cannot be used ---


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_files_that_are_no_exported_networks(tmp_path, suffix):
    file = tmp_path / f"net{suffix}"
    with pytest.raises(CheckpointError, match=r"cannot be read \(No such file or directory\). Name a file that export"):
        open_exported(file, CPU)
    file.write_bytes(b"damaged" * 50)
    with pytest.raises(CheckpointError, match=r"cannot be opened \(\w+\). The file is damaged or no exported network"):
        open_exported(file, CPU)


def relu():
    """An ONNX file of one node, without a description."""
    inputs, outputs = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("input", "logits")
    )
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["input"], ["logits"])], "g", [inputs], [outputs])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def test_a_file_must_describe_its_input():
    model = relu()
    with pytest.raises(CheckpointError, match=r'holds no description of its input. It must be under "espalier"'):
        from_bytes(model.SerializeToString(), "onnx", CPU)
    later = json.dumps({**DESCRIPTION, "sides": {}, "format_version": 2})
    onnx.helper.set_model_props(model, {KEY: later})
    with pytest.raises(CheckpointError, match=r"net.onnx: its description has version 2, later than 1"):
        from_bytes(model.SerializeToString(), "onnx", CPU, name="net.onnx")


@pytest.mark.parametrize("threads", [1, 3])
def test_an_onnx_file_is_run_with_the_threads_of_torch(monkeypatch, threads):
    class Session(onnxruntime.InferenceSession):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            opened.append(self.get_session_options().intra_op_num_threads)

    opened = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = relu()
    onnx.helper.set_model_props(model, {KEY: json.dumps({**DESCRIPTION, "sides": {"batch": {}, "length": {}}})})
    from_bytes(model.SerializeToString(), "onnx", CPU)
    assert opened == [threads]


def test_help_loads_nothing_heavy():
    code = "import sys; import export; export.parser().format_help(); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "cv2", "numpy", "onnx", "onnxruntime"):
        assert f"'{heavy}'" not in loaded
