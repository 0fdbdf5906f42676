"""Find everything that can be known to be wrong before anything is built, and the classes that a JSON names.

A checkpoint of unknown origin holds a configuration too. So a dotted name is walked by importing real submodules of an
allowed root, never by attributes of modules (`torch.optim.os.system` is no class of `torch.optim`), and the class found
must be a subclass of the section's base class. Functions are taken from the registry, from plug-ins, and for networks
from an allowed root if their annotation promises a network.
"""

import importlib
import importlib.util
import inspect
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from config.checking.sections import (
    CLASS_SECTIONS,
    LOADER_SECTIONS,
    SEARCH_CLASSES,
    SEARCH_VALUES,
    ClassSection,
    TopLevel,
    TrainerOptions,
    check_section,
    shared_values,
)
from config.checking.signatures import OBJECTS, RUNTIME_NAMES, evaluated, signature_of
from config.checking.splits import merging_faults
from config.faults import Faults, closest, show, unknown_name
from config.markers import MARKERS, refuse_markers, unknown_markers
from utils import plugins
from utils.errors import ConfigError
from utils.registry import Registry, Section, as_class, import_attribute, takes_output_and_target

Target = Callable[..., Any]
# Sections in which a function of a library may be named: networks have builders such as resnet18.
BUILDER_SECTIONS = ("arch",)
WEIGHTED_LOSS = "WeightedLoss"
DEFAULT_TRAINER = TrainerOptions.model_fields["type"].default


@dataclass(frozen=True)
class Spec:
    """A class by name, and the arguments that it is built with: `{"type": "UNet", "args": {...}}`, or `"UNet"` alone.

    Attributes:
        path: JSON path.
        type: Name of the class.
        args: Arguments by name.
        extras: Further keys that the section allows, e.g. a loss's `weight`.
    """

    path: str
    type: str
    args: Mapping[str, Any]
    extras: Mapping[str, Any] = field(default_factory=dict)

    def nested(self, section: Section) -> Iterator[tuple[str, str, list[tuple[Any, str]]]]:
        """Yield each argument that holds specs: its name, their key in the registry, and (spec, JSON path) of each."""
        for name, key in section.nested.items():
            value, path = self.args.get(name), f"{self.path}.args.{name}"
            if isinstance(value, list):
                yield name, key, [(item, f"{path}.{index}") for index, item in enumerate(value)]
            elif value is not None:
                yield name, key, [(value, path)]


@dataclass(frozen=True)
class FoundClass:
    """A class that the JSON may name, or a function that builds one, with all that is needed to build its objects.

    Attributes:
        target: The class or function.
        base: The class that its objects must inherit from.
        run_values: Its parameters that have other names than the run-time values for them -> names of these values.
        presets: Arguments that it gets unless the JSON has them.
        adapter: Reference of the function that adapts its objects; None for most classes.
        subclass: Reference of the function that returns the subclass to build instead; None for most classes.
        unfetched: Reference of the function that returns the arguments with which it fetches nothing; None for most.
    """

    target: Target
    base: type
    run_values: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, Any] = field(default_factory=dict)
    adapter: str | None = None
    subclass: str | None = None
    unfetched: str | None = None


def validate(config: Mapping[str, Any], registry: Registry) -> None:
    """Check a loaded configuration without building or calling anything.

    Keys, types, ranges, whether every class exists and fits its section, and whether its arguments bind to its
    signature and satisfy its annotations.

    Args:
        config: From `load_config`.
        registry: The classes that each section may name.

    Raises:
        ConfigError: Lists every fault with its JSON path; a search space is refused with a hint.
    """
    try:  # a configuration made in Python must be one that a file can hold
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"the configuration is not plain JSON ({error}). Use numbers, text, lists and dicts."
        raise ConfigError(message) from error
    refuse_markers(config)
    faults = Faults()
    for path, key in unknown_markers(config):
        faults.add(path, unknown_name("marker", key, MARKERS))
    # null takes a section of an extended file back: it is as if it was not there
    sections = {key: value for key, value in config.items() if value is not None and not key.startswith("$")}
    check_section(TopLevel, sections, "", faults)
    if "data_loader" not in sections and "train_loader" not in sections:
        faults.add("train_loader", 'missing. Add a section "train_loader", or "data_loader" with a validation_split.')
    if "data_loader" in sections and "train_loader" in sections:
        faults.add("data_loader", "there is a train_loader, too. Keep one of the two.")
    for path, message in merging_faults(sections):
        faults.add(path, message)
    with faults.collecting():  # two places may disagree
        shared_values(config)
    for spec in _read_specs(sections, registry, faults):
        _check_spec(spec, section_key(spec.path), registry, faults)
    if faults:
        raise faults.error()


