"""A search made small, to see it run to its end before it is begun in earnest: `--test-run`."""

import copy
from collections.abc import Mapping
from typing import Any

from config.faults import Faults
from config.resolve import resolve
from config.signatures import signature_of
from config.specs import read_spec
from search.schedulers import SECTIONS
from utils.errors import ConfigError


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
    target = resolve(spec.type, spec.path, "scheduler", SECTIONS["scheduler"])
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
