"""Photos of Clothing Co-Parsing at full size, with masks of the person and boxes of the head."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from data_loader.images.files import read_image
from utils.errors import DataError

Pixels = npt.NDArray[Any]  # uint8
BAGS = (2, 33, 56)  # labels of bag, purse and wallet: they are no part of the person
HEADS_FILE = "heads.csv"


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; the right and lower sides are outside."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    def cut(self, pixels: Pixels) -> Pixels:
        """Return the part (h, w, ...) of an image (H, W, ...) that lies in the box."""
        height, width = pixels.shape[:2]
        top, left = max(0, round(self.top)), max(0, round(self.left))
        return pixels[top : min(height, round(self.bottom)), left : min(width, round(self.right))]


@dataclass(frozen=True)
class Photo:
    """An annotated photo.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        mask: (H, W) uint8: 1 is the person.
        bags: (H, W) uint8: 1 is a bag, which is labelled as no person.
        head: Box of the head, None if it is not known.
    """

    image: Pixels
    mask: Pixels
    bags: Pixels
    head: Box | None


class AnnotatedPhotos(Sequence[Photo]):
    """The photos that a list of pairs names, read from the folder of the originals.

    Args:
        folder: A copy of the repository clothing-co-parsing, with `photos/` and `annotations/pixel-level/`.
        pairs_file: A list `image, mask` of the smaller copies, whose names are those of the originals; next to it lies
            heads.csv with the relative boxes of the heads.

    Raises:
        DataError: A file is missing.
    """

    def __init__(self, folder: Path, pairs_file: Path) -> None:
        for path in (folder / "photos", folder / "annotations" / "pixel-level", pairs_file):
            if not path.exists():
                raise DataError(
                    f"{path} does not exist. Name a copy of the repository clothing-co-parsing as --photos, and the "
                    "folder of train_pairs.txt, valid_pairs.txt and heads.csv as --splits."
                )
        self.folder = folder
        lines = pairs_file.read_text(encoding="utf-8").split("\n")
        self.names = [Path(line.split(",")[0]).stem for line in lines if line.strip()]
        self._heads = read_heads(pairs_file.with_name(HEADS_FILE))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Photo]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Photo:  # type: ignore[override]
        """Return a photo.

        Raises:
            DataError: A file is missing or damaged.
        """
        name = self.names[index]
        image = read_image(self.folder / "photos" / f"{name}.jpg")
        annotation = self.folder / "annotations" / "pixel-level" / f"{name}.mat"
        try:
            labels = loadmat(annotation)["groundtruth"]
        except Exception as error:  # damaged bytes can raise any error in this reader
            raise DataError(f"{annotation} cannot be read ({error}). Copy it again.") from error
        bags = np.isin(labels, BAGS)
        mask = ((labels > 0) & ~bags).astype(np.uint8)
        height, width = mask.shape
        if image.shape[:2] != mask.shape:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        head = self._heads.get(name)
        if head is not None:
            head = Box(head.left * width, head.top * height, head.right * width, head.bottom * height)
        return Photo(image, mask, bags.astype(np.uint8), head)


def read_heads(file: Path) -> dict[str, Box]:
    """Return the relative box of the head by the name of the photo; photos without one are left out.

    Raises:
        DataError: The file is missing or has no such columns.
    """
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return {
                row["photo"]: Box(*(float(row[side]) for side in ("x0", "y0", "x1", "y1")))
                for row in csv.DictReader(lines)
                if row["x0"]
            }
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file} has no boxes of heads ({error}). Its columns are photo, x0, y0, x1, y1.") from error
