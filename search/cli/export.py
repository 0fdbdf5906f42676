"""A study for other programs: CSV files, and an Optuna storage that its dashboard opens."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.markers import is_marker
from search.results.importance import is_number
from search.results.objectives import parse_objectives
from search.results.record import CandidateRecord, StudyRecord
from utils.errors import SearchError
from utils.files import write_text_atomically

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


def export_csv(study: StudyRecord, path: Path) -> Path:
    """Write a row per candidate, and beside it a row per epoch.

    A value that is no scalar is written as JSON; what a candidate does not have is left empty.

    Args:
        study: What to write.
        path: The file of the candidates; its folder exists.

    Returns:
        The file of the epochs: `x_reports.csv` beside `x.csv`.

    Raises:
        OSError: A file cannot be written.
    """
    reports = path.with_name(f"{path.stem}_reports{path.suffix or '.csv'}")
    write_text_atomically(path, _csv_text(_candidate_row(candidate) for candidate in study.candidates))
    rows = ({"index": each.index, **row} for each in study.candidates for row in each.reports)
    write_text_atomically(reports, _csv_text(rows))
    return reports


def export_optuna(study: StudyRecord, url: str) -> int:
    """Write a study into an Optuna storage.

    Stopped candidates are pruned trials, failed ones and those that were drawn again are failed ones; their status,
    reason, seed, folder and facts are user attributes. Results of the first objective are intermediate values where
    there is one objective: Optuna has none for several.

    Args:
        study: What to write.
        url: Of the storage, such as `sqlite:///x.db`; made where it is not there.

    Returns:
        How many trials were written.

    Raises:
        SearchError: optuna is not installed, or the storage has a study of this name, or cannot be opened.
    """
    try:
        import optuna
    except ImportError as error:
        raise SearchError(
            f"export --optuna {url}: the package optuna cannot be imported ({error}). Run: pip install optuna"
        ) from error
    kinds = optuna.study.StudyDirection
    directions = [kinds.MAXIMIZE if each.sign > 0 else kinds.MINIMIZE for each in parse_objectives(study.objectives)]
    try:
        storage = _open_storage(url)
        target = optuna.create_study(storage=storage, study_name=study.name, directions=directions)
    except optuna.exceptions.DuplicatedStudyError:
        raise SearchError(
            f'export --optuna {url}: it has a study "{study.name}" already, which stays as it is. Name another file, '
            f'or delete it: optuna delete-study --study-name "{study.name}" --storage {url}'
        ) from None
    except Exception as error:  # of SQLAlchemy or of the database, by the kind of storage
        raise SearchError(f"export --optuna {url}: cannot be opened ({error}). Write it as sqlite:///FILE.") from error
    target.set_user_attr("scheduler", study.scheduler)
    target.set_user_attr("objectives", study.objectives)
    distributions = distributions_of(study)
    trials = [_trial(candidate, study, distributions) for candidate in study.candidates]
    target.add_trials(trials)
    return len(trials)


def _open_storage(url: str) -> Any:
    """A storage; of SQLite one that does not wait for the disk: what a power cut costs is exported again."""
    from optuna.storages import RDBStorage
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    def relax(connection: Any, _record: Any) -> None:
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Pool, "connect", relax)  # the tables are made by the constructor, which gives no other way in
    try:
        return RDBStorage(url)
    finally:
        event.remove(Pool, "connect", relax)


def distributions_of(study: StudyRecord) -> "dict[str, BaseDistribution]":
    """The distribution of each drawn path: its marker's where that is plain, else the categories that were seen."""
    markers: dict[str, list[Mapping[str, Any]]] = {}
    for path, marker in _markers(study.config, ""):
        markers.setdefault(path, []).append(marker)
    seen: dict[str, list[Any]] = {}
    for candidate in study.candidates:
        for path, value in candidate.drawn:
            seen.setdefault(path, []).append(value)
    found = {}
    for path, values in seen.items():
        own = markers.get(path, [])
        distribution = _distribution(own[0]) if own and all(each == own[0] for each in own) else None
        is_met = distribution is not None and all(_contains(distribution, value) for value in values)
        found[path] = distribution if is_met and distribution is not None else _categories(values)
    return found


