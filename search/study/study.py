"""A study: from the first draw to the tested winner in `best/`, resumed after any interruption."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from config.objects import instantiate
from search.executors.base import Executor, failure
from search.joining.lease import is_shared
from search.joining.published import journal_to_read
from search.registry import REGISTRY
from search.results.beliefs import beliefs_shown
from search.results.leaderboard import leaderboard, winner_of
from search.results.record import RetrainedRecord, RungRecord, StudyRecord, leading_place, without_penalty
from search.samplers.base import Beliefs
from search.strategies.base import NO_MORE, Strategy, StudyContext
from search.strategies.in_order import InOrder
from search.strategies.measure import MeasureLatency
from search.strategies.multi_fidelity import candidate_folder
from search.strategies.retrain import Retrain
from search.study.best import write_best
from search.study.cleaner import LATENCY_FACTOR, CheckpointCleaner, compared_values, compares_latency
from search.study.commands import Command, drop_commands_of_the_past, remove_command, waiting_commands
from search.study.driver import Driver, Recorder, Watcher, replay
from search.study.folders import make_log_folder, place_runs, read_present_config, read_study_config, session_options
from search.study.journal import JOURNAL, Event, Journal, read_events
from search.study.settings import StudyParts, build_study_parts
from search.study.state import CandidateState, StudyState
from search.study.warm_start import transferred
from utils.errors import ConfigError, EspalierError, SearchError
from utils.files import folder_lock
from utils.plugins import command_line

logger = logging.getLogger("espalier")


@dataclass
class Study:
    """A search in a folder; it continues from the journal that is there.

    Attributes:
        folder: Folder of the study.
        parts: The parts of the study, as it was begun.
        worker: The worker's context manager, "package.module:name"; see `Executor`.
        num_samples: Candidates to try, if the study is to grow; None: as many as it has.
        environment: Versions and command, for the journal.
        extras: Added to the payload of every task, e.g. plug-ins.
        watchers: Called with each event after it is in the journal.
    """

    folder: Path
    parts: StudyParts
    _: KW_ONLY
    worker: str
    num_samples: int | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    watchers: Sequence[Watcher] = ()

    def __post_init__(self) -> None:
        self.state = StudyState(self.parts.objectives, self.parts.max_epochs, self.parts.constraints)
        self.strategy = build_strategy(self.parts)
        self._has_warned = False  # of a sampler that fails to give its beliefs

    def run(self, *, executor: Executor | None = None, journal: Journal | None = None) -> StudyRecord:
        """Search, train the best again, and write the winner to `best/`.

        Args:
            executor: Runs the tasks; by default the executor of the study's parts.
            journal: The open journal; by default that in the folder, which no other process may use.

        Raises:
            Interrupted: A signal or command asked to stop; all is saved.
            SearchError: Another search uses the folder, the journal is damaged or does not fit, or no candidate could
                be trained.
        """

        def in_use(process: str) -> SearchError:
            return SearchError(
                f"{self.folder}: process {process} is searching there. A study is continued by one search at a time. "
                "Wait for its end, or start another one without --resume."
            )

        executor = executor or self.parts.executor
        with (
            folder_lock(self.folder if journal is None else None, in_use),
            closing(journal or self._open_alone()) as opened,
        ):
            if journal is None:  # of a shared study, the process that leads knows whether it takes over
                drop_commands_of_the_past(self.folder)
            recorder = Recorder(opened, self.state, self.strategy, list(self.watchers))
            self.restore(recorder)
            executor.continue_after(read_events(self.folder / JOURNAL))
            opened.now = executor.now
            self._grow(recorder)
            # A study that is done may be resumed with a larger budget, or for more retrainings.
            options = session_options(self.parts.config)
            # The strategy is asked last: one without a finalist is an error, unless a command is to be obeyed first.
            if self._is_settled(options) and not waiting_commands(self.folder) and self.strategy.is_done:
                return self.record()
            recorder.record("study.begin", environment=self.environment, options=options)
            self._warm_start(recorder)
            if not self.strategy.retains_all:
                recorder.watchers.append(self._clean(recorder))
            # Workers are started only now: a study that is done needs none.
            place_runs(self.folder, self.parts.run_dir)
            logs = make_log_folder(self.folder)
            executor.check_resources(self.parts.resources)
            executor.open(self.worker, logs)
            try:
                driver = Driver(executor, self.strategy, dict(self.extras), self.parts.max_epoch_time)
                driver.look = lambda: self._obey(recorder, driver)
                driver.run()
                winner = write_best(
                    self.record(),
                    self._config_of,
                    retrained_config=self.parts.retrained_config,
                )
                if winner is None:
                    raise self._nothing_found()
                if self._compares_latency and not self.strategy.retains_all:  # now it is known who is on the front
                    self._cleaner(recorder).clean(thoroughly=True)
                recorder.record("study.done", winner)
            finally:
                executor.close()
        return self.record()

    def _is_settled(self, options: Mapping[str, Any]) -> bool:
        """Whether `best/` holds what it would hold after a session with these options that trains nothing more."""
        if not self.state.is_done:
            return False
        before = self.state.options
        if before is None:  # an earlier version had those that the study was begun with, as far as is known
            before = session_options(read_study_config(self.folder))
        return bool(before.get("retrain") == options.get("retrain"))

    def _open_alone(self) -> Journal:
        """Open the journal for a search by one process.

        Raises:
            SearchError: Several processes share the study.
        """
        if is_shared(self.folder):
            raise SearchError(
                f"{self.folder}: several processes share this study, and one of them leads it, or died. Continue it as "
                f"one of them: {command_line('python', '-m', 'search', 'join', self.folder)}"
            )
        return Journal(self.folder / JOURNAL)

    def restore(self, recorder: Recorder | None = None) -> None:
        """Apply the journal to state and strategy.

        Raises:
            SearchError: It is missing, damaged, or does not fit the parts.
        """

        def read_only(name: str, candidate: int | None = None, **data: Any) -> Any:
            raise SearchError(f"{self.folder}: {name} cannot be recorded, as the study is only read.")

        record = read_only if recorder is None else recorder.record
        self.strategy.bind(StudyContext(record, self.state, self.ranked, self.front, self.folder))
        path = journal_to_read(self.folder) if recorder is None else self.folder / JOURNAL
        replay(read_events(path), self.state, self.strategy, path)
        self.strategy.start()

    def _grow(self, recorder: Recorder) -> None:
        """Let the strategy try more candidates than it was begun with."""
        if self.num_samples is not None and self.num_samples > self.strategy.num_samples:
            before = self.strategy.num_samples
            self.strategy.grow(self.num_samples)
            recorder.record("study.grown", num_samples=self.num_samples)
            logger.info("The study grows from %d to %d candidates.", before, self.num_samples)

    def _warm_start(self, recorder: Recorder) -> None:
        """Record the results of another study that hold in this one, once.

        Raises:
            SearchError: There is no study in the folder, or a damaged one.
        """
        source = self.parts.warm_start
        if source is None or self.state.is_warm:
            return
        parts = build_study_parts(read_present_config(Path(source)))
        other = Study(Path(source), parts, worker="")
        other.restore()
        ours = self.parts
        taken = transferred(other.state, parts.space, ours.space, ours.objectives, ours.constraints)
        logger.info("Warm start: %d of %d candidates of %s hold here.", len(taken), len(other.state.candidates), source)
        recorder.record("study.warm_started", folder=str(source), observations=taken)

    @property
    def _compares_latency(self) -> bool:
        return compares_latency(self.parts.objectives, self.parts.constraints)

    def _cleaner(self, recorder: Recorder, latency_factor: float = 1.0) -> CheckpointCleaner:
        """Return the cleaner of the checkpoints of all candidates so far.

        Args:
            recorder: Records deletions.
            latency_factor: Factor by which latencies may differ that are not measured again.
        """
        parts, state = self.parts, self.state

        def record_deleted(index: int, num_bytes: int) -> None:
            recorder.record(f"{state.candidates[index].stage}.deleted", index, bytes=num_bytes)

        cleaner = CheckpointCleaner(
            lambda index: self.folder / candidate_folder(index),
            self.strategy.may_resume,
            record_deleted,
            num_objectives=len(parts.objectives),
            disk_mb=parts.budget.disk_mb,
            retain=max(1, parts.retrain.top if parts.retrain is not None else 0),
            is_certain=latency_factor == 1.0,
        )
        for index, each in state.candidates.items():
            # One that was killed between its draw and its first job is not at its end: it has yet to get the job.
            if index not in state.jobs and each.record.status != "running":
                self._note_end(cleaner, each, latency_factor)
        return cleaner

    def _note_end(self, cleaner: CheckpointCleaner, each: CandidateState, latency_factor: float) -> None:
        best, worst = (compared_values(self.state, each, factor) for factor in (1 / latency_factor, latency_factor))
        cleaner.ended(each.record.index, each.record.status, each.bytes, best, worst)

    def _clean(self, recorder: Recorder) -> Watcher:
        """Return a watcher that deletes checkpoints when jobs end."""
        latency_factor = LATENCY_FACTOR if self._compares_latency else 1.0
        cleaner = self._cleaner(recorder, latency_factor)

        def watch(event: Event, state: StudyState) -> None:
            if "run" in event.data or event.stage == "study":
                return
            if event.candidate is not None and event.kind == "job":
                cleaner.began(event.candidate)
            elif event.candidate is not None and event.kind == "ended" and event.candidate not in state.jobs:
                self._note_end(cleaner, state.candidates[event.candidate], latency_factor)
                cleaner.clean()
            elif event.kind == "done":
                cleaner.clean(thoroughly=True)

        return watch

    def _obey(self, recorder: Recorder, driver: Driver) -> None:
        """Carry out the commands that the user left in the folder."""
        for command in waiting_commands(self.folder):
            if command.id not in self.state.obeyed:
                refusal = ""
                try:
                    with recorder.obeying(command.id):
                        self._carry_out(command, recorder, driver)
                except EspalierError as error:
                    refusal = str(error)
                    logger.warning("%s: refused: %s", command.name, refusal)
                data = {"id": command.id, "command": command.name, "refusal": refusal, **command.data}
                recorder.record("study.command", **data)
            remove_command(self.folder, command)

    def _carry_out(self, command: Command, recorder: Recorder, driver: Driver) -> None:
        candidate = command.data.get("candidate")
        if candidate is not None and candidate not in self.state.candidates:
            raise SearchError(f"candidate {candidate} is not known. It has {len(self.state.candidates)} candidates.")
        if command.name == "add":
            num_samples = self.strategy.num_samples + command.data["num_samples"]
            self.strategy.grow(num_samples)
            recorder.record("study.grown", num_samples=num_samples)
        elif candidate is None and command.name in ("pause", "resume"):
            driver.is_paused = command.name == "pause"
        elif candidate is None and command.name == "stop":
            driver.stop()
        else:
            self.strategy.obey(command.name, command.data)

    def ranked(self) -> list[int]:
        """Return the numbers of the candidates with results, the best first.

        Raises:
            SearchError: There is none.
        """
        ranked = [row.candidate.index for row in leaderboard(self._results({}))]
        if not ranked:
            raise self._nothing_found()
        return ranked

    def front(self) -> list[int]:
        """Return the numbers of the Pareto front, the winner first; with one objective, of the winner."""
        study = self._results(self.strategy.retrained())
        winner = winner_of(study)
        if len(self.parts.objectives) > 1:
            front = [row.candidate.index for row in leaderboard(study) if row.is_on_front]
            return sorted(front, key=lambda index: winner is None or index != winner.index)
        return [] if winner is None else [winner.index]

    def _nothing_found(self) -> SearchError:
        """Return the error of a study in which no candidate has a result."""
        records = [each.record for each in self.state.candidates.values()]
        if any(each.reports and each.status != "failed" for each in records):
            names = " and ".join(each.name for each in self.parts.objectives)
            return SearchError(
                f"{self.folder}: no candidate has a finite value of {names}, by which the best one is chosen. Name "
                "other search.objectives, or correct the data."
            )
        reasons = [each.reason for each in records if each.reason]
        ending = self.state.reason_done
        if not reasons and ending not in ("", NO_MORE):
            return SearchError(
                f"{self.folder}: no candidate has a result, and {ending}. The first one has a result after its first "
                "epoch, in folds after that of all of them. Raise search.budget, and continue with --resume auto."
            )
        last = f"; the last reason: {reasons[-1].rstrip('.')}" if reasons else ""
        return SearchError(
            f"{self.folder}: none of {len(records)} candidates could be trained{last}. Try one "
            "with train.py, or look into its folder."
        )

    def record(self, *, with_beliefs: bool = False) -> StudyRecord:
        """Return the present state of the study, as it is shown to the user.

        Args:
            with_beliefs: Whether the sampler is asked for its beliefs, which can take a second in a large study.
        """
        # First the sampler is asked: the results say of some paused candidates that they are stopped.
        beliefs = self.beliefs() if with_beliefs else Beliefs()
        study = self._results(self.strategy.retrained())
        study.beliefs = beliefs
        study.winner = self.strategy.winner() if leaderboard(study) else None
        study.sections = list(self.strategy.sections())
        return study

    def _results(self, retrained: Mapping[str, RetrainedRecord]) -> StudyRecord:
        """Return the results alone, by which a strategy may choose the winner, with these retrainings."""
        parts, state = self.parts, self.state
        now = state.sessions[-1][1] if state.sessions else time.time()
        for index, each in state.candidates.items():
            # One that was paused and will never be resumed is stopped.
            if each.record.status == "paused" and not self.strategy.may_resume(index):
                each.record.status = "stopped"
            each.record.spans = state.timeline.of(index, now)
        for name, run in retrained.items():
            run.spans = state.timeline.of(name, now)
        study = StudyRecord(
            name=str(parts.config["name"]),
            folder=str(self.folder),
            config=dict(parts.config),
            scheduler=self.strategy.title,
            objectives=[str(objective) for objective in parts.objectives],
            constraints=[str(constraint) for constraint in parts.constraints],
            max_epochs=parts.max_epochs,
            candidates=[each.record for each in state.candidates.values()],
            rungs=self.rungs(),
            retrained=list(retrained.values()),
            sessions=[(begin, end) for begin, end in state.sessions],
            is_done=state.is_done,
            bytes_deleted=state.bytes_deleted,
            unknown_events=dict(state.unknown),
            result_is_retrained=self.strategy.result_is_retrained,
            num_samples=max(self.num_samples or 0, self.strategy.num_samples),
        )
        ranks = {row.candidate.index: row.rank for row in leaderboard(study)}
        for run in study.retrained:  # a resumed study may have found better ones since
            run.rank = ranks.get(run.candidate, run.rank)
        return study

    def beliefs(self) -> Beliefs:
        """Return the sampler's predictions for candidates that run or may be continued, and its importances.

        The values are of the first objective that is a result, in its original sign. An error of the sampler, perhaps a
        class of the user's own, ends nothing: it is logged once, and the beliefs are empty.
        """
        running = {
            index
            for index, each in self.state.candidates.items()
            if each.record.status == "running" or (each.record.status == "paused" and self.strategy.may_resume(index))
        }
        try:
            goal = self.parts.objectives[leading_place(self.parts.objectives)]
            return beliefs_shown(self.strategy.beliefs(), goal.sign, running)
        except Exception as error:
            if not self._has_warned:
                self._has_warned = True
                reason = failure(error)["reason"].rstrip(".")
                logger.warning(
                    "search.sampler: what it believes is not shown (%s). Nothing else depends on that. Correct its "
                    "method beliefs.",
                    reason,
                )
            return Beliefs()

    def rungs(self) -> list[RungRecord]:
        """Return the rungs of the strategy, with the first objective that is a result, as it is there."""
        place = leading_place(self.parts.objectives)
        sign = self.parts.objectives[place].sign

        def value_of(values: Sequence[float]) -> float:
            return without_penalty(values[place]) * sign if place < len(values) else math.nan  # of one that failed

        return [
            RungRecord(
                rung.bracket,
                rung.epochs,
                {candidate: value_of(values) for candidate, values in rung.values.items()},
                list(rung.promoted),
                rung.passed,
                rung.decides,
            )
            for rung in self.strategy.rungs()
        ]

    def _config_of(self, candidate: int) -> dict[str, Any]:
        """Return the config of a candidate for `best/`."""
        config = self.strategy.config_of(candidate)
        if config is not None:
            return config
        state = self.state.candidates[candidate]
        assert state.drawn is not None, "set when it was drawn"
        return {**self.parts.space.config(state.drawn), "seed": state.record.seed}


def build_strategy(parts: StudyParts) -> Strategy:
    """Return the strategy of a study: that of its config, then the retraining of the best and their latency.

    Raises:
        ConfigError: Its arguments are faulty, or it cannot train in folds and the study asks for that.
    """
    spec = {"search": {"strategy": parts.strategy or "MultiFidelity"}}
    first = instantiate(spec, "search.strategy", REGISTRY, runtime={"parts": parts})
    if parts.folds is not None and not first.trains_in_folds:
        raise ConfigError(
            f"search.folds: {parts.folds}, and {first.title} cannot train a candidate in folds. Remove it, or choose "
            "another search.strategy."
        )
    searching = [first, *first.followers()]
    last = searching[-1]
    return InOrder([*searching, Retrain(parts, searching=last), MeasureLatency(parts, searching=last)])


def read(folder: Path, parts: StudyParts, *, with_beliefs: bool = False) -> StudyRecord:
    """Read a study from its journal, which a search may be writing to.

    Args:
        folder: Its folder.
        parts: Its parts.
        with_beliefs: See `Study.record`.

    Raises:
        SearchError: It is missing, damaged, or does not fit the parts.
    """
    study = Study(folder, parts, worker="")
    study.restore()
    return study.record(with_beliefs=with_beliefs)
