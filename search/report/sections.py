"""Chapters of the page that are tables: the ranking, rungs, importance, what did not train, costs, repeats."""

import re
from collections.abc import Sequence
from typing import Any

from search.report.markup import (
    NOTHING,
    TIMES,
    Quantity,
    Safe,
    escape,
    hours,
    join,
    note,
    number,
    result,
    section,
    table,
    tag,
)
from search.report.selection import TABLE_ROWS, Shown
from search.results.leaderboard import COUNTED, LeaderboardRow, ledger
from search.results.record import CandidateRecord
from search.results.summaries import ValueSummary, class_summary, repeated_candidates, rung_summaries

_MOST_INDICES = 12
_MOST_GROUPS = 60
_WORDS = {"out_of_memory": "out of memory"}


def header_tiles(page: Shown) -> Safe:
    """The study in five figures."""
    study, costs = page.study, ledger(page.study)
    refused = sum(each.status not in COUNTED for each in study.candidates)
    failed = sum(each.status == "failed" for each in study.candidates)
    best = page.winner
    goal = page.goals[0]
    value = best.objectives.get(goal.name) if best else None
    tiles = [
        (
            goal.name,
            result(value) if value is not None else NOTHING,
            f"candidate {best.index}" if best else "no results yet",
        ),
        ("candidates", number(costs.counted), f"{failed:,} failed; {refused:,} more drawn again"),
        ("epochs trained", number(costs.epochs), f"of {costs.epochs_in_full:,} in full"),
        ("saved", f"{costs.share_saved:.0%}", f"about {hours(costs.seconds_saved)} of training"),
        ("training time", hours(costs.seconds), f"within {hours(costs.wall_seconds)}"),
    ]
    return tag(
        "dl",
        join(
            tag("div", join([tag("dt", name), tag("dd", big), tag("dd", small, class_="small")]))
            for name, big, small in tiles
        ),
        class_="tiles",
    )


def leaderboard_section(page: Shown) -> Safe:
    """The best candidates with all that is known of them."""
    rows = page.rows[:TABLE_ROWS]
    facts = list(dict.fromkeys(name for row in rows for name in row.candidate.facts))
    targets = [goal.name for goal in page.goals]
    facts = [name for name in facts if name not in targets]
    spreads = {row.candidate.index: class_summary(row.candidate) for row in rows}
    of_classes = ["class IoU median", "deviation"] if any(spreads.values()) else []
    paths = [path for path in page.names if any(path == drawn for row in rows for drawn, _ in row.candidate.drawn)]
    headers: list[object] = [
        "rank",
        "candidate",
        *targets,
        "status",
        "best epoch",
        "epochs",
        "seconds",
        *of_classes,
        *facts,
    ]
    headers += [tag("code", page.names[path], title=path) for path in paths]
    several = " Those on the Pareto front (●) come first." if len(targets) > 1 else ""
    left_out = f" The best {TABLE_ROWS} of {len(page.rows):,} are shown." if len(page.rows) > TABLE_ROWS else ""
    text = (
        f"By {page.study.objectives[0]} at its best epoch.{several}{left_out} A click on a column's name sorts by it."
    )
    body = []
    for row in rows:
        candidate = row.candidate
        values = dict(candidate.drawn)
        classes = spreads[candidate.index]
        body.append(
            [
                _rank(row, len(targets) > 1),
                candidate.index,
                *(candidate.objectives[name] for name in targets),
                pill(candidate.status),
                candidate.best_epoch,
                candidate.epochs,
                round(candidate.seconds),
                *([classes.median, classes.deviation] if classes else [None] * len(of_classes)),
                *(candidate.facts.get(name) for name in facts),
                *(values.get(path) for path in paths),
            ]
        )
    return section("leaderboard", "Leaderboard", note(text), table(headers, body, kind="sortable ranking"))


def rung_table(page: Shown) -> Safe:
    """Per rung: how many came, what they came to, how many went on."""
    headers = [
        "bracket",
        "epochs",
        "candidates",
        "mean",
        "median",
        "deviation",
        "max",
        "min",
        "went on",
        "least that went on",
    ]
    rows = [
        [
            each.rung.bracket,
            each.rung.epochs,
            *_numbers(each.reached),
            each.promoted.count,
            _or_none(each.promoted.minimum, each.promoted),
        ]
        for each in rung_summaries(page.study)
    ]
    return table(headers, rows)


def importance_table(page: Shown) -> Safe:
    """Each value with the group whose candidates came out best."""
    headers = ["value", "share", "best", "mean rank of the best"]
    rows = [
        [
            join([tag("code", page.names[path], title=path) for path in each.paths], TIMES),
            Quantity(f"{each.share:.1%}"),
            each.best_group if each.is_clear else f"{each.best_group} (within chance)",
            Quantity(f"{each.best_rank:.0%}"),
        ]
        for each in page.importances
    ]
    return table(headers, rows)


