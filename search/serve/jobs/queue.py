"""The queue of the service: jobs that wait, run and are over, in `<folder>/.serve/jobs/`.

All that is known is in the files, see `jobs/files.py`: a service that is killed at any moment and started again reads
them.
"""

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.serve.jobs.files import (
    LOG,
    JobRecord,
    JobState,
    claim,
    is_begun,
    last_line,
    read_job,
    read_state,
    read_target,
    request_stop,
    write_end,
    write_job,
)
from search.serve.jobs.supervisor import TRY_AGAIN
from search.serve.refusals import Refusal
from utils.errors import EspalierError
from utils.files import sync_folder, write_text_atomically
from utils.runs.locks import is_held, lock_table

logger = logging.getLogger("espalier")

_ROOT = Path(__file__).resolve().parents[3]
_SECONDS = 0.3  # between two looks at the queue
_SECONDS_TO_RETRY = 5.0  # after a job could not be started
_SECONDS_TO_START = 120.0
_MOST_STARTS = 3  # of a process that ends before it holds its job
_MOST_WAITING = 1000


@dataclass(frozen=True)
class ServedJob:
    """A job with its state.

    Attributes:
        record: As it was ordered.
        state: At present.
        target: Folder of its study or run; None before it is known.
        place: In the queue, from 1; None if it does not wait.
    """

    record: JobRecord
    state: JobState
    target: str | None
    place: int | None = None


