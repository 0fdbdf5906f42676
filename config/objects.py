"""From a section of the configuration to the object that it describes."""

from collections.abc import Mapping
from typing import Any

from config.checking.classes import WEIGHTED_LOSS, Spec, Target, find_class, read_losses, read_spec, section_key
from config.checking.sections import CLASS_SECTIONS, ClassSection
from config.checking.signatures import group_arguments, signature_of
from config.faults import Faults, join_path, show
from utils.environment import is_out_of_memory
from utils.errors import ConfigError
from utils.registry import Registry, Section

Values = Mapping[str, Any]
CONSTRUCTOR_ERRORS = (TypeError, ValueError, ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError)
"""The errors of classes that cannot use an argument."""


def instantiate(
    config: Values, path: str, registry: Registry, *, runtime: Values | None = None, defaults: Values | None = None
) -> Any:
    """Build the object that a section describes.

    Args:
        config: A validated configuration.
        path: Of the section, e.g. `"arch"` or `"train_loader"`.
        registry: The classes that each section may name.
        runtime: Values known only now, given to a signature that asks for them by name. If the configuration has
            them, too, both must agree.
        defaults: Values given to a signature that asks, if the configuration does not have them.

    Raises:
        ConfigError: The section is missing or wrong, or the class refuses its arguments; with the JSON path.
    """
    loss = config.get("loss")
    if path == "loss" and (isinstance(loss, list) or (isinstance(loss, Mapping) and "weight" in loss)):
        faults = Faults()
        specs = read_losses(loss, faults)
        faults.raise_if_any()
        losses = [_instantiate_spec(spec, "loss", registry, runtime or {}, defaults or {}) for spec in specs]
        weights = [float(spec.extras.get("weight", 1)) for spec in specs]
        target = find_class(WEIGHTED_LOSS, "loss", "loss", registry["loss"])
        return _call(target, {"losses": losses, "weights": weights}, Spec("loss", WEIGHTED_LOSS, {}))
    return _instantiate_spec(_spec_at(config, path), section_key(path), registry, runtime or {}, defaults or {})


def class_and_arguments(config: Values, path: str, registry: Registry) -> tuple[Any, dict[str, Any]]:
    """Return the class that a section names, and its arguments as the JSON has them; nothing is built.

    Raises:
        ConfigError: The section is missing, or its class does not exist or does not fit.
    """
    spec = _spec_at(config, path)
    key = section_key(path)
    return find_class(spec.type, spec.path, key, registry[key]), dict(spec.args)


def _spec_at(config: Values, path: str) -> Spec:
    """Read the spec at a dotted path."""
    value: Any = config
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (LookupError, TypeError, ValueError):
            raise ConfigError(f"{path}: missing. Add it to the configuration.") from None
    if path == "trainer" and isinstance(value, Mapping):  # its other keys are the options of the loop
        value = {"type": value.get("type", "Trainer"), "args": value.get("args", {})}
    return _read(value, path, CLASS_SECTIONS.get(section_key(path), ClassSection))


def _read(value: Any, path: str, model: type[ClassSection] = ClassSection) -> Spec:
    """Read a spec; raise its faults."""
    faults = Faults()
    spec = read_spec(value, path, faults, model)
    faults.raise_if_any()
    assert spec is not None
    return spec


def _instantiate_spec(spec: Spec, key: str, registry: Registry, runtime: Values, defaults: Values) -> Any:
    """Build the object of a spec of the section `key`, the specs that it holds first."""
    section = registry[key]
    target = find_class(spec.type, spec.path, key, section)
    args = _arguments(spec, target, section, runtime, defaults)
    for name, nested_key, items in spec.nested(section):
        built = [
            _instantiate_spec(_read(value, path), nested_key, registry, runtime, defaults) for value, path in items
        ]
        args[name] = built if isinstance(spec.args[name], list) else built[0]
    made = _call(target, args, spec)
    # An adapter makes a network of another library one of ours.
    adapt, base = section.adapter(spec.type), section.base_class()
    if adapt is not None:
        made = adapt(made)
    if not isinstance(made, base):
        raise ConfigError(
            f"{spec.path}: {spec.type} made a {type(made).__name__}, not a {base.__name__}. Name another class."
        )
    return made


def _arguments(spec: Spec, target: Target, section: Section, runtime: Values, defaults: Values) -> dict[str, Any]:
    """Return the arguments of the JSON, as their annotations want them, with those of the run that `target` takes."""
    signature, faults = signature_of(target), Faults()
    runtime = section.renamed_values(spec.type, runtime)
    # A value that the run does not know, None, gives way to one of the JSON.
    known = {name: value for name, value in runtime.items() if value is not None or spec.args.get(name) is None}
    given = {name: known[name] for name in signature.parameters if name in known}
    for name in signature.parameters:
        if name in defaults and name not in given and spec.args.get(name) is None:
            given[name] = defaults[name]
    args = signature.check(spec.args, spec.args_path, faults, supplied=given, skip=section.nested)
    for name, value in known.items():
        said, here = args.get(name), join_path(spec.args_path, name)
        if said is not None and not _agree(said, value):
            faults.add(here, f"{show(said)}, but the run has {name} {show(value)}. Both must agree: leave it out here.")
    faults.raise_if_any()
    not_fetched = {name: None for name, item in signature.parameters.items() if item.fetches_by_default}
    return {**not_fetched, **args, **given}


def _agree(said: Any, known: Any) -> bool:
    """Whether a value of the JSON and one of the run are the same; a list equals a tuple or tensor of its items."""
    if hasattr(known, "tolist"):  # a tensor or array, recognised without importing torch
        known = known.tolist()
    if isinstance(said, list | tuple) and isinstance(known, list | tuple):
        return list(said) == list(known)
    return bool(said == known)


def _call(target: Target, args: dict[str, Any], spec: Spec) -> Any:
    try:
        return target(**group_arguments(target, args))
    except ConfigError as error:
        raise ConfigError(f"{spec.path}: {error}") from error
    except CONSTRUCTOR_ERRORS as error:
        if is_out_of_memory(error):  # no fault of the file: a search draws another candidate then
            raise
        raise ConfigError(
            f"{spec.path}: {spec.type} refuses {show(dict(spec.args))}: {type(error).__name__}: {error}. "
            f"Correct {spec.args_path}."
        ) from error
