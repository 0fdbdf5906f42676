"""The chapters of the page as plain data for its template; None for a chapter without content."""

import base64
import difflib
import json
import re
from pathlib import Path
from typing import Any

from search.cli.listing import winner_commands
from search.report.formats import NOTHING, TIMES, Cell, Table, hours, make_table, number, path_cell, result_text
from search.report.selection import TABLE_ROWS, ReportData
from search.results.leaderboard import COUNTED, best_results, ledger
from search.results.record import CandidateRecord
from search.results.summaries import (
    SeedSummary,
    class_summary,
    repeated_candidates,
    retrained_summaries,
    rung_summaries,
)

Chapter = dict[str, Any]
_MOST_INDICES = 12
_MOST_REASONS = 60
_MOST_REPEATS = 20
_LINE = 96  # characters of a line of JSON
_IMAGE_BYTES = 3_000_000
_IMAGES_BYTES = 12_000_000
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def tiles(data: ReportData) -> list[tuple[str, str, str]]:
    """Return the key figures of the study: name, value and explanation."""
    study, costs, winner = data.study, ledger(data.study), data.winner
    refused = sum(each.status not in COUNTED for each in study.candidates)
    failed = sum(each.status == "failed" for each in study.candidates)
    goal = data.goals[0].name
    value = winner.objectives.get(goal) if winner else None
    return [
        (
            goal,
            NOTHING if value is None else result_text(value),
            f"candidate {winner.index}" if winner else "no results yet",
        ),
        ("candidates", number(costs.counted), f"{failed:,} failed; {refused:,} more drawn again"),
        ("epochs trained", number(costs.epochs), f"of {costs.epochs_in_full:,} in full"),
        ("saved", f"{costs.share_saved:.0%}", f"about {hours(costs.seconds_saved)} of training"),
        ("training time", hours(costs.seconds), f"within {hours(costs.wall_seconds)}"),
    ]


def winner_chapter(data: ReportData) -> Chapter:
    """Return the winner's results, drawn values and commands."""
    winner = data.winner
    if winner is None:
        return {"index": None}
    results: list[tuple[str, Any]] = [(goal.name, winner.objectives.get(goal.name)) for goal in data.goals]
    results += [(name, value) for name, value in winner.facts.items() if name not in winner.objectives]
    classes = class_summary(winner)
    if classes:
        results.append(("IoU of its classes, median", classes.median))
        results.append(("their deviation", classes.deviation))
        results.append(("worst class", classes.worst))
    results.append(("best epoch", winner.best_epoch))
    results.append(("epochs trained", winner.epochs))
    results.append(("time", Cell(hours(winner.seconds), "number")))
    return {
        "index": winner.index,
        "results": make_table(["result", "value"], results),
        "drawn": make_table(["drawn", "value"], [(path_cell(path), value) for path, value in winner.drawn]),
        "commands": "\n".join(winner_commands(data.study)),
    }


def retrained_chapter(data: ReportData) -> Chapter | None:
    """Return the trainings of winner and runners-up from the beginning, and their statistics."""
    runs = data.study.retrained
    if not runs:
        return None
    tests = list(dict.fromkeys(name for run in runs for name in run.test))
    goals = [goal.name for goal in data.goals]
    rows = []
    for run in runs:
        best = best_results(run, data.goals)
        values = [*(best.get(name) for name in goals), *(run.test.get(name) for name in tests)]
        time = Cell(hours(run.seconds), "number")
        rows.append([run.rank, run.candidate, str(run.seed), run.status, len(run.reports), *values, time, run.reason])
    headers = ["rank", "candidate", "seed", "status", "epochs", *goals, *tests, "time", "reason"]
    summary = _seed_table(retrained_summaries(data.study))
    return {"summary": summary, "runs": make_table(headers, rows)}


def images_chapter(data: ReportData, most: int) -> Chapter | None:
    """Return the first images of `best/pictures` as data addresses, at most `most`."""
    folder = Path(data.study.folder) / "best" / "pictures"
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in _MEDIA_TYPES)
    images: list[tuple[str, str]] = []
    size = 0
    for path in files:
        num_bytes = path.stat().st_size
        if len(images) < most and num_bytes <= _IMAGE_BYTES and size + num_bytes <= _IMAGES_BYTES:
            content = base64.b64encode(path.read_bytes()).decode("ascii")
            images.append((path.stem, f"data:{_MEDIA_TYPES[path.suffix.lower()]};base64,{content}"))
            size += num_bytes
    return {"images": images, "left_out": len(files) - len(images), "folder": folder} if images else None


def leaderboard_chapter(data: ReportData) -> Table | None:
    """Return the best candidates with all results, facts and drawn values."""
    rows = data.rows[:TABLE_ROWS]
    if not rows:
        return None
    goals = [goal.name for goal in data.goals]
    facts = [name for name in dict.fromkeys(name for row in rows for name in row.candidate.facts) if name not in goals]
    classes = {row.candidate.index: class_summary(row.candidate) for row in rows}
    class_headers = ["class IoU median", "deviation"] if any(classes.values()) else []
    drawn = {path for row in rows for path, _ in row.candidate.drawn}
    paths = [path for path in data.names if path in drawn]
    body = []
    for row in rows:
        candidate, of_classes = row.candidate, classes[row.candidate.index]
        values = dict(candidate.drawn)
        body.append(
            [
                Cell(f"{row.rank} ●", "number") if len(goals) > 1 and row.is_on_front else row.rank,
                candidate.index,
                *(candidate.objectives[name] for name in goals),
                _status_cell(candidate.status),
                candidate.best_epoch,
                candidate.epochs,
                round(candidate.seconds),
                *([of_classes.median, of_classes.deviation] if of_classes else [None] * len(class_headers)),
                *(candidate.facts.get(name) for name in facts),
                *(values.get(path) for path in paths),
            ]
        )
    results = ["rank", "candidate", *goals, "status", "best epoch", "epochs", "seconds", *class_headers, *facts]
    return make_table([*results, *(path_cell(path, data.names[path]) for path in paths)], body)


