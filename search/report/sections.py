"""The parts of the sections that a strategy adds to the report: values over the epochs, and pictures."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from search.report.axes import numbers_axis
from search.report.figures import Figure

_SVG = "{http://www.w3.org/2000/svg}"
_ELEMENTS = frozenset(
    f"{_SVG}{name}" for name in ("svg", "title", "style", "g", "path", "rect", "circle", "line", "text", "tspan")
)
_COLORS = 8  # of series, see style.css


def section_figures(sections: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Return the figures of the sections with `lines`, by the name `section` and the number of the section."""
    return {
        f"section{number}": _lines(section["lines"]) for number, section in enumerate(sections) if section.get("lines")
    }


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
