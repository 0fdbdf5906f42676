"""Plug-ins: files of the user whose classes a configuration may name, loaded with `--plugin FILE.py`.

Command lines that are printed for the user name them, too.
"""

import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from utils.errors import ConfigError
from utils.writing.text import shell_word

loaded: dict[str, Path] = {}
"""Name of each loaded module -> its file."""


def load_plugins(files: Iterable[str | Path]) -> tuple[str, ...]:
    """Import each file as a module named by its stem; `my_models.py` makes `"my_models.MyNet"` a valid type.

    The file's folder joins the end of the module path, so that it may import its neighbours and worker processes find
    it. A file that was loaded before is not run again.

    Returns:
        The names of the modules.

    Raises:
        ConfigError: No such file, a name that cannot be a module or is one already, or an error in the file.
    """
    names = []
    for file in map(Path, files):
        name, place = file.stem, file.resolve()
        names.append(name)
        if not os.path.isfile(file) or file.suffix != ".py":
            raise ConfigError(f"--plugin {file}: must be a Python file that exists. Check the path.")
        if loaded.get(name) == place:
            continue
        if not name.isidentifier() or name.startswith("_"):
            raise ConfigError(f'--plugin {file}: "{name}" cannot name a module. Use letters, digits and _.')
        # The file itself may be on the module path, or be imported already: only another module is in the way.
        known = sys.modules.get(name) or importlib.util.find_spec(name)
        origin = getattr(known, "__file__", None) or getattr(known, "origin", None)
        if known is not None and (origin is None or Path(origin).resolve() != place):
            raise ConfigError(f'--plugin {file}: a module named "{name}" exists already. Rename the file.')
        if str(place.parent) not in sys.path:
            sys.path.append(str(place.parent))
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None  # a .py file always has a loader
            assert spec.loader is not None
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            # Python shows these warnings only for the script itself; a plug-in is the user's code as well.
            warnings.filterwarnings("default", category=DeprecationWarning, module=rf"{name}\Z")
            try:
                spec.loader.exec_module(module)
            except (Exception, SystemExit) as error:  # the user's code may raise anything
                del sys.modules[name]
                reason = f"{type(error).__name__}: {error}"
                raise ConfigError(f"--plugin {file}: importing it failed with {reason}. Correct the file.") from error
        loaded[name] = place
    return tuple(names)


def plugin_options(files: Iterable[str | Path]) -> list[str]:
    """Return the words of a command line that name the user's files."""
    return [word for file in files for word in ("--plugin", str(file))]


def command_line(*words: object, files: Iterable[str | Path] | None = None) -> str:
    """Return a command line that runs as it is printed.

    Args:
        words: The words of the command, e.g. `"python"`, `"test.py"`, `"--resume"`, a path.
        files: The plug-ins that it needs; None: those that are loaded in this process.
    """
    return " ".join(map(shell_word, [*words, *plugin_options(loaded_files() if files is None else files)]))


def loaded_files() -> list[str]:
    """Return the files of the loaded plug-ins, relative to the working folder if they are below it."""
    here = Path.cwd()
    return [os.path.relpath(file, here) if file.is_relative_to(here) else str(file) for file in loaded.values()]
