"""The samplers of Optuna."""

import contextlib
import copy
import functools
import importlib.util
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from config.faults import closest, show
from search.results.record import without_penalty
from search.samplers.base import Observation, Origin, Sampler, Suggestion
from search.samplers.learning.evidence import Untaken, check_random_share, comparable_values
from search.schedulers.base import Values
from search.space.drawn import Drawn
from search.space.scales import Interval, LogWholeNumbers, scale_of
from search.space.walk import Site
from utils.errors import ConfigError
from utils.seeding import derive_seed

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

    from search.space.space import Space

_SHORT_NAMES = {
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "nsga2": "NSGAIISampler",
    "nsga3": "NSGAIIISampler",
    "qmc": "QMCSampler",
    "random": "RandomSampler",
}
_NEEDED = {"CmaEsSampler": "cmaes", "GPSampler": "torch"}
# They keep the state of the search in the attributes of trials, which they write as they propose.
_REPLAYED = ("CmaEsSampler", "NSGAIISampler", "NSGAIIISampler")
_SEQUENCES = ("QMCSampler",)  # their proposals follow from the number of earlier ones
_OTHERWISE = {
    "GridSampler": "the sampler grid",
    "BruteForceSampler": "the sampler grid",
    "PartialFixedSampler": "fixed values instead of markers",
}
# Where they differ from those of Optuna: a space may be conditional, and its markers may depend on each other.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "TPESampler": {"multivariate": True, "group": True, "constant_liar": True},
    "QMCSampler": {"scramble": True},
}
_SILENT = ("warn_independent_sampling", "warn_asynchronous_seeding")
_NAME = "espalier"
_MOST_SEEDS = 2**31
_ATTEMPTS = 4  # proposals of Optuna of which the first that is new is taken
_Params = tuple[dict[str, Any], dict[str, "BaseDistribution"]]


