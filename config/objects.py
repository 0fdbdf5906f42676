"""From a section of the configuration to the object that it describes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.checking.classes import Target, find_class
from config.checking.sections import OptimizerExtras, SchedulerExtras
from config.checking.signatures import Signature, group_arguments, signature_of
from config.checking.specs import WEIGHTED_LOSS, Spec, is_weighted, nested_values, read_losses, read_spec, section_key
from config.faults import Faults, find_value, join_path, show
from utils.errors import ConfigError
from utils.hardware import is_out_of_memory
from utils.registry import Registry, Section

Values = Mapping[str, Any]
EXTRAS = {
    "loss": ("weight",),
    "lr_scheduler": tuple(SchedulerExtras.model_fields),
    "optimizer": tuple(OptimizerExtras.model_fields),
}
CONSTRUCTOR_ERRORS = (TypeError, ValueError, ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError)
"""What classes raise for an argument that they cannot use."""


def instantiate(
    config: Mapping[str, Any],
    path: str,
    registry: Registry,
    *,
    runtime: Values | None = None,
    defaults: Values | None = None,
) -> Any:
    """Build what a section describes.

    Args:
        config: A validated configuration.
        path: Of the section, e.g. `"arch"` or `"train_loader"`.
        registry: What each section may name.
        runtime: Values known only now, given to a signature that asks for them by name. Where the configuration says
            them too, both must agree.
        defaults: Values given to a signature that asks, where the configuration is silent.

    Raises:
        ConfigError: The section is missing or wrong, or the class refuses its arguments; with the JSON path.
    """
    builder = _Builder(registry, runtime or {}, defaults or {})
    if path == "loss" and is_weighted(config.get("loss")):
        return builder.weighted_loss(config["loss"])
    return builder.spec(_spec_at(config, path), section_key(path))


def instantiate_list(
    config: Mapping[str, Any],
    path: str,
    registry: Registry,
    *,
    runtime: Values | None = None,
    defaults: Values | None = None,
) -> list[Any]:
    """Build every item of a section that is a list, e.g. `"metrics"`; as `instantiate` otherwise."""
    items = find_value(config, path)
    if not isinstance(items, list):
        raise ConfigError(f"{path}: {show(items)} must be a list. Write [...].")
    return [
        instantiate(config, join_path(path, index), registry, runtime=runtime, defaults=defaults)
        for index in range(len(items))
    ]


def class_and_arguments(config: Mapping[str, Any], path: str, registry: Registry) -> tuple[Any, dict[str, Any]]:
    """The class that a section names, and its arguments as the JSON has them, with nothing built.

    Raises:
        ConfigError: The section is missing, or its class does not exist or does not fit.
    """
    spec = _spec_at(config, path)
    key = section_key(path)
    return find_class(spec.type, spec.path, key, registry[key]), dict(spec.args)


def _spec_at(config: Mapping[str, Any], path: str) -> Spec:
    value = find_value(config, path)
    if path == "trainer" and isinstance(value, Mapping):
        value = {"type": value.get("type", "Trainer"), "args": value.get("args", {})}
    faults = Faults()
    spec = read_spec(value, path, faults, EXTRAS.get(section_key(path), ()))
    faults.raise_if_any()
    return _given(spec)


def _given(spec: Spec | None) -> Spec:
    """A spec that was read without a fault."""
    assert spec is not None
    return spec


@dataclass(frozen=True)
class _Builder:
    registry: Registry
    runtime: Values
    defaults: Values

    def spec(self, spec: Spec, key: str) -> Any:
        """Build the object of a spec of the section `key`, what is nested in it first."""
        section = self.registry[key]
        target = find_class(spec.type, spec.path, key, section)
        args = self._arguments(spec, signature_of(target), section)
        for name, nested_key, items in nested_values(spec, section):
            built = [self._nested(value, path, nested_key) for value, path in items]
            args[name] = built if isinstance(spec.args[name], list) else built[0]
        built = _call(target, args, spec)
        adapt = section.adapter(spec.type)
        return _checked(built if adapt is None else adapt(built), section.base_class(), spec)

    def weighted_loss(self, value: Any) -> Any:
        """Build a weighted sum of losses."""
        faults = Faults()
        specs = read_losses(value, faults)
        faults.raise_if_any()
        section = self.registry["loss"]
        target = find_class(WEIGHTED_LOSS, "loss", "loss", section)
        weights = [float(spec.extras.get("weight", 1)) for spec in specs]
        args = {"losses": [self.spec(spec, "loss") for spec in specs], "weights": weights}
        return _call(target, args, Spec("loss", WEIGHTED_LOSS, {}))

    def _nested(self, value: Any, path: str, key: str) -> Any:
        faults = Faults()
        spec = read_spec(value, path, faults)
        faults.raise_if_any()
        return self.spec(_given(spec), key)

    def _arguments(self, spec: Spec, signature: Signature, section: Section) -> dict[str, Any]:
        """The arguments of the JSON, as their annotations want them, with those of the run."""
        faults = Faults()
        runtime = section.renamed_values(spec.type, self.runtime)
        known = {name: value for name, value in runtime.items() if value is not None or spec.args.get(name) is None}
        supplied = {name: known[name] for name in signature.parameters if name in known}
        silent = {
            name: self.defaults[name]
            for name in signature.parameters
            if name in self.defaults and spec.args.get(name) is None and name not in supplied
        }
        args = signature.check(spec.args, spec.args_path, faults, supplied={*supplied, *silent}, skip=section.nested)
        for name, value in known.items():
            if args.get(name) is not None and not _same(args[name], value):
                faults.add(
                    join_path(spec.args_path, name),
                    f"{show(args[name])}, but the run has {name} {show(value)}. Both must agree: leave it out here.",
                )
        faults.raise_if_any()
        fetched = {name: None for name, item in signature.parameters.items() if item.fetches_by_default}
        return {**fetched, **args, **silent, **supplied}


def _same(one: Any, other: Any) -> bool:
    """Whether a value of the JSON says what a value of the run says; a list and a tuple or tensor of it do."""
    if hasattr(other, "tolist"):
        other = other.tolist()
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return list(one) == list(other)
    return bool(one == other)


def _call(target: Target, args: dict[str, Any], spec: Spec) -> Any:
    try:
        return target(**group_arguments(target, args))
    except ConfigError as error:
        raise ConfigError(f"{spec.path}: {error}") from error
    except CONSTRUCTOR_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"{spec.path}: {spec.type} refuses {show(dict(spec.args))}: {type(error).__name__}: {error}. "
            f"Correct {spec.args_path}."
        ) from error


def _checked(built: Any, base: type, spec: Spec) -> Any:
    if not isinstance(built, base):
        raise ConfigError(
            f"{spec.path}: {spec.type} made a {type(built).__name__}, not a {base.__name__}. Name another class."
        )
    return built
