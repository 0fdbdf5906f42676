"""The contract of a strategy: it decides which work is done in which order."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from search.executors.base import Task
from search.results.record import RetrainedRecord
from search.samplers.base import Beliefs
from search.schedulers.base import Decision, Rung
from search.space.cover import Check
from search.space.space import Space
from search.study.journal import Event
from search.study.state import StudyState
from utils.errors import SearchError

Loss = Literal["died", "hung"]  # the worker was killed or crashed; the search ended it since it was silent
MOST_LOSSES = 3  # a worker that is lost so often at the same epoch is lost because of its task
NO_MORE = "the scheduler has no more to do"  # reason for the end of a stage; journals are compared with it


@dataclass(frozen=True)
class Outcome:
    """The end of a task, as its worker returned it.

    Attributes:
        status: "ended", "interrupted" (its state is saved), "refused" (before any work), "out_of_memory" or "failed".
        values: Results by name, e.g. of a test.
        artefacts: Files that it left, by name, relative to its run folder.
        facts: Costs by name, known before training.
        reason: Why it failed or was refused.
        details: Everything else that the worker returned.
    """

    status: str
    values: Mapping[str, float] = field(default_factory=dict)
    artefacts: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> "Outcome":
        """Return the outcome that a worker returned as plain data."""
        known = {key: message[key] for key in ("status", "values", "artefacts", "facts", "reason") if key in message}
        return cls(**known, details={key: value for key, value in message.items() if key not in known})


@dataclass(frozen=True)
class StudyContext:
    """The study of a strategy.

    Attributes:
        record: `record(name, candidate, **data)` writes an event "stage.kind" to the journal; then the state and the
            strategy apply it.
        state: The candidates, jobs and results that follow from the events so far.
        ranked: Returns the numbers of the candidates with results, the best first.
        front: Returns the numbers of the Pareto front; with one objective, of the best candidate.
        folder: Folder of the study.
    """

    record: Callable[..., Event]
    state: StudyState
    ranked: Callable[[], list[int]]
    front: Callable[[], list[int]]
    folder: Path


class Strategy(ABC):
    """A state machine over tasks whose only memory is the journal.

    While a study runs, a method that decides something records it with `self.study.record` before it takes effect;
    `StudyState.apply` and `apply` change the state. When a study is continued, `repeat` and then the same two are
    called with each event of the journal instead. Events are named "stage.kind". The kinds of
    `search.study.journal.KINDS` are applied by the state, in any stage.

    Attributes:
        stages: Names of its stages, by which its events begin.
        study: Its study; set by `bind`.
        is_pausing: Whether every task is to be saved and given back at its next report.
        is_waiting: Whether it gives no task, though it is not done, until the user resumes something.
        num_samples: Candidates to try.
        retains_all: Whether the checkpoints of all candidates are needed, not only those of the best.
        result_is_retrained: Whether the result of the study is a retraining, and never a candidate as it was searched.
        trains_in_folds: Whether `search.folds` can be used with it.
        wants_onnx: Whether retrainings leave their network as ONNX, too, if the config does not say.
    """

    stages: tuple[str, ...] = ()
    study: StudyContext
    is_pausing: bool = False
    is_waiting: bool = False
    num_samples: int = 0
    retains_all: bool = False
    result_is_retrained: bool = False
    trains_in_folds: bool = False
    wants_onnx: bool = False

    @classmethod
    def searched_config(cls, config: Mapping[str, Any], args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the config from which candidates are drawn; by default that of the study.

        Args:
            config: Of the study.
            args: Of the strategy, as the JSON has them.

        Raises:
            ConfigError: They make none.
        """
        return config

    @classmethod
    def shrunk_arguments(cls, args: Mapping[str, Any], epochs: int) -> dict[str, Any]:
        """Return arguments for a study whose candidates have fewer epochs, for `--test-run`."""
        return dict(args)

    def describe(self, space: Space) -> str:
        """Return in words the candidates that are searched; by default the size of the space."""
        return space.describe()

    def find_faults(self, space: Space, check: Check) -> list[str]:
        """Return the faults that some candidates have, each once.

        Args:
            space: From which they are drawn.
            check: Raises a `ConfigError` for a config that cannot be trained.

        Raises:
            ConfigError: The study cannot be run: no candidate can be trained, or its settings contradict each other.
        """
        return space.find_faults(check)

    def bind(self, study: StudyContext) -> None:
        """Connect the strategy with its study, before anything else is called."""
        self.study = study

    def repeat(self, event: Event) -> None:  # noqa: B027
        """Repeat the calls that preceded an event of the journal, e.g. those of a scheduler.

        Raises:
            SearchError: They are answered otherwise than when the event was written.
        """

    def apply(self, event: Event) -> None:  # noqa: B027
        """Update the strategy's memory by an event that is in the journal; the state has applied it already."""

    def start(self) -> None:  # noqa: B027
        """Begin a session: all events of the journal are applied, and nothing runs."""

    def grow(self, num_samples: int) -> None:
        """Try more candidates than before; called before the event `study.grown`.

        Raises:
            EspalierError: It cannot.
        """
        raise SearchError(
            f"search.num_samples {num_samples}: {type(self).__name__} does not grow. Start a new study with them."
        )

    def obey(self, name: str, data: Mapping[str, Any]) -> None:
        """Carry out a command of the user.

        Args:
            name: "enqueue" (data: `choices`), or "pause", "resume" or "stop" (data: `candidate`).
            data: Its data.

        Raises:
            SearchError: It does not know the command.
        """
        raise SearchError(f"{name}: {type(self).__name__} does not know this command. Stop the study instead.")

    def require_command(self, name: str) -> None:  # noqa: B027
        """Refuse a command that it carries out with no data, before it is sent.

        Raises:
            SearchError: It never does.
        """

    @abstractmethod
    def next(self, idle: int) -> Sequence[Task]:
        """Return tasks for idle workers, at most `idle`; none if there are none now."""

    @abstractmethod
    def reported(self, task: Task, message: Mapping[str, Any]) -> Decision:
        """Take the report of a worker and decide how its task continues."""

    @abstractmethod
    def ended(self, task: Task, outcome: Outcome) -> None:
        """Take the end of a task, with any status."""

    @abstractmethod
    def lost(self, task: Task, cause: Loss, reason: str, *, had_started: bool) -> None:
        """Take the loss of a worker.

        Args:
            task: Its task.
            cause: Whether the worker died or was ended for its silence.
            reason: The same in words.
            had_started: Whether it had started the task, which may therefore be the cause.
        """

    @property
    @abstractmethod
    def is_done(self) -> bool:
        """Whether nothing runs and nothing more will."""

    @abstractmethod
    def winner(self) -> int | None:
        """Return the number of the candidate that `best/` gets; None leaves the choice to the leaderboard."""

    def retrained(self) -> Mapping[str, RetrainedRecord]:
        """Return the retrainings, by the names of their runs, that count with the present options of the study."""
        return {}

    def may_resume(self, candidate: int) -> bool:
        """Return whether a candidate without a job may still get one, so that its checkpoint is needed."""
        return False

    def followers(self) -> Sequence["Strategy"]:
        """Return strategies that continue its search, each when the one before it is done; the last has finalists."""
        return ()

    def finalists(self) -> Sequence[int]:
        """Return the candidates for a retraining, the best first.

        Raises:
            SearchError: There is none.
        """
        return self.study.ranked()

    def example_of_finalist(self) -> Mapping[str, Any] | None:
        """Return the config of a candidate like those that are retrained, to check one; None: as the space draws it."""
        return None

    def config_of(self, candidate: int) -> dict[str, Any] | None:
        """Return the config of a candidate for its retraining and for `best/`; None: the one that was drawn."""
        return None

    @property
    def title(self) -> str:
        """The name under which studies are listed and compared."""
        return type(self).__name__

    def rungs(self) -> Sequence[Rung]:
        """Return the places at which candidates are compared, with their values there."""
        return ()

    def beliefs(self) -> Beliefs:
        """Return the beliefs of a sampler that learns, if there is one; by default none.

        It changes nothing: it is asked for by the live table, at any time between two events, and by the report.
        """
        return Beliefs()

    def sections(self) -> Sequence[Mapping[str, Any]]:
        """Return more sections of the report as plain data, see `StudyRecord.sections`."""
        return ()