def _read_specs(sections: Mapping[str, Any], registry: Registry, faults: Faults) -> list[Spec]:
    """Return every class that the configuration names in a section."""
    named = {name: sections[name] for name in ("arch", *LOADER_SECTIONS, "optimizer") if name in sections}
    metrics, search = sections.get("metrics"), sections.get("search")
    if isinstance(metrics, list):
        named |= {f"metrics.{index}": metric for index, metric in enumerate(metrics)}
    if isinstance(search, Mapping):
        known = [key for key in SEARCH_CLASSES if key in registry and search.get(key) is not None]
        named |= {f"search.{key}": search[key] for key in known}
    specs = [read_spec(named[path], path, faults, CLASS_SECTIONS.get(path, ClassSection)) for path in named]
    if "loss" in sections:
        specs += read_losses(sections["loss"], faults)
    schedule = sections.get("lr_scheduler")
    if schedule == []:
        faults.add("lr_scheduler", "[] names no scheduler. Add one, or remove the section.")
    parts = schedule if isinstance(schedule, list) else [] if schedule is None else [schedule]
    for position, part in enumerate(parts):  # of a chain, all but the last say for how long they act
        path = f"lr_scheduler.{position}" if isinstance(schedule, list) else "lr_scheduler"
        spec = read_spec(part, path, faults, CLASS_SECTIONS["lr_scheduler"])
        extras = spec.extras if spec is not None else {}
        is_last = position == len(parts) - 1
        if spec is not None and not is_last and extras.get("moves") is None:
            faults.add(f"{path}.moves", "missing: the next part must know when to begin. Add it.")
        if is_last and isinstance(schedule, list) and extras.get("moves") is not None:
            faults.add(f"{path}.moves", "the last part acts to the end of the run. Remove it.")
        if position and extras.get("warmup") is not None:
            faults.add(f"{path}.warmup", "a warm-up is at the beginning. Move it to the first part.")
        specs.append(spec)
    trainer = sections.get("trainer")
    if "trainer" in registry and isinstance(trainer, Mapping):
        kind, args = trainer.get("type", DEFAULT_TRAINER), trainer.get("args", {})
        if isinstance(kind, str) and isinstance(args, Mapping):  # its other keys are the options of the loop
            specs.append(Spec("trainer", kind, args))
    return [spec for spec in specs if spec is not None]


def _check_spec(spec: Spec, key: str, registry: Registry, faults: Faults) -> None:
    """Check a class and its arguments, and those of the specs that it holds."""
    section = registry[key]
    # Whether the run really has a value for these names is known when the object is built.
    of_search = SEARCH_VALUES.get(key, ())
    supplied: Collection[str] = RUNTIME_NAMES.union(of_search)
    reserved: Collection[str] = OBJECTS
    with faults.collecting():
        signature = signature_of(find_class(spec.type, spec.path, key, section).target)
        if key == "trainer":  # the arguments that every trainer has are its parts, given at run time
            reserved = signature_of(find_class(DEFAULT_TRAINER, key, key, section).target).parameters
            supplied = signature.parameters
        path, skip = f"{spec.path}.args", section.nested
        signature.check(spec.args, path, faults, supplied=supplied, reserved=reserved, unlisted=of_search, skip=skip)
    for _, nested_key, items in spec.nested(section):
        for value, path in items:
            nested = read_spec(value, path, faults)
            if nested is not None:
                _check_spec(nested, nested_key, registry, faults)


