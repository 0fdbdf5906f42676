"""`write_report`: a study as one HTML file that loads nothing, to be stored, mailed and printed."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from search.cli.listing import earlier_winner_text, winner_commands
from search.report import contents
from search.report.contents import ReportData, hours, value_text
from search.report.effects import contour, parallel_axes, slices
from search.report.figures import (
    Figure,
    learning_curves,
    pareto,
    predictions,
    progress_curves,
    rung_strips,
    timeline,
    volume_curve,
)
from search.report.images import winner_images
from search.report.sections import inline_picture, section_figures
from search.results.beliefs import ORIGIN_WORDS, origin_counts
from search.results.leaderboard import ledger
from search.results.progress import rank_correlations, reference_point
from search.results.record import StudyRecord
from search.results.summaries import (
    class_summary,
    repeated_candidates,
    retrained_results,
    retrained_summaries,
    summarize,
)
from utils.files import without_nan, write_text_atomically

_HERE = Path(__file__).parent
_MOST_REPEATS = 20


def write_report(study: StudyRecord, path: Path, *, images: int = 12) -> None:
    """Write the report of a study, finished or not.

    Args:
        study: Its record.
        path: The HTML file to create or replace; its folder exists.
        images: Maximum number of images of the winner, from `best/pictures` in the study's folder.

    Raises:
        SearchError: An objective is malformed.
        OSError: The file cannot be written.
    """
    data = contents.collect(study)
    shown, left_out = winner_images(study, images)
    write_page(
        path,
        "page.html",
        figures_of(data) | section_figures(study.sections),
        data=data,
        images=shown,
        images_left_out=left_out,
        correlations=rank_correlations(study, data.curve) if data.curve else [],
        reference=reference_point(study),
        origins=origin_counts(study.candidates),
        origin_words=ORIGIN_WORDS,
        most_repeats=_MOST_REPEATS,
    )


def figures_of(data: ReportData) -> dict[str, Figure]:
    """Return the figures of a study by name; those without data are left out."""
    figures: dict[str, Figure] = {}
    if data.rows and data.curve:
        figures |= progress_curves(data, data.curve)
        figures["curves"] = learning_curves(data, data.curve)
    if any(rung.values for rung in data.study.rungs):
        figures["rungs"] = rung_strips(data)
    if data.rows:
        figures |= {f"front{place}": pareto(data, goal) for place, goal in enumerate(data.goals[1:])}
        if data.has_effects:
            figures["parallel"] = parallel_axes(data)
            figures |= slices(data)
    others = {"volume": volume_curve(data.study), "contour": contour(data), "timeline": timeline(data.study)}
    others["predictions"] = predictions(data)
    return figures | {name: figure for name, figure in others.items() if figure is not None}


def write_page(path: Path, template: str, figures: Mapping[str, Figure], **values: Any) -> None:
    """Write a page with figures.

    Args:
        path: The HTML file to create or replace.
        template: Its template in this folder.
        figures: Their data by name.
        values: For the template.

    Raises:
        OSError: The file cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"text": value_text, "hours": hours, "class_summary": class_summary, "sort_key": _sort_key}
    functions: list[Callable[..., Any]] = [
        retrained_results,
        ledger,
        class_summary,
        summarize,
        retrained_summaries,
    ]
    functions += [repeated_candidates, winner_commands, earlier_winner_text, distinct, inline_picture]
    environment.globals |= {each.__name__: each for each in functions} | {"contents": contents}
    scripts = [(_HERE / name).read_text(encoding="utf-8") for name in ("charts.js", "page.js", "parallel.js")]
    text = environment.get_template(template).render(
        figures=without_nan(figures),
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        **values,
    )
    write_text_atomically(path, text)


def distinct(groups: Iterable[Iterable[str]]) -> list[str]:
    """Return the names of all groups, in the order of their first occurrence."""
    return list(dict.fromkeys(name for group in groups for name in group))


def _sort_key(value: float) -> Markup:
    """Return the attribute by which a column is sorted, if the text of its cell is rounded."""
    key, shown = f"{value:.6g}", value_text(value).replace(",", "")
    return Markup("") if shown == key else Markup(f' data-value="{key}"')
