"""Schedulers of other packages behind the contract of ours, so that one simulator runs them all."""

import importlib.util
import logging
import warnings
from datetime import datetime
from typing import Any

from search.schedulers.base import Decision, Ending, Job, Need, Rung, RungDecision, Scheduler, Values


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


class StoppingPeer(Scheduler):
    """One that never pauses: each candidate runs on until it is stopped."""

    def __init__(self, num_samples: int, max_epochs: int) -> None:
        super().__init__(num_samples, max_epochs)
        self.trials: dict[int, Any] = {}
        self._num_running = 0
        self._num_drawn = 0

    def begin(self, candidate: int) -> Any:
        """The package's own trial."""
        raise NotImplementedError

    def stops(self, candidate: int, epoch: int, value: float) -> bool:
        """What the package says to a value, the larger the better."""
        raise NotImplementedError

    def ask(self) -> Need | None:
        """A new candidate."""
        return Need() if self._num_drawn < self.num_samples else None

    def admit(self, number: int) -> Job:
        """Begin a trial."""
        self._num_drawn += 1
        self._num_running += 1
        self.trials[number] = self.begin(number)
        return Job(number, 0, self.max_epochs)

    def report(self, candidate: int, epoch: int, values: Values) -> RungDecision:
        """Stop it where the package does, and at the end."""
        stops = self.stops(candidate, epoch, values[0]) or epoch == self.max_epochs
        self._num_running -= stops
        return RungDecision(Decision.STOP if stops else Decision.CONTINUE)

    def end(self, candidate: int, ending: Ending) -> None:
        """Note that it has diverged, or is not in the table."""
        self._num_running -= 1

    def end_draws(self) -> None:
        """The table is used up."""
        self.num_samples = self._num_drawn

    @property
    def is_done(self) -> bool:
        """Whether nothing runs or will."""
        return self._num_drawn == self.num_samples and not self._num_running

    def may_resume(self, candidate: int) -> bool:
        """Never."""
        return False

    def rungs(self) -> list[Rung]:
        """Kept by the package."""
        return []


class OptunaHalving(StoppingPeer):
    """Optuna's SuccessiveHalvingPruner, in memory."""

    def __init__(self, num_samples: int, max_epochs: int, *, grace_period: int, reduction_factor: int) -> None:
        super().__init__(num_samples, max_epochs)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=grace_period, reduction_factor=reduction_factor)
        self._states = optuna.trial.TrialState
        self._study = optuna.create_study(direction="maximize", pruner=pruner)

    def begin(self, candidate: int) -> Any:
        """Ask the study."""
        return self._study.ask()

    def stops(self, candidate: int, epoch: int, value: float) -> bool:
        """Report and ask the pruner."""
        trial = self.trials[candidate]
        trial.report(value, epoch)
        prunes = bool(trial.should_prune())
        if prunes:
            self._study.tell(trial, state=self._states.PRUNED)
        elif epoch == self.max_epochs:
            self._study.tell(trial, value)
        return prunes

    def end(self, candidate: int, ending: Ending) -> None:
        """Report a failure to the peer."""
        super().end(candidate, ending)
        if ending is Ending.FAILED:
            self._study.tell(self.trials[candidate], state=self._states.FAIL)


class SyneTuneASHA(StoppingPeer):
    """Syne Tune's ASHA, which stops and does not promote."""

    def __init__(self, num_samples: int, max_epochs: int, *, grace_period: int, reduction_factor: int) -> None:
        super().__init__(num_samples, max_epochs)
        logging.getLogger("syne_tune").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from syne_tune.backend.trial_status import Trial
            from syne_tune.config_space import uniform
            from syne_tune.optimizer.baselines import ASHA
        self._make_trial = Trial
        self._scheduler = ASHA(
            {"x": uniform(0, 1)},
            metric="value",
            time_attr="epoch",
            max_t=max_epochs,
            do_minimize=False,
            random_seed=0,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
        )

    def begin(self, candidate: int) -> Any:
        """Take a suggestion; its values do not matter, as the table's order decides what is drawn."""
        config = self._scheduler.suggest().config
        trial = self._make_trial(trial_id=candidate, config=config, creation_time=datetime.now())
        self._scheduler.on_trial_add(trial)
        return trial

    def stops(self, candidate: int, epoch: int, value: float) -> bool:
        """Report and take its decision."""
        result = {"value": value, "epoch": epoch}
        return str(self._scheduler.on_trial_result(self.trials[candidate], result)) == "STOP"

    def end(self, candidate: int, ending: Ending) -> None:
        """Report a failure to the peer."""
        super().end(candidate, ending)
        if ending is Ending.FAILED:
            self._scheduler.on_trial_error(self.trials[candidate])
