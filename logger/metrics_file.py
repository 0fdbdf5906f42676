"""The history of a run as `metrics.csv` and `metrics.jsonl`: a line per epoch, the same bytes for the same history."""

import csv
import io
import json
import math
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
        """Write both files anew; numbers are exact.

        Raises:
            TrainingError: A file cannot be written.
        """
        if not trainer.is_main_process or trainer.run_folder is None:
            return
        # The union of all columns, in the order of first appearance. `repr` writes the shortest number that is read
        # back as the same float. JSON does not have NaN and infinity: they are null.
        columns = list(dict.fromkeys(name for row in trainer.history for name in row))
        table, lines = io.StringIO(), ""
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(columns)
        for row in trainer.history:
            writer.writerow([repr(row[name]) if name in row else "" for name in columns])
            finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
            lines += f"{json.dumps(finite, allow_nan=False)}\n"
        for name, text in (("metrics.csv", table.getvalue()), ("metrics.jsonl", lines)):
            path = Path(trainer.run_folder) / name
            try:
                write_text_atomically(path, text)
            except OSError as error:
                raise TrainingError(
                    f"{path}: not written ({error.strerror}). The run folder must be writable during the run. "
                    "Free some space or correct the permissions, then run the same command with --resume auto."
                ) from error
