"""Names that hold terminal escapes, ends of lines or formulas are shown and stored as text, and nothing else."""

import csv
import logging
import os
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from config import cli
from config.faults import Faults, show
from data_loader.checking.facts import unknown_facts
from data_loader.classification.sources import FileImages
from logger.check_report import Table, _table_text
from logger.console import setup_logging
from logger.test_report.report import class_table, report_text
from predictor.classifier import Prediction, write_table
from predictor.loop import PredictionStats, report_predictions
from search.cli.compare import comparison_text
from search.cli.export import csv_text
from search.cli.listing import _aligned, best_text
from search.comparison.groups import RunGroup
from search.results.record import Objective
from tests.support.study_samples import sample_study
from utils.errors import ConfigError, DataError, joined_faults
from utils.files import write_text_atomically
from utils.plugins import command_line
from utils.writing.text import cell, in_one_line, indented, is_one_line, message_of, visible, write_out

EVIL = "a\x1b[2J\nerror: fake\r\x07\x9b1m\u202eb"
SHOWN = r"a\x1b[2J\nerror: fake\r\x07\x9b1m\u202eb"


def test_control_characters_are_shown_as_escape_sequences():
    assert in_one_line(EVIL) == SHOWN
    assert visible(EVIL) == SHOWN.replace(r"\n", "\n")
    assert visible("Straße\t猫 \U0001f408 é\n") == "Straße\t猫 \U0001f408 é\n"
    assert in_one_line("\udcff\u2028\x00\x7f") == r"\udcff\u2028\x00\x7f"


def test_a_message_has_no_lines_that_look_like_other_messages():
    assert message_of(DataError(f"{EVIL}: is cut")) == f"{SHOWN}: is cut"
    joined = joined_faults([DataError(f"{EVIL}: is cut"), DataError("b\n  c: is cut")])
    assert message_of(joined) == f"{SHOWN}: is cut\nb\n  c: is cut"
    assert indented("a\nb\n c") == "a\n  b\n c"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        *[(text, f"'{text}") for text in ("=1+1", "+A1", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1")],
        *[(text, text) for text in ("-1.5", "+2", "-1e-3", "-inf", "a=b", "", "1-2")],
        *[("\udce9.png", r"\udce9.png"), ("=\ud800", r"'=\ud800")],
        *[(number, number) for number in (-1.5, -3, None, True)],
    ],
)
def test_cells_are_no_formulas_and_numbers_remain(value, stored):
    assert cell(value) == stored


def test_csv_files_hold_no_formula(tmp_path):
    predictions = [Prediction("=1+1.png", np.array([0.25, 0.75], np.float32))]
    write_table(predictions, ["-x", "@y"], tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="") as file:
        assert list(csv.reader(file))[1] == ["'=1+1.png", "'@y", "0.750000", "0.250000", "0.750000"]
    assert csv_text([{"=a": "=b", "c": -1.5, "d": [-1]}]).splitlines() == ["'=a,c,d", "'=b,-1.5,[-1]"]


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_classes_without_names_are_numbers(tmp_path, names):
    write_table([Prediction("x.png", np.array([0.1, 0.7, 0.2], np.float32))], names, tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="") as file:
        head, row = csv.reader(file)
    assert head[3:] == ["probability_0", "probability_1", "probability_2"]
    assert row[:3] == ["x.png", "1", "0.700000"]


def test_printed_commands_are_one_line_that_a_shell_reads_back():
    words = [os.fsdecode(b"a\xe9b/\x1b[2J\n'\\x"), "plain", "two words", "Stra\xdfe"]
    command = command_line("printf", r"%s\0", *words, files=())
    assert is_one_line(command)
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == list(map(os.fsencode, words))


