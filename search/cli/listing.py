"""What `python -m search list` and `best` print."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.results.leaderboard import counted_candidates, leaderboard, ledger, winner_of
from search.results.objectives import parse_objectives
from search.results.record import CandidateRecord, StudyRecord
from search.results.summaries import retrained_summaries

CONFIG, CHECKPOINT = "config.json", "model_best.pth"
_MOST_FRONT = 20


def list_text(studies: Sequence[StudyRecord]) -> str:
    """A line per study: where it lies, how far it is, how many candidates, and what the best came to."""
    if not studies:
        return "No studies here."
    rows = [_study_row(study) for study in studies]
    return "\n".join(_aligned([["STUDY", "STATE", "CANDIDATES", "EPOCHS", "BEST", "FOLDER"], *rows]))


def best_text(study: StudyRecord) -> str:
    """The winner: what it came to, what was drawn, where it lies, and how to train, test and use it."""
    rows = leaderboard(study)
    if not rows:
        return f"{study.name}: no candidate has results yet."
    winner = winner_of(study)
    assert winner is not None, "there are results"
    parts = [f"{study.name}: candidate {winner.index} of {len(counted_candidates(study))}, {_state(study)}"]
    results = [[name, _plain(value)] for name, value in {**winner.objectives, **winner.facts}.items()]
    results.append(["epoch", f"{_plain(winner.best_epoch)} of {winner.epochs} trained"])
    parts.append(_block("Results", results))
    if winner.drawn:
        parts.append(_block("Drawn", [[path, _plain(value)] for path, value in winner.drawn]))
    again = [
        [name, str(spread)]
        for each in retrained_summaries(study)
        if each.candidate == winner.index
        for name, spread in each.results.items()
    ]
    if again:
        parts.append(_block("Retrained, mean and deviation over seeds", again))
    front = [row.candidate for row in rows if row.is_on_front]
    if len(study.objectives) > 1 and len(front) > 1:
        parts.append(_front_block(study, front))
    best = Path(study.folder) / "best"
    missing = [str(best / name) for name in (CONFIG, CHECKPOINT) if not (best / name).is_file()]
    if missing:
        parts.append(f"Not written yet: {', '.join(missing)}. They are when the search is done.")
    else:
        parts.append("\n".join(commands(best)))
    return "\n\n".join(parts)


def commands(best: Path) -> list[str]:
    """Command lines that train, test and use what lies in the folder `best`."""
    config, checkpoint = shlex.quote(str(best / CONFIG)), shlex.quote(str(best / CHECKPOINT))
    return [
        f"python train.py -c {config}",
        f"python test.py --resume {checkpoint}",
        f"python inference.py --resume {checkpoint} --source photo.jpg --output out",
    ]


def _study_row(study: StudyRecord) -> list[str]:
    winner = winner_of(study)
    first = parse_objectives(study.objectives)[0].name
    best = f"{first} {_plain(winner.objectives[first])}" if winner and first in winner.objectives else "-"
    costs = ledger(study)
    epochs = f"{costs.epochs:,}" + (f" (saved {costs.share_saved:.0%})" if costs.epochs_saved > 0 else "")
    return [study.name, _state(study), f"{costs.counted:,}", epochs, best, study.folder]


def _state(study: StudyRecord) -> str:
    return "done" if study.is_done else "unfinished"


def _front_block(study: StudyRecord, front: Sequence[CandidateRecord]) -> str:
    names = [objective.name for objective in parse_objectives(study.objectives)]
    lines = [
        [f"candidate {each.index}", *(f"{name} {_plain(each.objectives[name])}" for name in names)] for each in front
    ]
    more = [[f"and {len(front) - _MOST_FRONT} more"]] if len(front) > _MOST_FRONT else []
    return _block("Pareto front", [*lines[:_MOST_FRONT], *more])


def _block(title: str, rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([f"{title}:", *(f"  {line}" for line in _aligned(rows))])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell."""
    columns = max(map(len, rows))
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(columns)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)).rstrip() for row in rows]


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:.5g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
