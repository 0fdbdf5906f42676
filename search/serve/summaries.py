"""Studies and runs as JSON: a summary of each, the facts of one, its candidates and its figures."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.cli.listing import winner_commands
from search.comparison.runs import ComparedRun
from search.report import contents
from search.report.page import figures_of
from search.results.importance import ordered_paths
from search.results.leaderboard import COUNTED, LeaderboardRow, counted_candidates, leaderboard, ledger, winner_of
from search.results.progress import rank_correlations
from search.results.record import CandidateRecord, StudyRecord, leading_place, parse_objectives
from search.results.summaries import retrained_result
from utils.errors import SearchError
from utils.files import without_nan

_MOST_FAILURES = 50
_MOST_NUMBERS = 20  # candidates of a kind of failure
_MOST_RUNNING = 200

Json = dict[str, Any]


def study_summary(study: StudyRecord) -> Json:
    """Return the numbers of a study in the list of all studies."""
    counted = counted_candidates(study)
    costs = ledger(study)
    found: Json = {
        "name": study.name,
        "is_done": study.is_done,
        "candidates": sum(each.status != "running" for each in counted),
        "running": sum(each.status == "running" for each in counted),
        "num_samples": max(study.num_samples, len(counted)),
        "epochs": costs.epochs,
        "seconds": costs.wall_seconds,
        "failed": sum(each.status in ("failed", "out_of_memory") for each in study.candidates),
        "objectives": list(study.objectives),
        "best": _best(study),
        "began": study.sessions[0][0] if study.sessions else None,
    }
    return finite_json(found)


def _best(study: StudyRecord) -> Json | None:
    """Return the best value of the first objective: of supernets that of the retrained network if there is one."""
    winner = winner_of(study)
    name = parse_objectives(study.objectives)[0].name
    if winner is None or name not in winner.objectives:
        return None
    value, retrained = winner.objectives[name], retrained_result(study, winner)
    if retrained is not None and name in retrained.results:
        value = retrained.results[name].mean
    return {"candidate": winner.index, "name": name, "value": value}


def study_facts(study: StudyRecord) -> Json:
    """Return the facts of a study in addition to its candidates."""
    objectives = parse_objectives(study.objectives)
    winner, goal = winner_of(study), objectives[leading_place(objectives)]
    return finite_json(
        {
            "scheduler": study.scheduler,
            "max_epochs": study.max_epochs,
            "constraints": list(study.constraints),
            "ledger": asdict(ledger(study)),
            "winner": None if winner is None else winner.index,
            "statuses": Counter(each.status for each in study.candidates),
            "failures": [_failure(members) for members in contents.failure_groups(study)[:_MOST_FAILURES]],
            "running": [
                {
                    "candidate": each.index,
                    "epochs": each.epochs,
                    "max_epochs": each.max_epochs or study.max_epochs,
                    "value": each.objectives.get(goal.name),
                }
                for each in study.candidates
                if each.status == "running"
            ][:_MOST_RUNNING],
            "rungs": [
                {
                    "bracket": rung.bracket,
                    "epochs": rung.epochs,
                    "reached": len(rung.values),
                    "promoted": len(rung.promoted),
                    "best": max(
                        (value for value in rung.values.values() if math.isfinite(value)),
                        key=lambda value: value * goal.sign,
                        default=None,
                    ),
                    "decides": rung.decides,
                }
                for rung in study.rungs
            ],
            "retrained": [
                {
                    "candidate": run.candidate,
                    "rank": run.rank,
                    "seed": run.seed,
                    "status": run.status,
                    "epochs": len(run.reports),
                    "max_epochs": run.max_epochs,
                    "test": run.test,
                    "reason": run.reason,
                }
                for run in study.retrained
            ],
            "sessions": [list(session) for session in study.sessions],
            "searched": searched_paths(study),
            "commands": winner_commands(study) if winner is not None else [],
            "config": study.config,
        }
    )


def _failure(members: Sequence[CandidateRecord]) -> Json:
    first = members[0]
    numbers = [each.index for each in members[:_MOST_NUMBERS]]
    return {
        "status": first.status,
        "reason": first.reason[: contents.MOST_CHARACTERS],
        "count": len(members),
        "candidates": numbers,
    }


def searched_paths(study: StudyRecord) -> list[str]:
    """Return the paths of the searched values, in the order of the file."""
    distinct = {json.dumps([path for path, _ in each.drawn]): each.drawn for each in study.candidates}
    return ordered_paths(list(distinct.values()))


def candidate_rows(study: StudyRecord, *, order: str, status: str | None, offset: int, limit: int) -> Json:
    """Return a part of the table of candidates.

    Args:
        study: The study.
        order: "rank": the ranked ones first, then the others by number; or "number".
        status: Only those of this status; None: all.
        offset: Number of rows to leave out.
        limit: Maximum number of rows.
    """
    ranks = {row.candidate.index: row for row in leaderboard(study)}
    candidates = [each for each in study.candidates if status is None or each.status == status]
    if order == "rank":
        last = len(ranks) + 1
        candidates.sort(key=lambda each: (ranks[each.index].rank if each.index in ranks else last, each.index))
    shown = candidates[offset : offset + limit]
    return finite_json(
        {
            "rows": [candidate_row(each, ranks.get(each.index), study) for each in shown],
            "total": len(candidates),
            "offset": offset,
            "limit": limit,
            "objectives": list(study.objectives),
            "searched": searched_paths(study),
        }
    )


def candidate_row(candidate: CandidateRecord, row: LeaderboardRow | None, study: StudyRecord) -> Json:
    """Return a row of the table of candidates."""
    log = Path(study.folder) / candidate.folder / "info.log" if candidate.folder else None
    return {
        "number": candidate.index,
        "rank": None if row is None else row.rank,
        "is_on_front": row is not None and row.is_on_front,
        "counts": candidate.status in COUNTED,
        "status": candidate.status,
        "reason": candidate.reason[: contents.MOST_CHARACTERS],
        "epochs": candidate.epochs,
        "best_epoch": candidate.best_epoch,
        "seconds": candidate.seconds,
        "objectives": candidate.objectives,
        "facts": candidate.facts,
        "violation": candidate.violation,
        "drawn": [[path, value] for path, value in candidate.drawn],
        "origin": candidate.origin,
        "seed": candidate.seed,
        "folder": candidate.folder,
        "has_log": log is not None and log.is_file(),
    }


def study_figures(study: StudyRecord) -> Json:
    """Return the figures of a study's report, the correlations of its rungs, and further sections."""
    data = contents.collect(study)
    correlations = rank_correlations(study, data.curve) if data.curve else []
    sections = [{key: each[key] for key in ("title", "text", "table") if key in each} for each in study.sections]
    return finite_json(
        {
            "figures": figures_of(data),
            "correlations": [asdict(each) for each in correlations],
            "sections": sections,
        }
    )


def run_summary(run: ComparedRun) -> Json:
    """Return the numbers of a run in the list of all runs."""
    trainer = run.config.get("trainer")
    epochs = trainer.get("epochs") if isinstance(trainer, Mapping) else None
    return finite_json(
        {
            "name": run.name,
            "is_done": run.is_finished,
            "epochs": len(run.reports),
            "max_epochs": epochs if isinstance(epochs, int) else None,
            "monitor": None if run.monitor is None else str(run.monitor),
            "best_epoch": run.best_epoch,
            "results": run.results,
            "seconds": run.facts.get("seconds"),
        }
    )


def finite_json(content: Json) -> Json:
    """Return data that JSON can write: numbers that are not finite become null.

    Raises:
        SearchError: It is nested too deep, as a file of a run may be.
    """
    try:
        found: Json = without_nan(content)
    except RecursionError:
        raise SearchError("A file of the study or run is nested too deep to be shown. Open the file itself.") from None
    return found