class JobQueue:
    """Orders, starts and stops jobs.

    Args:
        folder: Of all jobs; created.
        num_at_once: Jobs that run at once.
    """

    def __init__(self, folder: Path, num_at_once: int) -> None:
        self.folder = folder
        self.num_at_once = num_at_once
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()  # of orders
        self._changed = threading.Event()
        self._closed = False
        self._over: dict[str, ServedJob] = {}  # these change no more
        self._records: dict[str, JobRecord] = {}
        self._num_starts: dict[str, int] = {}
        self._last_time = 0
        self._thread = threading.Thread(target=self._work, name="queue", daemon=True)

    def open(self) -> None:
        """Begin to start jobs."""
        self._thread.start()

    def close(self) -> None:
        """Start no more jobs; those that run are not touched."""
        self._closed = True
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join()

    def order(
        self, kind: str, action: str, words: Sequence[str], *, parent: Path, **more: Any
    ) -> tuple[ServedJob, bool]:
        """Record a job, which starts when its turn comes.

        Args:
            kind: See `JobRecord`.
            action: See `JobRecord`.
            words: See `JobRecord`.
            parent: See `JobRecord`.
            more: Further values of `JobRecord`, and `files`: contents by name that lie in the job's folder.

        Returns:
            The job, and whether it is new: it is not if `key` is that of an earlier one.

        Raises:
            Refusal: Another job works on its target, too many wait, it cannot be recorded, or `key` is that of another
                request.
        """
        files: Mapping[str, str] = more.pop("files", {})
        with self._lock:
            asked = {name: more[name] for name in ("target", "config", "overrides") if name in more}
            known = self.repeated(more.get("key"), kind, action, **asked)
            if known is not None:
                return known, False
            jobs, target = self.jobs(), more.get("target")
            if target is not None:
                self._require_free(Path(target), jobs)
            if sum(not job.state.is_over for job in jobs) >= _MOST_WAITING:
                raise Refusal(409, f"{_MOST_WAITING} jobs wait already. Cancel some: POST /api/jobs/ID/stop.")
            job_id = self._new_id()
            folder = self.folder / job_id
            words = [word.replace("{job}", str(folder)) for word in words]
            record = JobRecord(job_id, kind, action, words, time.time(), str(parent), **more)
            self._write(folder, record, files)
        self._changed.set()
        return self.job(job_id), True

    def repeated(self, key: str | None, kind: str, action: str, **asked: Any) -> ServedJob | None:
        """Return the job that an earlier request with the same key has ordered; None if there was none.

        Args:
            key: Of the request; None: it has none.
            kind: See `JobRecord`.
            action: See `JobRecord`.
            asked: `target`, `config` and `overrides`, see `JobRecord`.

        Raises:
            Refusal: That request was another one.
        """
        job = None if key is None else next((job for job in self.jobs() if job.record.key == key), None)
        if job is None:
            return None
        record = job.record
        known = (record.kind, record.action, record.target, record.config, record.overrides)
        if known != (kind, action, asked.get("target"), asked.get("config"), asked.get("overrides", [])):
            raise Refusal(
                409, f"Idempotency-Key: is that of job {record.id}, another request. Send a new key with each request."
            )
        return job

    def stop(self, job_id: str) -> ServedJob:
        """Stop a job with its state saved, or cancel it if it waits.

        Raises:
            Refusal: There is none, or it is over.
        """
        job = self.job(job_id)
        if job.state.is_over:
            raise Refusal(409, f"job {job_id}: is {job.state.name}. Only one that waits or runs can be stopped.")
        request_stop(self.folder / job_id)
        self._changed.set()
        return self.job(job_id)

    def jobs(self) -> list[ServedJob]:
        """Return all jobs, the oldest first."""
        table, found = lock_table(), []
        waiting = 0
        for job_id in sorted(self._ids()):
            job = self._over.get(job_id) or self._read(job_id, table)
            if job is None:
                continue
            if job.state.name == "waiting":
                waiting += 1
                job = ServedJob(job.record, job.state, job.target, waiting)
            found.append(job)
        return found

    def job(self, job_id: str) -> ServedJob:
        """Return a job.

        Raises:
            Refusal: There is none with this id.
        """
        found = next((job for job in self.jobs() if job.record.id == job_id), None)
        if found is None:
            raise Refusal(404, f"job {job_id[:80]}: there is none with this id. List them: GET /api/jobs.")
        return found

    def log(self, job: ServedJob) -> Path:
        """Return the file of a job's output."""
        return self.folder / job.record.id / LOG

    def _require_free(self, target: Path, jobs: Sequence[ServedJob]) -> None:
        """Raise if a process works on a folder, or will."""
        for job in jobs:
            if not job.state.is_over and job.target == str(target):
                raise Refusal(
                    409, f"{target.name}: job {job.record.id} is {job.state.name} for it. Stop it, or wait for its end."
                )
        if is_held(target):
            raise Refusal(409, f"{target.name}: a process works on it already. Stop it, or wait for its end.")

    def _ids(self) -> list[str]:
        with suppress(OSError), os.scandir(self.folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".")]
        return []

    def _new_id(self) -> str:
        """Return an id that comes after all others of this service."""
        self._last_time = max(time.time_ns() // 1000, self._last_time + 1)
        return f"{self._last_time:016d}-{uuid.uuid4().hex[:8]}"

    def _write(self, folder: Path, record: JobRecord, files: Mapping[str, str]) -> None:
        """Write a job as a whole: under a hidden name until it is complete, and on the disk.

        Raises:
            Refusal: It cannot be written; there is no job then.
        """
        new = folder.with_name(f".{folder.name}.new")
        try:
            write_job(new, record)
            for name, text in files.items():
                write_text_atomically(new / name, text)
            new.rename(folder)
            sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            if not folder.exists():
                raise Refusal(
                    503, f"The job cannot be recorded ({error.strerror}). Free some space, and send it again."
                ) from error

    def _read(self, job_id: str, table: str) -> ServedJob | None:
        folder = self.folder / job_id
        try:
            record = self._records.get(job_id) or read_job(folder)
            if record is None:
                return None
            self._records[job_id] = record
            state = read_state(folder, table)
            job = ServedJob(record, state, record.target or read_target(folder))
        except EspalierError as error:
            record = JobRecord(job_id, "study", "start", [], 0.0, "")
            return ServedJob(record, JobState("failed", reason=str(error)), None)
        if state.is_over:
            self._over[job_id] = job
        return job

    def _work(self) -> None:
        """Start the jobs whose turn it is, until the service ends."""
        while not self._closed:
            self._changed.clear()
            try:
                open_jobs = [job for job in self.jobs() if not job.state.is_over]
                num_running = sum(job.state.name == "running" for job in open_jobs)
                waiting = [job.record for job in open_jobs if job.state.name == "waiting"]
                if waiting and num_running < self.num_at_once and self._start(waiting[0]):
                    continue
                seconds = _SECONDS
            except (EspalierError, OSError, subprocess.SubprocessError) as error:
                logger.warning("A job cannot be started (%s). It is tried again.", error)
                seconds = _SECONDS_TO_RETRY
            self._changed.wait(seconds)

    def _start(self, record: JobRecord) -> bool:
        """Start the process of a job, which holds it when this returns, unless somebody has cancelled it.

        Returns:
            Whether it was started, or is over.

        Raises:
            OSError: The disk is full; this is no start.
            SubprocessError: It does not start in time.
            SearchError: The job cannot be locked.
        """
        folder = self.folder / record.id
        if self._num_starts.setdefault(record.id, 0) >= _MOST_STARTS:
            held = claim(folder)
            if held is not None:
                try:
                    if not is_begun(folder):
                        write_end(folder, reason="its process could not be started. Correct the installation.")
                finally:
                    os.close(held)
            return is_begun(folder)
        places = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONUNBUFFERED": "1"}
        with open(folder / LOG, "ab") as log:
            try:
                ended = subprocess.run(
                    [sys.executable, "-m", "search.serve.jobs.supervisor", str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                    timeout=_SECONDS_TO_START,
                    check=False,
                )
            except subprocess.SubprocessError:
                self._num_starts[record.id] += 1
                raise
        if ended.returncode == TRY_AGAIN:
            raise OSError(last_line(folder / LOG))
        self._num_starts[record.id] += 1
        return is_begun(folder)
