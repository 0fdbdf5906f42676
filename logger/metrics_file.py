"""The history of a run as `metrics.csv` and `metrics.jsonl`: a line per epoch, the same bytes for the same history."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from base.callback import Callback
from utils.errors import TrainingError
from utils.files import write_text_atomically

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer


class MetricsFile(Callback):
    """Writer of the whole history after each epoch, so that the files always agree with the checkpoint."""

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Cut the files of a resumed run back to the restored history."""
        if trainer.history:
            self.on_epoch_end(trainer, trainer.history[-1])

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """Write both files anew.

        Raises:
            TrainingError: A file cannot be written.
        """
        if not trainer.is_main_process or trainer.run_folder is None:
            return
        for name, as_text in (("metrics.csv", as_csv), ("metrics.jsonl", as_jsonl)):
            path = Path(trainer.run_folder) / name
            try:
                write_text_atomically(path, as_text(trainer.history))
            except OSError as error:
                raise TrainingError(
                    f"{path}: not written ({error.strerror}). The run folder must be writable during the run. "
                    "Free some space or correct the permissions, then run the same command with --resume auto."
                ) from error


def as_csv(history: Sequence[Mapping[str, float]]) -> str:
    """Return rows as CSV with the union of their columns, in the order of first appearance; numbers are exact."""
    # `repr` writes the shortest number that is read back as the same float.
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([repr(row[name]) if name in row else "" for name in columns] for row in history)
    return text.getvalue()


def as_jsonl(history: Sequence[Mapping[str, float]]) -> str:
    """Return rows as JSON lines; numbers are exact, and NaN and infinity, which JSON does not have, are null."""
    rows = ({name: value if math.isfinite(value) else None for name, value in row.items()} for row in history)
    return "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows)
