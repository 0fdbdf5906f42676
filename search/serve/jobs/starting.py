"""The configs that a request may name, and the command lines of jobs."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from config import load_config
from config.faults import show
from config.loading.load import UNSTORABLE
from search.serve.jobs.allowed import STUDY, TRAINING, kind_of
from search.serve.refusals import Refusal
from utils.errors import ConfigError
from utils.plugins import plugin_options

CONFIG_OF_JOB = "config.json"  # in the folder of the job
PROGRAMS: Mapping[str, Sequence[str]] = {
    STUDY: (sys.executable, "-m", "search"),
    TRAINING: (sys.executable, str(Path(__file__).resolve().parents[3] / "train.py")),
}
"""The command of each kind of job."""
_MOST_CONFIGS = 2000
_DEPTH = 6  # of folders in a folder of configs


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
        for override in overrides:
            if UNSTORABLE.search(override):
                raise ConfigError(f"override {override[:80]!a}: holds a character that no file can hold. Remove it.")
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


def start_words(program: Sequence[str], plugins: Sequence[str]) -> list[str]:
    """Return the command line that starts the config in the folder of a job, named `{job}`."""
    return [*program, "-c", f"{{job}}/{CONFIG_OF_JOB}", *plugin_options(plugins)]


def resume_words(program: Sequence[str], target: Path, plugins: Sequence[str]) -> list[str]:
    """Return the command line that resumes a study or run."""
    return [*program, "--resume", str(target), *plugin_options(plugins)]
