"""A study for other programs: CSV files, and an Optuna storage for its dashboard."""

import csv
import io
import json
import math
import sqlite3
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.markers import is_marker
from search.joining.published import journal_to_read
from search.results.architecture import ARCHITECTURES, path_text, read_course
from search.results.importance import is_number
from search.results.leaderboard import winner_of
from search.results.record import CandidateRecord, StudyRecord, leading_objective, parse_objectives
from search.strategies.popnas.predicted import stored_predictions
from search.study.journal import read_events
from utils.architecture.genotype import Genotype
from utils.errors import SearchError
from utils.files import write_json, write_text_atomically
from utils.writing.text import cell as csv_cell
from utils.writing.text import shell_word

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


def export_csv(study: StudyRecord, path: Path) -> Path:
    """Write a file with a row per candidate, and one with a row per epoch next to it.

    Strings and numbers are written unchanged, other values as JSON; a missing value is an empty cell. `begin` and `end`
    are times in UTC: of the candidate's first and last job, and of each epoch with its validation.

    Args:
        study: The record.
        path: The file of the candidates; its folder exists.

    Returns:
        The file of the epochs: `x_reports.csv` for `x.csv`.

    Raises:
        OSError: A file cannot be written.
    """
    reports = reports_path(path)
    candidates = [
        {
            "index": candidate.index,
            "status": candidate.status,
            "reason": candidate.reason,
            "origin": candidate.origin,
            "seed": candidate.seed,
            "epochs": candidate.epochs,
            "best_epoch": candidate.best_epoch,
            "seconds": round(candidate.seconds, 3),
            "begin": _utc(candidate.begin),
            "end": _utc(candidate.end),
            "folder": candidate.folder,
            **candidate.facts,
            **candidate.objectives,
            **candidate.test,
            **dict(candidate.drawn),
            **candidate.notes,
        }
        for candidate in study.candidates
    ]
    write_text_atomically(path, csv_text(candidates))
    epochs: list[dict[str, Any]] = []
    for each in study.candidates:
        for row in each.reports:
            results = {name: value for name, value in row.items() if name != "seconds_at"}
            at = row.get("seconds_at")
            begin = at - row.get("epoch_seconds", 0.0) if at is not None else None
            epochs.append({"index": each.index, **results, "begin": _utc(begin), "end": _utc(at)})
    write_text_atomically(reports, csv_text(epochs))
    return reports


def export_predictions(study: StudyRecord, path: Path) -> Path | None:
    """Write a file with a row per cell that a progressive search has predicted, whether it was trained or not.

    A row has the number of blocks, the round, the cell, its candidate if it was trained, and each prediction with its
    deviation.

    Args:
        study: The record.
        path: The file of the candidates.

    Returns:
        The file: `x_predictions.csv` for `x.csv`; None if the study has no predictions any more.

    Raises:
        SearchError: The predictions are not those of their cells.
        OSError: A file cannot be written.
    """
    found = list(stored_predictions(Path(study.folder)))
    if not found:
        return None
    numbers = {each.notes["cell"]: each.index for each in study.candidates if "blocks" in each.notes}
    names = list(dict.fromkeys(name for _, _, each in found for name in each.columns))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["blocks", "round", "cell", "index", *(f"predicted {name}" for name in names)])
    for blocks, number, each in found:
        cells = each.texts()
        columns = [each.columns[name].tolist() if name in each.columns else [""] * len(cells) for name in names]
        for cell, *values in zip(cells, *columns, strict=True):
            writer.writerow([blocks, number, csv_cell(cell), numbers.get(cell, ""), *values])
    target = predictions_path(path)
    write_text_atomically(target, text.getvalue())
    return target


def predictions_path(path: Path) -> Path:
    """Return the file of the predictions that belongs to a file of candidates."""
    return path.with_name(f"{path.stem}_predictions{path.suffix or '.csv'}")


def _utc(seconds: float | None) -> str | None:
    """Format a Unix time in seconds by ISO 8601: `2025-01-01T12:00:00.250Z`."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def reports_path(path: Path) -> Path:
    """Return the file of the epochs that belongs to a file of candidates."""
    return path.with_name(f"{path.stem}_reports{path.suffix or '.csv'}")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows under the names of all of them, in the order of their first occurrence."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names or ["index"], restval="", lineterminator="\n")
    writer.writerow({name: csv_cell(name) for name in writer.fieldnames})
    for row in rows:
        is_plain = {name: value is None or isinstance(value, str) or is_number(value) for name, value in row.items()}
        writer.writerow({k: csv_cell(v) if is_plain[k] else json.dumps(v, ensure_ascii=False) for k, v in row.items()})
    return text.getvalue()


def sqlite_path(url: str) -> Path | None:
    """Return the file of a storage's URL such as `sqlite:///x.db`; None if it names another kind of storage."""
    dialect, _, rest = url.partition(":///")
    name = rest.partition("?")[0].removeprefix("file:")
    return Path(name) if dialect.lower().startswith("sqlite") and name not in ("", ":memory:") else None


