"""Statistics of a grid study: its conditions over seeds, their paired differences, and the best condition."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from search.results.record import CandidateRecord, Objective, StudyRecord, parse_objectives
from search.results.spread import CONFIDENCE, INTERVAL_RULE, Spread

_NAMES = {"val_": "validation", "test_": "test"}


def is_grid(study: StudyRecord) -> bool:
    """Return whether a study is a grid study."""
    return study.config.get("search", {}).get("study") is not None


def conditions_of(study: StudyRecord) -> list[str]:
    """Return the names of the conditions of a grid study, in the order of its file."""
    return list(study.config["search"]["study"]["conditions"])


def results_of_candidate(candidate: CandidateRecord, prefix: str) -> dict[str, float]:
    """Return the finite results of a completed candidate.

    Args:
        candidate: Of a grid study.
        prefix: "val_": at the best epoch by the objective; "test_": of the test at its end.
    """
    if candidate.status != "completed":
        return {}
    row = next((row for row in candidate.reports if row.get("epoch") == candidate.best_epoch), {})
    results = row if prefix == "val_" else candidate.test
    return {name: value for name, value in results.items() if name.startswith(prefix) and math.isfinite(value)}


def spreads(candidates: Iterable[CandidateRecord], prefix: str) -> dict[str, dict[str, Spread]]:
    """Return the results of each condition: name of the result -> condition -> spread.

    The value of a seed is that of its only candidate, or with folds the one pooled over all of them. Results that are
    not pooled, such as a loss or those of a test, are the mean over the folds; a seed of which a fold has no result has
    no value.

    Args:
        candidates: Those of a grid study.
        prefix: "val_" or "test_".
    """
    groups: dict[tuple[str, int], list[CandidateRecord]] = {}
    num_folds = 1
    for each in candidates:
        place = dict(each.drawn)
        groups.setdefault((place["condition"], place["seed"]), []).append(each)
        num_folds = max(num_folds, place.get("fold", 0) + 1)
    found: dict[str, dict[str, dict[int, float]]] = {}
    for (condition, seed), folds in sorted(groups.items(), key=lambda item: item[0][1]):
        results = [results_of_candidate(each, prefix) for each in folds]
        pooled = folds[-1].pooled if prefix == "val_" else {}
        for name in results[0]:
            if len(folds) == num_folds and all(name in each for each in results):
                mean = math.fsum(each[name] for each in results) / num_folds
                found.setdefault(name, {}).setdefault(condition, {})[seed] = pooled.get(name, mean)
    return {
        name: {condition: Spread(values) for condition, values in by_condition.items()}
        for name, by_condition in found.items()
    }


def best_condition(candidates: Iterable[CandidateRecord], conditions: Sequence[str], goal: Objective) -> str | None:
    """Return the condition with the best mean of the objective over its seeds; None if none has a whole seed.

    A condition of which seeds failed that others have is not the best: its remaining seeds are not the same.

    Args:
        candidates: Those of a grid study.
        conditions: Names of the conditions; of equal ones the first is the best.
        goal: The objective, a result of validation data.
    """
    found = spreads(candidates, "val_").get(goal.name, {})
    most = max((len(each.values) for each in found.values()), default=0)
    whole = [name for name in conditions if name in found and len(found[name].values) == most]
    return max(whole, key=lambda name: goal.sign * found[name].mean, default=None)


def grid_winner(study: StudyRecord) -> CandidateRecord | None:
    """Return the run that a grid study recommends, see `best_run`."""
    return best_run(study.candidates, conditions_of(study), parse_objectives(study.objectives)[0])


def best_run(
    candidates: Sequence[CandidateRecord], conditions: Sequence[str], goal: Objective
) -> CandidateRecord | None:
    """Return the best run, by validation, of the best condition; None if none has a result.

    Before a condition has a whole seed, it is the best run of all. The arguments are those of `best_condition`.
    """
    condition = best_condition(candidates, conditions, goal)
    runs = [
        each
        for each in candidates
        if goal.name in results_of_candidate(each, "val_") and condition in (None, dict(each.drawn)["condition"])
    ]
    return max(runs, key=lambda each: goal.sign * each.objectives[goal.name], default=None)


def best_condition_text(candidates: Sequence[CandidateRecord], conditions: Sequence[str], goal: Objective) -> str:
    """Return which run is recommended and why, as a sentence; the arguments are those of `best_condition`."""
    winner = best_run(candidates, conditions, goal)
    if winner is None or best_condition(candidates, conditions, goal) is None:
        return "No condition has a whole seed yet."
    place = dict(winner.drawn)
    fold = f", fold {place['fold']}" if "fold" in place else ""
    return (
        f'The condition "{place["condition"]}" has the best mean of {goal.name} over its seeds. Its best run on '
        f"validation data is candidate {winner.index}, seed {place['seed']}{fold}."
    )


def grid_sections(
    candidates: Sequence[CandidateRecord], conditions: Sequence[str], goal: Objective
) -> list[dict[str, Any]]:
    """Return the sections of the report: one table of validation data, one of test data, and one of failures.

    Args:
        candidates: Those of a grid study.
        conditions: Names of the conditions; differences are those from the first.
        goal: The objective.
    """
    sections = []
    for prefix, data in _NAMES.items():
        found = spreads(candidates, prefix)
        if not found:
            continue
        first = prefix + goal.name.removeprefix("val_")
        names = sorted(found, key=lambda name: name != first)  # stable: the others in their own order
        rows = [row for name in names for row in difference_rows(name, found[name], conditions)]
        texts = [best_condition_text(candidates, conditions, goal)] if prefix == "val_" else []
        text = " ".join([*texts, _text(prefix, candidates, goal)])
        sections.append({"title": f"Conditions, {data} data", "text": text, "table": [DIFFERENCE_COLUMNS, *rows]})
    unfinished = [each for each in candidates if each.status != "completed"]
    if unfinished:
        head = ["condition", "seed", "fold", "candidate", "status", "reason"]
        rows = [[*_place(each), each.index, each.status, each.reason or None] for each in unfinished]
        text = "A seed of a condition of which a training is missing is in no mean and no difference."
        sections.append({"title": "Trainings without a result", "text": text, "table": [head, *rows]})
    return sections


DIFFERENCE_COLUMNS = [
    "result", "condition", "seeds", "mean", "deviation", "difference", "its deviation", "pairs",
    f"{CONFIDENCE:.0%} from", "to",
]  # fmt: skip


def difference_rows(name: str, found: Mapping[str, Spread], conditions: Sequence[str]) -> list[list[Any]]:
    """Return a row of `DIFFERENCE_COLUMNS` for each condition: its spread, and that of its difference from the first.

    Args:
        name: Of the result.
        found: Its spread by condition.
        conditions: Names of the conditions.
    """
    rows = []
    for condition in conditions:
        spread = found.get(condition, Spread({}))
        row: list[Any] = [name, condition, len(spread.values), _number(spread.mean), spread.deviation]
        if condition == conditions[0]:
            rows.append([*row, None, None, None, None, None])
            continue
        difference = spread.minus(found.get(conditions[0], Spread({})))
        interval = difference.interval() or (None, None)
        rows.append(
            [*row, _number(difference.mean), difference.deviation, len(difference.values), interval[0], interval[1]]
        )
    return rows


def _text(prefix: str, candidates: Sequence[CandidateRecord], goal: Objective) -> str:
    """Return how the numbers of a table came about."""
    places = [dict(each.drawn) for each in candidates]
    num_seeds, folds = len({each["seed"] for each in places}), {each["fold"] for each in places if "fold" in each}
    sentences = [
        f"At the epoch with the best {goal.name} of each training."
        if prefix == "val_"
        else f"Of the weights with the best {goal.name} on validation data; test data is looked at once per training."
    ]
    if prefix == "val_" and any("candidates" in each.reports[0] for each in candidates if each.reports):
        sentences.append(
            "The result of a search is that of its winner, the best of many: only its test is a fair comparison with a "
            "single training."
        )
    if folds:
        pooled = {name for each in candidates for name in each.pooled}
        names = {name for each in candidates for name in results_of_candidate(each, prefix)}
        exact = sorted(names & pooled) if prefix == "val_" else []
        means = sorted(names - set(exact))
        if exact:
            sentences.append(f"With {len(folds)} folds: {', '.join(exact)} from the counts of all folds together.")
        if means:
            sentences.append(f"With {len(folds)} folds: {', '.join(means)} as the mean over the folds.")
    sentences.append("Mean and deviation (n - 1) are over seeds; differences are of equal seeds and folds.")
    if num_seeds < 2:
        sentences.append("One seed: there is no deviation and no interval, and a difference may be chance.")
    else:
        sentences.append(INTERVAL_RULE)
    return " ".join(sentences)


def _place(candidate: CandidateRecord) -> list[Any]:
    place = dict(candidate.drawn)
    return [place["condition"], place["seed"], place.get("fold")]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
