"""The rule for a config that a request starts: it writes below the folder of the service only, and fetches nothing.

It is the rule for that of a stranger. It holds for all that a study trains: also for the configs that conditions and
later trainings change.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from config import find_markers, load_config
from config.checking.sections import trainer_options
from config.faults import Faults, join_path, show
from config.foreign import narrowed
from config.loading.load import apply_changes
from config.variants import PRETRAINED_ARGUMENTS
from search.executors.table import is_tabulated
from search.serve.refusals import Refusal
from search.study.settings import build_study_parts
from utils.errors import ConfigError, each_error

STUDY, TRAINING = "study", "training"
_WHOSE = "of a config that a service starts"
_WEIGHT_FILES = (".pth", ".pt", ".bin", ".safetensors")
_READ_BY_LOADING = frozenset({"$ref", "$extends", "$schema"})
_CHANGES = frozenset({"changes", "supernet"})  # keys of a search whose values are laid over the config
_MOST_CHANGES = 500  # sets of changes of one config
_REPAIR = "Change it by an override, or start it on the command line"

Changed = Iterator[tuple[str, dict[str, Any]]]


def kind_of(config: Mapping[str, Any]) -> str:
    """Return whether a loaded config is that of a study or of a training."""
    is_space = bool(find_markers(config)) or isinstance(config.get("search"), Mapping)
    return STUDY if is_space or is_tabulated(config) else TRAINING


def config_text(config: Mapping[str, Any]) -> str:
    """Return a config as the file of a job."""
    return json.dumps(config, indent=2) + "\n"


def admitted(config: Mapping[str, Any], kind: str, folder: Path) -> dict[str, Any]:
    """Return the config that a job may run: it writes below the folder of the service only, and fetches nothing.

    Args:
        config: From `AllowedConfigs.load`.
        kind: That the request asks for.
        folder: Of the service.

    Raises:
        ConfigError: Something in it is not allowed, or the space of a study is faulty.
        Refusal: It is of the other kind.
    """
    found = kind_of(config)
    if found != kind:
        place = {STUDY: "POST /api/studies", TRAINING: "POST /api/runs"}[found]
        raise Refusal(400, f"config: is that of a {found}, not of a {kind}. Start it with {place}.")
    trainer = config.get("trainer")
    if trainer is None or isinstance(trainer, Mapping):
        config = {**config, "trainer": {**(trainer or {}), "save_dir": str(folder)}}
    _require_loaded(config)
    require_inside(config, folder)
    if _search_of(config).get("run_dir") is not None:
        raise ConfigError(
            f"search.run_dir: {show(_search_of(config)['run_dir'])}: a service stores the runs of candidates in the "
            "folder of their study. Remove it by search.run_dir=null, or start it on the command line."
        )
    allowed = narrowed(config, whose=_WHOSE)
    _require_narrow_changes(allowed)
    if kind == STUDY:
        build_study_parts(allowed)  # raises with all faults of the section search
    return allowed


def require_inside(config: Mapping[str, Any], folder: Path) -> None:
    """Raise if a config writes outside of the folder of the service, reaches another machine, or downloads.

    Args:
        config: Of a study or training; changes by its conditions and later trainings are checked, too.
        folder: Of the service.

    Raises:
        ConfigError: With each fault and its JSON path.
    """
    faults = Faults()
    for place, changed in _all_configs(config):
        for path, message in _faults_of(changed, folder):
            faults.add(path, f"{message} It is set by {place}." if place else message)
    if faults:
        raise faults.error()


def _require_loaded(config: Mapping[str, Any]) -> None:
    """Raise if the job, which reads its config from a file, would run another config than the one that is checked."""
    faults = Faults()
    for path in _paths_of_keys(config, _READ_BY_LOADING):
        faults.add(path, f"refers to another value, and an override cannot set it. {_REPAIR}.")
    if faults:
        raise faults.error()
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "config.json"
        file.write_text(config_text(config), encoding="utf-8")
        try:
            loaded = load_config(file)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(file), "config")) from None
    if json.dumps(loaded, sort_keys=True) != json.dumps(config, sort_keys=True):
        keys = {*loaded, *config}
        other = ", ".join(sorted(key for key in keys if show(loaded.get(key)) != show(config.get(key)))) or "it"
        raise ConfigError(f"config: a job would read {other} otherwise than it is given. {_REPAIR}.")


def _paths_of_keys(value: Any, keys: frozenset[str], path: str = "") -> Iterator[str]:
    """Yield the JSON path of each object key of which a part is one of `keys`."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inner = join_path(path, key)
        if isinstance(key, str) and not keys.isdisjoint(key.split(".")):
            yield inner
        yield from _paths_of_keys(item, keys, inner)


def _search_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    search = config.get("search")
    return search if isinstance(search, Mapping) else {}