def export_optuna(study: StudyRecord, url: str) -> int:
    """Write a study into an Optuna storage.

    Stopped candidates become pruned trials; candidates that failed or were replaced become failed trials. Status,
    reason, seed, folder and facts are user attributes. A study of one objective has its results as intermediate
    values; Optuna has none for several objectives.

    Args:
        study: The record.
        url: Of the storage, such as `sqlite:///x.db`; created if it does not exist.

    Returns:
        Number of trials.

    Raises:
        SearchError: optuna is not installed, or the storage has a study of this name, or cannot be opened.
    """
    try:
        import optuna
    except ImportError as error:
        raise SearchError(
            f"export --optuna {url}: the package optuna cannot be imported ({error}). Run: pip install optuna"
        ) from error
    goals = parse_objectives(study.objectives)
    directions = ["maximize" if each.sign > 0 else "minimize" for each in goals]
    try:
        is_sqlite = url.startswith("sqlite")
        options = {"connect_args": {"factory": _HastyConnection}} if is_sqlite else None
        storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
        target = optuna.create_study(storage=storage, study_name=study.name, directions=directions)
    except optuna.exceptions.DuplicatedStudyError:
        raise SearchError(
            f'export --optuna {url}: it has a study "{study.name}" already, which is not replaced. Name another file, '
            f"or delete it: optuna delete-study --study-name {shell_word(study.name)} --storage {shell_word(url)}"
        ) from None
    except Exception as error:  # of SQLAlchemy or of the database, by the kind of storage
        raise SearchError(f"export --optuna {url}: cannot be opened ({error}). Write it as sqlite:///FILE.") from error
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        target.set_metric_names([goal.name for goal in goals])
    target.set_user_attr("scheduler", study.scheduler)
    target.set_user_attr("objectives", study.objectives)
    distributions = distributions_of(study)
    trials = [_trial(candidate, study, distributions) for candidate in study.candidates]
    target.add_trials(trials)
    return len(trials)


class _HastyConnection(sqlite3.Connection):
    """A connection that does not wait for the disk: after a power cut a study can be exported again."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA synchronous = OFF")


def distributions_of(study: StudyRecord) -> "dict[str, BaseDistribution]":
    """Return the distribution of each drawn path: that of its marker, or the set of values drawn there.

    The latter if several different markers are at the path, or if Optuna has no such distribution.
    """
    from optuna.distributions import CategoricalDistribution

    markers: dict[str, dict[str, Mapping[str, Any]]] = {}  # of each path the different ones
    for path, marker in _markers(study.config, ""):
        markers.setdefault(path, {})[json.dumps(marker)] = marker
    drawn: dict[str, list[Any]] = {}
    for candidate in study.candidates:
        for path, value in candidate.drawn:
            drawn.setdefault(path, []).append(value)
    found: dict[str, BaseDistribution] = {}
    for path, values in drawn.items():
        at_path = list(markers.get(path, {}).values())
        distribution: Any = _marker_distribution(at_path[0]) if len(at_path) == 1 else None
        holds_all = False  # a drawn value may lie outside, such as the name of a branch that holds markers
        if isinstance(distribution, CategoricalDistribution):
            known = {(type(choice), choice) for choice in distribution.choices}
            holds_all = all((type(category), category) in known for category in map(_category, values))
        elif distribution is not None:
            low, high, step = distribution.low, distribution.high, distribution.step
            holds_all = all(
                is_number(value) and low <= value <= high and (step is None or (value - low) % step == 0)
                for value in values
            )
        found[path] = distribution if holds_all else CategoricalDistribution(_categories(values))
    return found


def _markers(value: Any, path: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield every marker with its path, including those in the branches of a choice and the repeated ones."""
    if is_marker(value):
        yield path, value
        for branch in value.get("$choice", []):
            yield from _markers(branch, path)
        repeat = value.get("$repeat", {})
        times = repeat.get("times") if isinstance(repeat, Mapping) else None
        for number in range(times if isinstance(times, int) else 0):
            yield from _markers(repeat["of"], f"{path}.{number}")
    elif isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _markers(item, f"{path}.{key}" if path else str(key))


