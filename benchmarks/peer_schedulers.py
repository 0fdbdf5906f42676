"""Searches of other packages behind the contracts of ours, so that one simulator runs them all.

A peer is a scheduler and, if it chooses what is trained, also the sampler of the same search. All choose among the same
rows of a table, which they see as points of the unit cube, as our samplers do (`Space.vector`): each number between the
first and the last one of its column, on the scale of the column.

A training that diverged is reported as a failure to a peer that only schedules. The models of both packages learn
nothing from failures, and would draw there again and again; so a peer that samples is told the worst value it has seen.
"""

import importlib.util
import logging
import math
import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from search.samplers.base import Observation, Sampler, Suggestion
from search.schedulers.base import Decision, Ending, Job, Need, Rung, RungDecision, Scheduler, Values
from search.space.drawn import Drawn
from search.space.table_space import TableSpace

ENDLESS = 1_000_000
_FIRST_RUNG = 1  # the default of Syne Tune and of Optuna's Hyperband
_REDUCTION_FACTOR = 3  # the default of both
_FIRST_CONFIGS = 4
_STARTUP_TRIALS = 10  # random draws of TPE at the beginning, by default


def is_installed(package: str) -> bool:
    """Whether a package, or a module of it, is there."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the package around a module
        return False


class Rows:
    """The rows of a table as points, of which each is trained once.

    Args:
        space: Of the table.

    Attributes:
        points: (S, D) float64, in the unit cube.
    """

    def __init__(self, space: TableSpace) -> None:
        self.space = space
        self.points = space.listed_vectors[0]
        self._is_free = np.ones(len(self.points), dtype=bool)

    @property
    def names(self) -> list[str]:
        """A name per dimension."""
        return [f"x{place}" for place in range(self.points.shape[1])]

    def nearest(self, point: Sequence[float]) -> int | None:
        """The row nearest to a point that was not taken before; None if all were."""
        if not self._is_free.any():
            return None
        distances = ((self.points - np.asarray(point)) ** 2).sum(axis=1)
        return int(np.where(self._is_free, distances, np.inf).argmin())

    def next_random(self) -> int | None:
        """The first free row in the order of random draws; None if none is free."""
        order = (self.space.row(self.space.random(number)) for number in range(len(self.points)))
        return next((row for row in order if self._is_free[row]), None)

    def take(self, row: int) -> None:
        """Note that a row is trained."""
        self._is_free[row] = False

    def named(self, row: int) -> dict[str, float]:
        """A row by the names of its dimensions."""
        return dict(zip(self.names, map(float, self.points[row]), strict=True))


class Peer(Scheduler, Sampler):
    """A search of another package.

    Args:
        max_epochs: Epochs of a full training.
        space: Of the table that it chooses from; None if another sampler chooses.
    """

    def __init__(self, max_epochs: int, space: TableSpace | None = None) -> None:
        Scheduler.__init__(self, ENDLESS, max_epochs)
        self.rows = None
        if space is not None:
            Sampler.__init__(self, space)
            self.rows = Rows(space)
        self.trials: dict[int, Any] = {}
        self._ends: dict[int, int] = {}
        self._epochs: dict[int, int] = {}
        self._num_running = 0
        self._has_ended_draws = False
        self._waiting: tuple[Any, int] | None = None
        self._row: int | None = None
        self._worst = math.nan

    def next_trial(self) -> tuple[Any, int] | Job | None:
        """The package's next trial and the epoch at which it pauses or ends, or a job that continues an earlier one."""
        raise NotImplementedError

    def begin(self, trial: Any, number: int, row: int | None) -> Any:
        """Tell the package that a trial begins, with the row that it is; return it."""
        return trial

    def proposed_row(self, trial: Any) -> int | None:
        """The row that the package has proposed, or the nearest that is free; None if there is none."""
        raise NotImplementedError

    def told(self, candidate: int, epoch: int, value: float) -> Decision:
        """What the package decides on a value, the larger the better."""
        raise NotImplementedError

    def failed(self, candidate: int) -> None:
        """Tell the package that a trial has failed."""
        raise NotImplementedError

    def ask(self) -> Job | Need | None:
        """Ask the package, unless it waits for its last trial to be admitted."""
        if self._waiting is None and not self._has_ended_draws:
            chosen = self.next_trial()
            if isinstance(chosen, Job):
                self._num_running += 1
                return chosen
            self._waiting = chosen
        return None if self._waiting is None else Need()

    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Suggestion | None:
        """The row of the trial that waits."""
        assert self.rows is not None, "it does not choose rows"
        assert self._waiting is not None, "asked for no proposal"
        self._row = self.proposed_row(self._waiting[0])
        if self._row is None:
            return None
        self.rows.take(self._row)
        return Suggestion(self.rows.space.listed[self._row], "model")

    def admit(self, number: int) -> Job:
        """Begin the trial that waits."""
        assert self._waiting is not None, "no candidate is needed"
        trial, end = self._waiting
        self._waiting = None
        self._num_running += 1
        self.trials[number] = self.begin(trial, number, self._row)
        return Job(number, 0, end)

    def report(self, candidate: int, epoch: int, values: Values) -> RungDecision:
        """Do what the package does, and stop at the end."""
        self._epochs[candidate] = epoch
        self._worst = values[0] if math.isnan(self._worst) else min(self._worst, values[0])
        decision = self.told(candidate, epoch, values[0])
        if epoch == self.max_epochs:
            decision = Decision.STOP
        self._num_running -= decision is not Decision.CONTINUE
        return RungDecision(decision)

    def end(self, candidate: int, ending: Ending) -> None:
        """Report a failure to the package, or a bad value."""
        self._num_running -= 1
        if ending is not Ending.FAILED:
            return
        epoch = self._epochs[candidate] = self._epochs.get(candidate, 0) + 1
        is_told = self.rows is not None and not math.isnan(self._worst)
        if not is_told or self.told(candidate, epoch, self._worst) is Decision.CONTINUE:
            self.failed(candidate)

    def end_draws(self) -> None:
        """The table is used up."""
        self._has_ended_draws = True
        self._waiting = None

    @property
    def is_done(self) -> bool:
        """Whether nothing runs or will."""
        return self._has_ended_draws and not self._num_running

    def may_resume(self, candidate: int) -> bool:
        """Possibly always."""
        return True

    def rungs(self) -> list[Rung]:
        """Kept by the package."""
        return []


