"""A study as plain data, read from its journal: objectives, candidates, rungs, retrainings and sessions."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from search.samplers.base import Beliefs
from utils.errors import SearchError

FACTS = ("params", "flops", "memory_mb", "latency_ms")
MEASURED = ("training_time",)
"""Results that a worker measures and that are in no checkpoint's history: they differ from one training to the next."""


@dataclass(frozen=True)
class Objective:
    """One objective.

    Attributes:
        name: A result such as `val_miou`, or one of `FACTS`.
        sign: 1 if more is better, -1 if less is.
    """

    name: str
    sign: int

    @property
    def is_fact(self) -> bool:
        """Whether its value is known before training."""
        return self.name in FACTS

    @property
    def is_cost(self) -> bool:
        """Whether it says nothing of how good an epoch is: a fact, or measured next to the results."""
        return self.name in (*FACTS, *MEASURED)

    def __str__(self) -> str:
        return f"{'max' if self.sign > 0 else 'min'} {self.name}"


def parse_objectives(texts: Sequence[str]) -> tuple[Objective, ...]:
    """Parse `["max val_miou", "min params"]`.

    Raises:
        SearchError: A text is not of this form, or a name is repeated.
    """
    objectives = []
    for text in texts:
        words = text.split()
        if len(words) != 2 or words[0] not in ("min", "max"):
            raise SearchError(
                f'search.objectives: "{text}" must be "min NAME" or "max NAME", NAME being a result such as val_miou '
                f"or one of {', '.join(FACTS)}. Write it so."
            )
        objectives.append(Objective(words[1], 1 if words[0] == "max" else -1))
    names = [objective.name for objective in objectives]
    if not names or len(set(names)) < len(names):
        raise SearchError(f"search.objectives: {list(texts)} must name one result or several different ones.")
    return tuple(objectives)


def leading_place(objectives: Sequence[Objective]) -> int:
    """Return the place of the objective that says which epoch of a candidate is its best: the first that is no cost.

    It is that of the first that is no fact if all are costs, and 0 if all are facts.
    """
    of_results = [place for place, each in enumerate(objectives) if not each.is_fact]
    return next((place for place in of_results if not objectives[place].is_cost), next(iter(of_results), 0))


def leading_objective(objectives: Sequence[Objective]) -> Objective | None:
    """Return the objective at `leading_place`; None if all are facts, which have no course over the epochs."""
    leading = objectives[leading_place(objectives)]
    return None if leading.is_fact else leading


@dataclass(frozen=True)
class Constraint:
    """A bound on a result or a fact that a candidate has to keep.

    Attributes:
        name: A result such as `val_miou`, or one of `FACTS`.
        sign: 1 if the value must be at least the bound, -1 if at most.
        bound: The bound, finite.
    """

    name: str
    sign: int
    bound: float

    @property
    def is_fact(self) -> bool:
        """Whether its value is known before training."""
        return self.name in FACTS

    @property
    def is_cost(self) -> bool:
        """Whether it says nothing of how good an epoch is: a fact, or measured next to the results."""
        return self.name in (*FACTS, *MEASURED)

    def violation(self, values: Mapping[str, float]) -> float:
        """Return by how much a value misses the bound, as a share of the bound's size; 0 if it keeps it.

        A bound of 0 has no size: there it is the difference. It is infinite if the value is unknown or not finite.
        """
        value = values.get(self.name, math.nan)
        if not math.isfinite(value):
            return math.inf
        return max(0.0, (self.bound - value) * self.sign) / (abs(self.bound) or 1.0)

    def __str__(self) -> str:
        bound = int(self.bound) if self.bound.is_integer() and abs(self.bound) < 1e16 else self.bound
        return f"{self.name} {'>=' if self.sign > 0 else '<='} {bound}"


def parse_constraints(texts: Sequence[str]) -> tuple[Constraint, ...]:
    """Parse `["val_miou >= 0.9", "params <= 200000"]`.

    Raises:
        SearchError: A text is not of this form, a bound is repeated, or two of them exclude each other.
    """
    constraints: dict[tuple[str, int], Constraint] = {}
    for text in texts:
        words = re.fullmatch(r"\s*([^\s<>=]+)\s*(<=|>=)\s*([^\s<>=]+)\s*", text)
        try:
            bound = float(words[3]) if words else math.nan
        except ValueError:
            bound = math.nan
        if not words or not math.isfinite(bound):
            raise SearchError(
                f'search.constraints: "{text}" must be "NAME >= NUMBER" or "NAME <= NUMBER", NAME being a result such '
                f"as val_miou or one of {', '.join(FACTS)}. Write it so, the number without separators."
            )
        each = Constraint(words[1], 1 if words[2] == ">=" else -1, bound)
        if (each.name, each.sign) in constraints:
            raise SearchError(
                f'search.constraints: "{constraints[each.name, each.sign]}" and "{each}" bound the same side. Leave '
                "one of them out."
            )
        constraints[each.name, each.sign] = each
    for (name, sign), each in constraints.items():
        other = constraints.get((name, -1))
        if sign > 0 and other is not None and each.bound > other.bound:
            raise SearchError(f'search.constraints: no value keeps "{each}" and "{other}". Change one of the bounds.')
    return tuple(constraints.values())


