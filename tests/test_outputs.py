"""No option of any command writes over a checkpoint, a journal, a config, data or source code."""

import argparse
import importlib
import json
import os
import shutil
import socket
import sqlite3
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.checkpoints import write_checkpoint
from test_search_outputs import contents, make_study

import export
import inference
import new_project
import test as testing
import train
from benchmarks.result_files import beginning, json_lines, json_object, json_values, require_result_file
from build import build_model, read_data_spec
from config import cli
from data_loader.convert import __main__ as convert
from data_loader.people_zoo import __main__ as people_zoo
from models.zoo import pack
from search.__main__ import main as search
from search.__main__ import search_parser
from search.cli.compare import compare_parser
from search.cli.control import CONTROLS, control_parser
from search.cli.study_commands import COMMANDS, command_parser
from search.joining.command import join_parser
from search.study.journal import JOURNAL
from utils.errors import ConfigError
from utils.writing import outputs
from utils.writing.mark import marked
from utils.writing.outputs import (
    CANDIDATES,
    EXPORTED,
    FINDINGS,
    GENOTYPE,
    IMAGE,
    PAGE,
    PREDICTIONS,
    TEST_RESULT,
    Originals,
    require_image_folder,
    require_output,
)

# Options whose value is a file or a folder that the command writes, as words that lead to the writing.
OUTPUTS = {
    "train --json": "-c {config} --check --json {output}",
    "test --json": "--resume {checkpoint} --json {output}",
    "test --output": "--resume {checkpoint} --output {output}",
    "test --export-predictions": "--resume {checkpoint} --export-predictions {output}",
    "export --output": "--resume {checkpoint} --output {output}",
    "pack output": "run/checkpoint-last.pth {output}",
    "inference --output": "--resume {checkpoint} --source {photo} --output {output}",
    "search report --output": "report {study} --output {output}",
    "search export --csv": "export {study} --csv {output}",
    "search export --optuna": "export {study} --optuna sqlite:///{output}",
    "search export --genotype": "export {study} --genotype {output}",
    "search compare --output": "compare run --output {output}",
    "search compare --csv": "compare run --output new.html --csv {output}",
}
# All others: what they name is read, or is no file. A new study, or run, has a new folder.
NO_OUTPUTS = {
    *("overrides", "-h", "-c", "-d", "--lr", "--bs", "--epochs", "--seed", "--resume", "--plugin", "--debug"),
    *("--check", "--fast-dev-run", "--overfit", "--schema", "--split", "--worst", "--format", "--size", "--source"),
    *(
        "--opset",
        "--model",
        "--mode",
        "--background",
        "--class",
        "--legend",
        "--own-ids",
        "--soft",
        "--smooth",
        "--batch-size",
    ),
    *("--limit", "--max-decoded-mb", "--show", "--benchmark", "--window", "--overlap", "--tta-flip", "--tta-scales"),
    *("--test-run", "--verbose", "folder", "--candidate", "--epoch", "num_samples", "values", "candidate"),
    *("--study", "--lead", "--patience", "--claim", "--metric", "--predict", "--update"),
    *("source", "run", "--unlabelled", "--crowd", "--list-models", "--photos", "--splits", "--passers-by"),
    *("--train", "--valid", "--processes", "--overwrite"),
}
# These are a number, a file that is read, and a folder that is new or empty.
NO_OUTPUTS_OF = {
    *("search compare --images", "convert --images", "convert --classes", "convert --output", "people_zoo --output"),
}


def parsers():
    """Name and parser of every command."""
    yield from (("train", train.parser()), ("test", testing.parser()))
    yield from (("inference", inference.parser()), ("export", export.parser()))
    yield from (("convert", convert.parser()), ("people_zoo", people_zoo.parser()))
    yield from (("new_project", new_project.parser()), ("pack", pack.parser()))
    yield "search compare", compare_parser()
    yield from (("search", search_parser()), ("search join", join_parser()))
    yield from ((f"search {name}", command_parser(name)) for name in COMMANDS)
    yield from ((f"search {name}", control_parser(name)) for name in CONTROLS)


def options_of(parser: argparse.ArgumentParser):
    return [(action.option_strings or [action.dest])[0] for action in parser._actions]


def test_every_option_is_known_to_write_or_not_to_write():
    found = {f"{name} {option}" for name, parser in parsers() for option in options_of(parser)}
    unknown = {each for each in found - OUTPUTS.keys() - NO_OUTPUTS_OF if each.split()[-1] not in NO_OUTPUTS}
    assert not unknown, "add them to OUTPUTS, and let them pass utils.writing.outputs, or to NO_OUTPUTS"
    assert OUTPUTS.keys() <= found


