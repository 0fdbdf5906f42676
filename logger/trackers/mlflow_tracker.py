"""MLflow: the curves of a run on a tracking server, in a database, or in the run's folder."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logger.trackers.tracker import Tracker
from utils.errors import ConfigError

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer


FOLDER = "mlruns"
MOST_AT_ONCE = 100  # parameters in one call, a limit of MLflow
LONGEST_VALUE = 500


class MlflowTracker(Tracker):
    """Writes to MLflow.

    Args:
        config: The resolved config.
        experiment: Experiment of the run; the name of the config where not given.
        tracking_uri: Server, database or folder; `mlruns` in the run's folder where not given.
    """

    def __init__(
        self, config: Mapping[str, Any], *, experiment: str | None = None, tracking_uri: str | None = None
    ) -> None:
        super().__init__(config)
        self.experiment = experiment or str(config["name"])
        self.tracking_uri = tracking_uri
        self._client: Any = None
        self._last_step = -1

    def open(self, trainer: "BaseTrainer", run_id: str | None) -> str:
        """Begin a run with the config as its parameters, or go on with one where it stopped."""
        folder = Path(str(trainer.run_folder))
        uri = self.tracking_uri or (folder.resolve() / FOLDER).as_uri()
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if uri.startswith("file:") or "://" not in uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient(tracking_uri=uri)
            if run_id is not None:
                self._client.update_run(run_id, status="RUNNING")
                self._last_step = self._step_reached(run_id)
                return run_id
            return self._begin(folder.name)
        except (MlflowException, ImportError, OSError) as error:
            raise ConfigError(
                f"visualization.mlflow: {uri} cannot be used ({str(error).splitlines()[0]}). A tracking server, a "
                "database (which needs the whole package: pip install mlflow) or a folder is meant. Correct "
                "tracking_uri, or leave it out: the run's own folder is used then."
            ) from error

    def write(self, row: Mapping[str, float]) -> None:
        """Hand over an epoch, unless it is there."""
        from mlflow.entities import Metric

        step = int(row.get("step", row["epoch"]))
        if step <= self._last_step:
            return
        self._last_step, now = step, int(time.time() * 1000)
        metrics = [Metric(_plain_name(name), float(value), now, step) for name, value in row.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def close(self) -> None:
        """Say that the run is not running."""
        self._client.set_terminated(self.run_id)

    def _begin(self, name: str) -> str:
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self.experiment)
        run_id = str(self._client.create_run(experiment, run_name=name).info.run_id)
        params = [Param(_plain_name(key), value[:LONGEST_VALUE]) for key, value in _flattened(self.config)]
        for start in range(0, len(params), MOST_AT_ONCE):
            self._client.log_batch(run_id, params=params[start : start + MOST_AT_ONCE])
        return run_id

    def _step_reached(self, run_id: str) -> int:
        written = self._client.get_metric_history(run_id, "epoch")
        return max((metric.step for metric in written), default=-1)


def _plain_name(name: str) -> str:
    """A name as MLflow allows it."""
    return re.sub(r"[^/\w.\- ]", "_", name)


def _flattened(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """JSON paths and values of a config, as text."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flattened(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, str(value)
