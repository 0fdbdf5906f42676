"""Photos with masks on the disk, for the benchmarks of loading; no measurement of its own."""

from pathlib import Path

import cv2
import numpy as np

_DETAILS = 12  # pixels of a photo per pixel of noise: JPEGs of about the bytes of real ones


def write_pairs(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write photos (JPEG) of a size (height, width) with masks of two classes (PNG); return the list of the pairs."""
    generator = np.random.default_rng(0)
    height, width = size
    lines = []
    for number in range(count):
        coarse = generator.integers(0, 256, (height // _DETAILS, width // _DETAILS, 3), dtype=np.uint8)
        photo = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        noise = generator.normal(0, 6, photo.shape)
        photo = np.clip(photo + noise, 0, 255).astype(np.uint8)
        mask = np.zeros(size, np.uint8)
        centre = (width // 2 + number % 20, height // 2)
        cv2.ellipse(mask, centre, (width // 5, height // 3), 0, 0, 360, 1, cv2.FILLED)
        cv2.imwrite(str(folder / f"{number}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(folder / f"{number}.png"), mask)
        lines.append(f"{number}.jpg, {number}.png")
    path = folder / "pairs.txt"
    path.write_text("\n".join(lines))
    return path