def test_texts_of_a_study_show_its_name_in_one_line():
    study = sample_study(12)
    study.name, study.constraints = EVIL, ["\nval_miou >= 0.1"]
    study.folder = f"saved/{EVIL}"
    lines = best_text(study).splitlines()
    assert lines[0].startswith(f"{SHOWN}: candidate ")
    assert not any(line.startswith("error:") or "\x1b" in line for line in lines)
    assert comparison_text([RunGroup(EVIL, ())], Objective("miou", 1)).endswith(f"\n  {SHOWN}  no result")


def test_written_files_are_named_in_one_line(caplog):
    source = SimpleNamespace(remarks=[], failures=[], frame_rate=None)
    with caplog.at_level(logging.INFO):
        report_predictions(PredictionStats(1, 1.0), source, [SimpleNamespace(remarks=[], written=[EVIL])])
    assert caplog.messages[-1] == f"Written: {SHOWN}"


def test_files_hold_names_that_are_not_utf_8_as_escape_sequences(tmp_path):
    name = os.fsdecode(b"\xe9.png")
    write_table([Prediction(name, np.ones(2, np.float32))], ["a", "b\ud800"], tmp_path / "x.csv")
    rows = (tmp_path / "x.csv").read_text().splitlines()
    assert rows == [
        r"file,class,probability,probability_a,probability_b\ud800",
        r"\udce9.png,a,1.000000,1.000000,1.000000",
    ]
    write_text_atomically(tmp_path / "x.html", f"{name} cannot be read\n")
    assert (tmp_path / "x.html").read_text() == "\\udce9.png cannot be read\n"
    source = FileImages([tmp_path / "a.png"] * 2, [name, "b"])
    assert (source.classes, source.labels) == (["b", r"\udce9.png"], [r"\udce9.png", "b"])
    assert unknown_facts(name).name == name


def test_reports_and_tables_show_names_in_one_line():
    values = {"iou": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5, "pixel_share": 1.0}
    assert class_table({EVIL: values}).count("\n") == 1
    case = {"name": EVIL, "truth": EVIL, "prediction": "b", "score": 0.1, "probability": 0.9}
    result = {"checkpoint": "x", "epoch": 1, "samples": 1, "split": "test", "pictures": [], "worst": [case]}
    text = report_text({**result, "metrics": {EVIL: 1.0}, "per_class": {EVIL: values}})
    assert text.count(SHOWN) == 4
    assert "\x1b" not in text
    files = {"checkpoint": EVIL, "predictions": EVIL, "pictures": [f"{EVIL}/confusion.png", f"{EVIL}/worst-01.png"]}
    text = report_text({**result, **files, "metrics": {EVIL: 1.0}, "per_class": {EVIL: values}})
    assert text.count(SHOWN) == 8
    assert "\x1b" not in text
    assert _table_text(Table("t", ("class", "n"), [(EVIL, "1")])).count("\n") == 2
    assert _aligned([[EVIL, "b"]]) == [f"{SHOWN}  b"]
    faults = Faults()
    faults.add(EVIL, "is wrong")
    assert faults == [f"{SHOWN}: is wrong"]
    assert "\x9b" not in show("\x9b\x1b")


def test_console_log_and_results_show_escape_sequences(tmp_path, capsys):
    close = setup_logging(tmp_path)
    try:
        logging.getLogger("espalier").warning("read %s", EVIL)
    finally:
        close()
    write_out(f"{EVIL}\n")
    shown, log = capsys.readouterr(), (tmp_path / "info.log").read_text()
    for text in (shown.err, shown.out, log):
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(text)
    assert "\n  error: fake" in shown.err
    assert "\n  error: fake" in log


def test_errors_of_commands_are_shown_with_escape_sequences(capsys):
    def fail(arguments):
        raise ConfigError(f"{EVIL}: is wrong")

    for words in ([], ["--debug"]):
        parser = cli.argparse.ArgumentParser()
        parser.add_argument("--debug", action="store_true")
        assert cli.run_command(fail, parser, words) == 2
        text = capsys.readouterr().err
        assert f"error: {SHOWN}: is wrong\n" in text
        assert "\x1b" not in text