def read_spec(value: Any, path: str, faults: Faults, model: type[ClassSection] = ClassSection) -> Spec | None:
    """Read a spec; None if it has no usable `type` or `args`, each reason in `faults`.

    Args:
        value: From the JSON.
        path: JSON path of `value`.
        faults: Collects all faults.
        model: The keys that the section allows.
    """
    if isinstance(value, str) and value:
        return Spec(path, value, {})
    if not isinstance(value, Mapping):
        faults.add(path, f'{show(value)} must be a class. Write {{"type": NAME, "args": {{...}}}} or "NAME".')
        return None
    name, args = value.get("type"), value.get("args", {})
    # The arguments are checked later, against the signature; in Python they may be any objects.
    check_section(model, {**value, "args": {}} if isinstance(args, Mapping) else value, path, faults)
    if not isinstance(name, str) or not name or not isinstance(args, Mapping | None):
        return None
    extras = {key: value[key] for key in model.model_fields if key in value and key not in ("type", "args")}
    return Spec(path, name, args or {}, extras)


def read_losses(value: Any, faults: Faults) -> list[Spec]:
    """Read the losses of the `loss` section, one or a list, each with its weight."""
    if value == []:
        faults.add("loss", "[] names no loss. Add one.")
    items = [(f"loss.{i}", item) for i, item in enumerate(value)] if isinstance(value, list) else [("loss", value)]
    specs = [read_spec(item, path, faults, CLASS_SECTIONS["loss"]) for path, item in items]
    return [spec for spec in specs if spec is not None]


def section_key(path: str) -> str:
    """Return the key of the registry for a JSON path.

    Every loader is a `data_loader`; the sections of a search are under `search`.
    """
    head, *inner = path.split(".")
    if head == "search" and inner:
        return inner[0]
    return "data_loader" if head in LOADER_SECTIONS else head


