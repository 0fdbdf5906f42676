"""Notes on the limits of a comparison: runs that are not tested, not finished, or tested on other data."""

import shlex
from collections.abc import Sequence

from search.comparison.groups import RunGroup

_MOST_COMMANDS = 4


def notes_of(groups: Sequence[RunGroup], split: str) -> list[str]:
    """Return sentences on the limits of a comparison, with the repair if there is one.

    Args:
        groups: The groups of runs.
        split: Whose predictions are shown.
    """
    runs = [run for group in groups for run in group.runs]
    notes = []
    unfinished = [run for run in runs if not run.is_finished]
    if unfinished:
        notes.append(f"{len(unfinished)} of {len(runs)} trainings are not finished: their results are those so far.")
    missing = [run for run in runs if split not in run.tests and run.folder is not None]
    if missing:
        option = "" if split == "test" else f" --split {split}"
        commands = [f"python test.py --resume {shlex.quote(str(run.folder))}{option}" for run in missing]
        more = f" and {len(commands) - _MOST_COMMANDS} more" if len(commands) > _MOST_COMMANDS else ""
        notes.append(
            f"{len(missing)} of {len(runs)} runs have no stored predictions of the {split} data. Add --predict, or "
            f"run: {'; '.join(commands[:_MOST_COMMANDS])}{more}."
        )
    notes += _other_data(groups, split)
    uneven = [
        group.name for group in groups if {run.seed for run in group.runs} != {run.seed for run in groups[0].runs}
    ]
    if uneven and any(len(group.runs) > 1 for group in groups):
        notes.append(
            f"Not trained with the seeds of {groups[0].name}: {', '.join(uneven)}. Differences are of the seeds that "
            "both have; means are of all."
        )
    if all(len({run.seed for run in group.runs}) < 2 for group in groups):
        notes.append("No config was trained with several seeds: a difference may be chance.")
    return notes


def _other_data(groups: Sequence[RunGroup], split: str) -> list[str]:
    """Return a sentence if the runs were not all tested on the same samples and classes."""
    known: dict[str, list[str]] = {}
    for group in groups:
        for run in group.runs:
            if split in run.tests:
                content = run.tests[split].content
                known.setdefault(f"{content.get('data')} {content.get('classes')}", []).append(group.name)
    if len(known) < 2:
        return []
    others = list(dict.fromkeys(name for names in list(known.values())[1:] for name in names))
    return [
        f"The {split} data of {', '.join(others)} are other samples or classes than those of "
        f"{next(iter(known.values()))[0]}: their results do not compare."
    ]
