"""Which columns or arrays of a file are settings, results, times: named by the user, or known by their names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from config.checking.sections import Strict, TopLevel, check_section
from config.faults import Faults, unknown_name
from search.results.record import FACTS

Source = str | list[str]
COLUMNS = "search.executor.args.columns"
# Names that are known without being named by the user.
EPOCH_COLUMNS = ("epoch",)
TRAINING_COLUMNS = ("index", "configuration", "config_id", "trial", "run", "id")
SECONDS_COLUMNS = ("epoch_seconds", "seconds_per_epoch")
CUMULATIVE_COLUMNS = ("cumulative_seconds",)
_RESULT = re.compile(r"(loss|(val|valid|test|train)_\w+)$")
_CURVE = re.compile(r"(.*?)[_.@]?(\d+)$")
# Sections of which some are settings; the others hold for the whole search.
_SECTIONS = TopLevel.model_fields.keys() - {"name", "seed", "n_gpu", "trainer", "visualization", "search"}


class TableColumns(Strict):
    """Names of the columns of a CSV file, or of the arrays of a .npz file, by their role."""

    settings: dict[str, str] = Field({}, description="Column of each setting by its JSON path.")
    results: dict[str, str | list[str]] = Field(
        {}, description='Column of each result by its name; "acc_*" or a list: a column per epoch.'
    )
    facts: dict[str, str] = Field({}, description="Column of params, flops, memory_mb, latency_ms.")
    seconds: str | None = Field(None, description="Column of the seconds of each epoch.")
    cumulative_seconds: str | None = Field(None, description="Column of the seconds up to each epoch, or of the whole.")
    epoch: str | None = Field(None, description="Column of the epoch, if there is a row per epoch.")
    training: str | None = Field(None, description="Column that tells trainings apart, if there is a row per epoch.")
    first_epoch: int = Field(1, ge=0, le=1, description="Epoch of the first value; that of epoch 0 is left out.")
    names: dict[str, str] = Field({}, description="Array with the names of the columns of an array of settings.")
    split: dict[str, str] = Field({}, description="Pattern that finds the settings in a text: each find is one.")
    seeds: list[str] = Field([], description="Arrays whose last axis is the seed.")
    select: dict[str, str | int] = Field({}, description="Value of an array that chooses one of several tables.")


def read_columns(value: Mapping[str, Any] | None) -> TableColumns:
    """Check the argument `columns`.

    Raises:
        ConfigError: A key is unknown, a value wrong, a fact unknown, or a pattern no regular expression.
    """
    faults = Faults()
    found = check_section(TableColumns, dict(value or {}), COLUMNS, faults)
    if found is not None:
        for name in found.facts:
            if name not in FACTS:
                hint = f"{unknown_name('fact', name, FACTS)} Name it as one of the results."
                faults.add(f"{COLUMNS}.facts", hint)
        for name, pattern in found.split.items():
            try:
                re.compile(pattern)
            except re.error as error:
                faults.add(f"{COLUMNS}.split.{name}", f'"{pattern}" is no regular expression ({error}). Correct it.')
    if faults or found is None:
        raise faults.error()
    return found


def require_columns(columns: TableColumns, known: Iterable[str], file: str) -> None:
    """Raise if a column that the user names is none of the file.

    Raises:
        ConfigError: Lists those that are missing.
    """
    names, faults = list(known), Faults()
    named: list[tuple[str, Source]] = [
        *((f"settings.{path}", name) for path, name in columns.settings.items()),
        *((f"results.{result}", source) for result, source in columns.results.items()),
        *((f"facts.{fact}", name) for fact, name in columns.facts.items()),
        *((f"split.{name}", name) for name in columns.split),
        *((f"select.{name}", name) for name in columns.select),
        *((f"seeds.{place}", name) for place, name in enumerate(columns.seeds)),
    ]
    for key in ("seconds", "cumulative_seconds", "epoch", "training"):
        if (name := getattr(columns, key)) is not None:
            named.append((key, name))
    for place, source in named:
        for name in [source] if isinstance(source, str) else source:
            is_pattern = place.startswith("results.") and "*" in name
            if not (matching(name, names) if is_pattern else name in names):
                faults.add(f"{COLUMNS}.{place}", f"{file}: {unknown_name('column', name, names)}")
    if faults:
        raise faults.error()


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that a pattern such as "acc_*" fits, in the order of the numbers at the star."""
    before, _, after = pattern.partition("*")
    numbered = [
        (int(name[len(before) : len(name) - len(after)]), name)
        for name in names
        if name.startswith(before) and name.endswith(after)
        if name[len(before) : len(name) - len(after)].isdecimal()
    ]
    return [name for _, name in sorted(numbered)]


def first_known(chosen: str | None, defaults: Sequence[str], names: Iterable[str]) -> str | None:
    """Return the name that the user chose, else the first known one that is there."""
    known = set(names)
    return chosen if chosen is not None else next((name for name in defaults if name in known), None)


def result_columns(columns: TableColumns, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns of each result, the first epoch first; by default those with a name of a result.

    Without a choice of the user, `val_loss_1`, `val_loss_2`, ... are the epochs of `val_loss`.
    """
    if columns.results:
        sources = {result: [name] if isinstance(name, str) else name for result, name in columns.results.items()}
        return {
            result: [each for name in parts for each in (matching(name, names) if "*" in name else [name])]
            for result, parts in sources.items()
        }
    curves: dict[str, dict[int, str]] = {}
    for name in names:
        found = _CURVE.fullmatch(name)
        if found and _RESULT.match(found[1]):
            curves.setdefault(found[1], {})[int(found[2])] = name
    curves = {stem: each for stem, each in curves.items() if sorted(each) == list(range(1, len(each) + 1)) != [1]}
    parts = {name for each in curves.values() for name in each.values()}
    single = {name: [name] for name in names if _RESULT.match(name) and name not in parts}
    return single | {stem: [each[number] for number in sorted(each)] for stem, each in curves.items()}


def setting_columns(columns: TableColumns, names: Iterable[str], marked: Iterable[str]) -> dict[str, str]:
    """Return the column of each setting by its JSON path.

    By default these are the columns that are called like a place that the config marks, or like a JSON path.

    Args:
        columns: As the user named them.
        names: Of all columns that are nothing else.
        marked: JSON paths of the config's markers.
    """
    if columns.settings:
        return dict(columns.settings)
    places = set(marked)
    return {
        name: name
        for name in names
        if name in places or "." in name or name in _SECTIONS or any(place.startswith(f"{name}.") for place in places)
    }


def fact_columns(columns: TableColumns, names: Iterable[str]) -> dict[str, str]:
    """Return the column of each fact by its name."""
    return dict(columns.facts) or {name: name for name in names if name in FACTS}