class OptunaSampler(Sampler):
    """Passes on the proposals of a sampler of Optuna (https://optuna.org, Akiba et al., 2019).

    At each call a study in memory is made from the observations. A marker is a parameter of its own in each branch.
    Candidates with results are complete trials, with values that compare, see `comparable_values`; failed ones have the
    worst of them, since Optuna ignores trials that failed. Candidates without results are running trials. All
    objectives are maximized. Samplers that store their state in trials (CMA-ES, NSGA) propose for each of the earlier
    candidates again, and the trial gets the parameters of the candidate.

    Args:
        space: The space.
        sampler: Name of the class in `optuna.samplers`, or tpe, gp, cmaes, nsga2, nsga3, qmc, random.
        args: Its arguments; the seed follows from that of the study.
        random_share: Share of proposals that are random draws all the same, as in BOHB; 0: all are Optuna's.
        fidelities: Epochs at which the scheduler compares.
        num_objectives: Objectives of the search.

    Raises:
        ConfigError: Optuna, or a package that the sampler needs, is not installed; there is no such sampler, or it
            does not take the arguments or several objectives; or the share is not from 0 to 1.
    """

    def __init__(
        self,
        space: "Space",
        sampler: str = "tpe",
        args: dict[str, Any] | None = None,
        random_share: float = 0.25,
        *,
        fidelities: tuple[int, ...] = (),
        num_objectives: int = 1,
    ) -> None:
        super().__init__(space)
        self.name = _SHORT_NAMES.get(sampler, sampler)
        check_random_share(random_share)
        self.args = args or {}
        self.random_share = random_share
        self.fidelities = fidelities
        self.num_objectives = num_objectives
        self._class = _find_class(sampler, self.name)
        if num_objectives > 1 and self.name == "CmaEsSampler":
            raise ConfigError(
                f"sampler {show(sampler)}: takes one objective, and the search has {num_objectives}. Use tpe, gp or "
                "nsga2."
            )
        with _quiet():
            self._sampler(0)
        self._untaken = Untaken(space)
        self._params: dict[Drawn, _Params] = {}  # they follow from the choices: no memory that changes an answer

    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Suggestion | None:
        """Return the proposal of Optuna, unless it is taken each time."""
        if not self.space.has_markers:
            return Suggestion(Drawn())
        taken = self._untaken.taken(observations, running)
        if self.name not in _SEQUENCES and rng.random() < self.random_share:
            return self._untaken.first([Suggestion(self.space.random(number))], taken, rng)
        values = comparable_values(observations, self.fidelities, self.num_objectives)
        done = {each.number: each.drawn for each in observations}
        known = dict(zip(values, bounded(list(values.values())), strict=True))
        here = [each for each in observations if each.number >= 0]  # those of another study run no more
        unknown = [each.drawn for each in here if each.is_running and each.number not in values]
        origin: Origin = "model" if len(values) >= self._num_startup else "random"
        with _quiet():
            study = self._study([(done[each], known[each]) for each in known], [*unknown, *running], number, rng)
            proposals = (Suggestion(study.ask(self.space), origin) for _ in range(_ATTEMPTS))
            return self._untaken.first(proposals, taken, rng)

    @property
    def _num_startup(self) -> float:
        """Results before which the sampler draws at random."""
        defaults = {name: each.default for name, each in inspect.signature(self._class).parameters.items()}
        known = {**defaults, **self.args}
        return (
            np.inf
            if self.name in (*_SEQUENCES, "RandomSampler")
            else max(known.get("n_startup_trials", 0), known.get("population_size", 0))
        )

    def _sampler(self, seed: int) -> "BaseSampler":
        """Return Optuna's sampler.

        Raises:
            ConfigError: It does not take the arguments.
        """
        parameters = inspect.signature(self._class).parameters
        takes = [name for name in parameters if name != "seed"]
        defaults = {**_DEFAULTS.get(self.name, {}), **dict.fromkeys(_SILENT, False)}
        if self.args.get("multivariate") is False:  # a group is sampled together
            defaults["group"] = False
        given = {name: value for name, value in {**defaults, **self.args}.items() if name in takes or name in self.args}
        for name in self.args:
            if name == "seed":
                raise ConfigError("args.seed: it follows from the seed of the study. Remove it, or set search.seed.")
            if name not in parameters:
                guess = closest(name, takes)
                raise ConfigError(
                    f"args.{name}: {self.name} has no such argument. "
                    + (f'Did you mean "{guess}"?' if guess else f"It has {', '.join(takes)}.")
                )
        try:
            return self._class(**given, **({"seed": seed} if "seed" in parameters else {}))
        except Exception as error:  # of another library, by its kinds of arguments
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"{self.name} refuses {show(self.args)}: {type(error).__name__}: {reason}. Correct args."
            ) from error

    def _study(
        self, done: Sequence[tuple[Drawn, Values]], running: Sequence[Drawn], number: int, rng: np.random.Generator
    ) -> "_StudyInMemory":
        """Return a study with everything that is known, whose sampler proposes next."""
        is_replayed = self.name in _REPLAYED
        # Points of a sequence, and earlier proposals that are made again, are those of the same seed at each call.
        fixed = self._sampler(derive_seed(self.space.study_seed, "optuna") % _MOST_SEEDS)
        varied = self._sampler(int(rng.integers(_MOST_SEEDS)))
        study = _StudyInMemory(fixed if is_replayed or self.name in _SEQUENCES else varied, self.num_objectives)
        if self.name in _SEQUENCES:
            study.add(self._params_of(self.space.random(0)), (0.0,) * self.num_objectives)  # gives the search space
            for _ in range(number):
                study.propose_again(({}, {}), None)
            return study
        results: list[tuple[Drawn, Values | None]] = [*done, *((each, None) for each in running)]
        for drawn, values in results:
            (study.propose_again if is_replayed else study.add)(self._params_of(drawn), values)
        study.sampler = varied
        return study

    def _params_of(self, drawn: Drawn) -> _Params:
        """Return the parameters of Optuna for some choices, with their distributions."""
        if drawn not in self._params:
            walk = self.space.follow(drawn)[1]
            pairs = list(zip(walk.sites, walk.choices, strict=True))
            distributions = {_name(site): _distribution(site) for site, _ in pairs}
            params = {_name(site): _within(distributions[_name(site)], number) for site, (_, number) in pairs}
            self._params[drawn] = params, distributions
        return self._params[drawn]


class _StudyInMemory:
    """A study of Optuna for one proposal.

    Trials are written to its storage directly: `Study.add_trial` checks and copies them, which would take longer than
    all else.

    Args:
        sampler: Of Optuna.
        num_objectives: Objectives, all maximized.
    """

    def __init__(self, sampler: "BaseSampler", num_objectives: int) -> None:
        import optuna

        self.sampler = sampler
        self._storage = optuna.storages.InMemoryStorage()
        self._id = self._storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE] * num_objectives, _NAME)

    @property
    def _study(self) -> "Study":
        """The study as it is now: an object of Optuna remembers the trials that it has seen."""
        import optuna

        return optuna.load_study(study_name=_NAME, storage=self._storage, sampler=self.sampler)

    def add(self, params: _Params, values: Values | None) -> int:
        """Add a trial that is complete, or runs if it has no values; return its identity."""
        from optuna.trial import TrialState

        state = TrialState.RUNNING if values is None else TrialState.COMPLETE
        now = datetime.now()  # nothing depends on it
        end, choices, distributions = None if values is None else now, *params
        trial = _trial_class()(-1, state, None, now, end, choices, distributions, {}, {}, {}, -1, values=values)
        return int(self._storage.create_new_trial(self._id, trial))

    def propose_again(self, params: _Params, values: Values | None) -> None:
        """Let the sampler propose, for the notes that it makes, and add a trial with other parameters in its place."""
        from optuna.trial import TrialState

        identity, study = self.add(params, None), self._study
        trial = self._storage.get_trial(identity)
        self.sampler.sample_relative(study, trial, self.sampler.infer_relative_search_space(study, trial))
        if values is not None:
            self._storage.set_trial_state_values(identity, TrialState.COMPLETE, values)

    def ask(self, space: "Space") -> Drawn:
        """Return a proposal of the sampler, which becomes a trial that runs."""
        trial = self._study.ask()
        return space.walk(lambda site: _suggest(trial, site))[1].drawn


