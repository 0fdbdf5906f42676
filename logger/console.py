"""Log records of a run on the console and in its `info.log`. Only the entry points call this."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.errors import EspalierError
from utils.writing.text import indented, visible

logger = logging.getLogger(__name__)
CONSOLE_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
OUR_LOGGERS = {
    "base", "config", "data_loader", "logger", "models", "predictor", "search", "trainer", "utils",
    "__main__", "build", "espalier", "export", "inference", "test", "train",
}  # fmt: skip


_LOG = "info.log"
_ONLY_IN_FILE = "is_only_in_file"


class _FileFormatter(logging.Formatter):
    """Formatter of a file: nothing in a message can be taken for another record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record; its later lines are indented."""
        return indented(super().format(record))


class ConsoleHandler(logging.Handler):
    """Handler that writes to standard error without tearing a progress bar; standard output is for results only."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message above any bar, after its level if that is above INFO."""
        if getattr(record, _ONLY_IN_FILE, False):
            return
        try:
            text = self.format(record)
            text = indented(text) if record.levelno > logging.INFO else visible(text)
            if record.levelno > logging.INFO:
                text = f"{record.levelname.lower()}: {text}"
            # It removes open bars, writes, and draws them again.
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class EarlierRecords(logging.Handler):
    """Handler that stores the records of before a run has a folder, for the beginning of its `info.log`.

    Attributes:
        records: In their order.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store a record."""
        self.records.append(record)

    def taken(self) -> list[logging.LogRecord]:
        """Return the records, and store no more."""
        logging.getLogger().removeHandler(self)
        return self.records


@contextmanager
def earlier_records() -> Iterator[EarlierRecords]:
    """Store the log records of a block until they are taken."""
    handler, root = EarlierRecords(), logging.getLogger()
    level_before = root.level
    root.addHandler(handler)
    root.setLevel(min(level_before, logging.INFO))
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        root.setLevel(level_before)


def repeat_in_file(records: Iterable[logging.LogRecord], folder: Path) -> None:
    """Write records of before a run had a folder into its `info.log`, which is open."""
    log = os.path.abspath(folder / _LOG)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and handler.baseFilename == log:
            for record in records:
                handler.handle(record)


def log_end(error: BaseException) -> None:
    """Write the error that ends a run into its `info.log`: the command line shows it by itself."""
    is_ours = isinstance(error, EspalierError | KeyboardInterrupt)
    number = getattr(error, "signal_number", signal.SIGINT)
    text = str(error) or (f"Stopped at once by {signal.Signals(number).name}." if is_ours else type(error).__name__)
    logger.error("The run has ended: %s", text, exc_info=None if is_ours else error, extra={_ONLY_IN_FILE: True})


def setup_logging(folder: Path | None, verbosity: int = 1) -> Callable[[], None]:
    """Send log records and Python's warnings to the console and, if a folder is given, to its `info.log`.

    A program has one console: a second call while the first is open adds its file and sets the console's level. The
    file is appended to, so a resumed run continues the same log.

    Args:
        folder: The run's folder, which exists; None for the console alone.
        verbosity: 0 for warnings, 1 for progress, 2 for details. The file holds at least the messages of 1.

    Returns:
        A function that removes the handlers which this call added. Calls are closed in reverse order.
    """
    root = logging.getLogger()
    level_before, show_warning_before = root.level, warnings.showwarning
    level = CONSOLE_LEVELS[min(max(verbosity, 0), 2)]
    added: list[logging.Handler] = []
    consoles = [handler for handler in root.handlers if isinstance(handler, ConsoleHandler)]
    if not consoles:
        consoles = [ConsoleHandler()]
        added += consoles
    for console in consoles:
        console.setLevel(level)
    if folder is not None:
        # Created with the first record, so that a run that fails before it leaves no empty file.
        file = logging.FileHandler(folder / _LOG, encoding="utf-8", delay=True)
        file.setFormatter(_FileFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        file.setLevel(min(level, logging.INFO))
        added.append(file)
    for handler in added:
        handler.addFilter(_is_wanted)
        root.addHandler(handler)
    # Other handlers on the root logger, such as those of a test runner, do not decide its level.
    root.setLevel(min(handler.level for handler in root.handlers if _is_wanted in handler.filters))
    warnings.showwarning = _log_warning

    def close() -> None:
        for handler in added:
            root.removeHandler(handler)
            handler.close()
        remaining = (handler.level for handler in root.handlers if _is_wanted in handler.filters)
        root.setLevel(min(remaining, default=level_before))
        warnings.showwarning = show_warning_before

    return close


def _is_wanted(record: logging.LogRecord) -> bool:
    """Return whether to show a record: below INFO those of this project only, libraries log too many details."""
    return record.levelno >= logging.INFO or record.name.partition(".")[0] in OUR_LOGGERS


def _log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
) -> None:
    """Log a warning; takes the place of `warnings.showwarning`."""
    logging.getLogger("warnings").warning("%s (%s, %s:%d)", message, category.__name__, filename, lineno)


class ReadingBar:
    """A progress bar on standard error for each split whose samples are read."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm[Any]] = {}

    def __call__(self, split: str, done: int, total: int) -> None:
        """Show that so many samples of a split were read; the last closes the bar."""
        if split not in self._bars:
            self._bars[split] = tqdm(total=total, unit="sample", desc=f"read {split}", dynamic_ncols=True, leave=False)
        bar = self._bars[split]
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
