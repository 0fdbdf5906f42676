"""From a section of the configuration to the object that it describes."""

import dataclasses
import enum
from collections.abc import Callable, Collection, Mapping
from typing import Any

from config.checking.classes import WEIGHTED_LOSS, FoundClass, Spec, find_class, read_losses, read_spec, section_key
from config.checking.sections import CLASS_SECTIONS, SEARCH_VALUES, ClassSection
from config.checking.signatures import FETCHED_ARGUMENTS, signature_of
from config.faults import Faults, show
from utils.environment import is_network_error, is_out_of_memory, not_fetched
from utils.errors import ConfigError
from utils.registry import Registry, import_attribute

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
    runtime, defaults, loss = runtime or {}, defaults or {}, config.get("loss")
    if path != "loss" or not (isinstance(loss, list) or (isinstance(loss, Mapping) and "weight" in loss)):
        return _build(*_read_section(config, path), registry, runtime, defaults)
    faults = Faults()
    specs = read_losses(loss, faults)
    if faults:
        raise faults.error()
    losses = [_build(spec, "loss", registry, runtime, defaults) for spec in specs]
    weights = [float(spec.extras.get("weight", 1)) for spec in specs]
    found = find_class(WEIGHTED_LOSS, "loss", "loss", registry["loss"])
    return _call(found, {"losses": losses, "weights": weights}, Spec("loss", WEIGHTED_LOSS, {}))


def class_and_arguments(config: Values, path: str, registry: Registry) -> tuple[Any, dict[str, Any]]:
    """Return the class that a section names, and its arguments as the JSON has them; nothing is built.

    Raises:
        ConfigError: The section is missing, or its class does not exist or does not fit.
    """
    spec, key = _read_section(config, path)
    return find_class(spec.type, spec.path, key, registry[key]).target, dict(spec.args)


def call_with_arguments(function: Callable[..., Any], arguments: Values, path: str) -> Any:
    """Call a function of a section's class with those arguments of the section that it takes.

    Args:
        function: Such as the static method that makes the preprocessing.
        arguments: Of the section, by name.
        path: Of the section.

    Raises:
        ConfigError: A value is of the wrong type, or the function refuses it; with the JSON path.
    """
    signature, faults = signature_of(function), Faults()
    taken = {name: arguments[name] for name in signature.parameters if name in arguments}
    checked = signature.check(taken, f"{path}.args", faults, supplied=signature.parameters)
    if faults:
        raise faults.error()
    return _call(FoundClass(function, object), checked, Spec(path, function.__qualname__, taken))


def values_by_parameter(found: FoundClass, values: Values) -> dict[str, Any]:
    """Return the run-time values that a class takes, under the names that its parameters have for them."""
    signature = signature_of(found.target)
    taken = {name: values[name] for name in signature.parameters if name in values}
    for parameter, name in found.run_values.items():
        if values.get(name) is not None and (parameter in signature.parameters or signature.takes_more):
            taken[parameter] = values[name]
    return taken


