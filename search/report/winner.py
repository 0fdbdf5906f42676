"""The winner: its values, its JSON and how it differs from the space, its retrainings, its images."""

import base64
import difflib
import json
from pathlib import Path
from typing import Any

from search.cli.listing import commands
from search.report.markup import Safe, escape, hours, join, note, section, table, tag
from search.report.selection import Shown
from search.results.leaderboard import best_results
from search.results.objectives import parse_objectives
from search.results.record import RetrainedRecord, StudyRecord
from search.results.summaries import class_summary, retrained_summaries

_LINE = 96
_IMAGE_BYTES = 3_000_000
_IMAGES_BYTES = 12_000_000
_KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def winner_section(page: Shown) -> Safe:
    """What won, in values."""
    winner = page.winner
    if winner is None:
        return section("winner", "Winner", note("No candidate has results yet."))
    results: list[tuple[str, Any]] = [(goal.name, winner.objectives.get(goal.name)) for goal in page.goals]
    results += [(name, value) for name, value in winner.facts.items() if name not in winner.objectives]
    classes = class_summary(winner)
    if classes:
        results.append(("IoU of its classes, median", classes.median))
        results.append(("their deviation", classes.deviation))
        results.append(("worst class", classes.worst))
    results += [("best epoch", winner.best_epoch), ("epochs trained", winner.epochs), ("time", hours(winner.seconds))]
    drawn = [(tag("code", path), value) for path, value in winner.drawn]
    best = Path(page.study.folder) / "best"
    return section(
        "winner",
        f"Winner: candidate {winner.index}",
        tag("div", join([table(["result", "value"], results), table(["drawn", "value"], drawn)]), class_="pair"),
        tag("pre", "\n".join(commands(best))),
    )


def retrained_section(page: Shown) -> Safe:
    """Winner and runners-up, trained again from the beginning with several seeds."""
    study = page.study
    if not study.retrained:
        return Safe("")
    means = retrained_summaries(study)
    names = list(dict.fromkeys(name for each in means for name in each.results))
    summary = [
        [each.label, *(str(each.results[name]) if name in each.results else None for name in names)] for each in means
    ]
    tests = list(dict.fromkeys(name for run in study.retrained for name in run.test))
    targets = [goal.name for goal in page.goals]
    runs = [_retrained_row(run, study, targets, tests) for run in study.retrained]
    explanation = (
        "Trained again from the beginning, once per seed: mean ± deviation of a sample (number of seeds). "
        "Two results nearer to each other than these deviations are no evidence that one is better."
    )
    headers = ["rank", "candidate", "seed", "status", "epochs", *targets, *tests, "time", "reason"]
    each_run = tag(
        "details", join([tag("summary", f"Each of the {len(runs)} trainings"), table(headers, runs, kind="sortable")])
    )
    return section("retrained", "Retrained", note(explanation), table(["", *names], summary), each_run)


def json_section(page: Shown) -> Safe:
    """The winner's file, and how it differs from the space that it was drawn from."""
    config = winner_config(page)
    if config is None:
        return Safe("")
    before, after = compact_json(page.study.config).splitlines(), compact_json(config).splitlines()
    difference = list(difflib.unified_diff(before, after, "space", "winner", n=2, lineterm=""))
    kinds = {"+": "added", "-": "removed", "@": "place"}
    marked = join((tag("span", line, class_=kinds.get(line[0], "same")) for line in difference), "\n")
    whole = tag("details", join([tag("summary", "The whole file"), tag("pre", "\n".join(after))]))
    text = "The file that train.py takes, against the space as it was asked for."
    return section("json", "The winner's JSON", note(text), tag("pre", marked, class_="difference"), whole)


def winner_config(page: Shown) -> dict[str, Any] | None:
    """From the study's folder: `best/config.json`, or its candidate's; None where neither is there."""
    folder = Path(page.study.folder)
    places = [folder / "best" / "config.json"]
    if page.winner is not None and page.winner.folder:
        places.append(folder / page.winner.folder / "config.json")
    for path in places:
        if path.is_file():
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return config
    return None


def images_section(page: Shown, most: int) -> Safe:
    """Images of the folder `best/pictures`, inside the page.

    Args:
        page: The study.
        most: Images at most; the first by name.
    """
    folder = Path(page.study.folder) / "best" / "pictures"
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in _KINDS) if folder.is_dir() else []
    shown: list[Path] = []
    size = 0
    for path in files:
        length = path.stat().st_size
        if len(shown) < most and length <= _IMAGE_BYTES and size + length <= _IMAGES_BYTES:
            shown.append(path)
            size += length
    if not shown:
        return Safe("")
    left_out = f"{len(files) - len(shown)} more are in {folder}." if len(files) > len(shown) else ""
    return section("images", "Its images", tag("div", join(map(_image, shown)), class_="images"), note(left_out))


def compact_json(value: Any, indent: int = 0) -> str:
    """JSON with what fits into a line on one line, so that a difference shows values and not brackets."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or (indent and len(line) + indent <= _LINE):
        return line
    space = " " * (indent + 2)
    if isinstance(value, dict):
        keys = [json.dumps(key, ensure_ascii=False) for key in value]
        items = [
            f"{space}{key}: {compact_json(item, indent + 2)}" for key, item in zip(keys, value.values(), strict=True)
        ]
        return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(space + compact_json(item, indent + 2) for item in value) + "\n" + " " * indent + "]"


def _retrained_row(run: RetrainedRecord, study: StudyRecord, targets: list[str], tests: list[str]) -> list[Any]:
    best = best_results(run, parse_objectives(study.objectives))
    seconds = sum(row.get("epoch_seconds", 0.0) for row in run.reports)
    values = [best.get(name) for name in targets] + [run.test.get(name) for name in tests]
    return [run.rank, run.candidate, str(run.seed), run.status, len(run.reports), *values, hours(seconds), run.reason]


def _image(path: Path) -> Safe:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    source = f"data:{_KINDS[path.suffix.lower()]};base64,{data}"
    image = Safe(f'<img alt="{escape(path.stem)}" src="{source}">')
    return tag("figure", join([image, tag("figcaption", path.stem.replace("_", " "))]))
