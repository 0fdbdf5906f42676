"""Text in images.

ASCII is written in the letters of OpenCV, which has no others; any other text in DejaVu Sans if matplotlib, which has
it, is installed. A character that neither can show loses its accents, or becomes "?".
"""

import unicodedata
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FONT = cv2.FONT_HERSHEY_SIMPLEX
GREY = 235
_THICKNESS = 1  # pixels, of the letters of OpenCV
_HEIGHT = 29  # pixels of DejaVu Sans whose capitals are as high as those of OpenCV at scale 1
_FILE = Path("mpl-data/fonts/ttf/DejaVuSans.ttf")

Pixels = NDArray[np.uint8]


def text_size(text: str, scale: float) -> tuple[int, int]:
    """Return the width and height in pixels of `text` as `draw_text` writes it, without descenders."""
    font = None if text.isascii() else _font(round(_HEIGHT * scale))
    if font is not None:
        _, top, right, _ = font.getbbox(_shown(text, font), anchor="ls")
        return round(right), round(-top)
    (width, height), _ = cv2.getTextSize(_plain(text), FONT, scale, _THICKNESS)
    return int(width), int(height)


def draw_text(
    image: Pixels,
    text: str,
    origin: tuple[int, int],
    *,
    scale: float,
    color: tuple[int, int, int] = (GREY,) * 3,
) -> None:
    """Write `text` into `image` (h, w, 3), in place, with the left end of its baseline at `origin` (x, y)."""
    font = None if text.isascii() else _font(round(_HEIGHT * scale))
    if font is None:
        cv2.putText(image, _plain(text), origin, FONT, scale, color, _THICKNESS, cv2.LINE_AA)
        return
    written = Image.fromarray(image)
    ImageDraw.Draw(written).text(origin, _shown(text, font), fill=color, font=font, anchor="ls")
    image[...] = np.asarray(written)


@lru_cache(maxsize=16)
def _font(height: int) -> Any:
    """Return DejaVu Sans, None if it is not there."""
    found = find_spec("matplotlib")  # which is not imported
    path = None if found is None or found.origin is None else Path(found.origin).parent / _FILE
    return ImageFont.truetype(path, max(6, height)) if path is not None and path.is_file() else None


def _shown(text: str, font: Any) -> str:
    """Return a text with "?" for characters that the font lacks."""
    missing = bytes(font.getmask("\uffff"))
    composed = unicodedata.normalize("NFC", text)
    return "".join("?" if bytes(font.getmask(letter)) == missing else letter for letter in composed)


def _plain(text: str) -> str:
    """Return a text in ASCII: letters without their accents, "?" for characters without such a form."""
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letters).encode("ascii", "replace").decode()
