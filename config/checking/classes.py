"""From the name in `"type"` to the class, without running anything that the section does not allow.

A stranger's checkpoint holds a configuration too. So a dotted name is walked by importing real submodules of an allowed
root, never by attributes of modules (`torch.optim.os.system` is no class of `torch.optim`), and what is found must be a
subclass of what the section expects. Functions are taken from the registry, from plug-ins, and for networks from an
allowed root when their annotation promises a network.
"""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from config.checking.signatures import evaluated
from config.faults import closest, join_path, show, unknown_name
from utils.errors import ConfigError
from utils.registry import Section, import_attribute, root_of

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


Target = Callable[..., Any]
BUILDER_SECTIONS = ("arch",)


def find_class(name: str, path: str, section_name: str, section: Section) -> Target:
    """Find the class, or the function that builds one, that `name` means in a section.

    Args:
        name: A name of the registry, a member of a shortcut, or a dotted path under an allowed root.
        path: JSON path of the spec, for errors.
        section_name: Key in the registry.
        section: What the section may name.

    Raises:
        ConfigError: Nothing has that name, it is not allowed here, or it is of the wrong kind.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # should the section lead there: it calls home on import
    place = join_path(path, "type")
    if name in section.entries:
        return _entry(name, place, section)
    root = root_of(name, (*section.roots, *section.shortcuts, *plugin_names()))
    if root is not None:
        target = _walk(name, root, place)
    elif "." in name:
        raise ConfigError(f"{place}: {show(name)} is outside the allowed modules. {_allowed(section)}")
    else:
        target = _shortcut(name, place, section)
    _check_kind(target, name, place, section_name, section)
    return target


def available_names(section: Section) -> list[str]:
    """The names without a dot that a section knows: its entries, and the classes of its shortcuts."""
    base = section.base_class()
    members = (
        name
        for shortcut in section.shortcuts
        for name, value in vars(importlib.import_module(shortcut)).items()
        if not name.startswith("_") and _is_concrete(value, base)
    )
    return sorted({*section.entries, *members})


def _is_concrete(value: Any, base: type) -> bool:
    return inspect.isclass(value) and issubclass(value, base) and value is not base and not inspect.isabstract(value)


def _entry(name: str, place: str, section: Section) -> Target:
    try:
        target: Target = import_attribute(section.entries[name])
    except ImportError as error:
        raise ConfigError(f"{place}: {show(name)} cannot be imported ({error}). Install what it needs.") from error
    if inspect.isclass(target) and not issubclass(target, section.base_class()):
        raise TypeError(f"registry: {section.entries[name]} is not a {section.expects}")
    return target


def _walk(name: str, root: str, place: str) -> Target:
    *modules, attribute = name[len(root) + 1 :].split(".")
    for part in (*modules, attribute):
        if not part.isidentifier() or part.startswith("_"):
            raise ConfigError(f"{place}: {show(name)} leads to a private name ({show(part)}). Name a public class.")
    module = _import(root, name, place)
    for part in modules:
        module = _import(f"{module.__name__}.{part}", name, place)
    target: Target | None = vars(module).get(attribute)
    if target is None:
        near = closest(attribute, _public_classes(module))
        hint = f"Did you mean {show(f'{module.__name__}.{near}')}?" if near else "Check the spelling."
        raise ConfigError(f"{place}: {module.__name__} has no class {show(attribute)}. {hint}")
    if not callable(target) or isinstance(target, ModuleType):
        raise ConfigError(f"{place}: {show(name)} is not a class. Name a class.")
    return target


def _import(module_name: str, name: str, place: str) -> ModuleType:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        repair = "Check the spelling." if module_name.startswith(missing) and "." in missing else f"Install {missing}."
        raise ConfigError(f"{place}: {show(name)}: there is no module {missing}. {repair}") from None
    except Exception as error:  # whatever a foreign module does on import
        raise ConfigError(f"{place}: {show(name)}: importing {module_name} failed ({error}).") from error
    if module.__name__ != module_name:
        raise ConfigError(f"{place}: {show(name)}: {module_name} is another name of {module.__name__}. Use that one.")
    return module


def _shortcut(name: str, place: str, section: Section) -> Target:
    for shortcut in section.shortcuts:
        target: Target | None = vars(importlib.import_module(shortcut)).get(name)
        if target is not None and inspect.isclass(target) and not name.startswith("_"):
            return target
    raise ConfigError(f"{place}: {unknown_name('class', name, available_names(section))} {_allowed(section)}")


def _allowed(section: Section) -> str:
    modules = sorted({*section.roots, *section.shortcuts, *plugin_names()})
    under = f"a class in full under {', '.join(modules)}, or " if modules else ""
    return f"Allowed too: {under}a class of your own file, named with --plugin FILE."


def _check_kind(target: Target, name: str, place: str, section_name: str, section: Section) -> None:
    base = section.base_class()
    if inspect.isclass(target):
        if not issubclass(target, base):
            raise ConfigError(
                f"{place}: {show(name)} is not a subclass of {base.__name__}, which {section_name} needs."
            )
        if inspect.isabstract(target):
            missing = ", ".join(sorted(getattr(target, "__abstractmethods__", ())))
            raise ConfigError(f"{place}: {show(name)} is abstract. Name a subclass that has {missing}.")
        return
    if not inspect.isfunction(target):
        raise ConfigError(
            f"{place}: {show(name)} is neither a class nor a function. Name a subclass of {base.__name__}."
        )
    promised = _return_class(target)
    fits = promised is not None and issubclass(promised, base)
    trusted = name.split(".", maxsplit=1)[0] in plugin_names()
    if trusted and (fits or promised is None):
        return
    if section_name not in BUILDER_SECTIONS or not fits or not _is_public_member(target, name):
        raise ConfigError(
            f"{place}: {show(name)} is a function that is not annotated to return {base.__name__}. "
            f"Name a subclass of {base.__name__}."
        )


def _return_class(function: Callable[..., Any]) -> type | None:
    """The class that a function's annotation says it returns; None where it says nothing."""
    promised = evaluated(inspect.signature(function).return_annotation, function)
    if promised is None:
        return type(None)
    return promised if inspect.isclass(promised) and promised is not inspect.Signature.empty else None


def _is_public_member(function: Callable[..., Any], name: str) -> bool:
    """Whether a function was written in the package that it is named under."""
    return str(function.__module__).split(".")[0] == name.split(".", maxsplit=1)[0]


def _public_classes(module: ModuleType) -> Iterator[str]:
    return (name for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_"))
