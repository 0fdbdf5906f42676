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
MAX_PARAMS_PER_CALL = 100  # both are limits of MLflow
MAX_PARAM_LENGTH = 500
REFUSED = re.compile(r"[^/\w.\- ]")  # characters that MLflow does not accept in a name


class MlflowTracker(Tracker):
    """Tracker that writes to MLflow.

    Args:
        config: The resolved config.
        experiment: Experiment of the run; by default the name of the config.
        tracking_uri: Server, database or folder; by default `mlruns` in the run's folder.
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
        """Create a run with the config as its parameters, or reopen one, and return its id.

        Raises:
            ConfigError: The server, database or folder cannot be used.
        """
        folder = Path(str(trainer.run_folder))
        uri = self.tracking_uri or (folder.resolve() / FOLDER).as_uri()
        # Without the second of them, newer versions refuse to write to a folder.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if uri.startswith("file:") or "://" not in uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = client = MlflowClient(tracking_uri=uri)
            if run_id is not None:
                client.update_run(run_id, status="RUNNING")
                written = client.get_metric_history(run_id, "epoch")
                self._last_step = max((metric.step for metric in written), default=-1)
                return run_id
            found = client.get_experiment_by_name(self.experiment)
            experiment = found.experiment_id if found else client.create_experiment(self.experiment)
            run_id = str(client.create_run(experiment, run_name=folder.name).info.run_id)
            params = [Param(REFUSED.sub("_", key), value[:MAX_PARAM_LENGTH]) for key, value in _flattened(self.config)]
            for start in range(0, len(params), MAX_PARAMS_PER_CALL):
                client.log_batch(run_id, params=params[start : start + MAX_PARAMS_PER_CALL])
            return run_id
        except (MlflowException, ImportError, OSError) as error:
            raise ConfigError(
                f"visualization.mlflow: {uri} cannot be used ({str(error).splitlines()[0]}). It must be a tracking "
                "server, a database (which needs the whole package: pip install mlflow) or a folder. Correct "
                "tracking_uri, or leave it out to use the run's folder."
            ) from error

    def write(self, row: Mapping[str, float]) -> None:
        """Send an epoch's row of the history, unless the run has it already."""
        from mlflow.entities import Metric

        # A resumed run sends the epochs after its checkpoint a second time.
        step = int(row.get("step", row["epoch"]))
        if step <= self._last_step:
            return
        self._last_step, now = step, int(time.time() * 1000)
        metrics = [Metric(REFUSED.sub("_", name), float(value), now, step) for name, value in row.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self.run_id)


def _flattened(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the JSON paths and values of a config, as text."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flattened(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, str(value)