def _marker_distribution(marker: Mapping[str, Any]) -> "BaseDistribution | None":
    """Return Optuna's distribution of a marker; None if it has none of this kind."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "$choice" in marker:
        return CategoricalDistribution(_categories(marker["$choice"]))
    for name in ("$uniform", "$loguniform"):
        if name in marker:
            low, high = marker[name]
            return FloatDistribution(float(low), float(high), log=name == "$loguniform")
    if "$logrange" in marker:
        return IntDistribution(*marker["$logrange"], log=True)
    if "$range" in marker and all(isinstance(number, int) for number in marker["$range"]):
        outcomes = range(*marker["$range"])
        if outcomes:
            low, high = sorted((outcomes[0], outcomes[-1]))
            return IntDistribution(low, high, step=abs(outcomes.step) if len(outcomes) > 1 else 1)
    return None


def _categories(values: Sequence[Any]) -> list[Any]:
    """Return the distinct ones among `values`; 1, 1.0 and True are distinct."""
    return list({json.dumps(value): _category(value) for value in values}.values())


def _category(value: Any) -> Any:
    """Return a scalar unchanged, everything else as JSON: Optuna's categories are scalars."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _trial(
    candidate: CandidateRecord, study: StudyRecord, distributions: "Mapping[str, BaseDistribution]"
) -> "FrozenTrial":
    from optuna.trial import FrozenTrial, TrialState

    objectives = parse_objectives(study.objectives)
    values = [candidate.objectives.get(each.name, math.nan) for each in objectives]
    is_ranked = all(math.isfinite(value) for value in values)
    states = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "paused": TrialState.PRUNED}
    state = states.get(candidate.status, TrialState.FAIL)
    if state is TrialState.COMPLETE and not is_ranked:
        state = TrialState.FAIL
    elif state is TrialState.PRUNED and is_ranked and len(objectives) > 1:
        state = TrialState.COMPLETE  # Optuna shows no pruned trial in a front
    # Optuna has times of this place without a zone. A draw that was never trained begins and ends with the study.
    begin = candidate.begin if candidate.begin is not None else study.sessions[0][0] if study.sessions else 0.0
    end = candidate.end if candidate.end is not None else begin + candidate.seconds
    first = leading_objective(objectives)
    reports = [(int(row["epoch"]), row.get(first.name, math.nan)) for row in candidate.reports] if first else []
    attributes = {
        "candidate": candidate.index,
        "status": candidate.status,
        "reason": candidate.reason,
        "origin": candidate.origin,
        "seed": candidate.seed,
        "epochs": candidate.epochs,
        "folder": candidate.folder,
    }
    known = {name: value for name, value in attributes.items() if value not in ("", None)}
    return FrozenTrial(
        number=candidate.index,
        trial_id=-1,
        state=state,
        value=None,
        values=values if is_ranked and state is not TrialState.FAIL else None,
        datetime_start=datetime.fromtimestamp(begin),
        datetime_complete=datetime.fromtimestamp(max(begin, end)),
        params={path: _category(value) for path, value in candidate.drawn},
        distributions={path: distributions[path] for path, _ in candidate.drawn},
        user_attrs={**known, **candidate.facts},
        system_attrs={},
        intermediate_values=dict(reports) if len(objectives) == 1 else {},
    )


def export_genotype(study: StudyRecord, path: Path, *, candidate: int | None = None, epoch: int | None = None) -> str:
    """Write the genotype of a supernet as a JSON file for `arch.args.genotype`.

    Args:
        study: The study.
        path: The file to create or replace.
        candidate: Number of the supernet; None: the winner.
        epoch: After which it is decoded; None: that of the study, and its last one so far if it is not decoded.

    Returns:
        A description of the genotype.

    Raises:
        SearchError: There is no such candidate or epoch, or the study trains no supernets.
        OSError: The file cannot be written.
    """
    if not study.result_is_retrained:
        raise SearchError(
            f"{study.folder}: it trains no supernets, and has no genotype. Name a study whose search.strategy is "
            "AutoDeepLab."
        )
    winner = winner_of(study)
    number = (winner.index if winner is not None else 0) if candidate is None else candidate
    chosen = next((each for each in study.candidates if each.index == number), None)
    if chosen is None or chosen.folder is None:
        raise SearchError(
            f"{study.folder}: candidate {number} has no results. Name one that was trained: --candidate N."
        )
    decoded = [each for each in read_events(journal_to_read(Path(study.folder))) if each.kind == "decoded"]
    recorded = next((each.data for each in decoded if each.candidate == number), None)
    if recorded is not None and epoch in (None, recorded["epoch"]):  # also if the run folder was deleted
        genotype, after, is_untrained = Genotype.from_json(recorded["genotype"]), recorded["epoch"], False
    else:
        course = read_course(Path(study.folder) / chosen.folder / ARCHITECTURES)
        found = course[-1] if epoch is None else next((each for each in course if each.epoch == epoch), None)
        if found is None:
            raise SearchError(
                f"--epoch {epoch}: candidate {number} has the epochs {course[0].epoch} to {course[-1].epoch}. Name one "
                "of them."
            )
        genotype, after, is_untrained = found.decode(), found.epoch, found.is_untrained
    write_json(path, genotype.to_json())
    note = " (random: until then its architecture has not learned)" if is_untrained else ""
    return f"candidate {number} after epoch {after}, strides {path_text(genotype)}{note}"
