"""Python files of the user's own, named on the command line, whose classes a configuration may then name."""

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from config.faults import show
from utils.errors import ConfigError

_loaded: dict[str, Path] = {}


def load_plugins(files: Iterable[str | Path]) -> tuple[str, ...]:
    """Import each file as a module named by its stem; `my_models.py` makes `"my_models.MyNet"` a valid type.

    The file's folder joins the end of the module path, so that it may import its neighbours and worker processes find
    it. A file that was loaded before is not run again.

    Returns:
        The names of the modules.

    Raises:
        ConfigError: No such file, a name that cannot be a module or is one already, or an error in the file.
    """
    return tuple(_load(Path(file)) for file in files)


def plugin_names() -> tuple[str, ...]:
    """The modules that were loaded, each an allowed root in every section."""
    return tuple(_loaded)


def _load(file: Path) -> str:
    name = file.stem
    if not file.is_file() or file.suffix != ".py":
        raise ConfigError(f"--plugin {file}: must be a Python file that exists. Check the path.")
    if _loaded.get(name) == file.resolve():
        return name
    if not name.isidentifier() or name.startswith("_"):
        raise ConfigError(
            f"--plugin {file}: {show(name)} cannot name a module. Rename the file to letters, digits and _."
        )
    if _is_taken(name, file):
        raise ConfigError(f"--plugin {file}: a module named {show(name)} exists already. Rename the file.")
    if name not in sys.modules:
        _run(name, file)
    _loaded[name] = file.resolve()
    return name


def _is_taken(name: str, file: Path) -> bool:
    """Whether another module has the name; the file itself may lie on the module path, or be imported already."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        if spec is None:
            return False
        origin = spec.origin
    return origin is None or Path(origin).resolve() != file.resolve()


def _run(name: str, file: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--plugin {file}: cannot be imported as Python. Give a .py file.")
    module: ModuleType = importlib.util.module_from_spec(spec)
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(
            f"--plugin {file}: importing it failed with {type(error).__name__}: {error}. Mend the file."
        ) from error
