"""Images of the winner as small copies inside the page."""

import base64
from pathlib import Path

from search.results.record import StudyRecord
from search.study.best import earlier_winner
from utils.files import open_regular

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_MOST_BYTES = 400_000  # of all copies, before their encoding as text
_LARGEST_FILE = 50_000_000  # bytes; a larger one is not read
# Longest side in pixels and quality, tried in turn until a copy has its part of the bytes.
_SIZES = ((480, 75), (320, 70), (240, 60), (160, 50))


def winner_images(study: StudyRecord, most: int) -> tuple[list[tuple[str, str]], int]:
    """Return copies of the first images of `best/pictures` as data addresses, and the number of the other images.

    Args:
        study: The record.
        most: Maximum number of copies.

    Returns:
        Name and address of each copy; the number of images without one, those that cannot be read included.
    """
    if earlier_winner(study) is not None:  # they are another one's
        return [], 0
    files = sorted(
        path for path in (Path(study.folder) / "best" / "pictures").glob("*") if path.suffix.lower() in _SUFFIXES
    )
    images: list[tuple[str, str]] = []
    for path in files:
        if len(images) == most:
            break
        copy = _thumbnail(path, _MOST_BYTES // min(most, len(files)))
        if copy is not None:
            images.append((path.stem, f"data:image/webp;base64,{base64.b64encode(copy).decode('ascii')}"))
    return images, len(files) - len(images)


def _thumbnail(path: Path, most_bytes: int) -> bytes | None:
    """Return an image as WebP in the largest size that fits, None if it cannot be read."""
    import cv2  # here, since most pages have no images
    import numpy as np

    try:
        if path.stat().st_size > _LARGEST_FILE:
            return None
        with open_regular(path) as file:
            data = np.frombuffer(file.read(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)  # with its alpha
        if image is None:
            return None
        if image.dtype == np.uint16:
            image = (image // 257).astype(np.uint8)
        for side, quality in _SIZES:
            factor = min(1.0, side / max(image.shape[:2]))
            size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
            copy = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            is_written, content = cv2.imencode(".webp", copy, [cv2.IMWRITE_WEBP_QUALITY, quality])
            if is_written and len(content) <= most_bytes:
                return content.tobytes()
    except (OSError, cv2.error):  # damaged, or of a kind that WebP does not have
        pass
    return None
