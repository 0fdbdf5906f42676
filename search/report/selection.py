"""The parts of a study that the page shows: candidates, values and their names, limited for a large study."""

from collections.abc import Sequence
from dataclasses import dataclass

from search.results.importance import Importance, importances, ordered_paths
from search.results.leaderboard import LeaderboardRow, leaderboard, winner_of
from search.results.objectives import Objective, parse_objectives
from search.results.record import CandidateRecord, StudyRecord

TABLE_ROWS = 300
LINES_BEST = 220  # lines of a figure: the best of a study
LINES_REST = 80  # and some of the others, evenly from the second best to the last
MOST_AXES = 12


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
    """

    study: StudyRecord
    goals: tuple[Objective, ...]
    rows: list[LeaderboardRow]
    importances: list[Importance]
    why_no_importances: str
    names: dict[str, str]
    winner: CandidateRecord | None

    @property
    def curve(self) -> Objective | None:
        """The first objective that has a value each epoch."""
        return next((goal for goal in self.goals if not goal.is_fact), None)


def collect(study: StudyRecord) -> ReportData:
    """Collect the data of a study's page."""
    rows = leaderboard(study)
    found, reason = importances(rows)
    names = short_names(ordered_paths([each.drawn for each in study.candidates]))
    return ReportData(study, parse_objectives(study.objectives), rows, found, reason, names, winner_of(study))


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return the shortest unique end of each path that begins with a name: `lr`, `D_blocks.0.1`."""
    ends: dict[str, list[str]] = {}  # of each path, the shortest first
    counts: dict[str, int] = {}
    for path in paths:
        parts = path.split(".")
        starts = [place for place in range(len(parts) - 1, -1, -1) if place == 0 or not parts[place].isdecimal()]
        ends[path] = [".".join(parts[place:]) for place in starts]
        for end in ends[path]:
            counts[end] = counts.get(end, 0) + 1
    return {path: next(end for end in ends[path] if counts[end] == 1 or end == path) for path in paths}


def drawn_rows(rows: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    """Return the rows that a figure draws: all of a small study, else the best and an even selection of the rest."""
    if len(rows) <= LINES_BEST + LINES_REST:
        return list(rows)
    step = (len(rows) - LINES_BEST) / LINES_REST
    return [*rows[:LINES_BEST], *(rows[LINES_BEST + int(place * step)] for place in range(LINES_REST))]


def axes_paths(data: ReportData) -> list[str]:
    """Return the paths of the values that get an axis, in the order of the file: the most important of many."""
    paths = list(data.names)
    if len(paths) <= MOST_AXES:
        return paths
    by_share = [each.paths[0] for each in data.importances if len(each.paths) == 1] or paths
    chosen = set(by_share[:MOST_AXES])
    return [path for path in paths if path in chosen]
