"""The service's actions for each request, as functions of plain values; `app` gives them addresses."""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.cli.control import command_study
from search.report.page import write_report
from search.results.leaderboard import leaderboard
from search.results.record import CandidateRecord
from search.serve.boards.boards import BoardAnswer, BoardRequest, Boards
from search.serve.catalog import Catalog, Entry, is_worked_on
from search.serve.jobs.allowed import STUDY, TRAINING, admitted, config_text, require_inside
from search.serve.jobs.keys import KeyedAnswers
from search.serve.jobs.queue import JobQueue, ServedJob
from search.serve.jobs.starting import CONFIG_OF_JOB, PROGRAMS, AllowedConfigs, resume_words, start_words
from search.serve.refusals import Refusal
from search.serve.run_files import (
    LogPiece,
    SentFile,
    as_json,
    open_picture,
    read_log,
    require_below,
    run_content,
)
from search.serve.summaries import (
    candidate_row,
    candidate_rows,
    finite_json,
    study_facts,
    study_figures,
)
from search.study.folders import read_present_config
from utils.runs.locks import process_to_stop

_NOTED = "Noted. {}"
_STUDY_KEYS = (*("candidates", "running", "num_samples", "epochs", "seconds", "failed", "objectives", "best", "began"),)
_RUN_KEYS = ("epochs", "max_epochs", "monitor", "best_epoch", "results", "seconds")
_MOST_JOBS = 200  # in an answer
_MOST_REPORTS = 2  # that are written at a time

Json = dict[str, Any]
Active = dict[str, ServedJob]


@dataclass(frozen=True)
class LogSource:
    """An output that grows.

    Attributes:
        read: Returns a piece from an offset.
        is_over: Whether nothing more will be written.
    """

    read: Callable[[int], LogPiece]
    is_over: Callable[[], bool]


