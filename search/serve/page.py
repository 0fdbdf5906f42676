"""The page of the service: files that hold no data, so that they need no token."""

from functools import cache
from pathlib import Path
from types import MappingProxyType

_HERE = Path(__file__).parent
_REPORT = _HERE.parent / "report"
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
PAGE_HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
)
"""Headers of each file of the page: it loads and sends nothing elsewhere, and its own inline code would not run, so
that a name that were not escaped could do nothing."""


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    """Return content and media type of each file by its name; style sheet and charts are those of the report."""
    paths = [*(_HERE / "static").iterdir(), _REPORT / "style.css", _REPORT / "charts.js"]
    return {
        path.name: (path.read_bytes(), f"{_MEDIA_TYPES[path.suffix]}; charset=utf-8")
        for path in paths
        if path.suffix in _MEDIA_TYPES
    }


def page_file(name: str) -> tuple[bytes, str, dict[str, str]] | None:
    """Return content, media type and further headers of a file of the page; None if it has no such file.

    Args:
        name: Such as "main.js", never a path; empty for the page itself.
    """
    found = _files().get(name or "page.html")
    return None if found is None else (*found, dict(PAGE_HEADERS))
