"""The space of a study whose candidates are the rows of a table, and the options that it refuses."""

from collections.abc import Mapping, Sequence
from typing import Any

from config.checking.classes import read_spec
from config.checking.sections import SearchOptions, TopLevel, TrainerOptions, check_section
from config.faults import Faults, show, unknown_name
from search.executors.table import TableExecutor, facts_needed
from search.results.record import Constraint, Objective, require_results
from search.space.table_space import TableSpace
from search.tables.table import ResultTable
from utils.errors import ConfigError

_NOTHING_IS_TRAINED = "and a table trains nothing. Remove it."


def tabulated_space(
    config: Mapping[str, Any],
    options: SearchOptions,
    executor: TableExecutor,
    compared: tuple[Sequence[Objective], Sequence[Constraint]],
    seed: int,
) -> TableSpace:
    """Return the space of a table, after a check of the config, of which training needs more.

    Args:
        config: From `load_config`.
        options: Its search section.
        executor: Of the table.
        compared: Objectives and constraints.
        seed: Of the draws.

    Raises:
        ConfigError: Lists the options that do not fit the table, or that need a training.
        DataError: The file of the table is missing or damaged.
        SearchError: The table has not the results that are compared.
    """
    faults = Faults()
    for key in ("retrain", "resources", "max_epoch_time", "study", "folds"):
        value = config.get("search", {}).get(key)
        if value:
            faults.add(f"search.{key}", f"{show(value)}, {_NOTHING_IS_TRAINED}")
    spec = None if options.strategy is None else read_spec(options.strategy, "search.strategy", faults)
    if spec is not None and spec.type in ("PBT", "Grid", "AutoDeepLab"):
        work = "trains supernets" if spec.type == "AutoDeepLab" else "trains on from weights"
        faults.add("search.strategy", f"{spec.type} {work}, {_NOTHING_IS_TRAINED}")
    trainer = check_section(TrainerOptions, config.get("trainer", {}), "trainer", faults)
    table: ResultTable | None = None
    with faults.collecting():
        table = executor.read(config)
    if table is None:
        raise faults.error()
    first_keys = {path.partition(".")[0] for path in table.settings}
    known = TopLevel.model_fields.keys() | first_keys | {"$defs"}
    for key in config.keys() - known:
        faults.add(key, unknown_name("key", key, known))
    if trainer is not None and trainer.epochs > table.epochs:
        faults.add(
            "trainer.epochs",
            f"{trainer.epochs}: the table {executor.file} has {table.epochs} epochs. Write at most that many.",
        )
    _check_compared(table, executor.file, compared, options, faults)
    with faults.collecting():
        space = TableSpace(config, table.settings, study_seed=seed, places=table.places)
    if faults:
        raise faults.error()
    executor.bind(space)
    return space


def _check_compared(
    table: ResultTable,
    file: str,
    compared: tuple[Sequence[Objective], Sequence[Constraint]],
    options: SearchOptions,
    faults: Faults,
) -> None:
    """Add the objectives, constraints and limits of which the table knows nothing."""
    with faults.collecting():
        require_results(compared[0], table.results, compared[1])
    limits = options.limits.model_dump() if options.limits is not None else None
    named = [each.name for group in compared for each in group if each.is_fact]
    for fact in dict.fromkeys([*named, *facts_needed(limits)]):
        if fact not in table.facts:
            faults.add(
                "search",
                f"{fact} is compared, and {file} does not have it (its facts: {', '.join(table.facts) or 'none'}). "
                f'Name its column: columns.facts {{"{fact}": "..."}}, or remove the comparison.',
            )


def require_no_table(executor: object) -> None:
    """Refuse a table where candidates are trained.

    Raises:
        ConfigError: The executor is one.
    """
    if isinstance(executor, TableExecutor):
        raise ConfigError(
            "search.executor: table, and a grid study trains its conditions. Name another executor, or remove "
            "search.study."
        )