def find_class(name: str, path: str, section_name: str, section: Section) -> FoundClass:
    """Find the class, or the function that builds one, that `name` means in a section.

    Args:
        name: A name of the registry, a member of a shortcut, or a dotted path under an allowed root.
        path: JSON path of the spec, for errors.
        section_name: Key in the registry.
        section: The classes that the section may name.

    Raises:
        ConfigError: Nothing has that name, it is not allowed here, or it is of the wrong kind.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # should the section lead there: it calls home on import
    place = f"{path}.type"
    if name in section.entries:  # ours: no need to check that it is public
        reference = section.entries[name]
        try:
            target = import_attribute(reference)
        except ImportError as error:
            raise ConfigError(f"{place}: {show(name)} cannot be imported ({error}). Install what it needs.") from error
        found = FoundClass(target, import_attribute(section.expects))
        if inspect.isclass(target) and not issubclass(target, found.base):
            raise TypeError(f"registry: {reference} is not a {section.expects}")
        return found
    modules = sorted({*section.roots, *section.shortcuts, *plugins.loaded})
    under = f"a class in full under {', '.join(modules)}, or " if modules else ""
    allowed = f"Allowed too: {under}a class of your own file, named with --plugin FILE."
    if root := _root_of(name, modules):
        target = _walk(name, root, place)
    elif "." in name:
        raise ConfigError(f"{place}: {show(name)} is outside the allowed modules. {allowed}")
    else:
        members = (vars(importlib.import_module(shortcut)).get(name) for shortcut in section.shortcuts)
        target = next((item for item in members if inspect.isclass(item) and not name.startswith("_")), None)
        if target is None:
            raise ConfigError(f"{place}: {unknown_name('class', name, available_names(section))} {allowed}")
    base = import_attribute(section.expects)
    _check_kind(target, name, place, section_name, section)
    if section.function_wrapper and takes_output_and_target(target):
        target = as_class(target, import_attribute(section.function_wrapper))
    # A plug-in may hand on a class of a library: its parameters have the names that the library gave them.
    library = _root_of(f"{target.__module__}.", section.run_values)
    return FoundClass(
        target,
        base,
        section.run_values.get(library, {}),
        section.presets.get(library, {}).get(target.__name__, {}),
        section.adapters.get(_root_of(name, section.adapters)),
        section.subclasses.get(_root_of(f"{target.__module__}.", section.subclasses))
        if inspect.isclass(target)
        else None,
        section.unfetched.get(name),
    )


def _root_of(name: str, roots: Iterable[str]) -> str:
    """Return the longest of the dotted roots that contain a name, for one may lie within another; "" if none does."""
    return max((root for root in roots if name.startswith(f"{root}.")), key=len, default="")


def available_names(section: Section) -> list[str]:
    """Return the names without a dot that a section knows: its entries, and the classes of its shortcuts."""
    base = import_attribute(section.expects)
    members = {
        name
        for shortcut in section.shortcuts
        for name, item in vars(importlib.import_module(shortcut)).items()
        if inspect.isclass(item) and issubclass(item, base) and item is not base and not inspect.isabstract(item)
        if not name.startswith("_")
    }
    return sorted(members.union(section.entries))


def _walk(name: str, root: str, place: str) -> Target:
    """Return the member of a real submodule of `root` that a dotted name leads to."""
    *parts, attribute = name[len(root) + 1 :].split(".")
    for part in (*parts, attribute):
        if not part.isidentifier() or part.startswith("_"):
            raise ConfigError(f"{place}: {show(name)} leads to a private name ({show(part)}). Name a public class.")
    for count in range(len(parts) + 1):
        path, here = ".".join((root, *parts[:count])), f"{place}: {show(name)}"
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError as error:
            missing = error.name or path
            repair = "Check the spelling." if path.startswith(missing) and "." in missing else f"Install {missing}."
            raise ConfigError(f"{here}: there is no module {missing}. {repair}") from None
        except Exception as error:  # a foreign module may do anything when it is imported
            raise ConfigError(f"{here}: importing {path} failed ({error}). Repair it.") from error
        if module.__name__ != path:  # an alias may lead out of the allowed root
            raise ConfigError(f"{here}: {path} is another name of {module.__name__}. Use that one.")
    target: Target | None = vars(module).get(attribute)
    if target is None:
        members = vars(module).items()
        near = closest(attribute, [key for key, item in members if inspect.isclass(item) and not key.startswith("_")])
        hint = f"Did you mean {show(f'{module.__name__}.{near}')}?" if near else "Check the spelling."
        raise ConfigError(f"{place}: {module.__name__} has no class {show(attribute)}. {hint}")
    if not callable(target) or isinstance(target, ModuleType):
        raise ConfigError(f"{place}: {show(name)} is not a class. Name a class.")
    return target


def _check_kind(target: Target, name: str, place: str, section_name: str, section: Section) -> None:
    """Raise if the target is no subclass of the section's base class, and no function that returns or is one."""
    base, here = import_attribute(section.expects), f'{place}: "{name}"'
    or_function = ", or a function (output, target) of a file named with --plugin" if section.function_wrapper else ""
    repair = f"Name a subclass of {base.__name__}{or_function}."
    if inspect.isclass(target):
        if not issubclass(target, base):
            raise ConfigError(f"{here} is not a subclass of {base.__name__}, which {section_name} needs.")
        if inspect.isabstract(target):
            missing = ", ".join(sorted(vars(target)["__abstractmethods__"]))
            raise ConfigError(f"{here} is abstract. Name a subclass that has {missing}.")
        return
    if not inspect.isfunction(target):
        raise ConfigError(f"{here} is neither a class nor a function. {repair}")
    promised = evaluated(inspect.signature(target).return_annotation, target)
    says_nothing = promised is inspect.Signature.empty or (promised is not None and not inspect.isclass(promised))
    fits = inspect.isclass(promised) and not says_nothing and issubclass(promised, base)
    package = name.split(".", maxsplit=1)[0]
    is_written_out = bool(section.function_wrapper) and takes_output_and_target(target)
    if package in plugins.loaded and (fits or says_nothing or is_written_out):  # the user has named the plug-in's file
        return
    # A package's other functions, or those that it imports, may do anything when they are called.
    is_written_there = str(target.__module__).split(".")[0] == package
    if section_name not in BUILDER_SECTIONS or not fits or not is_written_there:
        raise ConfigError(f"{here} is a function that is not annotated to return {base.__name__}. {repair}")
