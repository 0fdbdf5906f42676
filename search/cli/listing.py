"""The text that `python -m search list` and `best` print."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config.checking.splits import MERGED
from config.foreign import is_refused
from search.executors.table import is_tabulated
from search.results.grid import is_grid
from search.results.leaderboard import counted_candidates, leaderboard, ledger, lost_seeds, winner_of
from search.results.record import CandidateRecord, StudyRecord, parse_objectives
from search.results.summaries import retrained_result, retrained_summaries
from search.strategies.multi_fidelity import candidate_folder
from search.study.best import BEST_FOLDER, CHECKPOINT, earlier_winner, read_front
from search.study.folders import CONFIG, ONNX
from utils.plugins import command_line
from utils.writing.text import in_one_line

_MOST_FRONT = 20
_WIDTH = 110  # columns of a paragraph


def list_text(studies: Sequence[StudyRecord]) -> str:
    """Return a line per study: state, number of candidates, costs, best result and folder."""
    if not studies:
        return "No studies here."
    rows = [["STUDY", "STATE", "CANDIDATES", "EPOCHS", "BEST", "FOLDER"]]
    for study in studies:
        winner, costs = winner_of(study), ledger(study)
        best = _best_of(study, winner)
        best += " (violates constraints)" if winner and winner.violation else ""
        epochs = f"{costs.epochs:,}" + (f" (saved {costs.share_saved:.0%})" if costs.epochs_saved > 0 else "")
        state = "done" if study.is_done else "unfinished"
        rows.append([study.name, state, f"{costs.counted:,}", epochs, best, study.folder])
    return "\n".join(_aligned(rows))


def _best_of(study: StudyRecord, winner: CandidateRecord | None) -> str:
    """Return the best result of a study; of supernets that of the retrained network if there is one."""
    goal = parse_objectives(study.objectives)[0].name
    if winner is None or goal not in winner.objectives:
        return "-"
    retrained = retrained_result(study, winner)
    if retrained is not None and goal in retrained.results:
        return f"{goal} {_value_text(retrained.results[goal].mean)}"
    return f"{goal} {_value_text(winner.objectives[goal])}" + (" (supernet)" if study.result_is_retrained else "")


def best_text(study: StudyRecord) -> str:
    """Return the winner's results and drawn values, and the commands that train, test and use it."""
    rows = leaderboard(study)
    winner = winner_of(study)
    if winner is None:
        return f"{in_one_line(study.name)}: no candidate has results yet."
    blocks: dict[str, list[list[str]]] = {}
    blocks["Results"] = _results_of(study, winner)
    blocks["Drawn"] = [[path, _value_text(value)] for path, value in winner.drawn]
    blocks["Retrained, mean and deviation over seeds"] = [
        [name, str(result)]
        for each in retrained_summaries(study)
        if each.candidate == winner.index
        for name, result in each.results.items()
    ]
    front = [row.candidate for row in rows if row.is_on_front]
    if len(study.objectives) > 1 and len(front) > 1:
        goals = [objective.name for objective in parse_objectives(study.objectives)]
        blocks["Pareto front"] = [
            [f"candidate {each.index}", *(f"{goal} {_value_text(each.objectives[goal])}" for goal in goals)]
            for each in front[:_MOST_FRONT]
        ]
        if len(front) > _MOST_FRONT:
            blocks["Pareto front"].append([f"and {len(front) - _MOST_FRONT} more"])
    state = "done" if study.is_done else "unfinished"
    parts = [f"{in_one_line(study.name)}: candidate {winner.index} of {len(counted_candidates(study))}, {state}"]
    if is_grid(study):
        parts += [_section_text(section) for section in study.sections]
    elif study.result_is_retrained:
        parts += [_section_text(section) for section in study.sections[:1]]  # the genotypes
    if study.constraints:
        parts[0] += f"\n{constraints_text(study, winner)}"
    for title, lines in blocks.items():
        if lines:
            parts.append("\n".join([f"{title}:", *(f"  {line}" for line in _aligned(lines))]))
    parts.append(_stored_text(study))
    parts += lost_retrainings(study)
    parts += [] if is_tabulated(study.config) else front_texts(study)
    if study.unknown_events:
        counted = ", ".join(f"{count} {name}" for name, count in study.unknown_events.items())
        parts.append(in_one_line(f"Events that this version does not know: {counted}."))
    return "\n\n".join(parts)


def _stored_text(study: StudyRecord) -> str:
    """Return the commands that use the winner in `best/`, or a sentence if these files are not there."""
    best = Path(study.folder) / BEST_FOLDER
    needed = (CONFIG,) if is_tabulated(study.config) else (CONFIG, CHECKPOINT)
    missing = [str(best / name) for name in needed if not (best / name).is_file()]
    if earlier_winner(study) is not None:
        return in_one_line(earlier_winner_text(study))
    if missing:
        return in_one_line(f"Not written yet: {', '.join(missing)}. They are when the search is done.")
    if is_tabulated(study.config):
        return in_one_line(f"Its config is {best / CONFIG}. Its results are those of a table: nothing was trained.")
    return "\n".join(winner_commands(study))


def _results_of(study: StudyRecord, winner: CandidateRecord) -> list[list[str]]:
    """Return rows of name and value; none of a supernet, whose best epoch is rarely the one that is decoded."""
    if study.result_is_retrained:
        return []
    rows = [[name, _value_text(value)] for name, value in {**winner.objectives, **winner.facts}.items()]
    return [*rows, ["epoch", f"{_value_text(winner.best_epoch)} of {winner.epochs} trained"]]