class OptunaPeer(Peer):
    """A pruner of Optuna, with a sampler of it or without.

    Its samplers propose any point. It is moved to the nearest free row before Optuna knows of it, so that its model
    learns from what was trained. As long as they draw at random, they get the rows in the order of random draws:
    uniform draws that are moved prefer rows with few neighbours, which are worse.

    Args:
        max_epochs: Epochs of a full training.
        space: Of the table that it chooses from; None if another sampler chooses.
        seed: Of the sampler.
        sampler: Its name, e.g. "TPESampler".
        hyperband: Whether to prune by Hyperband and not by successive halving.
    """

    def __init__(
        self,
        max_epochs: int,
        space: TableSpace | None = None,
        *,
        seed: int = 0,
        sampler: str = "RandomSampler",
        hyperband: bool = False,
    ) -> None:
        super().__init__(max_epochs, space)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner: Any
        if hyperband:
            pruner = optuna.pruners.HyperbandPruner(_FIRST_RUNG, max_epochs, _REDUCTION_FACTOR)
        else:
            pruner = optuna.pruners.SuccessiveHalvingPruner(_FIRST_RUNG, _REDUCTION_FACTOR)
        self._states = optuna.trial.TrialState
        inner = getattr(optuna.samplers, sampler)(seed=seed)
        names = [] if self.rows is None else self.rows.names
        self._floats: dict[str, Any] = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in names}
        self._study = optuna.create_study(
            study_name="simulated",  # Hyperband deals trials to brackets by the name
            direction="maximize",
            pruner=pruner,
            sampler=inner if self.rows is None else _snapping(inner, self.rows, self._floats),
        )

    def next_trial(self) -> tuple[Any, int] | None:
        """Ask the study."""
        if self.rows is not None and self.rows.nearest([0.0] * len(self._floats)) is None:
            return None
        return self._study.ask(self._floats), self.max_epochs

    def proposed_row(self, trial: Any) -> int | None:
        """The row that the sampler was moved to."""
        assert self.rows is not None
        return self.rows.nearest([trial.params[name] for name in self._floats])

    def told(self, candidate: int, epoch: int, value: float) -> Decision:
        """Report and ask the pruner."""
        trial = self.trials[candidate]
        trial.report(value, epoch)
        if epoch == self.max_epochs:
            self._study.tell(trial, value)
            return Decision.STOP
        if trial.should_prune():
            self._study.tell(trial, state=self._states.PRUNED)
            return Decision.STOP
        return Decision.CONTINUE

    def failed(self, candidate: int) -> None:
        """Report it; what was told of it before is learnt from as of one that was pruned."""
        is_told = self.rows is not None and bool(self._study.trials[self.trials[candidate].number].intermediate_values)
        self._study.tell(self.trials[candidate], state=self._states.PRUNED if is_told else self._states.FAIL)