def require_results(
    objectives: Sequence[Objective], names: Iterable[str], constraints: Sequence[Constraint] = ()
) -> None:
    """Raise if an objective or a constraint will have no value.

    Raises:
        SearchError: One is neither a fact nor among the results of these names.
    """
    known = list(names)
    for key, group in (("objectives", objectives), ("constraints", constraints)):
        for each in group:
            if not each.is_fact and each.name not in known:
                raise SearchError(
                    f'search.{key}: "{each}" is not among the results ({", ".join(known)}). Name one of these, or one '
                    f"of {', '.join(FACTS)}."
                )


def without_measured(row: Mapping[str, float]) -> dict[str, float]:
    """Return the results of an epoch that a second training of it repeats."""
    return {name: value for name, value in row.items() if name not in MEASURED}


# The values of an infeasible point are -PENALTY times its violation. Feasible values are far larger, as are FLOPs.
_PENALTY = 1e100
_LEAST_VIOLATION, _LARGEST_VIOLATION = 1e-50, 1e100
_LEAST_FEASIBLE = -_PENALTY * _LEAST_VIOLATION


def without_penalty(value: float) -> float:
    """Return a value of `Tally.values`, NaN if it only says how much constraints are violated."""
    return math.nan if value <= _LEAST_FEASIBLE else value


