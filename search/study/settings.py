"""The `search` section of a configuration, and the parts of a study that follow from it."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from config.checking.classes import find_class, read_spec
from config.checking.sections import (
    Budget,
    CandidateLimits,
    GridOptions,
    RetrainOptions,
    SearchOptions,
    TopLevel,
    check_section,
)
from config.checking.splits import MERGED
from config.faults import Faults, show
from config.loading.load import apply_changes
from config.objects import instantiate
from search.executors.base import Executor
from search.executors.serial import Serial
from search.executors.table import TableExecutor
from search.registry import REGISTRY
from search.results.record import Constraint, Objective, parse_constraints, parse_objectives
from search.samplers.base import Sampler
from search.samplers.enqueued import KnownFirst
from search.schedulers.base import Scheduler
from search.schedulers.halving import RandomSearch
from search.space.grid_space import GridSpace, condition_path
from search.space.space import Canonical, Space
from search.study.tabulated import require_no_table, tabulated_space
from utils.errors import ConfigError, EspalierError, each_error

# Keys of the search section that say how candidates are drawn, stopped or trained again: a grid does nothing of that.
_NOT_OF_A_GRID = (
    "num_samples", "seed", "sampler", "first", "scheduler", "constraints", "strategy", "retrain", "warm_start", "folds"
)  # fmt: skip
_FOLDS_ALONE = (
    ", and a candidate is then so many networks, of which none has seen all training data. "
    'Let the best be trained with it: "retrain": {"top": 1}.'
)
_ANY_EPOCHS = 10**6  # to check a scheduler if the number of epochs is itself faulty


@dataclass(frozen=True)
class StudyParts:
    """The parts of a study, built from its config.

    Attributes:
        config: The config of the space.
        space: The space.
        scheduler: A scheduler that has decided nothing yet.
        objectives: The objectives, the most important first.
        executor: Starts and feeds the workers.
        budget: Budget of the study.
        limits: Limits of a candidate and the facts that must be known of it, for the worker; None: nothing.
        retrain: Settings for retraining the best candidates; None: the winner remains as the search trained it.
        max_epoch_time: Seconds without a message after which a worker hangs; None: never.
        sampler: Proposes candidates; None: they are the conditions of a grid.
        constraints: Bounds that a candidate has to keep.
        strategy: The section of the strategy; None: `MultiFidelity`.
        warm_start: Folder of another study whose results the sampler uses, too.
        run_dir: Folder for the runs of candidates; None: the folder of the study.
        resources: Resources of each training, e.g. `{"gpus": 2}`.
        folds: Folds of the training data, each of which a candidate holds out once; None: it is trained once.
        is_new: Whether the study begins: one of an earlier version continues without the rules that came later.
    """

    config: Mapping[str, Any]
    space: Space
    scheduler: Scheduler
    objectives: tuple[Objective, ...]
    executor: Executor = field(default_factory=Serial)
    budget: Budget = field(default_factory=Budget)
    limits: Mapping[str, Any] | None = None
    retrain: RetrainOptions | None = None
    max_epoch_time: float | None = None
    sampler: Sampler | None = None
    constraints: tuple[Constraint, ...] = ()
    strategy: Any = None
    warm_start: str | None = None
    run_dir: str | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    folds: int | None = None
    is_new: bool = True

    @property
    def max_epochs(self) -> int:
        """Epochs of a full training."""
        return self.scheduler.max_epochs

    @property
    def rules(self) -> dict[str, list[str]]:
        """Objectives and constraints, by which a worker knows the best epoch: a part of the payload of its tasks."""
        return {
            "objectives": [str(each) for each in self.objectives],
            "constraints": [str(each) for each in self.constraints],
        }

    def folds_of(self, start: int, end: int) -> dict[str, Any]:
        """Return how a worker trains a candidate in folds, a part of the payload of its task; nothing without folds.

        Args:
            start: Epochs that the search knows.
            end: Epoch at which the job ends.
        """
        if self.folds is None:
            return {}
        # Folds are trained one after the other up to each comparison, at which a candidate may end.
        ends = sorted({each for each in self.scheduler.fidelities() if start < each < end} | {end})
        return {"folds": {"of": self.folds, "seed": self.space.study_seed, "ends": ends}}

    @property
    def retrain_kind(self) -> str:
        """The end of the names of retrainings: different for those that learn from other data or have other values."""
        options = self.retrain or RetrainOptions()
        changes = json.dumps(options.changes, sort_keys=True) if options.changes else ""
        digest = f"_{hashlib.sha256(changes.encode()).hexdigest()[:6]}" if changes else ""
        return ("_all_data" if options.train_on == MERGED else "") + digest

    def retrained_config(self, config: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """Return the config of a retraining.

        A training on the validation data, too, has no validation: it is neither monitored by that nor stopped early.

        Args:
            config: Of a candidate.
            seed: Of the training.

        Raises:
            ConfigError: A path of `search.retrain.changes` leads nowhere.
        """
        options = self.retrain or RetrainOptions()
        changed = apply_changes(config, options.changes)
        trainer = dict(changed["trainer"])
        if options.epochs is not None:
            trainer["epochs"] = options.epochs
        if options.train_on == MERGED:
            is_validated = " val_" in trainer.get("monitor", "off")
            trainer |= {"train_on": MERGED, "early_stop": None} | ({"monitor": "off"} if is_validated else {})
        return {**changed, "seed": seed, "trainer": trainer}


def check_changes(changes: Mapping[str, Any], place: str, faults: Faults, more: Sequence[str] = ()) -> None:
    """Refuse changes of later trainings that are no JSON paths, or that the search sets itself.

    Args:
        changes: Values by JSON path, see `apply_changes`.
        place: JSON path of the changes.
        faults: Receives the faults.
        more: Further JSON paths that the search sets.
    """
    with faults.collecting():
        changed = apply_changes({"arch": {"args": {}}, "trainer": {}}, changes)
        for path in ("name", "seed", "search", "trainer.epochs", *more):
            value: Any = changed
            for key in path.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                repair = f"Write epochs next to {place.rpartition('.')[2]}" if path == "trainer.epochs" else "Remove it"
                faults.add(place, f"{path}: {show(value)}, and the search sets it. {repair}.")


def build_study_parts(config: Mapping[str, Any], canonical: Canonical | None = None) -> StudyParts:
    """Check the `search` section and build the parts of a study, nothing that trains.

    Args:
        config: The space, from `load_config`.
        canonical: Brings a drawn config to the form that it shares with all configs that train the same.

    Raises:
        ConfigError: Lists the faults of the search section, or those of the markers, with their JSON paths.
    """
    faults = Faults()
    options = check_section(SearchOptions, config.get("search", {}), "search", faults)
    searched = config if options is None else _searched_config(config, options, faults)
    epochs = _full_epochs(searched, faults)
    if not isinstance(config.get("name"), str) or not config["name"]:
        faults.add("name", f"missing. Add it: {TopLevel.model_fields['name'].description}")
    if options is not None and options.study is not None:
        return _grid_parts(config, options, options.study, canonical, faults)
    if options is not None:
        spec = {"search": {"scheduler": options.scheduler or "RandomSearch", "executor": options.executor}}
        runtime = {"num_samples": options.num_samples, "max_epochs": epochs}
        # Each is built even if another is faulty, so that all faults are reported at once.
        with faults.collecting():
            objectives = _objectives_of(config, options)
        with faults.collecting():
            constraints = parse_constraints(options.constraints)
        with faults.collecting():
            scheduler = instantiate(spec, "search.scheduler", REGISTRY, runtime=runtime)
        with faults.collecting():
            executor = instantiate(spec, "search.executor", REGISTRY)
        if options.folds is not None and (options.retrain is None or options.retrain.top == 0):
            faults.add("search.folds", f"{options.folds}{_FOLDS_ALONE}")
        if options.retrain is not None:
            check_changes(options.retrain.changes, "search.retrain.changes", faults)
    if faults or options is None:
        raise faults.error()
    seed = options.seed if options.seed is not None else config.get("seed", 0)
    space = (
        tabulated_space(config, options, executor, (objectives, constraints), seed)
        if isinstance(executor, TableExecutor)
        else Space(searched, study_seed=seed, canonical=canonical)
    )
    spec = {"search": {"sampler": options.sampler or "auto"}}
    known = {"space": space, "fidelities": scheduler.fidelities(), "num_objectives": len(objectives)}
    sampler: Sampler = instantiate(spec, "search.sampler", REGISTRY, runtime=known)
    if options.first:
        sampler = KnownFirst(space, sampler, options.first)
    return StudyParts(
        config=config,
        space=space,
        scheduler=scheduler,
        objectives=objectives,
        executor=executor,
        budget=options.budget,
        limits=_limits_of(options, (*objectives, *constraints)),
        retrain=options.retrain,
        max_epoch_time=options.max_epoch_time,
        sampler=sampler,
        constraints=constraints,
        strategy=options.strategy,
        warm_start=options.warm_start,
        run_dir=options.run_dir,
        resources=options.resources,
        folds=options.folds,
    )


def _full_epochs(searched: Mapping[str, Any], faults: Faults) -> int:
    """Return the epochs of a full training; if the config names none, that is a fault, and the result any number."""
    trainer = searched.get("trainer")
    epochs = trainer.get("epochs") if isinstance(trainer, Mapping) else None
    if isinstance(epochs, int) and epochs >= 1:
        return epochs
    faults.add(
        "trainer.epochs", f"{show(epochs)}: a search needs the length of a full training. Write a number of epochs."
    )
    return _ANY_EPOCHS


def _searched_config(config: Mapping[str, Any], options: SearchOptions, faults: Faults) -> Mapping[str, Any]:
    """Return the config that candidates are drawn from: that of the study, unless its strategy makes another of it."""
    spec = None if options.strategy is None else read_spec(options.strategy, "search.strategy", Faults())
    if spec is None or options.study is not None:  # a fault is reported when the strategy is built
        return config
    with faults.collecting():
        strategy = find_class(spec.type, spec.path, "strategy", REGISTRY["strategy"]).target
        if isinstance(strategy, type) and hasattr(strategy, "searched_config"):  # a plug-in may be a function
            searched: Mapping[str, Any] = strategy.searched_config(config, spec.args)
            return searched
    return config


def _objectives_of(config: Mapping[str, Any], options: SearchOptions) -> tuple[Objective, ...]:
    """Return the objectives.

    Raises:
        ConfigError: There is none.
        SearchError: A text is not of the right form.
    """
    texts, monitor = options.objectives, config.get("trainer", {}).get("monitor", "off")
    if texts is None and monitor == "off":
        raise ConfigError(
            'search.objectives: missing, and trainer.monitor is "off": a search must know which result to '
            'optimize. Write for example "objectives": ["max val_miou"].'
        )
    return parse_objectives([str(monitor)] if texts is None else texts)


def _limits_of(options: SearchOptions, compared: Sequence[Objective | Constraint]) -> dict[str, Any] | None:
    """Return the limits of a candidate for the worker, and the facts that must be known of it; None: nothing."""
    limits = (options.limits or CandidateLimits()).model_dump()
    limits["wants_latency"] = any(each.name == "latency_ms" for each in compared)
    # Facts cost time to find: a worker looks for them only if a limit or an objective needs them.
    return limits if options.limits is not None or any(each.is_fact for each in compared) else None


def _grid_parts(
    config: Mapping[str, Any], options: SearchOptions, grid: GridOptions, canonical: Canonical | None, faults: Faults
) -> StudyParts:
    """Build the parts of a grid study.

    Args:
        config: From `load_config`.
        options: Its search section.
        grid: Its `search.study`.
        canonical: As for `build_study_parts`.
        faults: Those of the config so far.

    Raises:
        ConfigError: Lists all faults.
    """
    with faults.collecting():
        objectives = _objectives_of(config, options)
        if len(objectives) > 1 or objectives[0].is_cost:
            faults.add(
                "search.objectives",
                f"{show([str(each) for each in objectives])}: a grid study compares its conditions by one result of "
                'validation data, and shows all others, too. Write for example ["max val_miou"].',
            )
    with faults.collecting():
        space = GridSpace(config, grid)
        scheduler = RandomSearch(num_samples_of(config), space.max_epochs)
        _check_grid(config, options, space, canonical, faults)
    with faults.collecting():
        executor = instantiate({"search": {"executor": options.executor}}, "search.executor", REGISTRY)
        require_no_table(executor)
    if faults:
        raise faults.error()
    return StudyParts(
        config=config,
        space=space,
        scheduler=scheduler,
        objectives=objectives,
        executor=executor,
        budget=Budget() if space.searches else options.budget,  # else they are those of the searches
        limits=None if space.searches else _limits_of(options, objectives),
        max_epoch_time=options.max_epoch_time,
        strategy="Grid",
        run_dir=None if space.searches else options.run_dir,  # as the budget; the journals of searches stay here
        resources=options.resources,
    )


def _check_grid(
    config: Mapping[str, Any], options: SearchOptions, space: GridSpace, canonical: Canonical | None, faults: Faults
) -> None:
    """Check the keys of the search section that a grid study does not have, and the conditions that are searches."""
    for name, search in space.searches.items():
        try:
            build_study_parts(search, canonical)
        except EspalierError as error:
            for each in each_error(error):
                faults.add(condition_path(name), str(each))
    if space.searches and options.resources:
        faults.add(
            "search.resources", f"{show(options.resources)}: a condition that is a search has one device. Remove it."
        )
    rule = "and search.study trains each of its conditions in full, with the seeds from the file's seed on. Remove it."
    for key in ("seed",) if space.searches else _NOT_OF_A_GRID:
        if key in config["search"]:
            faults.add(f"search.{key}", f"{show(config['search'][key])}, {rule}")
    if not space.searches and options.budget.disk_mb is not None:
        faults.add(
            "search.budget.disk_mb",
            f"{options.budget.disk_mb}: a grid study retains the best checkpoint of every training. Remove it.",
        )


def num_samples_of(config: Mapping[str, Any]) -> int:
    """Return the number of candidates that a config asks for: of a grid study, of its conditions, seeds and folds.

    Raises:
        ConfigError: The search section is faulty.
    """
    faults = Faults()
    options = check_section(SearchOptions, config.get("search", {}), "search", faults)
    if options is None:
        raise faults.error()
    grid = options.study
    return options.num_samples if grid is None else len(grid.conditions) * grid.seeds * (grid.folds or 1)


def with_num_samples(config: Mapping[str, Any], num_samples: int) -> dict[str, Any]:
    """Return a config that asks for another number of candidates: of a grid study, for other seeds."""
    search = dict(config.get("search", {}))
    if num_samples == num_samples_of(config):  # a strategy may try another number if none is named
        return copy.deepcopy(dict(config))
    if search.get("study") is None:
        search["num_samples"] = num_samples
    else:
        grid = search["study"]
        per_seed = len(grid["conditions"]) * int(grid.get("folds") or 1)
        search["study"] = {**grid, "seeds": num_samples // per_seed}
    return {**copy.deepcopy(dict(config)), "search": search}
