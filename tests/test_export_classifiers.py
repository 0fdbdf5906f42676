"""export.py for networks that give one class to an image or a series."""

import csv
import json

import numpy as np
import onnx
import pytest
import torch
from test_classification_commands import MAKERS

import export
import inference
from base.base_model import main_output
from config import cli
from data_loader.time_series.files import read_series
from models import SECTIONS
from models.export.files import from_bytes, to_bytes
from models.export.tracing import Side, trace
from tests.support.slow import slow_unless
from tests.support.tiny import CLASSIFIERS
from train import train
from utils.architecture.cells.network import MacroOptions
from utils.errors import DataError
from utils.registry import import_attribute

CPU = torch.device("cpu")
IMAGES = {"ConvNet", "MnistModel", "CellNet"}  # CellNet for series: see test_popnas_export.py
ONE_LENGTH = {"InceptionTime", "LSTMFCN"}  # torch cannot follow how they pool, or what an LSTM does with lengths
AS_ONNX = {"LSTMFCN"}
SMALL = {
    "LSTMFCN": {"cells": 4, "channels": [6, 6]},
    "ConvNet": {"channels": [6, 8]},
    "CellNet": {"macro": MacroOptions(filters=4)},
}
DESCRIPTION = {"format_version": 1, "num_classes": 3, "class_names": [], "loader": {"type": "x", "args": {}}}


@pytest.mark.parametrize("name", slow_unless({"ConvNet", "FCN"}.__contains__, sorted(CLASSIFIERS)))
def test_an_exported_classifier_gives_what_the_network_gives_at_every_size(name):
    torch.manual_seed(0)
    size = (16, 24) if name in IMAGES else (20,)
    model = import_attribute(SECTIONS["arch"].entries[name])(num_classes=3, in_channels=2, **SMALL.get(name, {})).eval()
    traced = trace(model, 2, size)
    sides = ("batch", "height", "width") if name in IMAGES else ("batch", "length")
    fixed = {"length": size[0]} if name in ONE_LENGTH else {}
    assert {side: each.fixed for side, each in traced.sides.items()} == {**dict.fromkeys(sides), **fixed}
    for form in ["onnx"] if name in AS_ONNX else ["torch"]:  # those of the runs below are ONNX, too
        network, _ = from_bytes(to_bytes(traced, DESCRIPTION, form), form, CPU)
        for shape in ((1, *size), (3, *size), *([] if fixed else [(2, *(side + 9 for side in size))])):
            inputs = torch.rand(shape[0], 2, *shape[1:], generator=torch.Generator().manual_seed(1))
            if len(size) == 1:
                inputs[0, :, -4:] = torch.nan  # a shorter series of its batch
            with torch.no_grad():
                torch.testing.assert_close(network(inputs), main_output(model(inputs)), rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module", params=MAKERS)
def exported(request, tmp_path_factory):
    """A trained run of each task, its exported file, and what was found comparing them."""
    folder = tmp_path_factory.mktemp(request.param)
    config = MAKERS[request.param](folder)
    if request.param == "series":
        config["arch"] = {"type": "FCN", "args": {"channels": [6, 6, 6]}}
    config["trainer"] |= {"epochs": 1, "tensorboard": False}
    result = train(config)
    file = folder / "net.onnx"
    return request.param, folder, result.run_folder, file, export.export(result.run_folder, file)


def test_it_is_compared_on_the_data_of_its_config(exported):
    kind, _, _, _, found = exported
    assert found.samples == {"pictures": 10, "series": 12}[kind]
    assert found.largest_difference < 1e-5
    assert found.scores[0] == found.scores[1]
    assert found.text().startswith(f"{found.samples} samples: largest difference of a probability ")
    assert "accuracy of the checkpoint" in found.text()
    assert "same class for 100.0000% of the samples" in found.text()


def test_it_says_how_its_input_is_made(exported):
    kind, _, _, file, _ = exported
    (told,) = [json.loads(each.value) for each in onnx.load(file).metadata_props if each.key == "espalier"]
    told_of = told["preprocessing"]
    if kind == "series":
        assert list(told["sides"]) == ["batch", "length"]
        assert told["class_names"] == ["rise", "fall"]
        assert [len(told_of[name]) for name in ("mean", "std", "scale")] == [2, 2, 2]
        assert told_of["recipe"].startswith("A series (variables, steps)")
    else:
        assert list(told["sides"]) == ["batch", "height", "width"]
        assert told["class_names"] == ["bars", "stripes"]
        assert told_of["recipe"].endswith("Logits: softmax over axis 1.")


def test_its_table_is_that_of_the_checkpoint(exported, tmp_path):
    kind, folder, run, file, _ = exported
    source = folder / ("Toy_TEST.ts" if kind == "series" else "pictures/test/bars")
    tables = []
    for option, network in (("--model", file), ("--resume", run)):
        table = tmp_path / f"{option}.csv"
        words = [option, network, "--source", source, "--output", table, "-d", "cpu"]
        assert cli.run_command(inference.main, inference.parser(), list(map(str, words))) == 0
        with table.open() as opened:
            tables.append(list(csv.reader(opened)))
    own, theirs = tables
    assert len(own) == {"pictures": 6, "series": 13}[kind]
    for left, right in zip(own, theirs, strict=True):
        assert left[:2] == right[:2]
    probabilities = [np.array([row[2:] for row in table[1:]], float) for table in tables]
    np.testing.assert_allclose(*probabilities, atol=1e-5)


def test_other_samples_to_compare_on(exported, tmp_path):
    kind, folder, run, _, _ = exported
    source = folder / ("Toy_TRAIN.ts" if kind == "series" else "pictures/train/stripes")
    found = export.export(run, tmp_path / "net.pt2", form="torch", source=str(source))
    assert (found.samples, found.scores) == (16 if kind == "series" else 9, None)
    loaded = inference.load_any(tmp_path / "net.pt2")
    if kind == "series":
        series = read_series(source).series[0]
        assert loaded.probabilities([series])[0].sum() == pytest.approx(1, abs=1e-5)


def test_series_that_are_not_there_are_asked_for(exported, tmp_path, caplog):
    kind, folder, run, _, _ = exported
    if kind == "pictures":
        pytest.skip("photos are compared on those of data/people")
    for part in ("TRAIN", "TEST"):
        (folder / f"Toy_{part}.ts").rename(folder / f"{part}.away")
    try:
        with pytest.raises(DataError, match=r"no series to compare the networks on. Name a file of them: --source FIL"):
            export.export(run, tmp_path / "net.pt2", form="torch")
    finally:
        for part in ("TRAIN", "TEST"):
            (folder / f"{part}.away").rename(folder / f"Toy_{part}.ts")
    assert "data of the config is not used to compare" in caplog.text


@pytest.mark.slow
def test_a_series_of_a_length_that_a_file_does_not_take():
    model = import_attribute(SECTIONS["arch"].entries["LSTMFCN"])(num_classes=3, in_channels=2, **SMALL["LSTMFCN"])
    traced = trace(model.eval(), 2, (20,))
    assert traced.sides == {"batch": Side(), "length": Side(fixed=20)}
    network, _ = from_bytes(to_bytes(traced, DESCRIPTION, "torch"), "torch", CPU)
    expected = "An input of 30: the length of the exported network's input must be 20. Use series of that length, or"
    with pytest.raises(DataError, match=expected):
        network(torch.zeros(1, 2, 30))