class Tally:
    """The objectives of one candidate: its values at its best epoch so far.

    The best epoch is that of the largest first objective that is no cost, and all results are those of this epoch, so
    that its checkpoint has them. With constraints it is the best of the epochs that keep them; if there is none, that
    of the least violation (the rule of Deb, 2000, "An efficient constraint handling method for genetic algorithms", for
    the epochs of one candidate). An epoch in which an objective is not finite comes after all others. A cost, as an
    objective or in a constraint, makes no epoch better: the worker that stores the best one does not compare it. If
    all are costs, no epoch is the best, and what was measured last counts.

    Args:
        objectives: Of the search.
        facts: Known before training.
        constraints: Of the search.
        combines_epochs: Whether each result is the best of all epochs by itself, without constraints, as studies of
            format 1 decided.
        measured_decides: Whether a measured result may make an epoch the best, as studies of rules up to 3 decided.

    Attributes:
        best_epoch: The best epoch; None before it is known, and if all objectives and constraints are costs.
        violation: Sum of the violated constraints at this epoch; 0 if all are kept.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        facts: Mapping[str, float],
        constraints: Sequence[Constraint] = (),
        *,
        combines_epochs: bool = False,
        measured_decides: bool = False,
    ) -> None:
        self.objectives = objectives
        self.best_epoch: int | None = None
        self.violation = 0.0
        self._facts = facts
        self._constraints = () if combines_epochs else tuple(constraints)
        self._combines_epochs = combines_epochs
        self._results = [each for each in objectives if not each.is_fact]
        self._scores = [each for each in self._results if measured_decides or not each.is_cost]
        bounds = [each for each in self._constraints if not each.is_fact]
        self._bounds = [each for each in bounds if measured_decides or not each.is_cost]
        self._best = {each.name: facts.get(each.name, math.nan) * each.sign for each in objectives if each.is_fact}
        self._rank: tuple[bool, float, float] | None = None

    def add(self, row: Mapping[str, float]) -> tuple[float, ...]:
        """Add an epoch's results and return `values`.

        Raises:
            SearchError: An objective or a constraint is not among the results.
        """
        require_results(self._results, row, self._constraints)
        if self._combines_epochs:
            self._combine(row)
            return self.values
        scores = [row[each.name] * each.sign for each in self._scores] or [0.0]
        if not math.isfinite(scores[0]):  # a diverged epoch is never the best
            return self.values
        compares = bool(self._scores or self._bounds)
        violation = sum(each.violation(row) for each in self._bounds)
        rank = (all(map(math.isfinite, scores)), -violation, scores[0])
        if not compares or self._rank is None or rank > self._rank:
            self._rank, self.best_epoch = rank, int(row["epoch"]) if compares else None
            self.violation = sum(each.violation({**self._facts, **row}) for each in self._constraints)
            self._best |= {each.name: row[each.name] * each.sign for each in self._results}
        return self.values

    def _combine(self, row: Mapping[str, float]) -> None:
        for position, each in enumerate(self._results):
            value = row[each.name] * each.sign
            if value > self._best.get(each.name, -math.inf):  # False for NaN
                self._best[each.name] = value
                if position == 0:
                    self.best_epoch = int(row["epoch"])

    @property
    def values(self) -> tuple[float, ...]:
        """Each objective so far, the larger the better; all NaN if one is unknown, as no point can be compared then.

        The values of a point that violates constraints are all the same number, far below those of any other point and
        the smaller the more it violates. So whoever compares values compares as in constrained domination (Deb et al.,
        2002, "A fast and elitist multiobjective genetic algorithm", VI-A).
        """
        values = tuple(self._best.get(each.name, math.nan) for each in self.objectives)
        if self._combines_epochs:
            return values
        if any(map(math.isnan, values)):  # else one that diverged would be on the front for its few parameters
            return (math.nan,) * len(values)
        if self.violation:
            values = (-_PENALTY * min(max(self.violation, _LEAST_VIOLATION), _LARGEST_VIOLATION),) * len(values)
        return values

    def as_written(self) -> dict[str, float]:
        """Return the known objectives by name, in their original sign."""
        known = [each for each in self.objectives if each.name in self._best]
        values = {each.name: self._best[each.name] * each.sign for each in known}
        return {each.name: values[each.name] for each in known if each.is_fact or not math.isnan(values[each.name])}


Status = Literal[
    "running",  # in a worker now, or when the search was interrupted
    "paused",  # may be continued from its checkpoint
    "stopped",  # by the scheduler
    "completed",  # trained in full, or to its early stopping
    "failed",  # an error, a loss that is not finite, a worker that died or hung
    "out_of_memory",  # replaced by another draw
    "refused",  # before training: over a limit, or a network that cannot be built; replaced by another draw
    "duplicate",  # equal to an earlier one; replaced by another draw
]


@dataclass(frozen=True)
class Span:
    """One job in a worker.

    Attributes:
        worker: Number of the worker, from 0.
        begin: Unix time in seconds at which it was given.
        end: Unix time in seconds of its end, or of its last event while it runs.
    """

    worker: int
    begin: float
    end: float


@dataclass
class CandidateRecord:
    """One draw and its results.

    Attributes:
        index: Number of the draw.
        seed: Of its training.
        drawn: JSON path and value of each searched value, in the order of the file.
        status: Its state, see `Status`.
        reason: Why it was refused or failed, or which candidate it equals; empty otherwise.
        facts: Known before training: `params`, `flops`, `memory_mb`, `latency_ms`, as far as they were measured.
        reports: A row per epoch, those that it inherited included: `epoch`, the results by their names,
            `epoch_seconds`, and `seconds_at`, the Unix time in seconds at which it was reported, if it is known.
        objectives: Value of each objective, in its original sign, at its best epoch; empty before a report.
        best_epoch: Best epoch of the first objective; None before a report.
        folder: Run folder relative to the study's; None if nothing was trained.
        violation: By how much its best epoch violates the constraints, summed; 0 if it keeps all of them.
        spans: Its jobs in the order in which they were given; empty if they are unknown.
        inherited: Epochs at the beginning that another candidate was trained for, with whose weights it began.
        test: Results of its test by their names (`test_miou`); empty if it was not tested.
        pooled: Results of validation data over all folds of a condition and seed, if it is the last of them.
        origin: Where its choices come from: "random", "model" or "enqueued"; empty if the journal does not say.
        notes: Further data that its strategy has on it, by the name of a column for other programs.
        max_epochs: Of its full training, if it has another one than the other candidates.
        is_deleted: Whether its checkpoints were deleted, which changes nothing of its results.
    """

    index: int
    seed: int
    drawn: list[tuple[str, Any]]
    status: Status
    reason: str = ""
    facts: dict[str, float] = field(default_factory=dict)
    reports: list[dict[str, float]] = field(default_factory=list)
    objectives: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    folder: str | None = None
    violation: float = 0.0
    spans: list[Span] = field(default_factory=list)
    inherited: int = 0
    test: dict[str, float] = field(default_factory=dict)
    pooled: dict[str, float] = field(default_factory=dict)
    origin: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    max_epochs: int | None = None
    is_deleted: bool = field(default=False, compare=False)

    @property
    def epochs(self) -> int:
        """Number of epochs that its weights were trained for."""
        return len(self.reports)

    @property
    def own_reports(self) -> list[dict[str, float]]:
        """The rows of the epochs that it was trained for itself."""
        return self.reports[self.inherited :]

    @property
    def seconds(self) -> float:
        """Duration of its own epochs in seconds."""
        return sum(row.get("epoch_seconds", 0.0) for row in self.own_reports)

    @property
    def begin(self) -> float | None:
        """Unix time in seconds at which its first job was given, or its first epoch began; None if unknown."""
        if self.spans:
            return self.spans[0].begin
        first = next(iter(self.own_reports), {})
        return first["seconds_at"] - first.get("epoch_seconds", 0.0) if "seconds_at" in first else None

    @property
    def end(self) -> float | None:
        """Unix time in seconds of the end of its last job, or of its last report; None if unknown."""
        if self.spans:
            return self.spans[-1].end
        return self.reports[-1].get("seconds_at") if self.reports else None


@dataclass
class RungRecord:
    """One rung: the candidates that reached it, and those that were promoted.

    Attributes:
        bracket: From 0.
        epochs: At which it compares.
        values: First objective of each candidate there, in its original sign.
        promoted: Numbers of the candidates that were promoted.
        passed: Those of them that continued without a decision.
        decides: "compares", "passes all" or "waits", at present.
    """

    bracket: int
    epochs: int
    values: dict[int, float]
    promoted: list[int]
    passed: frozenset[int] = frozenset()
    decides: str = "compares"

    @property
    def promoted_values(self) -> list[float]:
        """First objective of each promoted candidate."""
        return [self.values[index] for index in self.promoted if index in self.values]


@dataclass
class RetrainedRecord:
    """One training of a winner or runner-up from the beginning.

    Attributes:
        candidate: Number of the candidate whose config is trained.
        rank: In the leaderboard, from 1.
        seed: Of this training.
        status: "running", "completed" or "failed".
        reports: A row per epoch.
        test: Results of the test by their names (`test_miou`), empty if not tested.
        folder: Relative to the study's.
        reason: Why it failed.
        max_epochs: Of this training; 0 if unknown.
        spans: Its jobs in the order in which they were given; empty if they are unknown.
        onnx: Comparison of the exported network with it (`largest_difference`, `agreement`), or the `reason` why there
            is none; empty if it was not exported.
    """

    candidate: int
    rank: int
    seed: int
    status: str
    reports: list[dict[str, float]] = field(default_factory=list)
    test: dict[str, float] = field(default_factory=dict)
    folder: str | None = None
    reason: str = ""
    max_epochs: int = 0
    spans: list[Span] = field(default_factory=list)
    onnx: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Duration of its epochs in seconds."""
        return sum(row.get("epoch_seconds", 0.0) for row in self.reports)


