"""Notes on the limits of a comparison: missing results and predictions, other test data, other seeds, folds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from search.comparison.groups import RunGroup
from search.comparison.runs import ComparedRun
from search.results.record import Objective
from utils.writing.text import shell_word

_MOST_COMMANDS = 4
_MOST_NAMES = 8


def notes_of(groups: Sequence[RunGroup], split: str, metric: Objective) -> list[str]:
    """Return sentences on the limits of a comparison, with the repair if there is one.

    Args:
        groups: The groups of runs.
        split: Whose predictions are shown.
        metric: By which the groups are compared.
    """
    runs = [run for group in groups for run in group.runs]
    notes = []
    unfinished = [run for run in runs if not run.is_finished and not run.failure]
    if unfinished:
        notes.append(f"{len(unfinished)} of {len(runs)} trainings are not finished: their results are those so far.")
    failed = [f"{group.name}, seed {run.seed}" for group in groups for run in group.runs if run.failure]
    if failed:
        notes.append(f"{len(failed)} of {len(runs)} trainings failed: {_some(failed, '; ')}.")
    notes += _without_predictions(runs, split)
    notes += _other_data(groups, split)
    notes += _uneven_seeds(groups, metric)
    if any(run.folds > 1 for run in runs):
        names = list(dict.fromkeys(group.name for group in groups for run in group.runs if run.folds > 1))
        notes.append(
            f"Trained in folds: {_some(names)}. Results and training time are of all folds; curves, predictions, scores"
            " of samples, epochs and labelled megapixels are those of the first fold."
        )
    return notes


def _without_predictions(runs: Sequence[ComparedRun], split: str) -> Iterable[str]:
    """Yield a sentence if runs have no stored predictions of a split, with the commands that make them."""
    missing = [run for run in runs if split not in run.tests and run.folder is not None]
    if missing:
        option = "" if split == "test" else f" --split {split}"
        commands = [f"python test.py --resume {shell_word(run.folder)}{option}" for run in missing]
        more = f" and {len(commands) - _MOST_COMMANDS} more" if len(commands) > _MOST_COMMANDS else ""
        yield (
            f"{len(missing)} of {len(runs)} runs have no stored predictions of the {split} data. Add --predict --split "
            f"{split}, or run: {'; '.join(commands[:_MOST_COMMANDS])}{more}."
        )


def _other_data(groups: Sequence[RunGroup], split: str) -> Iterable[str]:
    """Yield a sentence for each group that others were not tested like, on its samples and classes.

    Held-out samples may follow from the seed, the same in all configs. So samples are compared with those of a group
    with equal seeds; with those of the first group only if there is none.
    """
    tested: dict[str, dict[int, Mapping[str, Any]]] = {}
    for group in groups:
        for run in group.runs:
            if split in run.tests:
                tested.setdefault(group.name, {})[run.seed] = run.tests[split].content
    names, others = list(tested), dict[str, list[str]]()
    for place, name in enumerate(names[1:], start=1):
        ours = tested[name]
        reference = next((each for each in names[:place] if tested[each].keys() & ours.keys()), names[0])
        theirs = tested[reference]
        pairs = [(ours[seed], theirs[seed]) for seed in ours.keys() & theirs.keys()]
        pairs = pairs or [(next(iter(ours.values())), next(iter(theirs.values())))]
        if any(one.get(key) != other.get(key) for one, other in pairs for key in ("data", "classes")):
            others.setdefault(reference, []).append(name)
    for reference, found in others.items():
        yield (
            f"The {split} data of {_some(found)} are other samples or classes than those of {reference}: their results "
            "do not compare."
        )


def _uneven_seeds(groups: Sequence[RunGroup], metric: Objective) -> Iterable[str]:
    """Yield sentences if a group lacks results of seeds of which another has some, or if no group has several."""
    seeds = {group.name: set(group.spread(metric.name).values) for group in groups}
    every = set[int]().union(*seeds.values())
    missing = [(name, sorted(every - each)) for name, each in seeds.items() if each != every]
    if missing:
        texts = [f"{name}, seed{'s' if len(each) > 1 else ''} {_some(list(map(str, each)))}" for name, each in missing]
        yield (
            f"There is no {metric.name} of {_some(texts, '; ')}. Differences are of the seeds that both have; means are"
            " of all."
        )
    if all(len(each) < 2 for each in seeds.values()):
        yield "No config has results of several seeds: a difference may be chance."


def _some(names: Sequence[str], separator: str = ", ") -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{separator.join(names[:_MOST_NAMES])}{more}"
