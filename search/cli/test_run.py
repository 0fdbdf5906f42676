"""`--test-run`: the config of a study with few epochs, samples and candidates."""

import copy
from collections.abc import Mapping
from typing import Any

from config.checking.classes import find_class, read_spec
from config.checking.signatures import signature_of
from config.faults import Faults
from config.loading.load import apply_changes
from config.variants import shorten_schedule
from search.registry import REGISTRY
from search.schedulers.grace import starting_epochs
from search.schedulers.rungs import rung_epochs
from utils.errors import ConfigError


def shrunk(config: Mapping[str, Any], sizes: str) -> dict[str, Any]:
    """Return a space with fewer epochs, samples and candidates, for `--test-run`.

    Args:
        config: From `load_config`.
        sizes: "EPOCHS,TRAIN,VALID,SAMPLES": epochs of a full training, samples of training and validation data, and
            candidates; of a grid study its seeds, and the candidates of conditions that are searches.

    Raises:
        ConfigError: `sizes` is not four whole numbers from 1, or a loader has no `args`.
    """
    words = sizes.split(",")
    if len(words) != 4 or not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(
            f'--test-run "{sizes}": must be four whole numbers from 1, EPOCHS,TRAIN,VALID,SAMPLES. Write for example '
            "--test-run 2,16,8,3."
        )
    epochs, train, valid, num_samples = map(int, words)
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    changed["name"] = f"{changed['name']}_test_run"  # its studies are never resumed in the place of real ones
    changed["trainer"] = {**changed.get("trainer", {}), "epochs": epochs}
    shorten_schedule(changed.get("lr_scheduler"))
    counts = {"train_loader": train, "valid_loader": valid, "test_loader": valid, "data_loader": train + valid}
    for section, count in counts.items():
        loader = changed.get(section)
        if loader is None:
            continue
        if not (isinstance(loader, Mapping) and isinstance(loader.get("args"), Mapping)):
            raise ConfigError(
                f"{section}: --test-run sets its args.samples, and it has no args. Write them in the file."
            )
        loader["args"]["samples"] = count
        if section == "data_loader" and loader["args"].get("validation_split"):
            loader["args"]["validation_split"] = valid
    search = changed["search"] = dict(changed.get("search", {}))
    is_grid = isinstance(search.get("study"), Mapping)
    if not is_grid or "num_samples" in search:  # of the searches that are its conditions
        search["num_samples"] = num_samples
    search |= _shrunk_search(search, epochs)
    if is_grid:
        search["study"] = _shrunk_grid(changed, counts, num_samples)
    return changed


def _shrunk_search(search: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """Return the keys of a search section that say how long a training is, for trainings of fewer epochs."""
    small = {}
    if search.get("scheduler") is not None:
        small["scheduler"] = _shrunk_scheduler(search["scheduler"], epochs)
    if search.get("strategy") is not None:
        small["strategy"] = _shrunk_strategy(search["strategy"], epochs)
    if isinstance(search.get("retrain"), Mapping):
        small["retrain"] = {**search["retrain"], "epochs": epochs}
    return small


def _shrunk_grid(config: Mapping[str, Any], counts: Mapping[str, int], num_samples: int) -> dict[str, Any]:
    """Return the grid of a small config; its conditions have as few epochs, samples and candidates."""
    grid: Mapping[str, Any] = config["search"]["study"]
    conditions = grid.get("conditions")
    if not (isinstance(conditions, Mapping) and all(isinstance(each, Mapping) for each in conditions.values())):
        return dict(grid)  # for the validation to report
    changed = {
        name: {**each, **_shrunk_changes(config, each, counts, num_samples)} for name, each in conditions.items()
    }
    return {**grid, "conditions": changed, "seeds": num_samples}


def _shrunk_changes(
    config: Mapping[str, Any], changes: Mapping[str, Any], counts: Mapping[str, int], num_samples: int
) -> dict[str, Any]:
    """Return the values, by path, that a condition must have to be as small as the config."""
    epochs = config["trainer"]["epochs"]
    small: dict[str, Any] = {"trainer.epochs": epochs}
    try:
        whole = apply_changes(config, changes)
    except ConfigError:
        return small  # for the validation to report
    schedule = whole.get("lr_scheduler")
    if schedule != config.get("lr_scheduler") and shorten_schedule(schedule):
        # By its paths, as a section would be laid over one that has the length of a whole training.
        of_one = schedule if isinstance(schedule, Mapping) else {}
        small |= {f"lr_scheduler.{key}": value for key, value in of_one.items()} or {"lr_scheduler": schedule}
    for section, count in counts.items():
        arguments = whole[section].get("args") if isinstance(whole.get(section), Mapping) else None
        if isinstance(arguments, Mapping) and arguments.get("samples") != count:
            small[f"{section}.args.samples"] = count
        if section == "data_loader" and isinstance(arguments, Mapping) and arguments.get("validation_split"):
            small["data_loader.args.validation_split"] = counts["valid_loader"]
    search, of_study = whole.get("search"), config["search"]
    if not isinstance(search, Mapping):  # for the validation to report
        return small
    for key, value in _shrunk_search(search, epochs).items():
        if search[key] != of_study.get(key):
            small[f"search.{key}"] = value
    if search.get("num_samples") != of_study.get("num_samples"):
        small["search.num_samples"] = num_samples
    return small


def _shrunk_strategy(strategy: Any, epochs: int) -> Any:
    """Return a strategy whose candidates have no more epochs."""
    spec = read_spec(strategy, "search.strategy", Faults())
    if spec is None:  # for the validation to report
        return strategy
    target = find_class(spec.type, spec.path, "strategy", REGISTRY["strategy"]).target
    if not hasattr(target, "shrunk_arguments"):
        return strategy
    return {"type": spec.type, "args": target.shrunk_arguments(spec.args, epochs)}


def _shrunk_scheduler(scheduler: Any, epochs: int) -> Any:
    """Return a scheduler without rungs beyond a full training."""
    spec = read_spec(scheduler, "search.scheduler", Faults())
    if spec is None:  # for the validation to report
        return scheduler
    target = find_class(spec.type, spec.path, "scheduler", REGISTRY["scheduler"]).target
    grace_period = signature_of(target).parameters.get("grace_period")
    if grace_period is None:
        return scheduler
    args = dict(spec.args)
    configured = args.get("grace_period", grace_period.default)
    if isinstance(configured, int) and configured > epochs:
        args["grace_period"] = epochs
    args |= _fewer_brackets(args, epochs)
    if isinstance(args.get("rungs"), list):
        # A rung that is no [epochs, factor] is left for the validation to report.
        args["rungs"] = [
            rung
            for rung in args["rungs"]
            if not (isinstance(rung, list) and rung and isinstance(rung[0], int) and rung[0] >= epochs)
        ]
    return {"type": spec.type, "args": args}


def _fewer_brackets(args: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """Return `brackets` of a scheduler if there are fewer rungs than these in a full training of so few epochs."""
    brackets, grace, factor = args.get("brackets"), args.get("grace_period", "auto"), args.get("reduction_factor", 3)
    if not (isinstance(brackets, int) and isinstance(factor, int)) or brackets < 2 or factor < 2:
        return {}  # for the validation to report
    start = starting_epochs("auto", epochs, brackets) if grace == "auto" else grace
    if not isinstance(start, int) or start < 1:
        return {}
    return {"brackets": min(brackets, len(rung_epochs(epochs, start, factor)))}
