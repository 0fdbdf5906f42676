"""The configs that a request may start, held to the rule for that of a stranger, and the command lines of jobs."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from config import find_markers, load_config
from config.checking.sections import trainer_options
from config.faults import Faults, join_path, show
from config.foreign import narrowed
from config.variants import PRETRAINED_ARGUMENTS
from search.executors.table import is_tabulated
from search.serve.refusals import Refusal
from search.study.settings import build_study_parts
from utils.errors import ConfigError
from utils.plugins import plugin_options

CONFIG_OF_JOB = "config.json"  # in the folder of the job
STUDY, TRAINING = "study", "training"
PROGRAMS: Mapping[str, Sequence[str]] = {
    STUDY: (sys.executable, "-m", "search"),
    TRAINING: (sys.executable, str(Path(__file__).resolve().parents[3] / "train.py")),
}
"""The command of each kind of job."""
_WHOSE = "of a config that a service starts"
_MOST_CONFIGS = 2000
_WEIGHT_FILES = (".pth", ".pt", ".bin", ".safetensors")
_DEPTH = 6  # of folders in a folder of configs
_REPAIR = "Change it by an override, or start it on the command line"


class AllowedConfigs:
    """The JSON files in the folders that the user named at the start of the service.

    Args:
        folders: These folders.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self._kinds: dict[tuple[str, int, int], str] = {}  # by path, time and size; empty: no config

    def files(self) -> dict[str, Path]:
        """Return the files by their ids: `<name of the folder>/<path in it>`; links are left out."""
        found: dict[str, Path] = {}
        for number, folder in enumerate(self.folders):
            name = folder.resolve().name
            if any(other.resolve().name == name for other in self.folders[:number]):
                name = f"{name}-{number + 1}"
            for path in _json_files(folder, _DEPTH):
                if len(found) < _MOST_CONFIGS:
                    found[f"{name}/{path.relative_to(folder).as_posix()}"] = path
        return dict(sorted(found.items()))

    def kinds(self) -> dict[str, str]:
        """Return the id of each file that is a config, and "study" or "training"; other JSON files are left out."""
        kinds = {}
        for name, path in self.files().items():
            try:
                found = path.stat()
                key = (str(path), found.st_mtime_ns, found.st_size)
                if key not in self._kinds:
                    self._kinds[key] = _kind_in(path)
                kinds[name] = self._kinds[key]
            except OSError:  # removed since
                continue
        return {name: kind for name, kind in kinds.items() if kind}

    def load(self, name: str, overrides: Sequence[str]) -> dict[str, Any]:
        """Load a config.

        Raises:
            ConfigError: It is faulty, or an override is.
            Refusal: There is none with this id.
        """
        path = self.files().get(name)
        if path is None:
            raise Refusal(404, f"config {show(name)}: is in no folder of --configs. List them: GET /api/configs.")
        return load_config(path, overrides)


def _kind_in(path: Path) -> str:
    """Return the kind of a config in a file; empty if it is none that can be loaded."""
    try:
        return kind_of(load_config(path))
    except ConfigError:
        return ""


def _json_files(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _json_files(Path(entry.path), depth - 1) if depth else ()
        elif entry.is_file(follow_symlinks=False) and entry.name.endswith(".json"):
            yield Path(entry.path)


def kind_of(config: Mapping[str, Any]) -> str:
    """Return whether a loaded config is that of a study or of a training."""
    is_space = bool(find_markers(config)) or isinstance(config.get("search"), Mapping)
    return STUDY if is_space or is_tabulated(config) else TRAINING


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
    require_inside(config, folder)
    allowed = narrowed(config, whose=_WHOSE)
    if kind == STUDY:
        build_study_parts(allowed)  # raises with all faults of the section search
    return allowed


def require_inside(config: Mapping[str, Any], folder: Path) -> None:
    """Raise if a config writes outside of the folder of the service, reaches another machine, or downloads.

    Raises:
        ConfigError: With each fault and its JSON path.
    """
    faults = Faults()
    place, base = folder / str(config.get("name", "")), Path(os.path.realpath(folder))
    parts = place.relative_to(folder).parts if place.is_relative_to(folder) else ()
    if not parts or ".." in parts or parts[0].startswith(".") or Path(os.path.realpath(place)).parent != base:
        faults.add("name", f"{show(config.get('name'))} names no folder in that of the service. Write a plain name.")
    trainer = config.get("trainer")
    if isinstance(trainer, Mapping) and Path(os.path.realpath(trainer_options(config)["save_dir"])) != base:
        faults.add("trainer.save_dir", f"must be the folder of the service. {_REPAIR}.")
    search = config.get("search")
    search = search if isinstance(search, Mapping) else {}
    run_dir = search.get("run_dir")
    if run_dir is not None and not (isinstance(run_dir, str) and Path(os.path.realpath(run_dir)).is_relative_to(base)):
        faults.add("search.run_dir", f"{show(run_dir)} is outside of the folder of the service. {_REPAIR}.")
    executor = search.get("executor")
    args = executor.get("args") if isinstance(executor, Mapping) else None
    if isinstance(args, Mapping) and args.get("address") not in (None, "local"):
        faults.add("search.executor.args.address", f"{show(args['address'])} is another cluster. {_REPAIR}.")
    visualization = config.get("visualization")
    for key in ("wandb", "mlflow"):
        if isinstance(visualization, Mapping) and visualization.get(key) is not None:
            faults.add(f"visualization.{key}", f"a service sends no results elsewhere. {_REPAIR}.")
    for path, value in _fetched_weights(config.get("arch"), "arch"):
        faults.add(path, f"{show(value)} may be downloaded, and a service downloads nothing. {_REPAIR}.")
    if faults:
        raise faults.error()


def _fetched_weights(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield path and value of the arguments of a network that name pretrained weights which are no file."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inner = join_path(path, key)
        if key in PRETRAINED_ARGUMENTS and item and not (isinstance(item, str) and item.endswith(_WEIGHT_FILES)):
            yield inner, item
        else:
            yield from _fetched_weights(item, inner)


def start_words(program: Sequence[str], plugins: Sequence[str]) -> list[str]:
    """Return the command line that starts the config in the folder of a job, for which `{job}` stands."""
    return [*program, "-c", f"{{job}}/{CONFIG_OF_JOB}", *plugin_options(plugins)]


def resume_words(program: Sequence[str], target: Path, plugins: Sequence[str]) -> list[str]:
    """Return the command line that resumes a study or run."""
    return [*program, "--resume", str(target), *plugin_options(plugins)]


def config_text(config: Mapping[str, Any]) -> str:
    """Return a config as the file of a job."""
    return json.dumps(config, indent=2) + "\n"
