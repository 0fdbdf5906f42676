"""The samplers of Optuna."""

import contextlib
import importlib.util
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from config.faults import closest, show
from search.results.record import without_penalty
from search.samplers.base import Observation, Origin, Sampler, Suggestion
from search.samplers.observed import Untaken, comparable_values
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
    from optuna.trial import Trial

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
_BLIND = ("RandomSampler", "QMCSampler")
_OTHERWISE = {
    "GridSampler": "the sampler grid",
    "BruteForceSampler": "the sampler grid",
    "PartialFixedSampler": "fixed values in the place of markers",
}
# Where they differ from those of Optuna: a space may be conditional, and its markers may depend on each other.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "TPESampler": {"multivariate": True, "group": True, "constant_liar": True},
    "QMCSampler": {"scramble": True},
}
_SILENT = ("warn_independent_sampling", "warn_asynchronous_seeding")
_ATTEMPTS = 4  # proposals of Optuna of which the first that is new is taken
_Params = tuple[dict[str, Any], dict[str, "BaseDistribution"]]


class OptunaSampler(Sampler):
    """Proposes what a sampler of Optuna proposes (https://optuna.org, Akiba et al., 2019).

    At each call a study in memory is made from the observations. A marker is a parameter of its own in each branch.
    Candidates with results are complete trials, with values that compare, see `comparable_values`; failed ones have the
    worst of them, since Optuna ignores trials that failed. Candidates without results are running trials. All
    objectives are maximized. Samplers that store their state in trials (CMA-ES, NSGA) propose for each of the earlier
    candidates again, and the trial gets the parameters of the candidate.

    Args:
        space: The space.
        sampler: Name of the class in `optuna.samplers`, or tpe, gp, cmaes, nsga2, nsga3, qmc, random.
        args: Its arguments; the seed follows from that of the study.
        fidelities: Epochs at which the scheduler compares.
        num_objectives: Objectives of the search.

    Raises:
        ConfigError: Optuna, or a package that the sampler needs, is not installed; there is no such sampler, or it
            does not take the arguments or several objectives.
    """

    def __init__(
        self,
        space: "Space",
        sampler: str = "tpe",
        args: dict[str, Any] | None = None,
        fidelities: tuple[int, ...] = (),
        num_objectives: int = 1,
    ) -> None:
        super().__init__(space)
        self.name = _SHORT_NAMES.get(sampler, sampler)
        self.args = args or {}
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
        """Propose what Optuna proposes, unless it is taken each time."""
        if not self.space.has_markers:
            return Suggestion(Drawn())
        values = comparable_values(observations, self.fidelities, self.num_objectives, enough=len(self.space.sites) + 3)
        done = {each.number: each.drawn for each in observations}
        known = dict(zip(values, bounded(list(values.values())), strict=True))
        unjudged = [each.drawn for each in observations if each.is_running and each.number not in values]
        origin: Origin = "model" if len(values) >= self._num_startup else "random"
        with _quiet():
            seed = derive_seed(self.space.study_seed, "optuna") if self.name == "QMCSampler" else rng.integers(2**31)
            study = self._study(int(seed) % 2**31)
            if self.name == "QMCSampler":
                self._skip(study, number)
            else:
                self._add(study, [(done[each], known[each]) for each in known], [*unjudged, *running])
            proposals = (Suggestion(self._follow(study.ask()), origin) for _ in range(_ATTEMPTS))
            return self._untaken.first(proposals, self._untaken.taken(observations, running), rng)

    @property
    def _num_startup(self) -> float:
        """Results before which the sampler draws at random."""
        defaults = {name: each.default for name, each in inspect.signature(self._class).parameters.items()}
        known = {**defaults, **self.args}
        return np.inf if self.name in _BLIND else max(known.get("n_startup_trials", 0), known.get("population_size", 0))

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

    def _study(self, seed: int) -> "Study":
        import optuna

        directions = ["maximize"] * self.num_objectives
        return optuna.create_study(sampler=self._sampler(seed), directions=directions, study_name="espalier")

    def _add(self, study: "Study", done: Sequence[tuple[Drawn, Values]], running: Sequence[Drawn]) -> None:
        """Add what is known to a study."""
        from optuna.trial import TrialState, create_trial

        if self.name not in _REPLAYED:
            for drawn, values in done:
                params, distributions = self._params_of(drawn)
                study.add_trial(create_trial(params=params, distributions=distributions, values=list(values)))
            for drawn in running:
                params, distributions = self._params_of(drawn)
                study.add_trial(create_trial(params=params, distributions=distributions, state=TrialState.RUNNING))
            return
        results: list[tuple[Drawn, Values | None]] = [*done, *((each, None) for each in running)]
        for drawn, result in results:
            study.enqueue_trial(self._params_of(drawn)[0])
            trial = study.ask()
            trial.relative_params  # noqa: B018 - with this the sampler writes its state
            self._follow(trial)
            if result is not None:
                study.tell(trial, list(result))

    def _skip(self, study: "Study", number: int) -> None:
        """Let a sampler of points propose as often as before a number; the first trial says which parameters it has."""
        from optuna.trial import create_trial

        params, distributions = self._params_of(self.space.random(0))
        values = [0.0] * self.num_objectives
        study.add_trial(create_trial(params=params, distributions=distributions, values=values))
        for _ in range(number):
            study.ask().relative_params  # noqa: B018 - counted by the sampler

    def _follow(self, trial: "Trial") -> Drawn:
        """Return the choices of a trial."""
        return self.space.walk(lambda site: _suggest(trial, site))[1].drawn

    def _params_of(self, drawn: Drawn) -> _Params:
        """Return the parameters of Optuna for some choices, with their distributions."""
        if drawn not in self._params:
            walk = self.space.follow(drawn)[1]
            pairs = list(zip(walk.sites, walk.choices, strict=True))
            distributions = {_name(site): _distribution(site) for site, _ in pairs}
            params = {_name(site): _within(distributions[_name(site)], number) for site, (_, number) in pairs}
            self._params[drawn] = params, distributions
        return self._params[drawn]


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
    """Hide what Optuna says of its studies, and of arguments that may change."""
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


def _distribution(site: Site) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    scale = scale_of(site.marker)
    if isinstance(scale, Interval):
        return FloatDistribution(scale.low, scale.high, log=scale.is_log)
    numbers = scale.outcomes
    if "$choice" in site.marker:
        return CategoricalDistribution(tuple(numbers))
    low, high = min(numbers), max(numbers)
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
    log, step = isinstance(scale, LogWholeNumbers), getattr(distribution, "step", 1)
    return int(trial.suggest_int(name, int(min(scale.outcomes)), int(max(scale.outcomes)), step=step, log=log))