@dataclass
class StudyRecord:
    """A whole study.

    Attributes:
        name: Of the config.
        folder: The study's folder.
        config: The space: the resolved config with its markers.
        scheduler: Name of its class; of a strategy without one that decides, its name: "Grid", "PBT".
        objectives: As in the config: `["max val_miou", "min params"]`.
        max_epochs: Of a full training.
        candidates: In the order of their draw.
        rungs: In the order of the scheduler.
        retrained: Trainings of winner and runners-up from the beginning.
        sessions: (begin, end) of each process that worked on it, in Unix seconds.
        is_done: Whether it is complete.
        bytes_deleted: Total size of the checkpoints that were deleted since they could no longer be used.
        plugins: Files with the user's classes, as on the command line.
        constraints: As in the config: `["val_miou >= 0.9"]`.
        unknown_events: Number of events of each name that this version does not know.
        winner: Number of the candidate that the strategy has chosen; None: by the leaderboard, see `winner_of`.
        sections: Additional sections of the report, from the strategy: each has a `title`, and a `text`, a `table`
            (rows of cells, the first the names of the columns), `pictures` (SVG texts that only draw), `plots`, or
            `lines` over epochs (see `search.report.sections`).
        beliefs: Those of the sampler, see `Study.beliefs`; empty unless it was asked.
        result_is_retrained: Whether candidates are other networks than the result, e.g. supernets, so that only the
            retrainings have its results.
        num_samples: Candidates that it tries; 0 if unknown.
    """

    name: str
    folder: str
    config: dict[str, Any]
    scheduler: str
    objectives: list[str]
    max_epochs: int
    candidates: list[CandidateRecord] = field(default_factory=list)
    rungs: list[RungRecord] = field(default_factory=list)
    retrained: list[RetrainedRecord] = field(default_factory=list)
    sessions: list[tuple[float, float]] = field(default_factory=list)
    is_done: bool = False
    bytes_deleted: int = 0
    plugins: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    sections: list[Mapping[str, Any]] = field(default_factory=list)
    unknown_events: dict[str, int] = field(default_factory=dict)
    winner: int | None = None
    beliefs: Beliefs = field(default_factory=Beliefs)
    result_is_retrained: bool = False
    num_samples: int = 0