class Service:
    """Studies, runs and jobs of one folder.

    Args:
        folder: The folder.
        storage: Folder of the service in it.
        configs: Folders of configs that may be started.
        num_jobs: Jobs at once.
        plugins: Files with the user's classes, loaded already.
        programs: The command of each kind of job.
    """

    def __init__(
        self,
        folder: Path,
        storage: Path,
        *,
        configs: Sequence[Path] = (),
        num_jobs: int = 1,
        plugins: Sequence[str] = (),
        programs: Mapping[str, Sequence[str]] = PROGRAMS,
    ) -> None:
        self.programs = programs
        self.folder = folder
        self.plugins = list(plugins)
        self.configs = AllowedConfigs(configs)
        self.catalog = Catalog(folder, storage, plugins)
        self.queue = JobQueue(storage / "jobs", num_jobs)
        self.answers = KeyedAnswers(storage / "keys")
        self.boards = Boards()
        self._reports = threading.Semaphore(_MOST_REPORTS)

    def open(self) -> None:
        """Begin to read studies and to start jobs."""
        self.catalog.open()
        self.queue.open()

    def close(self) -> None:
        """Stop reading and starting; jobs are not touched."""
        self.boards.close()
        self.queue.close()
        self.catalog.close()

    def look(self) -> dict[str, list[Json]]:
        """Return the summaries of all studies, runs and jobs, the newest first."""
        jobs = self.queue.jobs()
        active = active_jobs(jobs)
        entries = self.catalog.entries()
        return {
            "studies": [self._study(each, active) for each in entries if each.is_study],
            "runs": [self._run(each, active) for each in entries if not each.is_study],
            "jobs": [self._job(job) for job in jobs[::-1][:_MOST_JOBS]],
        }

    def overview(self) -> Json:
        """Return everything that a page shows first."""
        facts = {
            "folder": str(self.folder),
            "jobs": self.queue.num_at_once,
            "can_start": bool(self.configs.folders),
        }
        return {"service": facts, **self.look()}

    def study(self, study_id: str) -> Json:
        """Return summary and facts of a study."""
        entry = self._entry(study_id)
        facts = study_facts(self.catalog.record(entry))
        return {"study": self._study(entry, self._active()), "facts": facts}

    def candidates(self, study_id: str, order: str, status: str | None, offset: int, limit: int) -> Json:
        """Return a part of the table of candidates."""
        record = self.catalog.record(self._entry(study_id))
        return candidate_rows(record, order=order, status=status, offset=offset, limit=limit)

    def candidate(self, study_id: str, number: int) -> Json:
        """Return a candidate with the files of its run."""
        record = self.catalog.record(self._entry(study_id))
        found = self._candidate(study_id, number)
        row = next((each for each in leaderboard(record) if each.candidate.index == number), None)
        content: Json = {"config": {}, "result": {}, "pictures": []}
        if found.folder is not None:
            content = run_content(self._folder_of(study_id, number))
        content["reports"] = found.reports
        return finite_json({"candidate": candidate_row(found, row, record), **content})

    def figures(self, study_id: str) -> Json:
        """Return the figures of a study."""
        return study_figures(self.catalog.record(self._entry(study_id)))

    def report(self, study_id: str) -> SentFile:
        """Return the page of `python -m search report`.

        Raises:
            Refusal: Too many are written at present.
        """
        record = self.catalog.record(self._entry(study_id))
        if not self._reports.acquire(blocking=False):
            raise Refusal(503, f"{_MOST_REPORTS} reports are written, the most at a time. Try again in a moment.")
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "report.html"
                write_report(record, path)
                # Its space is free once it is sent, as it has no name by then.
                return SentFile(open(path, "rb"), path.stat().st_size, "text/html; charset=utf-8")
        finally:
            self._reports.release()

    def run(self, run_id: str) -> Json:
        """Return summary and files of a run."""
        entry = self._entry(run_id, is_study=False)
        self.catalog.refresh(entry)
        return finite_json({"run": self._run(entry, self._active()), **run_content(entry.folder)})

    def picture(self, entry_id: str, number: int | None, name: str) -> SentFile:
        """Return a picture of a run, or of a candidate."""
        return open_picture(self._folder_of(entry_id, number), name)

    def board(self, entry_id: str, request: BoardRequest, *, is_study: bool) -> BoardAnswer:
        """Return the answer of the TensorBoard of a study or run."""
        return self.boards.ask(self._entry(entry_id, is_study=is_study).folder, request)

    def job(self, job_id: str) -> Json:
        """Return a job."""
        return {"job": self._job(self.queue.job(job_id))}

    def log_of_job(self, job_id: str) -> LogSource:
        """Return the output of a job."""
        path = self.queue.log(self.queue.job(job_id))
        return LogSource(lambda offset: read_log(path, offset), lambda: self.queue.job(job_id).state.is_over)

    def log_of_run(self, entry_id: str, number: int | None = None) -> LogSource:
        """Return the log of a run, or of a candidate."""
        path = self._folder_of(entry_id, number) / "info.log"
        entry = self.catalog.entry(entry_id, is_study=number is not None)
        # It is asked again and again: only this folder is looked at.
        return LogSource(lambda offset: read_log(path, offset), lambda: not is_worked_on(entry.folder, entry.is_study))

    def log_of_study(self, study_id: str) -> LogSource:
        """Return the output of the last job of a study."""
        entry = self._entry(study_id)
        jobs = [job for job in self.queue.jobs() if job.target == str(entry.folder)]
        if not jobs:
            raise Refusal(404, f"study {study_id}: the service did not start it, and so has no output of it.")
        return self.log_of_job(jobs[-1].record.id)

    def start(self, kind: str, config: str, overrides: Sequence[str], key: str | None) -> Json:
        """Order a new study or training."""
        known = self.queue.repeated(key, kind, "start", config=config, overrides=list(overrides))
        if known is not None:  # though its config may be changed or removed since
            return {"job": self._job(known)}
        self.answers.require_unused(key)
        content = admitted(self.configs.load(config, overrides), kind, self.folder)
        files = {CONFIG_OF_JOB: config_text(content)}
        parent = self.folder / str(content["name"])
        job, _ = self.queue.order(
            kind,
            "start",
            start_words(self.programs[kind], self.plugins),
            parent=parent,
            config=config,
            overrides=list(overrides),
            key=key,
            files=files,
        )
        return {"job": self._job(job)}

    def resume(self, entry_id: str, kind: str, key: str | None = None) -> Json:
        """Order that a study or run that does not run is continued."""
        entry = self._entry(entry_id, is_study=kind == STUDY)
        known = self.queue.repeated(key, kind, "resume", target=str(entry.folder))
        if known is not None:
            return {"job": self._job(known)}
        self.answers.require_unused(key)
        if kind == STUDY:
            require_inside(read_present_config(entry.folder), self.folder)
        words = resume_words(self.programs[kind], entry.folder, self.plugins)
        job, _ = self.queue.order(kind, "resume", words, parent=entry.folder.parent, target=str(entry.folder), key=key)
        return {"job": self._job(job)}

    def stop_job(self, job_id: str) -> Json:
        """Stop or cancel a job."""
        return {"job": self._job(self.queue.stop(job_id))}

    def stop_run(self, run_id: str) -> Json:
        """Stop the job that trains a run, or the process of this machine that was started elsewhere."""
        entry = self._entry(run_id, is_study=False)
        job = self._active().get(str(entry.folder))
        if job is not None:
            return self.stop_job(job.record.id)
        process = process_to_stop(entry.folder)
        if process is None and is_worked_on(entry.folder, entry.is_study):
            raise Refusal(409, f"run {run_id}: the process that trains it is not known. Stop it where it runs.")
        if process is None:
            raise Refusal(409, f"run {run_id}: no process of this machine trains it. There is nothing to stop.")
        try:
            os.kill(process, signal.SIGTERM)
        except OSError as error:  # of another user, or it has just ended
            refusal = f"run {run_id}: process {process} cannot be stopped ({error.strerror}). Stop it where it runs."
            raise Refusal(409, refusal) from None
        return {"message": _NOTED.format(f"Process {process} saves its state and ends.")}

    def command(self, study_id: str, command: str, key: str | None = None, **given: Any) -> Json:
        """Leave a command for a study; jobs resume one that does not run, and stop one that a job runs."""
        entry = self._entry(study_id)
        self.catalog.entries()
        request = {"study": study_id, "command": command, **given}
        is_whole = given.get("candidate") is None
        known = self.answers.find(key, request)
        if known is not None:
            return known
        action, target = ("resume", str(entry.folder)) if command == "resume" and is_whole else (command, None)
        is_of_job = self.queue.repeated(key, STUDY, action, target=target) is not None
        if is_whole:
            if command == "resume" and (is_of_job or not entry.is_running):
                return self.resume(study_id, STUDY, key)
            job = self._active().get(str(entry.folder))
            if command == "stop" and job is not None:
                return self.stop_job(job.record.id)

        def obey(identity: str | None) -> Json:
            command_study(entry.folder, command, identity=identity, **given)
            when = "The search obeys within a second, or if it trains in its own process, after its epoch."
            return {"message": _NOTED.format(when if entry.is_running else "It is obeyed when the study is resumed.")}

        return self.answers.once(key, request, obey)

    def allowed_configs(self) -> Json:
        """Return the configs that may be started."""
        return {"configs": [{"config": name, "kind": kind} for name, kind in self.configs.kinds().items()]}

    def _active(self) -> Active:
        return active_jobs(self.queue.jobs())

    def _entry(self, entry_id: str, *, is_study: bool = True) -> Entry:
        entry = self.catalog.entry(entry_id, is_study=is_study)
        require_below(entry.folder, self.folder)
        return entry

    def _candidate(self, study_id: str, number: int) -> CandidateRecord:
        record = self.catalog.record(self._entry(study_id))
        found = next((each for each in record.candidates if each.index == number), None)
        if found is None:
            raise Refusal(404, f"candidate {number}: is not in the study, which has {len(record.candidates)}, from 0.")
        return found

    def _folder_of(self, entry_id: str, number: int | None) -> Path:
        """Return the folder of a run, or of a candidate of a study."""
        if number is None:
            return self._entry(entry_id, is_study=False).folder
        found = self._candidate(entry_id, number)
        if found.folder is None:
            raise Refusal(404, f"candidate {number}: has no folder, as nothing was trained. Its reason is in its row.")
        return require_below(self._entry(entry_id).folder / found.folder, self.folder)

    def _study(self, entry: Entry, active: Active) -> Json:
        summary = entry.summary
        state = "unreadable" if entry.error else "done" if summary.get("is_done") else "unfinished"
        found = self._common(entry, active, state)
        found |= {"is_current": entry.is_current, "updated": entry.signature[0]}
        return found | {key: summary.get(key) for key in _STUDY_KEYS}

    def _run(self, entry: Entry, active: Active) -> Json:
        summary = entry.summary
        found = self._common(entry, active, "done" if summary.get("is_done") else "unfinished")
        return found | {"updated": entry.signature[0]} | {key: summary.get(key) for key in _RUN_KEYS}

    def _common(self, entry: Entry, active: Active, state: str) -> Json:
        job = active.get(str(entry.folder))
        # Its job runs a moment longer than it holds the folder.
        is_running = entry.is_running or (job is not None and job.state.name == "running")
        return {
            "id": entry.id,
            "name": entry.summary.get("name") or entry.folder.parent.name,
            "folder": entry.folder.relative_to(self.folder).as_posix(),
            "state": "running" if is_running else state,
            "error": entry.error or None,
            "job": None if job is None else job.record.id,
        }

    def _job(self, job: ServedJob) -> Json:
        record, state = job.record, job.state
        target = self.catalog.id_of(job.target)
        return {
            "id": record.id,
            "kind": record.kind,
            "action": record.action,
            "state": state.name,
            "config": record.config,
            "overrides": record.overrides,
            "study": target if record.kind == STUDY else None,
            "run": target if record.kind == TRAINING else None,
            "place": job.place,
            "created": record.created,
            "started": state.started,
            "ended": state.ended,
            "exit_code": state.exit_code,
            "signal": state.signal,
            "reason": state.reason,
        }


def active_jobs(jobs: Sequence[ServedJob]) -> Active:
    """Return the job that waits or runs for each folder that has one."""
    return {job.target: job for job in jobs if job.target is not None and not job.state.is_over}


def log_json(source: LogSource, offset: int) -> Json:
    """Return a piece of an output as it is answered."""
    return dict(as_json(source.read(offset)))
