"""Networks of cells in the commands: training, resume, test, inference, export; ONNX of every operator."""

import copy
import csv
import json

import numpy as np
import pytest
import torch
from test_classification_commands import MAKERS, KilledAfter, renamed

import export
import inference
import test as test_command
from config import cli
from models.export.files import from_bytes, to_bytes
from models.export.tracing import trace
from models.popnas import CellNet
from tests.support.groups import from_flat
from train import train
from utils.architecture.cells.cell import Cell
from utils.architecture.cells.operators import operator_forms, read_operator
from utils.checkpoint_file import read_checkpoint
from utils.errors import Interrupted

RECURRENT = {"lstm", "gru"}  # exported for one length, as is LSTMFCN
CELLS = {
    "pictures": "[(-2, '3x3 dconv', -1, '3x3 conv');(-1, 'identity', 0, '2x2 avgpool')]",
    "series": "[(-2, '3 dconv', -1, '3 maxpool');(-1, 'identity', 0, '3 zconv:2')]",
}
DESCRIPTION = {"format_version": 1, "num_classes": 3, "class_names": [], "loader": {"type": "x", "args": {}}}


def cell_of(texts):
    """A cell that reads an earlier one by each operator; an odd number of them ends with the last one twice."""
    blocks = [
        f"(-1, '{one}', -2, '{other}')" for one, other in zip(texts[::2], [*texts[1::2], texts[-1]], strict=False)
    ]
    return f"[{';'.join(blocks)}]"


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 1])
def test_every_operator_is_exported_at_every_size(dims):
    texts = [text for text in operator_forms(dims) if read_operator(text, dims).kind not in RECURRENT]
    torch.manual_seed(0)
    given = {"dims": dims, "cell": cell_of(texts), "filters": 4, "motifs": 2, "normal_cells": 0}
    model = from_flat(CellNet, num_classes=3, in_channels=2, **given)
    model(torch.randn(4, 2, *(24,) * dims))
    traced = trace(model.eval(), 2, (16, 24)[:dims])
    assert [side.fixed for side in traced.sides.values()] == [None] * (1 + dims)
    network, _ = from_bytes(to_bytes(traced, DESCRIPTION, "onnx"), "onnx", torch.device("cpu"))
    for shape in ((3, 16, 24), (1, 25, 15), (2, 29, 37)):
        inputs = torch.rand(shape[0], 2, *shape[1 : 1 + dims], generator=torch.Generator().manual_seed(1))
        if dims == 1:
            inputs[0, :, -5:] = torch.nan
        with torch.no_grad():
            torch.testing.assert_close(network(inputs), model(inputs), rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module", params=CELLS)
def finished(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    config = MAKERS[request.param](folder)
    args = {"cell": CELLS[request.param], "filters": 4, "motifs": 2, "normal_cells": 1, "drop_path": 0.3}
    config["arch"] = {"type": "CellNet", "args": {**args, "dropout": 0.1, "multi_output": True}}
    config["trainer"] |= {"epochs": 2, "tensorboard": False}
    return request.param, config, train(copy.deepcopy(config)), folder


def test_a_killed_run_ends_in_the_same_bytes(finished):
    _, config, whole, _ = finished
    with pytest.raises(Interrupted):
        train(renamed(config, "killed"), callbacks=[KilledAfter(5)])
    again = train(renamed(config, "killed"), resume="auto")
    assert again.history == whole.history
    states = [read_checkpoint(result.run_folder / "checkpoint-last.pth") for result in (again, whole)]
    for one, other in zip(*(state["state_dict"].values() for state in states), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()


def test_the_checkpoint_says_all_that_its_network_needs(finished):
    kind, _, result, _ = finished
    args = read_checkpoint(result.checkpoint)["config"]["arch"]["args"]
    assert args["num_classes"] == 2
    assert args["cell"] == CELLS[kind]
    assert args["dims"] == (2 if kind == "pictures" else 1)


@pytest.mark.slow
def test_testing_inference_and_export_use_it(finished):
    kind, _, result, folder = finished
    file, report = folder / "net.onnx", folder / "test.json"
    found = export.export(result.run_folder, file)
    assert found.largest_difference < 1e-5
    words = ["--resume", result.run_folder, "--json", report, "-d", "cpu"]
    assert cli.run_command(test_command.main, test_command.parser(), list(map(str, words))) == 0
    assert 0 <= json.loads(report.read_text())["metrics"]["accuracy"] <= 1
    source = folder / ("Toy_TEST.ts" if kind == "series" else "pictures/test/bars")
    tables = []
    for option, network in (("--model", file), ("--resume", result.run_folder)):
        table = folder / f"{option}.csv"
        words = [option, network, "--source", source, "--output", table, "-d", "cpu"]
        assert cli.run_command(inference.main, inference.parser(), list(map(str, words))) == 0
        with table.open() as opened:
            tables.append(np.array([row[2:] for row in list(csv.reader(opened))[1:]], float))
    np.testing.assert_allclose(*tables, atol=1e-5)


def test_cells_here_have_every_operator():
    texts = operator_forms(2)
    assert len(Cell.parse(cell_of(texts), dims=2)) == -(-len(texts) // 2)
    assert all(f"'{text}'" in cell_of(texts) for text in texts)
