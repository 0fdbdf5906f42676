"""The command line: any order of flags and overrides, and every error of the user's as one line and a code."""

import io
import json
import os
import sys

import pytest

import train
from config import cli
from utils.errors import CheckpointError, ConfigError, DataError, Interrupted, SearchError, TrainingError


def parse(*argv):
    return train.parser().parse_intermixed_args(argv)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "x.json"
    loader = {"type": "L", "args": {"batch_size": 1}}
    path.write_text(json.dumps({"name": "x", "train_loader": loader, "valid_loader": loader, "optimizer": "SGD"}))
    return str(path)


def test_overrides_may_stand_anywhere(config_file):
    arguments = parse(
        "seed=1", "-c", config_file, "a.b=2", "--resume", "auto", "name=y", "-d", "0,1", "--plugin", "p.py"
    )
    assert cli.overrides_of(arguments) == ["seed=1", "a.b=2", "name=y"]
    assert (arguments.resume, arguments.devices, arguments.plugin) == ("auto", "0,1", ["p.py"])
    assert [arguments.check, arguments.fast_dev_run, arguments.schema, arguments.debug] == [False] * 4


def test_check_has_its_older_name():
    assert parse("--check").check
    assert parse("--validate-only").check


def test_short_flags_stand_for_overrides(config_file):
    loaded = cli.requested_config(parse("-c", config_file, "--lr", "0.1", "--bs", "4", "--epochs", "3", "--seed", "5"))
    assert loaded["optimizer"] == {"type": "SGD", "args": {"lr": 0.1}}
    assert loaded["train_loader"]["args"]["batch_size"] == loaded["valid_loader"]["args"]["batch_size"] == 4
    assert (loaded["trainer"], loaded["seed"]) == ({"epochs": 3}, 5)


def test_a_checkpoint_brings_its_own_configuration():
    assert cli.requested_config(parse("--resume", "model_best.pth")) is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "no configuration is named. Write -c FILE, or --resume CHECKPOINT"),
        (("--resume", "auto"), "no configuration is named"),
        (("--resume", "x.pth", "seed=1"), "seed=1: overrides change a file, and none is named"),
        (("--resume", "x.pth", "--lr", "1"), "optimizer.args.lr=1: overrides change a file"),
        (("-c", "nowhere.json"), "nowhere.json: no such file"),
    ],
)
def test_a_command_line_without_a_configuration(argv, message):
    with pytest.raises(ConfigError, match=message):
        cli.requested_config(parse(*argv))


@pytest.mark.parametrize("argv", [["--overfit", "0"], ["--overfit", "x"], ["--no-such-flag"], ["--resume"]])
def test_a_wrong_flag_ends_with_code_2(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.run_command(lambda _: None, train.parser(), argv)
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (SearchError("x"), 5),
        (DataError("x"), 3),
        (CheckpointError("x"), 4),
        (TrainingError("x"), 5),
        (Interrupted(2), 130),
        (Interrupted(15), 143),
    ],
)
def test_each_kind_of_error_has_its_code_and_one_line(error, code, capsys):
    def fail(_):
        raise error

    assert cli.run_command(fail, train.parser(), []) == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_debug_shows_where_an_error_came_from(capsys):
    def fail(_):
        raise ConfigError("seed: wrong")

    assert cli.run_command(fail, train.parser(), ["--debug"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: seed: wrong\n")


def test_an_error_of_our_own_is_not_hidden():
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        cli.run_command(lambda _: 1 / 0, train.parser(), [])


def test_a_good_command_ends_with_code_0():
    seen = []
    assert cli.run_command(seen.append, train.parser(), ["--overfit", "3"]) == 0
    assert seen[0].overfit == 3


def test_a_short_flag_may_have_a_hyphen(monkeypatch):
    monkeypatch.setitem(cli.SHORT_FLAGS, "--weight-decay", ("optimizer.args.weight_decay", "DECAY", "weight decay"))
    assert cli.overrides_of(parse("--weight-decay", "0.1", "--lr", "1")) == [
        "optimizer.args.lr=1", "optimizer.args.weight_decay=0.1",
    ]  # fmt: skip


def test_letters_that_a_terminal_lacks_are_written_out(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert cli.run_command(lambda _: sys.stdout.write("a \u4e2d"), train.parser(), []) == 0
    assert written.getvalue() == rb"a \u4e2d"


def test_output_that_nobody_reads_ends_a_command_without_a_traceback(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert cli.run_command(lambda _: sys.stdout.write("x"), train.parser(), []) == cli.NOT_READ