def group_arguments(target: Callable[..., Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `target` with the fields of its option groups gathered into their dataclasses.

    An option group is a parameter that is a subclass of `OptionGroup`. A JSON names its fields directly in `args`:
    `{"resize": 64, "batch_size": 4}` becomes `{"images": ImageOptions(resize=64), "batch_size": 4}`.

    Args:
        target: A class or function.
        flat: Arguments by name; a group may also be given as an object, and fields next to it then replace its own.

    Raises:
        TypeError: A group has no default and lacks a required field.
    """
    signature = signature_of(target)
    arguments: dict[str, Any] = {}
    fields: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        group = signature.parameters[name].group if name in signature.parameters else None
        if group is None:
            arguments[name] = value
        else:
            fields.setdefault(group, {})[name] = value
    for group, default in signature.groups.items():
        base = arguments.get(group, default)
        if isinstance(base, type):  # no default: its required fields must be there
            arguments[group] = base(**fields.get(group, {}))
        elif group in fields:
            arguments[group] = dataclasses.replace(base, **fields[group])
    return arguments


def _read_section(config: Values, path: str) -> tuple[Spec, str]:
    """Return the spec at a dotted path, and the key of the registry for it."""
    value: Any = config
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (LookupError, TypeError, ValueError):
            raise ConfigError(f"{path}: missing. Add it to the configuration.") from None
    if path == "trainer" and isinstance(value, Mapping):  # its other keys are the options of the loop
        value = {"type": value.get("type", "Trainer"), "args": value.get("args", {})}
    key = section_key(path)
    return _required_spec(value, path, CLASS_SECTIONS.get(key, ClassSection)), key


def _required_spec(value: Any, path: str, model: type[ClassSection] = ClassSection) -> Spec:
    """Return the spec at a JSON path, or raise with all of its faults."""
    faults = Faults()
    spec = read_spec(value, path, faults, model)
    if faults or spec is None:
        raise faults.error()
    return spec


def _build(spec: Spec, key: str, registry: Registry, runtime: Values, defaults: Values) -> Any:
    """Build the object of a spec of the section `key`, the specs that it holds first."""
    found = find_class(spec.type, spec.path, key, registry[key])
    args = _arguments(spec, found, registry[key].nested, runtime, defaults, unlisted=SEARCH_VALUES.get(key, ()))
    for name, nested_key, items in spec.nested(registry[key]):
        built = [_build(_required_spec(*item), nested_key, registry, runtime, defaults) for item in items]
        args[name] = built if isinstance(spec.args[name], list) else built[0]
    made = _call(found, args, spec)
    if found.adapter is not None:  # it makes a network of another library one of ours
        made = import_attribute(found.adapter)(made)
    if not isinstance(made, found.base):
        raise ConfigError(
            f"{spec.path}: {spec.type} made a {type(made).__name__}, not a {found.base.__name__}. Name another class."
        )
    return made


def _arguments(
    spec: Spec, found: FoundClass, nested: Values, runtime: Values, defaults: Values, *, unlisted: Collection[str] = ()
) -> dict[str, Any]:
    """Return the arguments of the JSON, as their annotations want them, with those of the run that the class takes."""
    signature, faults = signature_of(found.target), Faults()
    # A value that the run does not know, None, gives way to one of the JSON.
    known = {name: value for name, value in runtime.items() if value is not None or spec.args.get(name) is None}
    given = values_by_parameter(found, known)
    for name in signature.parameters:
        if name in defaults and name not in given and spec.args.get(name) is None:
            given[name] = defaults[name]
    args = signature.check(spec.args, f"{spec.path}.args", faults, supplied=given, unlisted=unlisted, skip=nested)
    for name, value in {**known, **given}.items():
        said, known_value = args.get(name), value.tolist() if hasattr(value, "tolist") else value  # a tensor or array
        if isinstance(said, list | tuple) and isinstance(known_value, list | tuple):
            said, known_value = list(said), list(known_value)
        if said is not None and said != known_value:
            message = f"{show(said)}, but the run has {name} {show(value)}. Both must agree: leave it out here."
            faults.add(f"{spec.path}.args.{name}", message)
    if faults:
        raise faults.error()
    # Weights that a library would download by default, and that the JSON does not ask for.
    not_fetched: dict[str, Any] = {
        name: None
        for name, item in signature.parameters.items()
        if (name in FETCHED_ARGUMENTS and isinstance(item.default, str))
        or (isinstance(item.default, enum.Enum) and hasattr(item.default, "url"))
    }
    if found.unfetched is not None:
        not_fetched |= import_attribute(found.unfetched)(args)
    return {**not_fetched, **found.presets, **args, **given}


def _call(found: FoundClass, args: dict[str, Any], spec: Spec) -> Any:
    target = found.target if found.subclass is None else import_attribute(found.subclass)(found.target)
    try:
        return target(**group_arguments(found.target, args))
    except ConfigError as error:
        if error.parts or str(error).startswith(f"{spec.path}."):  # it names the places itself
            raise
        raise ConfigError(f"{spec.path}: {error}") from error
    except CONSTRUCTOR_ERRORS as error:
        if is_out_of_memory(error):  # no fault of the file: a search draws another candidate then
            raise
        if is_network_error(error):
            raise ConfigError(not_fetched(f"{spec.path}: {spec.type}", error)) from error
        reason = str(error).strip().partition("\n")[0]  # some of torch go on with the addresses of its code
        raise ConfigError(
            f"{spec.path}: {spec.type} refuses {show(dict(spec.args))}: {type(error).__name__}"
            f"{reason and f': {reason}'}. Correct {spec.path}.args."
        ) from error
    except Exception as error:  # packages that fetch weights raise errors of many kinds
        if not is_network_error(error):
            raise
        raise ConfigError(not_fetched(f"{spec.path}: {spec.type}", error)) from error


def as_object(spec: Any) -> dict[str, Any]:
    """Return `{"type": NAME, ...}`, also for a bare name."""
    return {"type": spec} if isinstance(spec, str) else dict(spec)
