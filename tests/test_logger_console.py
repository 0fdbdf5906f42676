"""The log of a run on the console and in its folder."""

import logging
import sys
import warnings

import pytest
from tqdm import tqdm

from logger.console import earlier_records, log_end, repeat_in_file, setup_logging
from utils.environment import Stopped
from utils.errors import DataError, Interrupted

LOG = logging.getLogger("trainer.somewhere")


@pytest.mark.parametrize(
    ("verbosity", "shown"), [(0, ["warning: c"]), (1, ["b", "warning: c"]), (2, ["a", "b", "warning: c"])]
)
def test_verbosity_decides_what_the_console_shows(capsys, verbosity, shown):
    close = setup_logging(None, verbosity)
    LOG.debug("a")
    LOG.info("b")
    LOG.warning("c")
    close()
    LOG.info("after")
    assert capsys.readouterr().err.splitlines() == shown


def test_details_of_libraries_are_not_shown(capsys):
    close = setup_logging(None, 2)
    logging.getLogger("matplotlib.font").debug("scores")
    logging.getLogger("matplotlib.font").info("chosen")
    close()
    assert capsys.readouterr().err == "chosen\n"


def test_file_goes_on_where_it_ended_and_holds_info_at_verbosity_zero(capsys, tmp_path):
    for text in ("first", "second"):
        close = setup_logging(tmp_path, 0)
        LOG.info(text)
        close()
    lines = (tmp_path / "info.log").read_text().splitlines()
    assert [line.split(": ")[-1] for line in lines] == ["first", "second"]
    assert "INFO" in lines[0]
    assert "trainer.somewhere" in lines[0]
    assert capsys.readouterr().err == ""


def test_second_setup_adds_its_file_and_no_second_console(capsys, tmp_path):
    close_console = setup_logging(None)
    close_file = setup_logging(tmp_path)
    LOG.info("once")
    close_file()
    LOG.info("console only")
    close_console()
    assert capsys.readouterr().err == "once\nconsole only\n"
    assert (tmp_path / "info.log").read_text().count("\n") == 1


def test_warnings_of_python_are_in_the_log(capsys, tmp_path):
    before = warnings.showwarning
    close = setup_logging(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning("mind the step", UserWarning, "somewhere.py", 7)
    close()
    assert capsys.readouterr().err == "warning: mind the step (UserWarning, somewhere.py:7)\n"
    assert "mind the step" in (tmp_path / "info.log").read_text()
    assert warnings.showwarning is before


def test_root_logger_is_left_as_it_was(tmp_path):
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    setup_logging(tmp_path, 2)()
    assert (root.level, list(root.handlers)) == before


def test_a_line_does_not_tear_a_bar(capsys):
    close = setup_logging(None)
    with tqdm(total=3, file=sys.stderr, bar_format="BAR {n}", mininterval=0):
        LOG.info("a line")
    close()
    before, after = capsys.readouterr().err.split("a line\n")
    assert before.endswith("\r"), "the bar is wiped away before the line"
    assert after.startswith("\rBAR")


def test_the_file_gets_the_records_of_before_its_folder(capsys, tmp_path):
    close_console = setup_logging(None)
    with earlier_records() as earlier:
        LOG.info("decoded")
        LOG.debug("a detail")
        close = setup_logging(tmp_path)
        before = earlier.taken()
        LOG.info("Run folder")
        repeat_in_file(before, tmp_path)
        LOG.info("Epoch 1")
        close()
    close_console()
    lines = (tmp_path / "info.log").read_text().splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["Run folder", "decoded", "Epoch 1"]
    assert capsys.readouterr().err.splitlines() == ["decoded", "Run folder", "Epoch 1"]


@pytest.mark.parametrize(
    ("error", "line", "has_traceback"),
    [
        (DataError("photo 7 is damaged."), "photo 7 is damaged.", False),
        (Interrupted(15), "Interrupted by SIGTERM; the state was saved. Run the same", False),
        (KeyboardInterrupt(), "Stopped at once by SIGINT.", False),
        (Stopped(15), "Stopped at once by SIGTERM.", False),
        (ZeroDivisionError("division by zero"), "division by zero", True),
    ],
)
def test_the_end_of_a_run_is_in_its_file_and_not_twice_on_the_console(capsys, tmp_path, error, line, has_traceback):
    close = setup_logging(tmp_path)
    try:
        raise error
    except BaseException as caught:
        log_end(caught)
    close()
    text = (tmp_path / "info.log").read_text()
    assert f"ERROR   logger.console: The run has ended: {line}" in text
    assert ("Traceback" in text) == has_traceback
    assert capsys.readouterr().err == ""