def failures_section(page: Shown) -> Safe:
    """What was not trained to an end, by status and kind of reason."""
    groups: dict[tuple[str, str], list[CandidateRecord]] = {}
    for candidate in page.study.candidates:
        if candidate.status in ("failed", "out_of_memory", "refused", "duplicate"):
            kind = re.sub(r"\d[\d,.]*", "#", candidate.reason)
            groups.setdefault((candidate.status, kind), []).append(candidate)
    if not groups:
        return section("failures", "Failures", note("Every candidate that was drawn could be trained."))
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1])))
    rows = [
        [
            pill(status),
            len(members),
            tag("span", members[0].reason or "no reason given", class_="reason"),
            _indices(members),
        ]
        for (status, _), members in ordered[:_MOST_GROUPS]
    ]
    text = (
        "Reasons that differ in their numbers alone stand together, with the first of them in full. For those that "
        "were refused, equal another or ran out of memory, another candidate was drawn."
    )
    more = f" {len(ordered) - _MOST_GROUPS} rarer reasons are left out." if len(ordered) > _MOST_GROUPS else ""
    return section("failures", "Failures", note(text + more), table(["status", "times", "reason", "candidates"], rows))


def ledger_section(page: Shown) -> Safe:
    """What it cost, and what it would have cost."""
    costs = ledger(page.study)
    share = min(1.0, costs.epochs / costs.epochs_in_full) if costs.epochs_in_full else 0.0
    bar = tag(
        "div",
        Safe(f'<span style="width:{share:.2%}"></span>'),
        class_="bar",
        role="img",
        aria_label=f"{share:.0%} spent",
    )
    by_status = [[pill(status), *counts] for status, counts in _by_status(page.study.candidates).items()]
    rows = [
        ["trained by the search", costs.epochs, hours(costs.seconds)],
        ["every candidate in full", costs.epochs_in_full, hours(costs.seconds + costs.seconds_saved)],
        ["saved", costs.epochs_saved, hours(costs.seconds_saved)],
        ["retraining", costs.retrained_epochs, hours(costs.retrained_seconds)],
    ]
    text = (
        f"A full training has {page.study.max_epochs:,} epochs. Time saved is an estimate: the epochs not trained, "
        "each at the mean of its candidate's own. A candidate that failed is taken to fail in a full training too. "
        f"The study ran in {len(page.study.sessions)} session{'s' * (len(page.study.sessions) != 1)}, "
        f"{hours(costs.wall_seconds)} in all; {page.study.bytes_deleted / 1e6:,.0f} MB of checkpoints that could no "
        "longer be used were deleted."
    )
    sums = table(["", "epochs", "time"], rows)
    counts = table(["status", "candidates", "epochs", "seconds"], by_status)
    return section("ledger", "Costs", bar, note(text), tag("div", join([sums, counts]), class_="pair"))


def repeats_section(page: Shown) -> Safe:
    """Equal candidates with other seeds; nothing where there are none."""
    found = repeated_candidates(page.study)
    if not found:
        return Safe("")
    names = list(dict.fromkeys(name for each in found for name in each.results))
    rows = [
        [each.label, *(str(each.results[name]) if name in each.results else None for name in names)]
        for each in found[:20]
    ]
    text = "Trainings that differ in their seed alone: mean ± deviation of a sample (number of trainings)."
    return section("repeats", "Repeats", note(text), table(["", *names], rows))


def pill(status: str) -> Safe:
    """A status as a small label in its colour."""
    return tag("span", _WORDS.get(status, status), class_=f"pill {escape(status)}")


def _rank(row: LeaderboardRow, several: bool) -> Any:
    return Quantity(f"{row.rank} ●") if several and row.is_on_front else row.rank


def _numbers(values: ValueSummary) -> list[Any]:
    numbers = [values.mean, values.median, values.deviation, values.maximum, values.minimum]
    return [values.count, *(_or_none(value, values) for value in numbers)]


def _or_none(value: float, of: ValueSummary) -> float | None:
    return value if of.count else None


def _indices(members: Sequence[CandidateRecord]) -> str:
    first = ", ".join(str(member.index) for member in members[:_MOST_INDICES])
    return first + (f" and {len(members) - _MOST_INDICES:,} more" if len(members) > _MOST_INDICES else "")


def _by_status(candidates: Sequence[CandidateRecord]) -> dict[str, list[int]]:
    counts: dict[str, list[int]] = {}
    for candidate in candidates:
        row = counts.setdefault(candidate.status, [0, 0, 0])
        row[0] += 1
        row[1] += candidate.epochs
        row[2] += round(candidate.seconds)
    return counts
