"""The `search` section of a configuration, and what follows from it."""

import copy
from collections.abc import Mapping
from typing import Any

from config.checking.classes import find_class, read_spec
from config.checking.sections import Budget, CandidateLimits, RetrainOptions, SearchOptions, TopLevel, check_section
from config.checking.signatures import signature_of
from config.faults import Faults, show
from config.objects import instantiate
from search.executors import EXECUTORS
from search.executors.base import Executor
from search.results.objectives import parse_objectives
from search.schedulers import SECTIONS
from search.schedulers import SECTIONS as SCHEDULERS
from search.schedulers.base import Scheduler
from search.space.space import Canonical, Space
from search.study.searching import Limits
from search.study.study import Plan, Retrain
from utils.errors import ConfigError
from utils.registry import Section

_ANY_EPOCHS = 10**6  # to check a scheduler by where the length of a training is at fault itself

REGISTRY: dict[str, Section] = {**SCHEDULERS, "executor": EXECUTORS}


def read_options(config: Mapping[str, Any]) -> SearchOptions:
    """The `search` section, checked; the rest of the config only as far as a search needs it.

    Raises:
        ConfigError: Lists every fault with its JSON path.
    """
    faults = Faults()
    options = check_section(SearchOptions, config.get("search", {}), "search", faults)
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
    executor: Executor = instantiate({"search": {"executor": options.executor}}, "search.executor", REGISTRY)
    return executor


def _scheduler(options: SearchOptions, epochs: int) -> Scheduler:
    spec = options.scheduler or "RandomSearch"
    runtime = {"num_samples": options.num_samples, "max_epochs": epochs}
    scheduler: Scheduler = instantiate({"search": {"scheduler": spec}}, "search.scheduler", REGISTRY, runtime=runtime)
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


def shrunk(config: Mapping[str, Any], sizes: str) -> dict[str, Any]:
    """A space with fewer epochs, samples and candidates.

    Args:
        config: From `load_config`.
        sizes: "EPOCHS,TRAIN,VALID,SAMPLES": epochs of a full training, samples of training and validation data, and
            candidates.

    Raises:
        ConfigError: `sizes` is not four whole numbers from 1, or a loader cannot be told how many samples to take.
    """
    words = sizes.split(",")
    if len(words) != 4 or not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(
            f'--test-run "{sizes}": must be four whole numbers from 1, EPOCHS,TRAIN,VALID,SAMPLES. Write for example '
            "--test-run 2,16,8,3."
        )
    epochs, train, valid, samples = map(int, words)
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    changed["name"] = f"{changed['name']}_test_run"  # in a folder of its own
    changed["trainer"] = {**changed.get("trainer", {}), "epochs": epochs}
    for section, count in (("train_loader", train), ("valid_loader", valid), ("test_loader", valid)):
        if changed.get(section) is not None:
            changed[section] = _limited(changed[section], section, count)
    if changed.get("data_loader") is not None:
        changed["data_loader"] = _limited(changed["data_loader"], "data_loader", train + valid)
        if "validation_split" in changed["data_loader"]["args"]:
            changed["data_loader"]["args"]["validation_split"] = valid
    search = changed["search"] = {**changed.get("search", {}), "num_samples": samples}
    if search.get("scheduler") is not None:
        search["scheduler"] = _hastened(search["scheduler"], epochs)
    if isinstance(search.get("retrain"), Mapping):
        search["retrain"] = {**search["retrain"], "epochs": epochs}
    return changed


def _hastened(scheduler: Any, epochs: int) -> Any:
    """A scheduler whose rungs are not beyond the end."""
    spec = read_spec(scheduler, "search.scheduler", Faults())
    if spec is None:  # for the validation to report
        return scheduler
    target = find_class(spec.type, spec.path, "scheduler", SECTIONS["scheduler"])
    grace_period = signature_of(target).parameters.get("grace_period")
    if grace_period is None:
        return scheduler
    args = dict(spec.args)
    asked = args.get("grace_period", grace_period.default)
    if isinstance(asked, int) and asked > epochs:
        args["grace_period"] = epochs
    if isinstance(args.get("rungs"), list):
        args["rungs"] = [rung for rung in args["rungs"] if not _is_beyond(rung, epochs)]
    return {"type": spec.type, "args": args}


def _is_beyond(rung: Any, epochs: int) -> bool:
    return isinstance(rung, list) and bool(rung) and isinstance(rung[0], int) and rung[0] >= epochs


def _limited(section: Any, path: str, count: int) -> dict[str, Any]:
    if not (isinstance(section, Mapping) and isinstance(section.get("args"), Mapping)):
        raise ConfigError(f"{path}: --test-run sets its args.samples, and it has no args. Write it out in the file.")
    return {**section, "args": {**section["args"], "samples": count}}
