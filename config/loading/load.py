"""From files and the command line to one plain dict.

The files are strict JSON: values that Python's parser lets pass (duplicate keys, NaN, overflowing numbers) are refused.
`optimizer.args.lr=0.01` overrides any path; short flags such as `--lr` override the common ones.
Older ways to write a configuration are read as today's, those of two public templates: victoresque/pytorch-template and
AntiAegis/Human-Segmentation-PyTorch. Every old key is noted, for one warning. A run of POPNASv3 becomes a search; the
hparams of a study of sparse labels, which are YAML, become a training.
"""

import copy
import fnmatch
import itertools
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from config.checking.sections import CLASS_SECTIONS, LOADER_SECTIONS
from config.faults import MAX_SHOWN_CHARACTERS, Faults, closest, show, unknown_name
from config.loading.hparams import SUFFIXES, is_hparams, read_hparams, translate_hparams
from config.loading.limits import MAX_DEPTH, ValueCount, read_config_text, require_few_files, require_short_number
from config.loading.popnas import is_run, refuse_run_keys, translate_run
from config.loading.popnas_texts import Tree
from config.markers import is_marker
from utils.errors import ConfigError
from utils.writing.text import shell_word

logger = logging.getLogger(__name__)

SPEC_KEYS = frozenset().union(*(model.model_fields for model in CLASS_SECTIONS.values()))
UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # null, and halves of characters, which UTF-8 cannot encode

# Flag -> (path that it overrides, name of the value, help); a * in a path matches every key that is there.
SHORT_FLAGS = {
    "--lr": ("optimizer.args.lr", "RATE", "learning rate"),
    "--bs": ("*_loader.args.batch_size", "N", "batch size of every loader"),
    "--epochs": ("trainer.epochs", "N", "number of epochs"),
    "--seed": ("seed", "N", "seed of the run"),
}

# (old path, new path), in the order in which they are applied.
RENAMED_KEYS = (
    ("visualization.tensorboardX", "trainer.tensorboard"),
    ("visualization.tensorboard", "trainer.tensorboard"),
    ("trainer.save_freq", "trainer.save_period"),
    ("trainer.tensorboardX", "trainer.tensorboard"),
    ("arch.args.pretrained_backbone", "arch.args.weights"),
    *((f"{loader}.args.num_workers", f"{loader}.args.n_workers") for loader in LOADER_SECTIONS),
)
RENAMED_BACKBONES = {"mobilenetv2": "mobilenet_v2"}
MONITOR_AND_MODE = "trainer.monitor and trainer.monitor_mode"
HUMAN_SEGMENTATION = frozenset(
    {"trainer.monitor", MONITOR_AND_MODE, "trainer.save_freq", "trainer.tensorboardX", "visualization.tensorboardX"}
)
"""Notes that identify the dialect whose masks are binary."""

