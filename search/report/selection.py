"""What a page shows of a large study: which candidates, which values, under which names."""

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
class Shown:
    """A study with what several sections need of it.

    Attributes:
        study: The whole.
        goals: Its objectives.
        rows: Its leaderboard.
        importances: Of values and pairs; empty where they cannot be told.
        why_no_importances: Then, the reason.
        names: Short name of each searched path.
        winner: The candidate that won; None where none has results.
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


def shown(study: StudyRecord) -> Shown:
    """Take from a study what its page shows."""
    rows = leaderboard(study)
    found, reason = importances(rows)
    paths = ordered_paths([each.drawn for each in study.candidates])
    return Shown(study, parse_objectives(study.objectives), rows, found, reason, short_names(paths), winner_of(study))


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest end of each path that is no other's and begins with a name: `lr`, `D_blocks.0.1`."""
    counts: dict[str, int] = {}
    for path in paths:
        for end in _ends(path):
            counts[end] = counts.get(end, 0) + 1
    return {path: next(end for end in _ends(path) if counts[end] == 1 or end == path) for path in paths}


def lines(rows: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    """Rows that a figure draws: all of a small study, else the best and an even choice of the rest."""
    if len(rows) <= LINES_BEST + LINES_REST:
        return list(rows)
    step = (len(rows) - LINES_BEST) / LINES_REST
    return [*rows[:LINES_BEST], *(rows[LINES_BEST + int(place * step)] for place in range(LINES_REST))]


def lines_left_out(rows: Sequence[LeaderboardRow]) -> str:
    """What `lines` left out, as a sentence; empty where nothing."""
    if len(rows) <= LINES_BEST + LINES_REST:
        return ""
    return (
        f" Of {len(rows):,} candidates the best {LINES_BEST} are drawn and {LINES_REST} of the others, evenly chosen."
    )


def axes_paths(page: Shown) -> tuple[list[str], str]:
    """Paths of the values that get an axis, in the order of the file, and what was left out as a sentence."""
    paths = list(page.names)
    if len(paths) <= MOST_AXES:
        return paths, ""
    by_share = [each.paths[0] for each in page.importances if len(each.paths) == 1] or paths
    chosen = set(by_share[:MOST_AXES])
    return [
        path for path in paths if path in chosen
    ], f" Of {len(paths)} searched values the {MOST_AXES} that mattered most."


def _ends(path: str) -> list[str]:
    """Ends of a dotted path that begin with a name, the shortest first."""
    parts = path.split(".")
    starts = [place for place in range(len(parts) - 1, -1, -1) if place == 0 or not parts[place].isdecimal()]
    return [".".join(parts[place:]) for place in starts]
