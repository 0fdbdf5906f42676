"""The log of a run, on the console and in its folder. Only the entry points call this; all else uses `logging`."""

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

CONSOLE_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
OUR_FOLDERS = {
    "base",
    "candidates",
    "config",
    "data_loader",
    "logger",
    "models",
    "search",
    "trainer",
    "utils",
    "predictor",
}
OUR_COMMANDS = {"__main__", "espalier", "export", "inference", "test", "train"}
_WARNINGS_LOGGER = "warnings"


class ConsoleHandler(logging.Handler):
    """Writes to standard error without tearing a progress bar apart; standard output stays free for results."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line above any bar."""
        try:
            tqdm.write(self.format(record), file=sys.stderr)
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class ConsoleFormatter(logging.Formatter):
    """The bare message; anything above INFO says how bad it is."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


def _is_wanted(record: logging.LogRecord) -> bool:
    """Details below INFO come from this project only; libraries tell too much of theirs."""
    return record.levelno >= logging.INFO or record.name.partition(".")[0] in OUR_FOLDERS | OUR_COMMANDS


class _Setup:
    """What is installed on the root logger, to be taken off again."""

    def __init__(self) -> None:
        self.handlers: list[logging.Handler] = []
        self.level_before = logging.WARNING
        self.show_warning_before: Callable[..., Any] = warnings.showwarning

    def add(self, handler: logging.Handler, level: int) -> None:
        root = logging.getLogger()
        if not self.handlers:
            self.level_before, self.show_warning_before = root.level, warnings.showwarning
            warnings.showwarning = _log_warning
        handler.setLevel(level)
        handler.addFilter(_is_wanted)
        root.addHandler(handler)
        self.handlers.append(handler)
        root.setLevel(min(each.level for each in self.handlers))

    def remove(self, handler: logging.Handler) -> None:
        if handler not in self.handlers:
            return
        root = logging.getLogger()
        self.handlers.remove(handler)
        root.removeHandler(handler)
        handler.close()
        if self.handlers:
            root.setLevel(min(each.level for each in self.handlers))
        else:
            root.setLevel(self.level_before)
            warnings.showwarning = self.show_warning_before


_SETUP = _Setup()


def _log_warning(  # noqa: PLR0917 (the signature is Python's)
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """As `warnings.showwarning`, into the log."""
    logging.getLogger(_WARNINGS_LOGGER).warning("%s (%s, %s:%d)", message, category.__name__, filename, lineno)


def setup_logging(folder: Path | None, verbosity: int = 1) -> Callable[[], None]:
    """Send the log to the console and, given a folder, to its `info.log`; Python's warnings go there too.

    A second call while the first is open adds its file and sets the console's level: a program has one console. A file
    is appended to, so a resumed run goes on in the same log.

    Args:
        folder: The run's folder, which exists; None for the console alone.
        verbosity: 0 warnings, 1 what happens, 2 details. The file holds at least what 1 shows.

    Returns:
        A function that takes off what this call put on.
    """
    added: list[logging.Handler] = []
    level = CONSOLE_LEVELS[min(max(verbosity, 0), 2)]
    open_consoles = [handler for handler in _SETUP.handlers if isinstance(handler, ConsoleHandler)]
    for handler in open_consoles:
        handler.setLevel(level)
    if not open_consoles:
        console = ConsoleHandler()
        console.setFormatter(ConsoleFormatter("%(message)s"))
        _SETUP.add(console, level)
        added.append(console)
    if folder is not None:
        file = logging.FileHandler(folder / "info.log", encoding="utf-8", delay=True)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        _SETUP.add(file, min(level, logging.INFO))
        added.append(file)

    def close() -> None:
        for handler in added:
            _SETUP.remove(handler)

    return close
