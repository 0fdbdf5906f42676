"""The samples that a search holds out: the same ones for all of its candidates, whose seeds differ."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from config.checking.classes import find_class, section_key
from config.checking.sections import LOADER_SECTIONS
from config.checking.signatures import Signature, signature_of
from config.loading.load import apply_changes, deep_merge
from config.markers import find_markers, is_marker
from utils.errors import EspalierError
from utils.registry import Registry

SPLIT_SEED = "split_seed"


def with_split_seed(config: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """Return the config of a new study in which each loader has the seed of the samples that it holds out.

    That is the seed of the study, as `split_seed` next to a `validation_split` and as `seed` of `folds`. It is written
    where the config leaves it open and the class of the loader takes it: into the branches of markers, into the
    definitions that a loader is, into the overlay of a supernet and the changes of a selection or a retraining. A grid
    study, whose seeds are repeats, remains as it is, and so do faulty parts, which the check of the config reports.

    Args:
        config: From `load_config`.
        registry: The classes that each section may name.
    """
    filled: dict[str, Any] = copy.deepcopy(dict(config))
    search = filled.get("search")
    search = search if isinstance(search, dict) else {}
    seed = filled.get("seed", 0) if search.get("seed") is None else search["seed"]
    if search.get("study") is not None or not isinstance(seed, int) or isinstance(seed, bool):
        return filled
    definitions = filled.get("$defs")
    filling = _Filling(seed, registry, definitions if isinstance(definitions, dict) else {})
    filling.fill(filled)
    strategy, retrain = search.get("strategy"), search.get("retrain")
    args = strategy.get("args") if isinstance(strategy, dict) else None
    if isinstance(args, dict) and isinstance(args.get("supernet"), dict):
        base = {key: section for key, section in filled.items() if key != "search"}
        args["supernet"] |= filling.added(deep_merge(base, args["supernet"]), args["supernet"])
    for later in (args.get("selection") if isinstance(args, dict) else None, retrain):
        if isinstance(later, dict) and isinstance(later.get("changes"), dict):
            later["changes"] |= _added_to_changes(filled, later["changes"], filling)
    return filled


def _added_to_changes(filled: Mapping[str, Any], changes: Mapping[str, Any], filling: "_Filling") -> dict[str, Any]:
    """Return the changes of later trainings that give the loaders which they change the seed, too."""
    try:
        changed = apply_changes(filled, changes)
    except EspalierError:
        return {}
    # A candidate has no markers any more, and a change must not bring them back.
    added = filling.added(changed, changes)
    return {name: section for name, section in added.items() if not find_markers({name: section})}


@dataclass
class _Filling:
    """Writes a seed into the loaders of a config.

    Attributes:
        seed: The seed.
        registry: The classes that each section may name.
        definitions: The `$defs` of the config, in which loaders are changed, too.
    """

    seed: int
    registry: Registry
    definitions: dict[str, Any]
    _met: set[str] = field(default_factory=set)  # definitions

    def fill(self, config: dict[str, Any]) -> None:
        """Change the loader sections of a config."""
        for section in LOADER_SECTIONS:
            if config.get(section) is not None:
                config[section] = self._spec(config[section], section)

    def added(self, merged: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
        """Return the loader sections of an overlay that leaves a seed open, with the seed."""
        filled = dict(merged)
        self.fill(filled)
        sections = [name for name in LOADER_SECTIONS if filled.get(name) != merged.get(name)]
        return {name: deep_merge(overlay.get(name, {}), _difference(merged[name], filled[name])) for name in sections}

    def _spec(self, spec: Any, section: str) -> Any:
        """Return the spec of a loader, or a marker for one, with the seed."""
        if is_marker(spec):
            return self._in_marker(spec, lambda each: self._spec(each, section))
        name = spec.get("type") if isinstance(spec, Mapping) else spec
        if not isinstance(name, str):
            return spec
        key = section_key(section)
        try:
            signature = signature_of(find_class(name, section, key, self.registry[key]).target)
        except EspalierError:
            return spec
        given = (spec.get("args") or {}) if isinstance(spec, Mapping) else {}
        args = self._arguments(given, signature)
        if args == given:
            return spec
        return {**spec, "args": args} if isinstance(spec, Mapping) else {"type": spec, "args": args}

    def _arguments(self, args: Any, signature: Signature) -> Any:
        """Return the arguments of a loader, or a marker for them, with the seed."""
        if is_marker(args):
            return self._in_marker(args, lambda each: self._arguments(each, signature))
        if not isinstance(args, Mapping):
            return args
        filled, known = dict(args), signature.parameters
        # A class without the argument may hold out samples that the JSON does not name.
        default = known["validation_split"].default if "validation_split" in known else True
        if SPLIT_SEED in known and SPLIT_SEED not in args and args.get("validation_split", default):
            filled[SPLIT_SEED] = self.seed
        if "folds" in known and "folds" in args:
            filled["folds"] = self._folds(args["folds"])
        return filled

    def _folds(self, folds: Any) -> Any:
        """Return the folds of a loader, or a marker for them, with the seed."""
        if is_marker(folds):
            return self._in_marker(folds, self._folds)
        is_open = isinstance(folds, Mapping) and {"fold", "of"} <= folds.keys() and "seed" not in folds
        return {**folds, "seed": self.seed} if is_open else folds

    def _in_marker(self, marker: Mapping[str, Any], change: Callable[[Any], Any]) -> Any:
        """Return a marker with changed branches; the definition that a `$var` names is changed in its place."""
        content = marker.get("$choice")
        if isinstance(content, list):
            return {**marker, "$choice": [change(each) for each in content]}
        name = marker.get("$var")
        if isinstance(name, str) and name in self.definitions and name not in self._met:
            self._met.add(name)
            self.definitions[name] = change(self.definitions[name])
        return marker


def _difference(before: Any, after: Any) -> Any:
    """Return the overlay that makes one value of another that has fewer keys."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping) or is_marker(after):
        return after
    return {
        key: _difference(before[key], value) if key in before else value
        for key, value in after.items()
        if key not in before or before[key] != value
    }