def test_the_names_of_a_study_are_those_of_the_search():
    assert (outputs._JOURNAL, outputs._CONFIG) == (JOURNAL, "config.json")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a study, a run, its data, source code, and a network of another program."""
    root = tmp_path_factory.mktemp("world")
    make_study(root / "study")
    data = root / "data"
    data.mkdir()
    for number in range(3):
        cv2.imwrite(str(data / f"{number}.jpg"), np.full((24, 32, 3), 90 * number, np.uint8))
        cv2.imwrite(str(data / f"{number}.png"), np.eye(24, 32, dtype=np.uint8))
    (data / "pairs.csv").write_text("".join(f"{number}.jpg,{number}.png\n" for number in range(3)))
    loader = {"type": "SegmentationDataLoader", "args": {"pairs_file": str(data / "pairs.csv"), "num_classes": 2}}
    config = {
        "name": "small",
        "arch": {"type": "UNet", "args": {"channels": [4, 8], "num_classes": 2, "in_channels": 3}},
        **{f"{split}_loader": loader for split in ("train", "valid", "test")},
        "optimizer": "SGD",
        "loss": "ce_loss",
        "metrics": ["miou"],
        "trainer": {"epochs": 1, "save_dir": str(root / "saved")},
    }
    (root / "run").mkdir()
    (root / "run/config.json").write_text(json.dumps(config))
    (root / "run/metrics.csv").write_text("epoch,loss\n1,0.5\n")
    model = build_model(config, read_data_spec(config, None))
    content = {"config": config, "state_dict": model.state_dict(), "epoch": 1, "global_step": 1}
    write_checkpoint(root / "run/model_best.pth", content)
    shutil.copy(root / "run/model_best.pth", root / "weights.onnx")
    shutil.copy(root / "study" / JOURNAL, root / "copy.db")
    (root / "mine.py").write_text("print('mine')\n")
    (root / "other.onnx").write_bytes(b"\x08\x07 of another program")
    (root / "photo.png").write_bytes((data / "0.jpg").read_bytes())
    (root / "link.html").symlink_to(root / "run/model_best.pth")
    return root


NAMES = [
    *("run/model_best.pth", "run/config.json", "run/metrics.csv", "study/journal.sqlite", "study/config.json"),
    *("study/candidates/00000/model_best.pth", "copy.db", "mine.py", "weights.onnx", "other.onnx", "link.html"),
    *("data/pairs.csv", "data/0.jpg", "data/1.png", "photo.png"),
]
PROGRAMS = {"train": train, "test": testing, "export": export, "inference": inference, "pack": pack}


@pytest.mark.parametrize("option", OUTPUTS)
def test_no_output_replaces_what_must_not_be_lost(option, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    before = contents(world)
    for name in NAMES:
        words = OUTPUTS[option].format(
            output=name, config="run/config.json", checkpoint="run/model_best.pth", study="study", photo="photo.png"
        )
        program = PROGRAMS.get(option.split()[0])
        if program is None:
            code = search(words.split())
        else:
            code = cli.run_command(program.main, program.parser(), words.split())
        error = capsys.readouterr().err
        assert (code, error.count("\n")) == (2, 1), (name, error)
        assert error.startswith(("error: --", "error: OUTPUT")), (name, error)
        assert contents(world) == before, name


def test_a_file_is_replaced_by_one_of_its_kind_only(tmp_path):
    texts = {
        "result.json": json.dumps({"checkpoint": "x", "metrics": {}, "samples": 1}),
        "findings.json": json.dumps({"faults": [], "warnings": []}),
        "genotype.json": json.dumps({"strides": [4], "blocks": []}),
        "predictions.csv": "file,class,probability,probability_a\n",
        "candidates.csv": "index,status,reason\n0,completed,\n",
        "epochs.csv": "index,val_loss,begin,end\n0,1.5,,\n",
        "page.html": (Path(__file__).parents[1] / "search/report/layout.html").read_text().split("#}", 1)[1],
        "users.html": "<!DOCTYPE html>\n<title>x</title>",
        "users.csv": "index,file\n0,a.png\n",
        "other.json": json.dumps({"arch": "UNet"}),
        "other.csv": "a.jpg,a.png\n",
        "broken.json": "{",
        "list.json": "[]",
        "net.onnx": "\b\7 espalier",
        "picture.png": "\x89PNG",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    kinds = {
        "result.json": TEST_RESULT,
        "findings.json": FINDINGS,
        "genotype.json": GENOTYPE,
        "predictions.csv": PREDICTIONS,
        "candidates.csv": CANDIDATES,
        "epochs.csv": CANDIDATES,
        "page.html": PAGE,
        "net.onnx": EXPORTED[".onnx"],
    }
    for kind in [*kinds.values(), EXPORTED[".pt2"]]:
        for name in texts:
            if kinds.get(name) is kind:
                require_output(tmp_path / name, "--output", kind)
            else:
                with pytest.raises(ConfigError, match=f"{name}: would write over a file that is not {kind.name}"):
                    require_output(tmp_path / name, "--output", kind)
    (tmp_path / "empty").touch()
    require_output(tmp_path / "empty", "--output", TEST_RESULT)
    require_output(tmp_path / "new/deep", "--output", TEST_RESULT)


def test_a_pipe_is_written_to_and_a_socket_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
        with pytest.raises(ConfigError, match="would write over a file that is not"):
            require_output(tmp_path / "socket", "--json", TEST_RESULT)
    os.mkfifo(tmp_path / "pipe")
    require_output(tmp_path / "pipe", "--json", TEST_RESULT)
    require_output(Path("/dev/null"), "--json", TEST_RESULT)


def test_images_of_a_test_replace_those_of_a_test(tmp_path):
    (tmp_path / "worst-01.png").write_bytes(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"holds worst-01\.png, which is not of a test, since there is no confusion"):
        require_image_folder(tmp_path, "--output")
    (tmp_path / "confusion.png").write_bytes(b"\x89PNG")
    require_image_folder(tmp_path, "--output")
    with pytest.raises(ConfigError, match="would write over"):
        require_image_folder(tmp_path, "--output", Originals([tmp_path]))


def test_the_working_folder_as_data_leaves_room_for_results(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    (tmp_path / "out/a.png").write_bytes(marked(b"\x89PNG"))
    require_output(Path("a.png"), "--output", IMAGE, Originals([tmp_path]))
    with pytest.raises(ConfigError, match="which this command reads"):
        require_output(Path("a.png"), "--output", IMAGE, Originals([tmp_path, Path("a.png")]))


def test_a_database_of_optuna_may_be_added_to(tmp_path):
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE version_info (id)")
    connection.close()
    outputs.require_database(tmp_path / "x.db", "--optuna")
    with pytest.raises(ConfigError, match="not a storage of Optuna"):
        outputs.require_database(Path(__file__), "--optuna")


RESULTS_OF_BENCHMARKS = {"faults": "", "laws": "", "growth": "growth.json", "fuzz": ""}


@pytest.mark.parametrize(("name", "file"), RESULTS_OF_BENCHMARKS.items())
def test_no_benchmark_replaces_what_it_has_not_written(name, file, world, monkeypatch, capsys):
    output = world / "run/config.json" if not file else world / "results"
    if file:
        output.mkdir(exist_ok=True)
        shutil.copy(world / "run/config.json", output / file)
    before = contents(world)
    monkeypatch.setattr(sys, "argv", [name, "--output", str(output)])
    for each in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # benchmarks set them
        monkeypatch.setenv(each, "1")
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{name}").main()
    assert (ended.value.code, contents(world)) == (2, before)
    assert "would write over a file that is not a result of this benchmark" in capsys.readouterr().err


def test_every_benchmark_with_an_output_has_the_guard():
    files = (Path(__file__).parents[1] / "benchmarks").glob("*.py")
    texts = [text for file in files if 'add_argument("--output"' in (text := file.read_text())]
    assert len(texts) > 10
    assert not [text for text in texts if "    require_result" not in text]


def test_results_of_benchmarks_are_continued(tmp_path):
    file = tmp_path / "results"
    tests = (
        ('{"a": {"runs": 1, "reached": 2}}', json_values("runs", "reached"), '{"a": 1}'),
        ('{"seed": 0, "found": 1}\n{"se', json_lines("seed", "found"), '{"seed": 0}\n'),
        ('{"rows": [], "rounds": 1}', json_object("rows"), "[]"),
        ("| a |\n", beginning("| a |"), "| b |\n"),
    )
    for text, test, other in tests:
        file.write_text(text)
        require_result_file(file, test)
        for content in (other.encode(), b"\xff"):
            file.write_bytes(content)
            with pytest.raises(SystemExit):
                require_result_file(file, test)


def test_what_is_packed_is_a_checkpoint_of_a_training(tmp_path, capsys):
    def packed(source, output="small.pth"):
        code = cli.run_command(pack.main, pack.parser(), [str(tmp_path / source), str(tmp_path / output)])
        return code, capsys.readouterr().err

    content = dict.fromkeys(pack.KEPT, 1) | {"config": {"trainer": {}}, "state_dict": {"a": torch.ones(2)}}
    write_checkpoint(tmp_path / "model_best.pth", content | {"optimizer": {}})
    for _ in range(2):  # the second time it is replaced
        assert packed("model_best.pth") == (0, "")
    assert packed("small.pth", "model_best.pth")[0] == 2
    code, error = packed("none")
    assert (code, error.count("\n")) == (4, 1)
    assert error.startswith(f"error: {tmp_path / 'none'}: there is no such file.")
    write_checkpoint(tmp_path / "weights.pth", {"a": torch.ones(2)})
    assert "is no checkpoint of a training (it has no " in packed("weights.pth", "new.pth")[1]
    write_checkpoint(tmp_path / "large.pth", content | {"state_dict": {"a": torch.tensor([1e5])}})
    assert "a weight of 100000.0 is beyond half precision" in packed("large.pth", "new.pth")[1]