Notes = dict[str, str]
"""Old key -> how it was read."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a configuration as one plain dict without references to anything else.

    In this order: the files are read, old keys translated, `$extends` merged, `$ref` replaced, overrides applied.
    A configuration without a name gets that of its file. `$defs` stays only if a search's `$var` refers to it.

    Args:
        path: A JSON file.
        overrides: `a.b.c=VALUE`, VALUE being JSON or else a string.

    Raises:
        ConfigError: A file is missing or not strict JSON, a reference leads nowhere, an override cannot be applied, or
            the configuration would be larger than `config.loading.limits` allow.
    """
    file, notes = Path(path), Notes()
    config = _read_merged(file, (), notes, itertools.count(1))
    is_human_segmentation = not HUMAN_SEGMENTATION.isdisjoint(notes)
    config.pop("$schema", None)
    definitions = config.pop("$defs", None) or {}
    if not isinstance(definitions, dict):
        raise ConfigError(f"{file}: $defs: {show(definitions)} must be an object of name and value.")
    count = ValueCount(definitions, "$ref")
    count.require_few(config, str(file))
    count.require_few(list(definitions.values()), f"{file}: $defs")
    config = resolve_references(config, definitions)
    translate(config, notes)  # again, since a definition may hold old keys
    for override in overrides:
        apply_override(config, override)
        refuse_run_keys(config, override)
        translate(config, notes)
    if is_human_segmentation and _object_at(config, "arch.args").get("num_classes") in (1, 2):
        for loader in LOADER_SECTIONS:  # a file of this dialect means class 1 by a label above 0
            section = _object_at(config, loader)
            args = section.setdefault("args", {}) if section.get("type") == "SegmentationDataLoader" else None
            if isinstance(args, dict) and "binary_masks" not in args:
                args["binary_masks"] = True
                notes[f"{loader} (labels above 0 are class 1)"] = f"{loader}.args.binary_masks = true"
    if notes:
        pairs = "; ".join(f"{old} -> {new}" for old, new in notes.items())
        logger.warning(f"{file}: keys of an older dialect are read as today's: {pairs}. Rename them to silence this.")
    for section in config.values():
        if isinstance(section, dict) and section.get("args", "") is None:  # taken back by a later file
            del section["args"]
    loaded = {"name": file.stem} | {key: section for key, section in config.items() if section is not None}
    if '"$var":' in json.dumps(loaded):  # as a key: within a text the quotes would be escaped
        loaded["$defs"] = resolve_references(definitions, definitions)
    return loaded


def refuse_run(path: str | Path) -> None:
    """Raise, with the command to use, if a command that trains one network is given a run of POPNASv3.

    Raises:
        ConfigError: The file is one, or cannot be read.
    """
    if is_run(_read_object(Path(path))):
        command = f"python -m search -c {shell_word(path)}"
        raise ConfigError(
            f"{path}: a run of POPNASv3, which searches for a network, and this command takes one network. "
            f"Run: {command}, or {command} --check"
        )


def _read_merged(file: Path, chain: tuple[Path, ...], notes: dict[str, str], counter: Iterator[int]) -> dict[str, Any]:
    """Return a file laid over those that it extends; `chain` are the files that lead to it, `counter` counts all."""
    require_few_files(chain[0] if chain else file, next(counter))
    place = file.resolve()
    if place in chain:
        circle = " -> ".join(str(link) for link in (*chain[chain.index(place) :], place))
        raise ConfigError(f"{file}: $extends goes in a circle ({circle}). Remove one of them.")
    content = _read_object(file)
    parents = content.pop("$extends", [])
    if isinstance(parents, str):
        parents = [parents]
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise ConfigError(f"{file}: $extends: {show(parents)} must be a file name or a list of file names.")
    if is_run(content):
        content = deep_merge(*translate_run(content, str(file)))
    elif is_hparams(content):
        content = deep_merge(*translate_hparams(content, str(file)))
    translate(content, notes, str(file))  # before merging, so that a new key of one file replaces an old one of another
    merged: dict[str, Any] = {}
    for parent in parents:
        merged = deep_merge(merged, _read_merged(file.parent / parent, (*chain, place), notes, counter))
    return dict(deep_merge(merged, content))


def _read_object(file: Path) -> dict[str, Any]:
    """Return the object that a file holds, as it is written.

    Raises:
        ConfigError: There is no such file, or it holds something else.
    """
    try:
        text = read_config_text(file)
    except FileNotFoundError:
        siblings = [each.name for each in file.parent.glob("*.json")] if file.parent.is_dir() else []
        near = closest(file.name, siblings)
        hint = f"Did you mean {file.parent / near}?" if near else "Check the path."
        raise ConfigError(f"{file}: no such file. {hint}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file}: cannot be read ({reason}). Give the path of a JSON file.") from None
    content = read_hparams(file, text) if file.suffix.lower() in SUFFIXES else parse_json(text, str(file))
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: line 1 column 1: {show(content)} is not an object. Wrap the sections in {{ }}.")
    return content


