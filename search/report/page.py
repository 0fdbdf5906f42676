"""`write_report`: a study as one HTML file that loads nothing from anywhere, to be kept, mailed and printed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from search.report import sections, winner
from search.report.figures import importance_bars, learning_curves, pareto, rung_strips
from search.report.markup import TIMES, Safe, escape, join, note, script_json, section, tag
from search.report.parallel import parallel_axes
from search.report.selection import Shown, axes_paths, lines_left_out, shown
from search.results.record import StudyRecord
from utils.errors import SearchError
from utils.files import write_atomically

_HERE = Path(__file__).parent
# Even if a name should slip through unescaped, the page may load and send nothing.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write_report(study: StudyRecord, path: Path, *, images: int = 12) -> None:
    """Write the report of a study, finished or not.

    Args:
        study: What to show.
        path: The HTML file to make or replace; its folder exists.
        images: Images of the winner at most, from `best/pictures` in the study's folder.

    Raises:
        SearchError: plotly is not installed, or an objective is not written as it must be.
        OSError: The file cannot be written.
    """
    library = plotly_script()
    page = shown(study)
    figures: dict[str, Any] = {}
    chapters = [chapter for chapter in _chapters(page, figures, images) if chapter]
    head, foot = _frame(page, chapters)
    data = tag("script", script_json(figures), type="application/json", id="figures")
    parts: list[str | bytes] = [
        head,
        *chapters,
        foot,
        data,
        "<script>",
        library,
        "</script>",
        *_own_scripts(),
        "</body></html>\n",
    ]
    write_atomically(path, lambda file: file.writelines(_bytes(part) for part in parts))


def plotly_script() -> bytes:
    """plotly.js as its Python package ships it; the package itself need not be imported.

    Raises:
        SearchError: It is not installed.
    """
    found = find_spec("plotly")
    file = Path(found.origin).parent / "package_data" / "plotly.min.js" if found and found.origin else None
    if file is None or not file.is_file():
        raise SearchError("report: the package plotly is missing, which draws the figures. Run: pip install plotly")
    return file.read_bytes()


def _chapters(page: Shown, figures: dict[str, Any], images: int) -> list[Safe]:
    """All chapters in their order, empty where there is nothing to say; what they draw goes into `figures`."""
    has_rows = bool(page.rows)
    return [
        winner.winner_section(page),
        winner.retrained_section(page),
        winner.images_section(page, images),
        sections.leaderboard_section(page) if has_rows else Safe(""),
        sections.repeats_section(page),
        _curves(page, figures) if has_rows and page.curve else Safe(""),
        _rungs(page, figures) if any(rung.values for rung in page.study.rungs) else Safe(""),
        _front(page, figures) if has_rows and len(page.goals) > 1 else Safe(""),
        _parallel(page, figures) if has_rows and page.names else Safe(""),
        _importance(page, figures) if page.names else Safe(""),
        sections.failures_section(page),
        sections.ledger_section(page),
        winner.json_section(page),
    ]


def _curves(page: Shown, figures: dict[str, Any]) -> Safe:
    assert page.curve is not None
    text = (
        f"{page.curve.name} after each epoch, coloured by how far a candidate came; dotted lines are rungs."
        f"{lines_left_out(page.rows)} A click on the legend hides a group, a double click shows it alone."
    )
    return section(
        "curves", "Learning curves", note(text), _figure("curves", learning_curves(page, page.curve), figures)
    )


def _rungs(page: Shown, figures: dict[str, Any]) -> Safe:
    text = f"{page.goals[0].name} of each candidate that reached a rung, and who went on beyond it."
    drawn = _figure("rungs", rung_strips(page), figures)
    return section("rungs", "What the rungs kept", note(text), drawn, sections.rung_table(page))


def _front(page: Shown, figures: dict[str, Any]) -> Safe:
    count = sum(row.is_on_front for row in page.rows)
    text = (
        f"{count} candidate{'s are' if count != 1 else ' is'} on the front of {', '.join(page.study.objectives)}: none "
        "other is at least as good in everything and better in something."
    )
    drawn = [_figure(f"front{place}", pareto(page, goal), figures) for place, goal in enumerate(page.goals[1:])]
    return section("front", "Pareto front", note(text), *drawn)


def _parallel(page: Shown, figures: dict[str, Any]) -> Safe:
    figures["parallel"] = parallel_axes(page)
    text = (
        "Each line is a candidate, the better the stronger its colour; a value that was not drawn for it lies below "
        f"the axis.{axes_paths(page)[1]}{lines_left_out(page.rows)} Drag along an axis to keep a range of it; a click "
        "on the axis lets go."
    )
    target = tag("div", tag("div", "", id="parallel-lines", class_="parallel"), class_="frame")
    count = tag("p", "", id="parallel-count", class_="note", aria_live="polite")
    return section("parallel", "Searched values", note(text), target, count)


def _importance(page: Shown, figures: dict[str, Any]) -> Safe:
    if not page.importances:
        return section("importance", "Importance", note(page.why_no_importances))
    text = (
        "How much of the differences in rank each searched value explains alone (its first-order share of the "
        f"variance, less what chance would explain), and two together ({TIMES.strip()}) beyond that. Candidates that "
        "were stopped count with the best value they came to. The table names the values that did best and where "
        "their candidates stand on average: 0% is the first place, 50% no better than any. Grey bars are within what "
        "chance may do."
    )
    explained = sum(each.share for each in page.importances if len(each.paths) == 1)
    rest = f"Single values explain {explained:.0%} in all; the rest is interplay, seeds and the epochs trained."
    drawn = _figure("importance", importance_bars(page.importances, page.names), figures) if explained else Safe("")
    return section("importance", "Importance", note(text), drawn, note(rest), sections.importance_table(page))


def _figure(name: str, figure: dict[str, Any], figures: dict[str, Any]) -> Safe:
    figures[name] = figure
    height = figure["layout"].get("height", 440)
    return Safe(f'<div class="figure" id="figure-{name}" style="height:{height}px"></div>')


def _frame(page: Shown, chapters: list[Safe]) -> tuple[Safe, Safe]:
    """What stands before and after the chapters."""
    study = page.study
    titles = {"winner": "Winner", "retrained": "Retrained", "images": "Images", "leaderboard": "Leaderboard"}
    titles |= {"repeats": "Repeats", "curves": "Curves", "rungs": "Rungs", "front": "Front", "parallel": "Values"}
    titles |= {"importance": "Importance", "failures": "Failures", "ledger": "Costs", "json": "JSON"}
    there = [name for name in titles if any(chapter.startswith(f'<section id="{name}"') for chapter in chapters)]
    links = join(tag("a", titles[name], href=f"#{name}") for name in there)
    state = "done" if study.is_done else "not at its end"
    facts = f"{study.scheduler} · {', '.join(study.objectives)} · {study.max_epochs:,} epochs at most · {state}"
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    head = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(study.name)}: search</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style></head><body>\n<header><div><h1>{escape(study.name)}</h1>{tag('p', facts)}</div>"
        '<button id="theme" type="button" title="Light or dark">◐</button></header>\n'
        f"<nav>{links}</nav>\n<main>{sections.header_tiles(page)}\n"
    )
    return Safe(head), Safe("</main>\n")


def _own_scripts() -> list[str]:
    names = ("page.js", "parallel.js")
    return [f"<script>\n{(_HERE / name).read_text(encoding='utf-8')}</script>\n" for name in names]


def _bytes(part: str | bytes) -> bytes:
    return part if isinstance(part, bytes) else part.encode()
