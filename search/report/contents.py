"""The data of the page: the parts of a study that it shows, limited for a large study."""

import difflib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.results.importance import Importance, columns_of, importances, ordered_paths, short_names
from search.results.leaderboard import LeaderboardRow, leaderboard, winner_of
from search.results.record import (
    CandidateRecord,
    Objective,
    StudyRecord,
    leading_objective,
    parse_objectives,
)
from search.results.summaries import retrained_result
from search.samplers.base import PredictedValue
from search.study.best import earlier_winner
from utils.errors import SearchError
from utils.files import read_json_object

TABLE_ROWS = 300
LINES_BEST = 220  # lines of a figure: the best of a study
LINES_REST = 80  # and some of the others, evenly from the second best to the last
MOST_AXES = 12
MOST_INDICES = 12
MOST_REASONS = 60
MOST_CHARACTERS = 2_000  # of a reason
MOST_JSON = 100_000  # characters of the winner's whole file
MOST_COLUMNS = 24  # searched values in the leaderboard
ORIGINS = {
    "random": "drawn without a look at results",
    "modelled": "proposed because of results",
    "enqueued": "named by the user",
}
_FEWEST_TEXTS = 10  # candidates that may all differ by chance
_LINE = 96  # characters of a line of JSON


@dataclass(frozen=True)
class ReportData:
    """A study with the results that several chapters need.

    Attributes:
        study: The record.
        goals: Its objectives.
        rows: Its leaderboard.
        importances: Of values and pairs; empty if they cannot be estimated.
        why_no_importances: The reason in this case.
        names: Short name of each searched path.
        winner: The recommended candidate; None if none has results.
        curve: The first objective that has a value each epoch.
    """

    study: StudyRecord
    goals: tuple[Objective, ...]
    rows: list[LeaderboardRow]
    importances: list[Importance]
    why_no_importances: str
    names: dict[str, str]
    winner: CandidateRecord | None
    curve: Objective | None

    @property
    def has_effects(self) -> bool:
        """Whether a searched value may have an effect: not the text of a whole network, another for each candidate."""
        columns = columns_of([row.candidate.drawn for row in self.rows])
        is_few = len(self.rows) < _FEWEST_TEXTS
        return bool(self.names) and (is_few or not all(map(_is_name, columns.values())))


def _is_name(column: Sequence[Any]) -> bool:
    """Return whether the values are texts of which none occurs twice."""
    return all(isinstance(value, str) for value in column) and len(set(column)) == len(column)


def collect(study: StudyRecord) -> ReportData:
    """Collect the data of a study's page."""
    rows, goals = leaderboard(study), parse_objectives(study.objectives)
    found, reason = importances(rows)
    names = short_names(ordered_paths([each.drawn for each in study.candidates]))
    curve = leading_objective(goals)
    return ReportData(study, goals, rows, found, reason, names, winner_of(study), curve)


def headlines(data: ReportData) -> list[tuple[str, float | None, str]]:
    """Return name and value of the best result, and whose it is; of supernets after that of the retrained network."""
    goal, winner = data.goals[0].name, data.winner
    if winner is None:
        return [(goal, None, "no results yet")]
    if not data.study.result_is_retrained:
        return [(goal, winner.objectives.get(goal), f"candidate {winner.index}")]
    whose = f"candidate {winner.index} at its best epoch, another network than the result"
    tiles: list[tuple[str, float | None, str]] = [(f"{goal} of the supernet", winner.objectives.get(goal), whose)]
    found = retrained_result(data.study, winner)
    if found is not None and goal in found.results:
        test, result = f"test_{goal.removeprefix('val_')}", found.results[goal]
        whose = f"network of candidate {winner.index}, retrained"
        whose += f", mean of {result.count}" if result.count > 1 else ""
        whose += f"; {test} {value_text(found.results[test].mean)}" if test in found.results else ""
        tiles.insert(0, (goal, result.mean, whose))
    elif found is not None:  # trained on the validation data, too
        whose = f"network of candidate {winner.index}, retrained on all data but this"
        tests = [(name, result.mean) for name, result in found.results.items() if goal.removeprefix("val_") in name]
        tiles[:0] = [(name, mean, whose) for name, mean in tests]
    return tiles


def predictions_of(data: ReportData) -> list[tuple[CandidateRecord, PredictedValue]]:
    """Return the candidates with a prediction, the best prediction first."""
    candidates = {each.index: each for each in data.study.candidates}
    found = [(candidates[number], each) for number, each in data.study.beliefs.predictions.items()]
    goal = data.curve or data.goals[0]
    return sorted(found, key=lambda item: -item[1].mean * goal.sign)


