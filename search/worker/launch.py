"""Starting and continuing a study with the checks that need torch: for the command and for `search.run`."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from build import registry
from config.faults import Faults
from config.held_out import with_split_seed
from config.markers import is_marker
from search.executors.table import is_tabulated
from search.space.grid_space import GridSpace, condition_path, with_fold
from search.space.space import Space
from search.study.folders import (
    as_in_study,
    changes,
    create_study_folder,
    differences,
    find_studies,
    read_study_config,
    with_present_options,
)
from search.study.journal import JOURNAL
from search.study.settings import StudyParts, build_study_parts, num_samples_of, with_num_samples
from search.study.study import Study, build_strategy
from search.worker.candidate import canonical
from search.worker.supernet import require_trainable
from train import check_config
from utils.environment import capture
from utils.errors import ConfigError, DataError, EspalierError, SearchError, each_error
from utils.writing.text import in_one_line

WORKER = "search.worker.runner:worker"

logger = logging.getLogger("espalier")


@dataclass(frozen=True)
class Beginning:
    """Where a study begins.

    Attributes:
        config: The config of the study.
        folder: Folder of the study to continue; None: a new one.
        num_samples: Candidates that it was begun with; None for a new one.
        changed: The permitted changes of its config.
    """

    config: Mapping[str, Any]
    folder: Path | None = None
    num_samples: int | None = None
    changed: Sequence[str] = ()


def checked_parts(config: Mapping[str, Any], *, is_new: bool = True, place: str = "") -> StudyParts:
    """Build the parts of a study, and check candidates that together contain every branch of every choice.

    Args:
        config: From `load_config`.
        is_new: Whether the study begins; then supernets are checked by all rules, their memory and schedules, too, as
            well as the conditions of a grid that are searches.
        place: Of a search that is a condition of a grid: its JSON path, for messages.

    Raises:
        ConfigError: The config is faulty, or no candidate of its space can be trained.
        DataError: A supernet is to be trained on data that cannot be read.
    """
    parts = replace(build_study_parts(config, canonical), is_new=is_new)
    strategy, prefix = build_strategy(parts), f"{place}: " if place else ""  # the strategy only to check it
    logger.info("%s%s", prefix, strategy.describe(parts.space))
    if is_new and has_inert_rate(config):
        logger.warning(
            "%soptimizer.args.lr is searched and has no effect, as OneCycleLR sets all rates from its max_lr. Leave "
            "out lr_scheduler.args.max_lr: it then is the rate of the optimizer.",
            prefix,
        )
    if parts.folds is not None:
        logger.info("%sEach candidate is trained %d times, in folds of the training data.", prefix, parts.folds)
    faults = Faults()
    if isinstance(parts.space, GridSpace):
        _check_searches(parts, parts.space, faults)
    with faults.collecting() if faults else nullcontext():  # an error alone is raised as it is
        refused = strategy.find_faults(parts.space, partial(_check_candidate, num_folds=parts.folds))
    if faults:
        raise faults.error()
    if refused:
        text = "\n  ".join(refused)
        logger.warning("%sSome candidates cannot be trained and are refused when drawn:\n  %s", prefix, text)
    if is_new and strategy.result_is_retrained:
        require_trainable(parts)
    return parts


def has_inert_rate(config: Mapping[str, Any]) -> bool:
    """Return whether the rate of the optimizer is searched, though OneCycleLR has one that is the same for all."""

    def argument(section: str, name: str) -> Any:
        spec = config.get(section)
        args = spec.get("args") if isinstance(spec, Mapping) else None
        return args.get(name) if isinstance(args, Mapping) else None

    schedule = config.get("lr_scheduler")
    if not (isinstance(schedule, Mapping) and str(schedule.get("type")).endswith("OneCycleLR")):
        return False
    return is_marker(argument("optimizer", "lr")) and isinstance(argument("lr_scheduler", "max_lr"), int | float)


def _check_searches(parts: StudyParts, space: GridSpace, faults: Faults) -> None:
    """Check the conditions of a grid that are searches, by all rules if it begins.

    Raises:
        DataError: See `checked_parts`.
    """
    executor = parts.config["search"].get("executor", "serial")  # whose devices the searches will have
    for name, config in space.searches.items():
        place = condition_path(name)
        study = {**config, "seed": space.first_seed, "search": {**config["search"], "executor": executor}}
        try:
            if parts.is_new:
                checked_parts(study, place=place)
            else:
                Space(study, study_seed=space.first_seed).find_faults(check_config)
        except DataError as error:
            raise DataError(f"{place}: {error}", place=error.place) from error
        except EspalierError as error:
            for each in each_error(error):
                faults.add(place, str(each))


def _check_candidate(config: Mapping[str, Any], *, num_folds: int | None) -> None:
    """Check a candidate as it is trained again in the end, and as it is trained in a fold.

    Raises:
        ConfigError: It cannot be trained.
    """
    check_config(config)
    if num_folds is None:
        return
    try:
        check_config(with_fold(config, 0, num_folds))
    except ConfigError as error:
        raise Faults(f"search.folds: {num_folds}: {each}" for each in error.parts or [error]).error() from error


def config_of_new_study(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config that a new study has: all candidates hold out the same samples, see `with_split_seed`."""
    return config if is_tabulated(config) else with_split_seed(config, registry())


