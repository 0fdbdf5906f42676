"""A search made small, to see it run to its end before it is begun in earnest: `--test-run`."""

import copy
from collections.abc import Mapping
from typing import Any

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
    scheduler = search.get("scheduler")
    if isinstance(scheduler, Mapping) and isinstance(scheduler.get("args"), Mapping):
        args = dict(scheduler["args"])
        if isinstance(args.get("grace_period"), int):
            args["grace_period"] = min(args["grace_period"], epochs)
        search["scheduler"] = {**scheduler, "args": args}
    if isinstance(search.get("retrain"), Mapping):
        search["retrain"] = {**search["retrain"], "epochs": epochs}
    return changed


def _limited(section: Any, path: str, count: int) -> dict[str, Any]:
    if not (isinstance(section, Mapping) and isinstance(section.get("args"), Mapping)):
        raise ConfigError(f"{path}: --test-run sets its args.samples, and it has no args. Write it out in the file.")
    return {**section, "args": {**section["args"], "samples": count}}
