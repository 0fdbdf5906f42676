"""The parts of the sections that a strategy adds to the report: values over the epochs, plots, and pictures."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from search.report.axes import Axis, categories_axis, numbers_axis, results_axis, significant
from search.report.figures import Figure
from search.results.record import parse_objectives

_SVG = "{http://www.w3.org/2000/svg}"
_ELEMENTS = frozenset(
    f"{_SVG}{name}" for name in ("svg", "title", "style", "g", "path", "rect", "circle", "line", "text", "tspan")
)
_COLORS = 8  # of series, see style.css


def section_figures(sections: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Return the figures of the sections with `lines` or `plots`.

    Their names are `section` and the number of the section, and for plots `_` and the number of the plot.
    """
    figures = {}
    for number, section in enumerate(sections):
        if section.get("lines"):
            figures[f"section{number}"] = _lines(section["lines"])
        for place, plot in enumerate(section.get("plots", ())):
            figures[f"section{number}_{place}"] = _plot(plot)
    return figures


def _plot(plot: Mapping[str, Any]) -> Figure:
    """Return the figure of a plot.

    Args:
        plot: `x` and `y`: axes, each with a `title`, and `labels` of categories, or with the `objective` that it shows;
            `series`: each with `kind` ("points", "line", or "links", a line for each candidate), `name`, and `x`, `y`
            and `candidates` of its points (None: none), or the `items` of links; optionally `color` and `size`.
            `has_diagonal`: whether a line shows where x and y are equal.
    """
    points = [(x, y) for series in plot["series"] for x, y in _points_of(series)]
    axes = {
        name: _axis(plot[name], [point[place] for point in points if point[place] is not None])
        for place, name in enumerate("xy")
    }
    layers: list[Figure] = []
    if plot.get("has_diagonal"):
        ends = [max(axis["low"] for axis in axes.values()), min(axis["high"] for axis in axes.values())]
        layers += [{"kind": "lines", "name": "", "color": "--muted", "items": [[None, ends, ends]]}]
    for place, series in enumerate(plot["series"]):
        layer: Figure = {"name": series["name"], "color": series.get("color", f"--series-{place % _COLORS}")}
        if series["kind"] == "points":
            numbers = series["candidates"] or [None] * len(series["x"])
            found = {"x": _rounded(series["x"]), "y": _rounded(series["y"]), "n": list(numbers)}
            layers.append(layer | {"kind": "points", "size": series.get("size", 6)} | found)
        elif series["kind"] == "line":
            layers.append(layer | {"kind": "lines", "items": [[None, list(series["x"]), _rounded(series["y"])]]})
        else:
            items = [[number, _rounded(x), _rounded(y)] for number, x, y in series["items"]]
            layers.append(layer | {"kind": "lines", "items": items})
    return {"height": 320, **axes, "layers": layers}


def _points_of(series: Mapping[str, Any]) -> Iterable[tuple[float, float]]:
    if series["kind"] != "links":
        return zip(series["x"], series["y"], strict=True)
    return [point for _, x, y in series["items"] for point in zip(x, y, strict=True)]


def _axis(asked: Mapping[str, Any], values: Sequence[float]) -> Axis:
    if "objective" in asked:
        goal = parse_objectives([asked["objective"]])[0]
        if not goal.is_cost:
            return results_axis(goal, values)
        return numbers_axis(f"{goal.name} ({'more' if goal.sign > 0 else 'less'} is better)", values, is_log=False)
    if "labels" in asked:
        return categories_axis(asked["title"], asked["labels"])
    return numbers_axis(asked["title"], values, is_log=False)


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [significant(value) if value is not None and math.isfinite(value) else None for value in values]


def _lines(lines: Mapping[str, Any]) -> Figure:
    """Return the figure of `{"title": ..., "epochs": [...], "values": {name: [a value for each epoch]}}`."""
    values: Mapping[str, Sequence[float]] = lines["values"]
    layers = [
        {
            "kind": "lines",
            "name": name,
            "color": f"--series-{place % _COLORS}",
            "items": [[None, lines["epochs"], each]],
        }
        for place, (name, each) in enumerate(values.items())
    ]
    x = numbers_axis("epoch", lines["epochs"], is_log=False, margin=0.0, is_whole=True)
    y = numbers_axis(lines["title"], [0.0, *(value for each in values.values() for value in each)], is_log=False)
    return {"height": 260, "x": x, "y": y, "layers": layers}


def inline_picture(svg: str) -> Markup:
    """Return a picture as a part of the page, if it only draws.

    Raises:
        ValueError: It is no SVG, or has anything that could run a script or load something.
    """
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        loads = any(name.startswith("on") or name.endswith("href") for name in element.attrib)
        if element.tag not in _ELEMENTS or loads or "url(" in ElementTree.tostring(element, "unicode"):
            raise ValueError(f"a picture of a section has <{element.tag}>, and may only draw")
    return Markup(svg)