def importance_rows(data: ReportData) -> list[tuple[tuple[str, ...], Importance | None, float | None]]:
    """Return the paths, the importance among the candidates that were drawn, and the share as a model sees it.

    The most important by the model come first, then those that it does not know, pairs among them.
    """
    drawn = {each.paths: each for each in data.importances}
    by_model: dict[tuple[str, ...], float] = {(path,): share for path, share in data.study.beliefs.importances.items()}
    order = [*by_model, *(paths for paths in drawn if paths not in by_model)]
    return [(paths, drawn.get(paths), by_model.get(paths)) for paths in order]


def drawn_rows(rows: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    """Return the rows that a figure draws: all of a small study, else the best and an even selection of the rest."""
    if len(rows) <= LINES_BEST + LINES_REST:
        return list(rows)
    step = (len(rows) - LINES_BEST) / LINES_REST
    return [*rows[:LINES_BEST], *(rows[LINES_BEST + int(place * step)] for place in range(LINES_REST))]


def axes_paths(data: ReportData) -> list[str]:
    """Return the paths of the values that get an axis, in the order of the file: the most important of many."""
    return _most_important(data, MOST_AXES)


def table_paths(data: ReportData) -> list[str]:
    """Return the paths of the values that get a column, in the order of the file: the most important of many."""
    return _most_important(data, MOST_COLUMNS)


def _most_important(data: ReportData, most: int) -> list[str]:
    paths = list(data.names)
    if len(paths) <= most:
        return paths
    by_share = [each.paths[0] for each in data.importances if each.is_single] or paths
    chosen = set(by_share[:most])
    return [path for path in paths if path in chosen]


def failure_groups(study: StudyRecord) -> list[list[CandidateRecord]]:
    """Return the candidates that were not trained to an end, grouped by status and kind of reason."""
    groups: dict[tuple[str, str], list[CandidateRecord]] = {}
    for candidate in study.candidates:
        if candidate.status in ("failed", "out_of_memory", "refused", "duplicate"):
            kind = re.sub(r"\d[\d,.]*", "#", candidate.reason)  # reasons that differ only in numbers are one kind
            groups.setdefault((candidate.status, kind), []).append(candidate)
    return [members for _, members in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1])))]


def winner_json(data: ReportData) -> tuple[str, list[str]] | None:
    """Return the winner's file and the lines of its difference from the space; None if there is no file.

    The file is `best/config.json`, or the candidate's if it is not in `best/` yet.
    """
    folder = Path(data.study.folder)
    files = [folder / "best" / "config.json"] if earlier_winner(data.study) is None else []
    if data.winner is not None and data.winner.folder:
        files.append(folder / data.winner.folder / "config.json")
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        return None
    content = read_json_object(
        path, lambda why: SearchError(f"{why}. It is the config of the winner. Put back a copy.")
    )
    space, winner = compact_json(data.study.config), compact_json(content)
    lines = difflib.unified_diff(space.splitlines(), winner.splitlines(), "space", "winner", n=2, lineterm="")
    return winner, list(lines)


def compact_json(value: Any, indent: int = 0) -> str:
    """Format JSON with everything that fits on a line, so that a difference shows values instead of brackets."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or (indent and len(line) + indent <= _LINE):
        return line
    space = " " * (indent + 2)
    if isinstance(value, dict):
        opening, closing = "{", "}"
        items = [f"{json.dumps(key, ensure_ascii=False)}: {compact_json(value[key], indent + 2)}" for key in value]
    else:
        opening, closing = "[", "]"
        items = [compact_json(item, indent + 2) for item in value]
    return f"{opening}\n{space}" + f",\n{space}".join(items) + f"\n{' ' * indent}{closing}"


NOTHING = "\N{EN DASH}"
TIMES = " \N{MULTIPLICATION SIGN} "


def number(value: float) -> str:
    """Format a number, with thousands separators or four significant digits: `1,204`, `0.7312`, `3.2e-05`."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def value_text(value: Any) -> str:
    """Format any value: a dash for None, results with four decimals so that they line up, all but texts as JSON."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool | dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and 0.01 <= abs(value) < 100 and value != int(value):
        return f"{value:.4f}"
    return number(value) if isinstance(value, int | float) else str(value)


def hours(seconds: float) -> str:
    """Format a duration: `42 s`, `12 min`, `3.4 h`, `120 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 360_000 else f"{seconds / 3600:,.0f} h"
