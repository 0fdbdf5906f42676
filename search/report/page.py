"""`write_report`: a study as one HTML file that loads nothing, to be stored, mailed and printed."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from search.cli.listing import winner_commands
from search.report import contents
from search.report.contents import hours, value_text
from search.report.figures import importance_bars, learning_curves, parallel_axes, pareto, rung_strips
from search.results.leaderboard import best_results, ledger
from search.results.record import StudyRecord
from search.results.summaries import class_summary, repeated_candidates, retrained_summaries, summarize
from utils.errors import SearchError
from utils.files import without_nan, write_atomically

_HERE = Path(__file__).parent
_MOST_REPEATS = 20
_PLACE_OF_PLOTLY = "<!-- plotly.js -->"  # no other text of the page can be equal, as "<" is escaped


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
    # plotly.js is read from its Python package, without importing the package.
    found = find_spec("plotly")
    library = Path(found.origin).parent / "package_data" / "plotly.min.js" if found and found.origin else None
    if library is None or not library.is_file():
        raise SearchError("report: the package plotly is missing, which draws the figures. Run: pip install plotly")
    data = contents.collect(study)
    figures: dict[str, Any] = {}  # those without data are left out
    if data.rows and data.curve:
        figures["curves"] = learning_curves(data, data.curve)
    if any(rung.values for rung in data.study.rungs):
        figures["rungs"] = rung_strips(data)
    if data.rows:
        figures |= {f"front{place}": pareto(data, goal) for place, goal in enumerate(data.goals[1:])}
        if data.names:
            figures["parallel"] = parallel_axes(data)
    if any(each.share for each in data.importances if each.is_single):
        figures["importance"] = importance_bars(data.importances, data.names)
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"text": value_text, "hours": hours, "class_summary": class_summary}
    functions: list[Callable[..., Any]] = [ledger, class_summary, summarize, retrained_summaries, best_results]
    functions += [repeated_candidates, winner_commands, distinct]
    environment.globals |= {each.__name__: each for each in functions} | {"contents": contents}
    scripts = [(_HERE / name).read_text(encoding="utf-8") for name in ("page.js", "parallel.js")]
    text = environment.get_template("page.html").render(
        data=data,
        figures=without_nan(figures),
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        most_images=images,
        most_repeats=_MOST_REPEATS,
    )
    # plotly.js is most of the page: decoded and joined to the rest it would take several times its size of memory.
    before, after = text.split(_PLACE_OF_PLOTLY)
    write_atomically(path, lambda file: file.writelines([before.encode(), library.read_bytes(), after.encode()]))


def distinct(groups: Iterable[Iterable[str]]) -> list[str]:
    """Return the names of all groups, in the order of their first occurrence."""
    return list(dict.fromkeys(name for group in groups for name in group))
