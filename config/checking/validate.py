"""Find everything that can be known to be wrong before anything is built, all at once."""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from config.checking.classes import Spec, find_class, read_losses, read_spec, section_key
from config.checking.sections import (
    CLASS_SECTIONS,
    LOADER_SECTIONS,
    SCHEDULER_VALUES,
    SEARCH_CLASSES,
    ClassSection,
    SchedulerSection,
    TopLevel,
    TrainerOptions,
    check_section,
    shared_values,
)
from config.checking.signatures import OBJECTS, RUNTIME_NAMES, signature_of
from config.faults import Faults, unknown_name
from config.markers import MARKERS, refuse_markers, unknown_markers
from utils.errors import ConfigError
from utils.registry import Registry

DEFAULT_TRAINER = TrainerOptions.model_fields["type"].default


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
    if "lr_scheduler" in sections:
        specs += _read_lr_schedulers(sections["lr_scheduler"], faults)
    trainer = sections.get("trainer")
    if "trainer" in registry and isinstance(trainer, Mapping):
        kind, args = trainer.get("type", DEFAULT_TRAINER), trainer.get("args", {})
        if isinstance(kind, str) and isinstance(args, Mapping):  # its other keys are the options of the loop
            specs.append(Spec("trainer", kind, args))
    return [spec for spec in specs if spec is not None]


def _read_lr_schedulers(value: Any, faults: Faults) -> Iterator[Spec]:
    """Yield the scheduler, or the parts of a chain, of which all but the last say for how long they act."""
    if value == []:
        faults.add("lr_scheduler", "[] names no scheduler. Add one, or remove the section.")
    parts = value if isinstance(value, list) else [value]
    for position, part in enumerate(parts):
        path = f"lr_scheduler.{position}" if isinstance(value, list) else "lr_scheduler"
        spec = read_spec(part, path, faults, SchedulerSection)
        if spec is None:
            continue
        is_last = position == len(parts) - 1
        if not is_last and spec.extras.get("moves") is None:
            faults.add(f"{path}.moves", "missing: the next part must know when to begin. Add it.")
        if is_last and isinstance(value, list) and spec.extras.get("moves") is not None:
            faults.add(f"{path}.moves", "the last part acts to the end of the run. Remove it.")
        if position and spec.extras.get("warmup") is not None:
            faults.add(f"{path}.warmup", "a warm-up is at the beginning. Move it to the first part.")
        yield spec


def _check_spec(spec: Spec, key: str, registry: Registry, faults: Faults) -> None:
    """Check a class and its arguments, and those of the specs that it holds."""
    section = registry[key]
    # Whether the run really has a value for these names is known when the object is built.
    supplied: Collection[str] = RUNTIME_NAMES.union(SCHEDULER_VALUES if key == "scheduler" else ())
    reserved: Collection[str] = OBJECTS
    with faults.collecting():
        signature = signature_of(find_class(spec.type, spec.path, key, section).target)
        if key == "trainer":  # the arguments that every trainer has are its parts, given at run time
            reserved = signature_of(find_class(DEFAULT_TRAINER, key, key, section).target).parameters
            supplied = signature.parameters
        path, skip = f"{spec.path}.args", section.nested
        signature.check(spec.args, path, faults, supplied=supplied, reserved=reserved, skip=skip)
    for _, nested_key, items in spec.nested(section):
        for value, path in items:
            nested = read_spec(value, path, faults)
            if nested is not None:
                _check_spec(nested, nested_key, registry, faults)
