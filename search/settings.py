"""The `search` section of a configuration, and what follows from it."""

from collections.abc import Mapping
from typing import Any

from config.build import build
from config.faults import Faults, show
from config.search_section import Budget, CandidateLimits, RetrainOptions, SearchOptions, check_search
from config.sections import TopLevel
from search.executors import EXECUTORS
from search.executors.base import Executor
from search.objectives import parse_objectives
from search.schedulers import SECTIONS as SCHEDULERS
from search.schedulers.base import Scheduler
from search.searching import Limits
from search.space import Canonical, Space
from search.study import Plan, Retrain
from utils.catalogue import Section
from utils.errors import ConfigError

_ANY_EPOCHS = 10**6  # to check a scheduler by where the length of a training is at fault itself

CATALOGUE: dict[str, Section] = {**SCHEDULERS, "executor": EXECUTORS}


def read_options(config: Mapping[str, Any]) -> SearchOptions:
    """The `search` section, checked; the rest of the config only as far as a search needs it.

    Raises:
        ConfigError: Lists every fault with its JSON path.
    """
    faults = Faults()
    options = check_search(config.get("search", {}), faults)
    trainer = config.get("trainer")
    epochs = trainer.get("epochs") if isinstance(trainer, Mapping) else None
    if not isinstance(epochs, int) or epochs < 1:
        faults.add(
            "trainer.epochs", f"{show(epochs)}: a search needs to know a full training. Write a number of epochs."
        )
    if not isinstance(config.get("name"), str) or not config["name"]:
        faults.add("name", f"missing. Add it: {TopLevel.model_fields['name'].description}")
    if options is not None:
        with faults.collecting():
            _objectives(config, options)
        with faults.collecting():
            _scheduler(options, epochs if isinstance(epochs, int) and epochs > 0 else _ANY_EPOCHS)
        with faults.collecting():
            _executor(options)
    faults.raise_if_any()
    assert options is not None
    return options


def make_space(config: Mapping[str, Any], canonical: Canonical | None = None) -> Space:
    """What the candidates of a study are drawn from.

    Args:
        config: The space, from `load_config`.
        canonical: Brings a drawn config to the form that it shares with all that train the same.

    Raises:
        ConfigError: Lists the faults of the search section, or those of the markers.
    """
    options = read_options(config)
    seed = options.seed if options.seed is not None else config.get("seed", 0)
    return Space(config, study_seed=seed, canonical=canonical)


def make_plan(config: Mapping[str, Any], space: Space) -> Plan:
    """Everything that a study consists of.

    Raises:
        ConfigError: Lists the faults of the search section.
    """
    options = read_options(config)
    epochs = config["trainer"]["epochs"]
    objectives = parse_objectives(_objectives(config, options))
    budget = Budget.model_validate(options.budget)
    judged = CandidateLimits.model_validate(options.limits or {}).model_dump()
    is_judged = options.limits is not None or any(objective.is_fact for objective in objectives)
    wants_latency = any(objective.name == "latency_ms" for objective in objectives)
    retrain = RetrainOptions.model_validate(options.retrain) if options.retrain is not None else None
    return Plan(
        config=config,
        space=space,
        scheduler=_scheduler(options, epochs),
        objectives=objectives,
        limits=Limits(
            budget.epochs, budget.max_time, {**judged, "wants_latency": wants_latency} if is_judged else None
        ),
        retrain=Retrain(retrain.top, retrain.seeds, retrain.epochs or epochs) if retrain else Retrain(epochs=epochs),
        max_epoch_time=options.max_epoch_time,
        disk_mb=budget.disk_mb,
    )


def make_executor(config: Mapping[str, Any]) -> Executor:
    """What the works of a study run on."""
    return _executor(read_options(config))


def _executor(options: SearchOptions) -> Executor:
    executor: Executor = build({"search": {"executor": options.executor}}, "search.executor", CATALOGUE)
    return executor


def _scheduler(options: SearchOptions, epochs: int) -> Scheduler:
    spec = options.scheduler or "RandomSearch"
    runtime = {"num_samples": options.num_samples, "max_epochs": epochs}
    scheduler: Scheduler = build({"search": {"scheduler": spec}}, "search.scheduler", CATALOGUE, runtime=runtime)
    return scheduler


def _objectives(config: Mapping[str, Any], options: SearchOptions) -> list[str]:
    if options.objectives is not None:
        parse_objectives(options.objectives)
        return options.objectives
    monitor = config.get("trainer", {}).get("monitor", "off")
    if monitor == "off":
        raise ConfigError(
            'search.objectives: missing, and trainer.monitor is "off": a search must know what is better. Write for '
            'example "objectives": ["max val_miou"].'
        )
    return [str(monitor)]