def open_study(
    config: Mapping[str, Any],
    resume: str | None = None,
    *,
    plugins: Sequence[str] = (),
    verbose: bool = False,
    is_condition: bool = False,
) -> Study:
    """Return a new study, or an earlier one that continues.

    Args:
        config: From `load_config`.
        resume: "auto": the newest study of the same space, a new one if there is none; or the folder of a study.
        plugins: Files with the user's classes, loaded already.
        verbose: Whether workers print the shapes of each network.
        is_condition: Whether the study is a condition of a grid, which has checked it when it began. Then its
            candidates hold out samples by their seeds, as in a grid that an earlier version began.

    Raises:
        ConfigError: The config is faulty.
        SearchError: The study is of another space, or the folder cannot be created.
    """
    beginning = _beginning_of(config, resume, fixes_split=not is_condition)
    config, folder, num_samples = beginning.config, beginning.folder, beginning.num_samples
    wanted = config if num_samples is None else with_num_samples(config, num_samples)
    parts = checked_parts(wanted, is_new=folder is None and not is_condition)
    if folder is None:
        _check_warm_start(parts.warm_start)
        folder = create_study_folder(config["trainer"].get("save_dir", "saved/"), config["name"], config)
    logger.info("Study folder:  %s", in_one_line(folder))
    if beginning.changed:
        logger.info("The study continues with another %s.", ", ".join(beginning.changed))
    extras = {"plugins": [str(Path(name).resolve()) for name in plugins], "verbose": verbose}
    return Study(folder, parts, worker=WORKER, num_samples=num_samples_of(config), environment=capture(), extras=extras)


def _check_warm_start(source: str | None) -> None:
    """Check that there is a study to begin with.

    Raises:
        ConfigError: There is none.
    """
    if source is not None and not (Path(source) / JOURNAL).is_file():
        raise ConfigError(
            f'search.warm_start: there is no study in "{source}". A search takes over the results of a study by its '
            "folder. Write for example saved/people_search/20260101_120000."
        )


def _beginning_of(config: Mapping[str, Any], resume: str | None, *, fixes_split: bool) -> Beginning:
    """Find the study to continue."""
    new = Beginning(config_of_new_study(config) if fixes_split else config)
    if resume is None:
        return new
    is_auto = resume == "auto"
    if not isinstance(config.get("trainer"), Mapping) or not isinstance(config.get("name"), str):
        build_study_parts(config)  # raises with all faults
    parent = Path(config["trainer"].get("save_dir", "saved/")) / config["name"]
    reason = ""
    for folder in find_studies(parent) if is_auto else [Path(resume)]:
        stored = read_study_config(folder)
        ours = as_in_study(stored, config, config_of_new_study) if fixes_split else config
        changed = differences(stored, ours)
        num_samples = num_samples_of(stored)
        refusal = f"it differs in {', '.join(changed)}" if changed else _refusal_to_grow(folder, ours, num_samples)
        if not refusal:
            return Beginning(ours, folder, num_samples, changes(with_present_options(stored, folder), ours))
        if not is_auto:
            raise SearchError(
                f"{resume}: it is not the study of this config: {refusal}. A study is resumed with the space that it "
                "started with. Undo the change, or leave --resume out."
            )
        reason = reason or f"{folder} is not continued: {refusal}"
    if reason:
        logger.warning("%s. A new study begins.", reason)
    return new


def _refusal_to_grow(folder: Path, config: Mapping[str, Any], num_samples: int) -> str:
    """Return the reason if a study cannot try as many candidates as a config wants; empty if it can."""
    wanted = num_samples_of(config)
    if wanted == num_samples:
        return ""
    study = Study(folder, build_study_parts(with_num_samples(config, num_samples), canonical), worker="")
    study.restore()
    if wanted < study.strategy.num_samples:
        key = "search.num_samples" if config["search"].get("study") is None else "search.study.seeds"
        return f"{key} asks for {wanted} candidates, and it has {study.strategy.num_samples} already"
    try:
        if wanted > study.strategy.num_samples:
            study.strategy.grow(wanted)
    except (ConfigError, EspalierError) as error:
        return str(error).rstrip(".")
    return ""
