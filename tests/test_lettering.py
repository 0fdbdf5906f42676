"""Text in images: ASCII as OpenCV writes it, other letters in a font that has them, or without their accents."""

import cv2
import numpy as np
import pytest

from utils.images import lettering
from utils.images.lettering import draw_text, text_size


def written(text, scale=0.5):
    image = np.zeros((40, 300, 3), np.uint8)
    draw_text(image, text, (5, 25), scale=scale)
    return image


@pytest.fixture
def without_font(monkeypatch):
    monkeypatch.setattr(lettering, "_font", lambda _height: None)


def test_ascii_is_written_by_opencv():
    expected = np.zeros((40, 300, 3), np.uint8)
    cv2.putText(expected, "road 0.93", (5, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (235,) * 3, 1, cv2.LINE_AA)
    assert np.array_equal(written("road 0.93"), expected)


@pytest.mark.usefixtures("without_font")
def test_without_a_font_letters_lose_their_accents():
    assert np.array_equal(written("Gebäude"), written("Gebaude"))
    assert np.array_equal(written("猫 cat"), written("? cat"))
    assert text_size("Gebäude", 0.5) == text_size("Gebaude", 0.5)


@pytest.mark.skipif(lettering._font(15) is None, reason="matplotlib is not installed")
@pytest.mark.parametrize("text", ["Gebäude", "дорога", "Straße ñø"])
def test_other_letters_are_written_where_they_are_measured(text):
    for scale in (0.4, 1.0):
        rows, columns = np.nonzero(written(text, scale)[..., 0])
        width, height = text_size(text, scale)
        assert columns.min() >= 5 - 1
        assert columns.max() < 5 + width + 1
        assert rows.min() >= 25 - height - 1
    assert np.array_equal(written("Gebäude"), written("Geba\N{COMBINING DIAERESIS}ude"))
    assert np.array_equal(written("猫 Ä"), written("? Ä"))
    assert not np.array_equal(written("дорога"), written("ддрога"))
