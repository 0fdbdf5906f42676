"""The history of a run as `metrics.csv`: one line per epoch, the same bytes for the same history."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from base.callback import Callback
from utils.errors import TrainingError
from utils.files import write_text_atomically

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer

FILE_NAME = "metrics.csv"


class MetricsFile(Callback):
    """Writes the whole history after each epoch, so that the file never disagrees with the checkpoint resumed from."""

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Bring the file to the restored history."""
        if trainer.history:
            self._write(trainer)

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """Add the epoch."""
        self._write(trainer)

    def _write(self, trainer: "BaseTrainer") -> None:
        if not trainer.is_main_process or trainer.run_folder is None:
            return
        path = Path(trainer.run_folder) / FILE_NAME
        try:
            write_text_atomically(path, as_csv(trainer.history))
        except OSError as error:
            raise TrainingError(
                f"{path}: not written ({error.strerror}). The run folder must stay writable while a run lasts. Free "
                "some space or mend the permissions, then run the same command with --resume auto."
            ) from error


def as_csv(history: Sequence[Mapping[str, float]]) -> str:
    """Rows as CSV with the union of their columns, in the order of first appearance; numbers are exact."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([repr(row[name]) if name in row else "" for name in columns] for row in history)
    return text.getvalue()
