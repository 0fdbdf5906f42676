"""`write_report`: a study as one HTML file that loads nothing, to be stored, mailed and printed."""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from search.report import chapters
from search.report.figures import importance_bars, learning_curves, pareto, rung_strips
from search.report.formats import TIMES
from search.report.parallel import parallel_axes
from search.report.selection import LINES_BEST, LINES_REST, MOST_AXES, TABLE_ROWS, ReportData, collect
from search.results.record import StudyRecord
from utils.errors import SearchError
from utils.files import write_text_atomically

_HERE = Path(__file__).parent
# Chapters in their order, and their names in the navigation.
_TITLES = {
    "winner": "Winner",
    "retrained": "Retrained",
    "images": "Images",
    "leaderboard": "Leaderboard",
    "repeats": "Repeats",
    "curves": "Curves",
    "rungs": "Rungs",
    "front": "Front",
    "parallel": "Values",
    "importance": "Importance",
    "failures": "Failures",
    "costs": "Costs",
    "json": "JSON",
}


def write_report(study: StudyRecord, path: Path, *, images: int = 12) -> None:
    """Write the report of a study, finished or not.

    Args:
        study: Its record.
        path: The HTML file to create or replace; its folder exists.
        images: Maximum number of images of the winner, from `best/pictures` in the study's folder.

    Raises:
        SearchError: plotly is not installed, or an objective is malformed.
        OSError: The file cannot be written.
    """
    library = plotly_script()
    data = collect(study)
    figures = make_figures(data)
    contents = {
        "winner": chapters.winner_chapter(data),
        "retrained": chapters.retrained_chapter(data),
        "images": chapters.images_chapter(data, images),
        "leaderboard": chapters.leaderboard_chapter(data),
        "repeats": chapters.repeats_chapter(data),
        "curves": "curves" in figures,
        "rungs": chapters.rungs_chapter(data),
        "front": [name for name in figures if name.startswith("front")],
        "parallel": "parallel" in figures,
        "importance": chapters.importance_chapter(data),
        "failures": chapters.failures_chapter(data),
        "costs": chapters.costs_chapter(data),
        "json": chapters.json_chapter(data),
    }
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    scripts = [library, *((_HERE / name).read_text(encoding="utf-8") for name in ("page.js", "parallel.js"))]
    text = environment.get_template("page.html").render(
        data=data,
        titles=_TITLES,
        tiles=chapters.tiles(data),
        chapters=contents,
        figures=_without_nan(figures),
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        table_rows=TABLE_ROWS,
        lines_best=LINES_BEST,
        lines_rest=LINES_REST,
        most_axes=MOST_AXES,
        times=TIMES,
    )
    write_text_atomically(path, text)


def plotly_script() -> str:
    """Return plotly.js from its Python package, without importing the package.

    Raises:
        SearchError: It is not installed.
    """
    found = find_spec("plotly")
    file = Path(found.origin).parent / "package_data" / "plotly.min.js" if found and found.origin else None
    if file is None or not file.is_file():
        raise SearchError("report: the package plotly is missing, which draws the figures. Run: pip install plotly")
    return file.read_text(encoding="utf-8")


def make_figures(data: ReportData) -> dict[str, Any]:
    """Return the figures of the page by name, those without data left out."""
    figures: dict[str, Any] = {}
    if data.rows and data.curve:
        figures["curves"] = learning_curves(data, data.curve)
    if any(rung.values for rung in data.study.rungs):
        figures["rungs"] = rung_strips(data)
    if data.rows:
        for place, goal in enumerate(data.goals[1:]):
            figures[f"front{place}"] = pareto(data, goal)
        if data.names:
            figures["parallel"] = parallel_axes(data)
    if any(each.share for each in data.importances if len(each.paths) == 1):
        figures["importance"] = importance_bars(data.importances, data.names)
    return figures


def _without_nan(value: Any) -> Any:
    """Return plain data with null for numbers that are not finite, as JSON has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list | tuple) else value