def _all_configs(config: Mapping[str, Any]) -> Changed:
    """Yield a config, and each that a study makes of it, with the JSON path of the changes; empty for the config.

    Raises:
        ConfigError: A change leads nowhere, or there are too many.
    """
    yield "", dict(config)
    study = _search_of(config).get("study")
    conditions = study.get("conditions") if isinstance(study, Mapping) else None
    bare = {**config, "search": {key: value for key, value in _search_of(config).items() if key != "study"}}
    sets = list(_sets_of_changes(_search_of(bare), "search"))
    named = list(conditions.items()) if isinstance(conditions, Mapping) else []
    if len(sets) + len(named) > _MOST_CHANGES:
        raise ConfigError(
            f"search: holds {len(sets) + len(named)} sets of changes, more than {_MOST_CHANGES}. {_REPAIR}."
        )
    for place, changes in sets:
        yield place, _changed(bare, changes, place)
    for name, changes in named:
        if isinstance(changes, Mapping):
            place = f"search.study.conditions.{name}"
            condition = _changed(bare, changes, place)
            yield place, condition
            if _search_of(condition).get("study") is not None:
                raise ConfigError(f"{place}: search.study: a condition has no conditions. Remove it.")
            for inner, later in _sets_of_changes(_search_of(condition), "search"):
                yield f"{place} and {inner}", _changed(condition, later, inner)


def _sets_of_changes(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the JSON path and content of every object whose name is in `_CHANGES`, as `search.retrain.changes`."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inner = join_path(path, key)
        if key in _CHANGES and isinstance(item, Mapping):
            yield inner, item
        yield from _sets_of_changes(item, inner)


def _changed(config: Mapping[str, Any], changes: Mapping[str, Any], place: str) -> dict[str, Any]:
    try:
        return apply_changes(config, changes)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _require_narrow_changes(allowed: Mapping[str, Any]) -> None:
    """Raise if a change of a narrowed config is not narrow itself."""
    faults = Faults()
    for place, changed in _all_configs(allowed):
        try:
            if narrowed(changed, whose=_WHOSE) != changed:
                faults.add(place, f"download: a service downloads nothing. {_REPAIR}.")
        except ConfigError as error:
            for each in each_error(error):
                faults.add(place, str(each))
    if faults:
        raise faults.error()


def _faults_of(config: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield JSON path and message of all in one config that is not allowed."""
    place, base = folder / str(config.get("name", "")), Path(os.path.realpath(folder))
    parts = place.relative_to(folder).parts if place.is_relative_to(folder) else ()
    if not parts or ".." in parts or parts[0].startswith(".") or Path(os.path.realpath(place)).parent != base:
        yield "name", f"{show(config.get('name'))} names no folder in that of the service. Write a plain name."
    trainer = config.get("trainer")
    if isinstance(trainer, Mapping) and Path(os.path.realpath(trainer_options(config)["save_dir"])) != base:
        yield "trainer.save_dir", f"must be the folder of the service. {_REPAIR}."
    search = _search_of(config)
    run_dir = search.get("run_dir")
    if run_dir is not None and not (isinstance(run_dir, str) and _is_below(Path(os.path.realpath(run_dir)), base)):
        yield "search.run_dir", f"{show(run_dir)} is outside of the folder of the service, or hidden in it. {_REPAIR}."
    executor = search.get("executor")
    args = executor.get("args") if isinstance(executor, Mapping) else None
    if isinstance(args, Mapping) and args.get("address") not in (None, "local"):
        yield "search.executor.args.address", f"{show(args['address'])} is another cluster. {_REPAIR}."
    visualization = config.get("visualization")
    for key in ("wandb", "mlflow"):
        if isinstance(visualization, Mapping) and visualization.get(key) is not None:
            yield f"visualization.{key}", f"a service sends no results elsewhere. {_REPAIR}."
    for path in find_markers({"visualization": visualization}):
        yield path, "is drawn, and a service must know where results are sent. Write one value."
    for section in ("arch", "$defs"):
        for path, value in _fetched_weights(config.get(section), section):
            yield path, f"{show(value)} may be downloaded, and a service downloads nothing. {_REPAIR}."


def _is_below(path: Path, base: Path) -> bool:
    """Return whether a path is in a folder, and in no hidden folder of it."""
    return path.is_relative_to(base) and not any(part.startswith(".") for part in path.relative_to(base).parts)


def _fetched_weights(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield path and value of the arguments of a network that name pretrained weights which are no file."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inner = join_path(path, key)
        if key in PRETRAINED_ARGUMENTS and item and not (isinstance(item, str) and item.endswith(_WEIGHT_FILES)):
            yield inner, item
        else:
            yield from _fetched_weights(item, inner)