def _candidate_row(candidate: CandidateRecord) -> dict[str, Any]:
    return {
        "index": candidate.index,
        "status": candidate.status,
        "reason": candidate.reason,
        "seed": candidate.seed,
        "epochs": candidate.epochs,
        "best_epoch": candidate.best_epoch,
        "seconds": round(candidate.seconds, 3),
        "folder": candidate.folder,
        **candidate.facts,
        **candidate.objectives,
        **dict(candidate.drawn),
    }


def _csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows under all names that any of them has, in the order of first sight."""
    known = list(rows)
    names = list(dict.fromkeys(name for row in known for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names or ["index"], restval="", lineterminator="\n")
    writer.writeheader()
    for row in known:
        writer.writerow({name: _scalar(value) for name, value in row.items()})
    return text.getvalue()


def _scalar(value: Any) -> Any:
    """Texts and numbers as they are, all else as JSON; nothing stays nothing."""
    is_plain = value is None or isinstance(value, str) or is_number(value)
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _markers(value: Any, path: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Every marker with its path, also those in the branches of a choice and those that are repeated."""
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


def _distribution(marker: Mapping[str, Any]) -> "BaseDistribution | None":
    """Optuna's distribution of a marker; None where it has none of this kind."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if "$choice" in marker:
        return _categories(marker["$choice"])
    for name in ("$uniform", "$loguniform"):
        if name in marker:
            low, high = marker[name]
            return FloatDistribution(float(low), float(high), log=name == "$loguniform")
    outcomes = (
        range(*marker["$range"]) if "$range" in marker and all(isinstance(x, int) for x in marker["$range"]) else ()
    )
    if len(outcomes) == 0:
        return None
    return IntDistribution(min(outcomes), max(outcomes), step=abs(outcomes.step) if len(outcomes) > 1 else 1)


def _categories(values: Sequence[Any]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution(list({json.dumps(value): _category(value) for value in values}.values()))


def _category(value: Any) -> Any:
    """As one of Optuna's categories: a scalar, or JSON."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _contains(distribution: "BaseDistribution", value: Any) -> bool:
    from optuna.distributions import CategoricalDistribution

    if isinstance(distribution, CategoricalDistribution):
        return any(type(each) is type(_category(value)) and each == _category(value) for each in distribution.choices)
    return is_number(value) and distribution._contains(value)


def _trial(
    candidate: CandidateRecord, study: StudyRecord, distributions: "Mapping[str, BaseDistribution]"
) -> "FrozenTrial":
    from optuna.trial import FrozenTrial, TrialState

    targets = parse_objectives(study.objectives)
    values = [candidate.objectives.get(each.name, math.nan) for each in targets]
    is_judged = all(math.isfinite(value) for value in values)
    states = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "paused": TrialState.PRUNED}
    state = states.get(candidate.status, TrialState.FAIL)
    if state is TrialState.COMPLETE and not is_judged:
        state = TrialState.FAIL
    if len(targets) > 1 and state is TrialState.PRUNED and is_judged:
        state = TrialState.COMPLETE  # Optuna shows no pruned trial in a front
    began = datetime.fromtimestamp(study.sessions[0][0] if study.sessions else 0.0)
    first = next((each.name for each in targets if not each.is_fact), None)
    reports = [(int(row["epoch"]), row.get(first, math.nan)) for row in candidate.reports] if first else []
    has_values = state is TrialState.COMPLETE or (state is TrialState.PRUNED and is_judged)
    return FrozenTrial(
        number=candidate.index,
        trial_id=-1,
        state=state,
        value=None,
        values=values if has_values else None,
        datetime_start=began,
        datetime_complete=began + timedelta(seconds=candidate.seconds),
        params={path: _category(value) for path, value in candidate.drawn},
        distributions={path: distributions[path] for path, _ in candidate.drawn},
        user_attrs=_attributes(candidate),
        system_attrs={},
        intermediate_values=dict(reports) if len(targets) == 1 else {},
    )


def _attributes(candidate: CandidateRecord) -> dict[str, Any]:
    known = {
        "candidate": candidate.index,
        "status": candidate.status,
        "reason": candidate.reason,
        "seed": candidate.seed,
        "epochs": candidate.epochs,
        "folder": candidate.folder,
    }
    return {**{name: value for name, value in known.items() if value not in ("", None)}, **candidate.facts}