def repeats_chapter(data: ReportData) -> Table | None:
    """Return the statistics of candidates that differ only in their seed."""
    found = repeated_candidates(data.study)
    return _seed_table(found[:_MOST_REPEATS]) if found else None


def rungs_chapter(data: ReportData) -> Table | None:
    """Return the statistics of each rung."""
    if not any(rung.values for rung in data.study.rungs):
        return None
    rows = []
    for each in rung_summaries(data.study):
        reached = each.reached
        statistics = [reached.mean, reached.median, reached.deviation, reached.maximum, reached.minimum]
        rows.append(
            [
                each.rung.bracket,
                each.rung.epochs,
                reached.count,
                *(statistics if reached.count else [None] * len(statistics)),
                each.promoted.count,
                each.promoted.minimum if each.promoted.count else None,
            ]
        )
    headers = ["bracket", "epochs", "candidates", "mean", "median", "deviation", "max", "min", "promoted"]
    return make_table([*headers, "min promoted"], rows)


def importance_chapter(data: ReportData) -> Chapter | None:
    """Return the share of each searched value, with the group of the best mean rank."""
    if not data.names:
        return None
    rows = [
        [
            path_cell(TIMES.join(each.paths), TIMES.join(data.names[path] for path in each.paths)),
            Cell(f"{each.share:.1%}", "number"),
            each.best_group if each.is_clear else f"{each.best_group} (within chance)",
            Cell(f"{each.best_rank:.0%}", "number"),
        ]
        for each in data.importances
    ]
    return {
        "reason": data.why_no_importances,
        "explained": sum(each.share for each in data.importances if len(each.paths) == 1),
        "table": make_table(["value", "share", "best", "mean rank of the best"], rows),
    }


def failures_chapter(data: ReportData) -> Chapter:
    """Return the candidates that were not trained to an end, by status and kind of reason."""
    groups: dict[tuple[str, str], list[CandidateRecord]] = {}
    for candidate in data.study.candidates:
        if candidate.status in ("failed", "out_of_memory", "refused", "duplicate"):
            kind = re.sub(r"\d[\d,.]*", "#", candidate.reason)  # reasons that differ only in numbers are one kind
            groups.setdefault((candidate.status, kind), []).append(candidate)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1])))
    rows = []
    for (status, _), members in ordered[:_MOST_REASONS]:
        indices = ", ".join(str(member.index) for member in members[:_MOST_INDICES])
        if len(members) > _MOST_INDICES:
            indices += f" and {len(members) - _MOST_INDICES:,} more"
        reason = Cell(members[0].reason or "no reason given", style="reason")
        rows.append([_status_cell(status), len(members), reason, indices])
    return {
        "left_out": max(0, len(ordered) - _MOST_REASONS),
        "table": make_table(["status", "times", "reason", "candidates"], rows) if rows else None,
    }


def costs_chapter(data: ReportData) -> Chapter:
    """Return the costs of the study, and the estimated costs without early stopping."""
    costs = ledger(data.study)
    sums = [
        ("trained by the search", costs.epochs, costs.seconds),
        ("every candidate in full", costs.epochs_in_full, costs.seconds + costs.seconds_saved),
        ("saved", costs.epochs_saved, costs.seconds_saved),
        ("retraining", costs.retrained_epochs, costs.retrained_seconds),
    ]
    by_status: dict[str, list[CandidateRecord]] = {}
    for candidate in data.study.candidates:
        by_status.setdefault(candidate.status, []).append(candidate)
    counts = [
        [
            _status_cell(status),
            len(members),
            sum(each.epochs for each in members),
            sum(round(each.seconds) for each in members),
        ]
        for status, members in by_status.items()
    ]
    return {
        "share": min(1.0, costs.epochs / costs.epochs_in_full) if costs.epochs_in_full else 0.0,
        "sessions": len(data.study.sessions),
        "time": hours(costs.wall_seconds),
        "sums": make_table(
            ["", "epochs", "time"], [[name, epochs, Cell(hours(time), "number")] for name, epochs, time in sums]
        ),
        "counts": make_table(["status", "candidates", "epochs", "seconds"], counts),
    }


def json_chapter(data: ReportData) -> Chapter | None:
    """Return the winner's file and its difference from the space; None if there is no file.

    The file is `best/config.json`, or the candidate's if the study is unfinished.
    """
    folder = Path(data.study.folder)
    files = [folder / "best" / "config.json"]
    if data.winner is not None and data.winner.folder:
        files.append(folder / data.winner.folder / "config.json")
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        return None
    space = compact_json(data.study.config).splitlines()
    winner = compact_json(json.loads(path.read_text(encoding="utf-8"))).splitlines()
    kinds = {"+": "added", "-": "removed", "@": "place"}
    difference = difflib.unified_diff(space, winner, "space", "winner", n=2, lineterm="")
    return {"difference": [(kinds.get(line[0], "same"), line) for line in difference], "whole": "\n".join(winner)}


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


def _seed_table(summaries: list[SeedSummary]) -> Table:
    names = list(dict.fromkeys(name for each in summaries for name in each.results))
    rows = [
        [each.label, *(str(each.results[name]) if name in each.results else None for name in names)]
        for each in summaries
    ]
    return make_table(["", *names], rows)


def _status_cell(status: str) -> Cell:
    """Return a status as a small label in its colour."""
    return Cell(status.replace("_", " "), style=f"pill {status}")