def _section_text(section: Mapping[str, Any]) -> str:
    """Return a section of the report as text."""
    rows = [["-" if cell is None else _value_text(cell) for cell in row] for row in section.get("table", ())]
    lines = [*textwrap.wrap(section.get("text", ""), _WIDTH), *(_aligned(rows) if rows else ())]
    return "\n".join([f"{section['title']}:", *(f"  {line}" for line in lines)])


def constraints_text(study: StudyRecord, winner: CandidateRecord) -> str:
    """Return whether the winner keeps the constraints, as a sentence."""
    texts = in_one_line(", ".join(study.constraints))
    if not winner.violation:
        return f"It keeps {texts}."
    if math.isinf(winner.violation):
        return f"No candidate keeps {texts}, as far as its values are known."
    return f"No candidate keeps {texts}. This one violates them least: by {100 * winner.violation:.3g} % of the bounds."


def winner_commands(study: StudyRecord) -> list[str]:
    """Return the command lines that train, test and use the winner in the folder `best`.

    There are none for the winner of a table, and for one that is not in `best` yet, see `earlier_winner`.
    """
    is_there = not is_tabulated(study.config) and earlier_winner(study) is None
    return _commands(study, Path(study.folder) / BEST_FOLDER) if is_there else []


def earlier_winner_text(study: StudyRecord) -> str:
    """Return in words that `best/` holds an earlier winner; empty if it does not."""
    earlier, winner, folder = earlier_winner(study), winner_of(study), Path(study.folder)
    if earlier is None or winner is None:
        return ""
    best = folder / BEST_FOLDER
    if not study.is_done:
        return (
            f"{best} still has candidate {earlier}, the winner before. The present one replaces it when the search is "
            "done."
        )
    text = f"{best} has candidate {earlier}, the winner by the options or rules of the session that wrote it."
    if is_tabulated(study.config):
        return text
    place = folder / (winner.folder or candidate_folder(winner.index))
    return f"{text} The files of candidate {winner.index} are in {place}."


def front_texts(study: StudyRecord) -> list[str]:
    """Return a paragraph for each stored candidate of the front: its folder, and the commands as for the winner.

    Raises:
        SearchError: A file in `best/` is damaged.
    """
    front = read_front(Path(study.folder)) if len(study.objectives) > 1 else []
    texts = []
    for each in front[:_MOST_FRONT]:
        commands = _commands(study, each.path)
        head = f"{BEST_FOLDER}/{each.path.name}, candidate {each.candidate}:"
        if not (each.path / CHECKPOINT).is_file():
            head, commands = f"{head} its checkpoint is missing, so that it has to be trained first.", commands[:1]
        texts.append("\n".join([in_one_line(head), *commands]))
    if len(front) > _MOST_FRONT:
        texts.append(in_one_line(f"{len(front) - _MOST_FRONT} more are in {Path(study.folder) / BEST_FOLDER}."))
    return texts


def _commands(study: StudyRecord, folder: Path) -> list[str]:
    files, checkpoint = study.plugins, folder / CHECKPOINT
    split = [] if study.config.get("test_loader") is not None else ["--split", "valid"]  # there is no test data
    own = ["-c", folder / CONFIG] if is_refused(study.config) else []
    use = ["--source", "photo.jpg", "--output", "out"]
    commands = [
        command_line("python", "train.py", "-c", folder / CONFIG, files=files),
        command_line("python", "test.py", *own, "--resume", checkpoint, *split, files=files),
        command_line("python", "inference.py", "--resume", checkpoint, *use, files=files),
    ]
    if split and folder.name == BEST_FOLDER and study.retrained and trains_on_all(study):
        del commands[1]  # the validation data was trained on
    if (folder / ONNX).is_file():
        commands.append(command_line("python", "inference.py", "--model", folder / ONNX, *use, files=files))
    return commands


def lost_retrainings(study: StudyRecord) -> list[str]:
    """Return a paragraph on how many retrainings failed, why, and which weights `best/` has; none if none failed."""
    failed = [run for run in study.retrained if run.status == "failed"]
    if not failed:
        return []
    reason = failed[-1].reason.rstrip(".") or "unknown"
    text = f"{len(failed)} of {len(study.retrained)} retrainings failed; the last reason: {reason}."
    winner, lost = winner_of(study), lost_seeds(study)
    if len(study.objectives) == 1 and winner is not None and not lost.get(winner.index) and any(lost.values()):
        text += " Candidates of which a seed has no result are behind those that are complete."
    completed = {run.candidate for run in study.retrained if run.status == "completed"}
    if winner is not None and winner.index not in completed:
        text += f" {Path(study.folder) / BEST_FOLDER} has the weights of the search, not of a retraining."
    return [
        f"{in_one_line(text)} Remove the cause, and raise search.retrain.seeds or top with --resume auto, or train the "
        "best with the first command above."
    ]


def trains_on_all(study: StudyRecord) -> bool:
    """Return whether retrainings learn from the validation data, too."""
    options = study.config.get("search", {}).get("retrain")
    return isinstance(options, Mapping) and options.get("train_on") == MERGED


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad each column to its widest cell."""
    rows = [[in_one_line(text) for text in row] for row in rows]
    columns = max(map(len, rows))
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(columns)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)).rstrip() for row in rows]


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:.5g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
