"""Everything that can be known to be wrong before anything is built, all at once."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from config.checking.classes import find_class
from config.checking.sections import (
    LOADER_SECTIONS,
    SCHEDULER_VALUES,
    SEARCH_CLASSES,
    OptimizerExtras,
    SchedulerExtras,
    TopLevel,
    TrainerOptions,
    check_extras,
    check_search,
    check_section,
    check_trainer,
    check_visualization,
)
from config.checking.signatures import RUNTIME_NAMES, signature_of
from config.checking.specs import Spec, nested_values, read_losses, read_spec, section_key, shared_values
from config.faults import Faults, join_path, show, unknown_name
from config.markers import MARKERS, refuse_markers, unknown_markers
from utils.errors import ConfigError
from utils.registry import Registry

REQUIRED = ("arch", "optimizer", "loss", "trainer")


def validate(config: Mapping[str, Any], registry: Registry) -> None:
    """Check a loaded configuration without building or calling anything.

    Keys, types, ranges, whether every class exists and fits its section, whether its arguments bind to its signature
    and hold to its annotations.

    Args:
        config: From `load_config`.
        registry: What each section may name.

    Raises:
        ConfigError: Lists every fault with its JSON path; a search space is refused with a hint.
    """
    _check_plain(config)
    refuse_markers(config)
    faults = Faults()
    for path, key in unknown_markers(config):
        faults.add(path, unknown_name("marker", key, MARKERS))
    check_section(TopLevel, {key: value for key, value in config.items() if not key.startswith("$")}, "", faults)
    _check_name(config.get("name"), faults)
    _check_sections(config, faults)
    check_visualization(config.get("visualization", {}), faults)
    if isinstance(config.get("search"), Mapping):
        check_search(config["search"], faults)
    if config.get("trainer") is not None:
        _check_trainer(config["trainer"], registry, faults)
    with faults.collecting():
        shared_values(config)
    for spec in [*_specs(config, faults), *_search_specs(config.get("search"), registry, faults)]:
        _check_spec(spec, section_key(spec.path), registry, faults)
    faults.raise_if_any()


def _check_plain(config: Mapping[str, Any]) -> None:
    """A configuration that was made in Python must be one that a file can hold."""
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the configuration is not plain JSON ({error}). Use numbers, text, lists and dicts."
        ) from error


def _check_name(name: Any, faults: Faults) -> None:
    """The name becomes a folder: it must not lead elsewhere."""
    if isinstance(name, str) and (name in (".", "..") or "/" in name or "\\" in name):
        faults.add("name", f"{show(name)} cannot name a folder. Leave out slashes; save_dir says where.")


def _check_sections(config: Mapping[str, Any], faults: Faults) -> None:
    for section in REQUIRED:
        if config.get(section) is None:
            faults.add(section, f'missing. Add a section "{section}".')
    if config.get("data_loader") is None and config.get("train_loader") is None:
        faults.add("train_loader", 'missing. Add a section "train_loader", or "data_loader" with a validation_split.')
    if config.get("data_loader") is not None and config.get("train_loader") is not None:
        faults.add("data_loader", "there is a train_loader, too. Keep one of the two.")


def _check_trainer(section: Any, registry: Registry, faults: Faults) -> None:
    """Its keys, and the class of an own trainer; what the loop needs beside `args` comes at run time."""
    options = check_trainer(section, faults)
    if options is None or "trainer" not in registry:
        return
    kind = TrainerOptions.model_fields["type"].default
    with faults.collecting():
        parts = signature_of(find_class(kind, "trainer", "trainer", registry["trainer"])).parameters
        signature = signature_of(find_class(options.type, "trainer", "trainer", registry["trainer"]))
        signature.check(options.args, "trainer.args", faults, supplied=signature.parameters, reserved=parts)


def _specs(config: Mapping[str, Any], faults: Faults) -> list[Spec]:
    """Every class that the configuration names in a section of its own."""
    specs: list[Spec | None] = []
    for section in ("arch", *LOADER_SECTIONS):
        if config.get(section) is not None:
            specs.append(read_spec(config[section], section, faults))
    if config.get("optimizer") is not None:
        specs.append(_spec_with_extras(config["optimizer"], "optimizer", OptimizerExtras, faults))
    if config.get("loss") is not None:
        specs += read_losses(config["loss"], faults)
    metrics = config.get("metrics")
    for index, metric in enumerate(metrics if isinstance(metrics, list) else []):
        specs.append(read_spec(metric, join_path("metrics", index), faults))
    if config.get("lr_scheduler") is not None:
        specs += _lr_schedulers(config["lr_scheduler"], faults)
    return [spec for spec in specs if spec is not None]


def _search_specs(section: Any, registry: Registry, faults: Faults) -> list[Spec]:
    """The classes of the search section, where the registry knows of them."""
    named = section if isinstance(section, Mapping) else {}
    known = [key for key in SEARCH_CLASSES if key in registry and named.get(key) is not None]
    specs = [read_spec(named[key], join_path("search", key), faults) for key in known]
    return [spec for spec in specs if spec is not None]


def _lr_schedulers(value: Any, faults: Faults) -> list[Spec | None]:
    """The scheduler, or the parts of a chain, of which all but the last say for how long they act."""
    if not isinstance(value, list):
        return [_spec_with_extras(value, "lr_scheduler", SchedulerExtras, faults)]
    if not value:
        faults.add("lr_scheduler", "[] names no scheduler. Add one, or remove the section.")
    paths = [join_path("lr_scheduler", index) for index in range(len(value))]
    specs = [_spec_with_extras(item, path, SchedulerExtras, faults) for item, path in zip(value, paths, strict=True)]
    for position, spec in enumerate(specs):
        is_last = position == len(specs) - 1
        if spec is None:
            continue
        if not is_last and spec.extras.get("moves") is None:
            faults.add(join_path(spec.path, "moves"), "missing: the next part must know when to begin. Add it.")
        if is_last and spec.extras.get("moves") is not None:
            faults.add(join_path(spec.path, "moves"), "the last part acts to the end of the run. Remove it.")
        if position and spec.extras.get("warmup") is not None:
            faults.add(join_path(spec.path, "warmup"), "a warm-up stands at the beginning. Move it to the first part.")
    return specs


def _spec_with_extras(value: Any, path: str, extras: type[BaseModel], faults: Faults) -> Spec | None:
    spec = read_spec(value, path, faults, tuple(extras.model_fields))
    if spec is not None:
        check_extras(extras, spec.extras, path, faults)
    return spec


def _check_spec(spec: Spec, key: str, registry: Registry, faults: Faults) -> None:
    section = registry[key]
    supplied = RUNTIME_NAMES.union(SCHEDULER_VALUES if key == "scheduler" else ())
    with faults.collecting():
        signature = signature_of(find_class(spec.type, spec.path, key, section))
        signature.check(spec.args, spec.args_path, faults, supplied=supplied, skip=section.nested)
    for _, nested_key, items in nested_values(spec, section):
        for value, path in items:
            nested = read_spec(value, path, faults)
            if nested is not None:
                _check_spec(nested, nested_key, registry, faults)
