"""The frame of all pictures of architectures: SVG that can be read on light and on dark pages."""

from collections.abc import Iterable
from html import escape

# (class, property, value on light, value on dark). light-dark() follows the page; other programs take the light value.
_COLORS = (
    ("text", "fill", "#1d2327", "#dfe3e6"),
    (".quiet", "fill", "#5d6770", "#98a2ab"),
    (".good", "fill", "#0b6e4f", "#3fc796"),
    (".line", "stroke", "#87929b", "#77838d"),
    (".box", "fill", "#f1f3f5", "#20262b"),
    (".box", "stroke", "#87929b", "#77838d"),
    (".sep", "stroke", "#0b6e4f", "#3fc796"),
    (".atrous", "stroke", "#3568b8", "#7ba6ea"),
    (".pool", "stroke", "#b45309", "#f0a04b"),
    (".skip", "stroke", "#5d6770", "#98a2ab"),
)


def svg_text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    """Return a line of text at a place, in a style of the colours above."""
    return f'<text class="{style}" text-anchor="{anchor}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def svg_document(parts: Iterable[str], width: float, height: float, title: str) -> str:
    """Return the picture at its natural size; it shrinks with a page that is narrower."""
    colors = "".join(
        f".arch {name}{{{what}:{light};{what}:light-dark({light},{dark})}}" for name, what, light, dark in _COLORS
    )
    fonts = 'font:12px system-ui,"Segoe UI",Roboto,"DejaVu Sans",Arial,sans-serif'
    style = f"svg:root{{color-scheme:light dark}}.arch text{{{fonts}}}.arch .small{{font-size:10px}}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="arch" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escape(title)}" style="max-width:100%;height:auto">'
    )
    bold = ".arch .strong{font-weight:650}"
    name = f"<title>{escape(title)}</title>"
    return "\n".join([head, name, f"<style>{style}{bold}{colors}</style>", *parts, "</svg>"]) + "\n"