@functools.cache
def _trial_class() -> "type[FrozenTrial]":
    from optuna.trial import FrozenTrial

    class SharedTrial(FrozenTrial):  # type: ignore[misc]  # Optuna's types are not checked
        """A trial whose copies share its parameters, which nobody changes."""

        def __deepcopy__(self, memo: dict[int, Any]) -> "SharedTrial":
            return copy.copy(self)

    return SharedTrial


def bounded(rows: Sequence[Values]) -> list[Values]:
    """Return values in the same order, of which those of infeasible candidates are near the others.

    Their distance from the worst feasible one is at most that of the best, by their rank: a model of values could not
    see differences between feasible ones otherwise.
    """
    table = np.array(rows, dtype=float)
    for column in table.T:
        is_feasible = ~np.isnan([without_penalty(value) for value in column])
        worst, best = (column[is_feasible].min(), column[is_feasible].max()) if is_feasible.any() else (0.0, 0.0)
        levels, ranks = np.unique(column[~is_feasible], return_inverse=True)
        if len(levels):
            column[~is_feasible] = worst - (best - worst or 1.0) * (len(levels) - ranks) / len(levels)
    return [tuple(row) for row in table.tolist()]


def _find_class(written: str, name: str) -> "type[BaseSampler]":
    """Return a class of Optuna.

    Raises:
        ConfigError: It cannot be used.
    """
    try:
        from optuna import samplers
    except ImportError as error:
        raise ConfigError(
            f"sampler {show(written)}: the package optuna cannot be imported ({error}). Run: pip install optuna"
        ) from error
    if name in _OTHERWISE:
        raise ConfigError(f"sampler {show(written)}: needs objects of Python. Use {_OTHERWISE[name]} instead.")
    known = [each for each in samplers.__all__ if each.endswith("Sampler") and each not in _OTHERWISE]
    known = [each for each in known if not each.startswith("Base")]
    if name not in known:
        raise ConfigError(
            f"sampler {show(written)}: Optuna has no such sampler. It has {', '.join(known)}, and the short names are "
            f"{', '.join(_SHORT_NAMES)}."
        )
    package = _NEEDED.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"sampler {show(written)}: {name} needs the package {package}, which is not installed. "
            f"Run: pip install {package}"
        )
    found: type[BaseSampler] = getattr(samplers, name)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide Optuna's messages about its studies, and its warnings of arguments that may change."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _name(site: Site) -> str:
    """Return the name of a parameter: markers of different branches differ, also at the same path."""
    return " | ".join([site.path, *(f"{path}={number}" for path, number in site.conditions)])


def _distribution(site: Site) -> Any:  # with attributes of its kind
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    scale = scale_of(site.marker)
    if isinstance(scale, Interval):
        return FloatDistribution(scale.low, scale.high, log=scale.is_log)
    numbers = scale.outcomes
    if "$choice" in site.marker:
        return CategoricalDistribution(tuple(numbers))
    low, high = sorted((numbers[0], numbers[-1]))  # not the least of all: a range may have any number of them
    if isinstance(scale, LogWholeNumbers):
        return IntDistribution(int(low), int(high), log=True)
    step = abs(int(numbers[1]) - int(numbers[0])) if len(numbers) > 1 else 1
    return IntDistribution(int(low), int(high), step=step)


def _within(distribution: Any, number: float) -> int | float:
    """Return a choice as Optuna takes it: the rounded end of an interval may be outside."""
    low, high = getattr(distribution, "low", number), getattr(distribution, "high", number)
    return min(max(number, low), high)


def _suggest(trial: "Trial", site: Site) -> int | float:
    """Return the choice of Optuna at a marker."""
    name, scale, distribution = _name(site), scale_of(site.marker), _distribution(site)
    if isinstance(scale, Interval):
        number = trial.suggest_float(name, scale.low, scale.high, log=scale.is_log)
        return scale.nearest(scale.unit(number))
    if "$choice" in site.marker:
        return int(trial.suggest_categorical(name, tuple(scale.outcomes)))
    return int(
        trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    )