def deep_merge(parent: Any, child: Any) -> Any:
    """Lay `child` over `parent`: objects key by key, anything else (null and search markers too) replaces.

    If the child names another `type`, the parent's `args` belong to another class and are left behind.
    """
    if isinstance(parent, str) and isinstance(child, Mapping) and child and "type" not in child:
        parent = {"type": parent} if SPEC_KEYS.issuperset(child) else parent
    both_objects = isinstance(parent, Mapping) and isinstance(child, Mapping)
    if not both_objects or is_marker(parent) or is_marker(child):
        return copy.deepcopy(child)
    other_class = "type" in child and "type" in parent and child["type"] != parent["type"]
    merged = {key: copy.deepcopy(value) for key, value in parent.items() if not (other_class and key == "args")}
    for key, value in child.items():
        merged[key] = deep_merge(merged[key], value) if key in merged else copy.deepcopy(value)
    return merged


def resolve_references(
    value: Any, definitions: Mapping[str, Any], path: str = "", open_names: tuple[str, ...] = ()
) -> Any:
    """Replace every `{"$ref": "name"}` by a copy of `definitions["name"]`; keys next to `$ref` are laid over it.

    Args:
        value: A configuration or a part of one.
        definitions: Values by name.
        path: JSON path of `value`.
        open_names: The definitions that `value` is inside of.

    Raises:
        ConfigError: The name is not defined, or a definition contains itself.
    """
    within = f"{path}." if path else ""
    if isinstance(value, list):
        return [resolve_references(item, definitions, f"{within}{i}", open_names) for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    others = {
        key: resolve_references(item, definitions, f"{within}{key}", open_names)
        for key, item in value.items()
        if key != "$ref"
    }
    if "$ref" not in value:
        return others
    name = value["$ref"]
    if not isinstance(name, str) or name not in definitions:
        raise ConfigError(f"{within}$ref: {unknown_name('definition', name, definitions)}")
    if name in open_names:
        chain = " -> ".join((*open_names, name))
        raise ConfigError(f"{within}$ref: {show(name)} contains itself ({chain}). Break the circle.")
    target = resolve_references(definitions[name], definitions, path, (*open_names, name))
    return deep_merge(target, others) if others else copy.deepcopy(target)


def apply_override(config: dict[str, Any], text: str) -> None:
    """Set a value in `config`, in place; missing objects on the way are made, a `*` visits every key that fits.

    Args:
        config: A configuration.
        text: `a.b.c=VALUE`; the value is JSON if it parses as such, else a string.

    Raises:
        ConfigError: No `=`, an empty part of the path, a list, object or quoted string that does not parse; the path
            leads through a value that holds no keys, or to a list item that is not there.
    """
    path, new = parse_override(text)
    _set(config, path.split("."), "", new)


def apply_changes(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with changes.

    Args:
        config: A configuration.
        changes: Values by JSON path: `{"optimizer.args.lr": 0.01}` sets the value, as on the command line; an object
            under a name without a point, as in `{"optimizer": {"args": {"lr": 0.01}}}`, is laid over the section, as a
            file is over the one that it extends. `null` removes a section.

    Raises:
        ConfigError: A path is empty or leads nowhere.
    """
    changed = copy.deepcopy(dict(config))
    for path, value in changes.items():
        parts = path.split(".")
        if not all(parts):
            raise ConfigError(f"{show(path)}: must be a JSON path. Write for example optimizer.args.lr.")
        if len(parts) == 1 and isinstance(value, Mapping):
            changed[path] = deep_merge(changed.get(path), value)
        else:
            _set(changed, parts, "", copy.deepcopy(value))
    return {key: section for key, section in changed.items() if section is not None}


def parse_override(text: str) -> tuple[str, Any]:
    """Return path and value of `a.b.c=VALUE`; the value is JSON if it parses as such, else a string.

    Raises:
        ConfigError: No `=`, an empty part of the path, a list, object or quoted string that does not parse.
    """
    path, equals, value = text.partition("=")
    path = path.strip()
    if path.count(".") >= MAX_DEPTH:
        raise ConfigError(f"override {show(text)}: the path is longer than {MAX_DEPTH} keys. Shorten it.")
    if not equals or not all(path.split(".")):
        raise ConfigError(f"override {show(text)}: must be PATH=VALUE. Write for example optimizer.args.lr=0.01.")
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        if value.lstrip()[:1] in ("[", "{", '"'):
            raise ConfigError(f"override {show(text)}: the value is not JSON. Check its brackets and quotes.") from None
        return path, value
    return path, parse_json(value, f"override {json.dumps(text, ensure_ascii=False)}")


def _set(container: Any, parts: Sequence[str], path: str, new: Any) -> None:
    """Set the value at the end of an override's path, from the container at `path` on."""
    part, within = parts[0], f"{path}." if path else ""
    if isinstance(container, list):
        if not part.isdecimal() or int(part) >= len(container):
            rule = f"a number from 0 to {len(container) - 1}" if container else "given as a whole, for it is empty"
            raise ConfigError(f"override of {within}{part}: {path} is a list, so {show(part)} must be {rule}.")
        keys: list[Any] = [int(part)]
    else:
        keys = [key for key in container if fnmatch.fnmatchcase(key, part)] if "*" in part else [part]
        if not keys:
            known = ", ".join(container)
            raise ConfigError(f"override of {within}{part}: no key fits {show(part)}. There are: {known}.")
    for key in keys:
        place = f"{within}{key}"
        inside = container.get(key) if isinstance(container, dict) else container[key]
        if len(parts) == 1:
            container[key] = new
            continue
        if inside is None:
            inside = {}
        elif isinstance(inside, str) and parts[1] in SPEC_KEYS:  # a class named by a string gets its long form
            inside = {"type": inside}
        elif not isinstance(inside, dict | list):
            rule = f"{place} is {show(inside)}, which has no keys. Shorten the path."
            raise ConfigError(f"override of {place}.{parts[1]}: {rule}")
        container[key] = inside
        _set(inside, parts[1:], place, new)


def parse_json(text: str, source: str) -> Any:
    """Parse strict JSON; `source` names it in errors.

    Raises:
        ConfigError: It is not JSON (with line and column), holds a key twice, a number that is not finite, a character
            that no file can hold, or is nested too deep.
    """
    faults = Faults()
    number = partial(_finite, faults, source)
    try:
        value = json.loads(
            text,
            object_pairs_hook=partial(_unique_keys, faults, source),
            parse_constant=number,
            parse_float=number,
            parse_int=number,
        )
        _check_values(value, faults, source)
    except json.JSONDecodeError as error:
        rest, before = text[error.pos :].lstrip(), text[: error.pos].rstrip()
        if not text.strip():
            message = "the file is empty. Start with {}."
        elif rest.startswith(("//", "/*", "#")):
            message = "JSON has no comments. Remove it."
        elif before.endswith(",") and rest[:1] in ("}", "]"):
            message = f"a comma before {rest[0]}. Remove the comma."
        elif rest.startswith("'"):
            message = "single quotes. Use double quotes."
        elif not rest:
            message = "the file ends too early. Add the missing bracket or quote."
        else:
            found = show(rest.split(maxsplit=1)[0][:20])
            message = f"{error.msg}, found {found}. Check the brackets, commas and quotes before it."
        raise ConfigError(f"{source}: line {error.lineno} column {error.colno}: {message}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested deeper than {MAX_DEPTH} levels. Flatten it.") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise ConfigError(f"{source}: {error}") from None
    if faults:
        raise faults.error()
    return value


def _unique_keys(faults: Faults, source: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            faults.add(source, f'duplicate key "{key}", {show(found[key])} and {show(value)}. Keep one of the two.')
        found[key] = value
    return found


def _finite(faults: Faults, source: str, text: str) -> int | float:
    """Return the number that a JSON text is, a whole one as int."""
    if not math.isfinite(float(require_short_number(text))):
        shown = text if len(text) <= MAX_SHOWN_CHARACTERS else f"a number of {len(text)} digits"
        faults.add(source, f"{shown} is not a finite number. Use a finite one.")
        return float(text)
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _check_values(value: Any, faults: Faults, source: str, depth: int = 0) -> None:
    """Find values that could not be written back or walked through."""
    if depth > MAX_DEPTH:
        raise RecursionError  # reported as Python's own, of a text that is nested much deeper
    if isinstance(value, str) and UNSTORABLE.search(value):
        faults.add(source, f"the text {value!a} holds a character that no file can hold. Remove it.")
    for item in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_values(item, faults, source, depth + 1)


def translate(tree: Tree, notes: Notes, file: str | None = None) -> None:
    """Rewrite old keys in place.

    Args:
        tree: The content of a file, before it is merged with others, or of several with an override.
        notes: Every old key is added.
        file: Named in errors; None after an override, which wins over the new name of its key.

    Raises:
        ConfigError: The file holds an old key and its new name, with different values.
    """
    for old, new in RENAMED_KEYS:
        _rename(tree, old, new, notes, file)
    visualization = _object_at(tree, "visualization")
    if isinstance(visualization.get("log_dir", 0), str | None):
        del visualization["log_dir"]
        notes["visualization.log_dir"] = "the run folder under trainer.save_dir"
        if not visualization:
            del tree["visualization"]
    trainer = _object_at(tree, "trainer")
    monitor = trainer.get("monitor")
    if isinstance(monitor, str):
        words = [f"val_{word[6:]}" if word.startswith("valid_") else word for word in monitor.split()]
        if words != monitor.split():
            notes["trainer.monitor"] = show(" ".join(words))
        trainer["monitor"] = " ".join(words)
        mode = trainer.get("monitor_mode")
        if mode in ("min", "max", "off"):
            trainer["monitor"] = "off" if mode == "off" else f"{mode} {words[-1] if words else ''}"
            del trainer["monitor_mode"]
            notes.pop("trainer.monitor", None)  # one note for both keys
            notes[MONITOR_AND_MODE] = show(trainer["monitor"])
    # Not False, which equals 0: the validation reports it.
    if trainer.get("early_stop") == 0 and trainer["early_stop"] is not False:
        trainer["early_stop"] = None
        notes["trainer.early_stop = 0"] = "trainer.early_stop = null"
    backbones = _object_at(tree, "arch.args")
    backbone = backbones.get("backbone")
    # The arguments of a class that is not of the registry, named in full, have names of their own.
    is_ours = "." not in str(_object_at(tree, "arch").get("type", ""))
    if isinstance(backbone, str) and backbone in RENAMED_BACKBONES and is_ours:
        backbones["backbone"] = RENAMED_BACKBONES[backbone]
        notes[f"arch.args.backbone {show(backbone)}"] = show(backbones["backbone"])


def _rename(tree: Tree, old: str, new: str, notes: Notes, file: str | None) -> None:
    """Move a value from its old path to its new one; values of a wrong type are left for the validation to report."""
    (old_place, _, old_key), (new_place, _, new_key) = old.rpartition("."), new.rpartition(".")
    source = _object_at(tree, old_place)
    owner = _object_at(tree, old_place.removesuffix(".args")) if old_place.endswith(".args") else {}
    if old_key not in source or "." in str(owner.get("type", "")):  # a class named in full has other arguments
        return
    if old_place == new_place:
        target, value = source, source.pop(old_key)
    elif isinstance(source[old_key], bool) and isinstance(tree.get(new_place, {}), dict):
        target, value = tree.setdefault(new_place, {}), source.pop(old_key)
        if not source:
            del tree[old_place]
    else:
        return
    if file is not None and new_key in target and target[new_key] != value:
        raise ConfigError(
            f"{file}: {old} is {show(value)} and {new} is {show(target[new_key])}, two names of one thing. "
            f"Keep {new_key}."
        )
    target[new_key] = value
    notes[old] = new


def _object_at(tree: Tree, path: str) -> Tree:
    """Return the object at a path, or an empty one: wrong types are for the validation to report."""
    value: Any = tree
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
