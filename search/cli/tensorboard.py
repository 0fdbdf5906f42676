"""A search in TensorBoard: a run per candidate, and the HParams page with the drawn values. Does not import torch.

Each session of a search writes its files under new names, so that a file torn by a kill damages no later events.
"""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.results.importance import is_number
from search.study.journal import Event
from search.study.state import StudyState
from utils.errors import SearchError

TENSORBOARD = "tensorboard"
_RUN = "{:05d}"  # name of the run of a candidate
_TITLE_CHARACTERS = 80


class TensorBoardRuns:
    """Writer of `<folder>/<number>/events.out.tfevents...`, and of the columns of HParams in `<folder>`.

    Args:
        folder: Of all runs; created with the first of them.
        metrics: Results that HParams shows as columns, such as `val_miou`.

    Raises:
        SearchError: The package is not installed.
    """

    def __init__(self, folder: Path, metrics: Sequence[str]) -> None:
        try:
            import tensorboard.plugins.hparams.metadata  # noqa: F401  so that the error comes before the first epoch
        except ImportError as error:
            raise SearchError(
                f"trainer.tensorboard is true, and TensorBoard cannot be imported ({error}). Run pip install "
                "tensorboard, or set trainer.tensorboard=false."
            ) from error
        self.folder = folder
        self.metrics = tuple(metrics)
        self._session = f"{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._paths: set[str] = set()
        self._begun: set[int] = set()  # candidates, in this session

    def watch(self, event: Event, state: StudyState) -> None:
        """Write an epoch, or the end of a candidate, by an event of the study."""
        if event.candidate is None or event.candidate not in state.candidates or "run" in event.data:
            return
        candidate = state.candidates[event.candidate]
        if event.kind == "report":
            if event.candidate not in self._begun:
                self._begun.add(event.candidate)
                self.begin(event.candidate, candidate.record.drawn)
            self.report(event.candidate, event.data["epoch"], event.data["row"])
        # A paused candidate may continue: its run is not finished.
        elif event.kind == "ended" and candidate.record.status in ("completed", "stopped", "failed"):
            self.finish(event.candidate, failed=event.data["status"] == "failed")

    def begin(self, candidate: int, drawn: Sequence[tuple[str, Any]]) -> None:
        """Write the drawn values of a candidate, before its first report in each session."""
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

        paths = {path for path, _ in drawn}
        if paths - self._paths:
            # The columns of all candidates so far; TensorBoard uses the newest such event.
            self._paths |= paths
            columns = [
                api_pb2.HParamInfo(name=path, display_name=path[-_TITLE_CHARACTERS:]) for path in sorted(self._paths)
            ]
            metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name)) for name in self.metrics]
            experiment = api_pb2.Experiment(hparam_infos=columns, metric_infos=metrics)
            self._append_plugin_data(".", "experiment", experiment=experiment)
        run = _RUN.format(candidate)
        start = plugin_data_pb2.SessionStartInfo(group_name=run, start_time_secs=time.time())
        for path, value in drawn:
            if isinstance(value, bool):
                start.hparams[path].bool_value = value
            elif is_number(value):
                start.hparams[path].number_value = value
            else:
                start.hparams[path].string_value = value if isinstance(value, str) else json.dumps(value)
        self._append_plugin_data(run, "session_start_info", session_start_info=start)

    def report(self, candidate: int, epoch: int, row: Mapping[str, float]) -> None:
        """Write the results of an epoch, with the epoch as the step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "epoch"]
        self._append(_RUN.format(candidate), Summary(value=values), epoch)

    def finish(self, candidate: int, *, failed: bool = False) -> None:
        """Write the end of a candidate."""
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

        status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        self._append_plugin_data(_RUN.format(candidate), "session_end_info", session_end_info=end)

    def _append_plugin_data(self, run: str, name: str, **content: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
        value = Summary.Value(tag=f"_hparams_/{name}", metadata=described, tensor=metadata.NULL_TENSOR)
        self._append(run, Summary(value=[value]), 0)

    def _append(self, run: str, summary: Any, step: int) -> None:
        """Add an event to a run's file of this session, which is closed again: there may be thousands of runs."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        path = self.folder / run / f"events.out.tfevents.{self._session}"
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with open(path, "ab") as file:
            writer = RecordWriter(file)
            if is_new:
                writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            writer.write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())