def _snapping(inner: Any, rows: Rows, space: dict[str, Any]) -> Any:
    """A sampler of Optuna whose proposals are moved to the nearest free row."""
    import optuna

    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)

    def draws_at_random(study: Any) -> bool:
        if not isinstance(inner, optuna.samplers.TPESampler):
            return True
        return len(study.get_trials(deepcopy=False, states=finished)) < _STARTUP_TRIALS

    class Snapping(optuna.samplers.BaseSampler):  # type: ignore[misc, unused-ignore]
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return space

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            joint = inner.sample_relative(study, trial, inner.infer_relative_search_space(study, trial))
            if not joint and draws_at_random(study):
                row = rows.next_random()
            else:
                row = rows.nearest(
                    [
                        joint[name] if name in joint else inner.sample_independent(study, trial, name, distribution)
                        for name, distribution in space.items()
                    ]
                )
            assert row is not None, "asked for no more than there are"
            return rows.named(row)

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            raise AssertionError(param_name)

        def before_trial(self, study: Any, trial: Any) -> None:
            inner.before_trial(study, trial)

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            inner.after_trial(study, trial, state, values)

    return Snapping()


class SyneTunePeer(Peer):
    """A search of Syne Tune 0.14, the last version with all of them.

    Its searchers are restricted to the rows by its own `restrict_configurations`. BOHB cannot be: its proposals are
    moved to the nearest free row, and it learns from what was trained. Its random draws are the rows in the order of
    random draws, see `OptunaPeer`.

    Args:
        max_epochs: Epochs of a full training.
        space: Of the table that it chooses from; None if another sampler chooses.
        seed: Of its searcher.
        name: Of its class in `syne_tune.optimizer.legacy_baselines`.
        options: Of this class.
    """

    def __init__(
        self, max_epochs: int, space: TableSpace | None = None, *, seed: int = 0, name: str, **options: Any
    ) -> None:
        super().__init__(max_epochs, space)
        rows = self.rows
        logging.disable(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from syne_tune.backend.trial_status import Trial
            from syne_tune.config_space import uniform
            from syne_tune.optimizer import legacy_baselines
        self._make_trial = Trial
        self._num_trials = 0
        self._candidates: dict[int, int] = {}
        names = ["x0"] if rows is None else rows.names
        searcher: dict[str, Any] = {"debug_log": False, **options.pop("search_options", {})}
        self._configs: dict[tuple[float, ...], int] = {}
        if rows is not None and name != "BOHB":
            searcher["restrict_configurations"] = [rows.named(row) for row in range(len(rows.points))]
            self._configs = {tuple(map(float, point)): row for row, point in enumerate(rows.points)}
        np.random.seed(seed)  # some of its searchers draw from numpy's global generator
        self._scheduler = getattr(legacy_baselines, name)(
            {**{each: uniform(0.0, 1.0) for each in names}, "epochs": max_epochs},
            metric="value",
            mode="max",
            resource_attr="epoch",
            max_resource_attr="epochs",
            search_options=searcher,
            random_seed=seed,
            points_to_evaluate=self._first_configs(),
            **options,
        )
        if rows is not None and not self._configs:
            self._scheduler.searcher._get_random_config = self._random_config

    def _first_configs(self) -> list[dict[str, float]]:
        """As many as workers are simulated at most, so that it begins like all others."""
        if self.rows is None:
            return []
        space = self.rows.space
        return [self.rows.named(space.row(space.random(number))) for number in range(_FIRST_CONFIGS)]

    def _random_config(self, *_: Any) -> dict[str, Any] | None:
        """The next random draw, as its searcher expects it."""
        assert self.rows is not None
        row = self.rows.next_random()
        return None if row is None else {**self.rows.named(row), "epochs": self.max_epochs}

    def next_trial(self) -> tuple[Any, int] | Job | None:
        """Ask the scheduler."""
        suggestion = self._scheduler.suggest(trial_id=self._num_trials)
        if suggestion is None:
            return None
        if not suggestion.spawn_new_trial_id:
            candidate = self._candidates[int(suggestion.checkpoint_trial_id)]
            return Job(candidate, self._epochs[candidate], int(suggestion.config["epochs"]))
        return suggestion.config, int(suggestion.config["epochs"])

    def proposed_row(self, trial: Any) -> int | None:
        """Its row, or the nearest free one."""
        assert self.rows is not None
        point = tuple(trial[name] for name in self.rows.names)
        return self._configs[point] if self._configs else self.rows.nearest(point)

    def begin(self, trial: Any, number: int, row: int | None) -> Any:
        """Tell it the row that is trained."""
        config = trial if self.rows is None or row is None else {**trial, **self.rows.named(row)}
        made = self._make_trial(trial_id=self._num_trials, config=config, creation_time=datetime.now())
        self._candidates[self._num_trials] = number
        self._num_trials += 1
        self._scheduler.on_trial_add(made)
        return made

    def told(self, candidate: int, epoch: int, value: float) -> Decision:
        """Report and take its decision, as its `Tuner` does."""
        trial = self.trials[candidate]
        decision = Decision(str(self._scheduler.on_trial_result(trial, {"value": value, "epoch": epoch})).lower())
        if decision is not Decision.CONTINUE:
            self._scheduler.on_trial_remove(trial)
        return decision

    def failed(self, candidate: int) -> None:
        """Report it."""
        self._scheduler.on_trial_error(self.trials[candidate])


class SyneTuneASHA(Peer):
    """Syne Tune's present ASHA, which stops and does not promote; another sampler chooses.

    Args:
        max_epochs: Epochs of a full training.
        grace_period: Epochs of the first rung.
    """

    def __init__(self, max_epochs: int, *, grace_period: int = _FIRST_RUNG) -> None:
        super().__init__(max_epochs)
        logging.disable(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from syne_tune.backend.trial_status import Trial
            from syne_tune.config_space import uniform
            from syne_tune.optimizer.schedulers.asha import AsynchronousSuccessiveHalving
        self._make_trial = Trial
        self._scheduler = AsynchronousSuccessiveHalving(
            {"x": uniform(0, 1)},
            metric="value",
            time_attr="epoch",
            max_t=max_epochs,
            do_minimize=False,
            random_seed=0,
            grace_period=grace_period,
            reduction_factor=_REDUCTION_FACTOR,
        )

    def next_trial(self) -> tuple[Any, int]:
        """Take a suggestion, whose values do not matter."""
        return self._scheduler.suggest().config, self.max_epochs

    def begin(self, trial: Any, number: int, row: int | None) -> Any:
        """Begin it."""
        made = self._make_trial(trial_id=number, config=trial, creation_time=datetime.now())
        self._scheduler.on_trial_add(made)
        return made

    def told(self, candidate: int, epoch: int, value: float) -> Decision:
        """Report and take its decision."""
        result = {"value": value, "epoch": epoch}
        return Decision(str(self._scheduler.on_trial_result(self.trials[candidate], result)).lower())

    def failed(self, candidate: int) -> None:
        """Report it."""
        self._scheduler.on_trial_error(self.trials[candidate])
