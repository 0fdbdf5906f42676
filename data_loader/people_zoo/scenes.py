"""One training sample: a crop of a photo, people before another background, or a place without people.

Where `selfie_model` is an argument, it is the file of the model that finds passers-by, None to take the labels as they
are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_loader.people_zoo.passers_by import has_passers_by, without_passers_by
from data_loader.people_zoo.photos import Box, Photo, Pixels

LONG_SIDE = 320
ASPECTS = (0.56, 0.67, 0.75, 1.0, 1.0, 1.33, 1.5, 1.78)  # width / height of photos and videos
SMALLEST_WINDOW = 90  # pixels: a background that is enlarged more is no scene any more
MARGIN = 9  # pixels around a person that are no background: labels are not exact
GROUP_SIZES, GROUP_CHANCES = (1, 2, 3), (0.55, 0.3, 0.15)  # people in a composite


@dataclass(frozen=True)
class Scene:
    """An image and its mask.

    Attributes:
        image: (H, W, 3) uint8, RGB; the long side has at most `LONG_SIDE` pixels.
        mask: (H, W) uint8: 1 is a person, 255 counts nowhere.
    """

    image: Pixels
    mask: Pixels


def scene_of(image: Pixels, mask: Pixels) -> Scene:
    """Return image and mask with a long side of at most `LONG_SIDE` pixels; edges of the mask by area."""
    scale = LONG_SIDE / max(mask.shape)
    if scale >= 1:
        return Scene(image, mask)
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    shares = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return Scene(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (shares > 0.5).astype(np.uint8))


def crop(photo: Photo, box: Box, selfie_model: Path | None) -> Scene:
    """Return the part of a photo that lies in a box; passers-by are ignored."""
    sample = scene_of(box.cut(photo.image), box.cut(photo.mask))
    if selfie_model is None:
        return sample
    bags = cv2.resize(box.cut(photo.bags), sample.mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return Scene(sample.image, without_passers_by(sample.image, sample.mask, bags, selfie_model))


def whole_window(photo: Photo) -> Box:
    """Return the whole photo."""
    return Box(0, 0, photo.mask.shape[1], photo.mask.shape[0])


def head_window(photo: Photo, rng: np.random.Generator, heights: tuple[float, float]) -> Box:
    """Return a window around a head, between two heights in heads; without a head one at the top of the photo."""
    height, width = photo.mask.shape
    head = photo.head or Box(0.4 * width, 0.05 * height, 0.6 * width, 0.18 * height)
    window_height = head.height * rng.uniform(*heights)
    window_width = min(width, window_height * rng.choice(ASPECTS))
    centre = (head.left + head.right) / 2 + rng.normal(0, 0.12) * window_width
    left = float(np.clip(centre - window_width / 2, 0, width - window_width))
    top = max(0.0, head.top - head.height * rng.uniform(0.0, 0.8))
    return Box(left, top, left + window_width, min(height, top + window_height))


def any_window(photo: Photo, rng: np.random.Generator) -> Box:
    """Return a window anywhere: legs, a shoulder, the street."""
    height, width = photo.mask.shape
    window_width = width * rng.uniform(0.35, 1.0)
    window_height = min(height, window_width / rng.choice(ASPECTS))
    left, top = rng.random() * (width - window_width), rng.random() * (height - window_height)
    return Box(left, top, left + window_width, top + window_height)


def empty_window(photo: Photo, rng: np.random.Generator) -> Box | None:
    """Return a window of a photo without a pixel of the person, None if none was found."""
    height, width = photo.mask.shape
    occupied = cv2.integral(cv2.dilate(photo.mask, np.ones((MARGIN, MARGIN), np.uint8)))
    for _ in range(60):
        window_width = round(rng.uniform(SMALLEST_WINDOW, 0.7 * width))
        window_height = round(float(np.clip(window_width / rng.choice(ASPECTS), SMALLEST_WINDOW, height)))
        left = int(rng.choice([0, width - window_width, rng.integers(0, width - window_width + 1)]))
        top = int(rng.integers(0, height - window_height + 1))
        right, bottom = left + window_width, top + window_height
        if occupied[bottom, right] - occupied[top, right] - occupied[bottom, left] + occupied[top, left] == 0:
            return Box(left, top, right, bottom)
    return None


def backdrop(rng: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """Return a wall of a studio or a screen: a gradient between two colours with soft spots, (h, w, 3) uint8."""
    height, width = size
    first, second = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    if rng.random() < 0.5:  # walls are grey more often than not
        first, second = first * 0.2 + first.mean() * 0.8, second * 0.2 + second.mean() * 0.8
    direction, place = rng.uniform(-1, 1, 2), np.mgrid[0:height, 0:width] / max(size)
    share = np.clip(0.5 + np.tensordot(direction, place - 0.5, 1), 0, 1)[..., None]
    spots = cv2.resize(rng.normal(0, 1, (5, 5)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    wall = first + (second - first) * share + spots[..., None] * rng.uniform(0, 18)
    for _ in range(int(rng.integers(0, 9)) if rng.random() < 0.6 else 0):  # doors, shelves, pictures
        corner, extent = rng.uniform(-0.3, 1, 2), rng.uniform(0.02, 0.6, 2)
        rows, columns = (
            slice(max(0, round(start * side)), max(0, round((start + length) * side)))
            for start, length, side in zip(corner, extent, size, strict=True)
        )
        colour = first + rng.normal(0, 50) + rng.normal(0, 12, 3)
        wall[rows, columns] += rng.uniform(0.4, 1) * (colour - wall[rows, columns])
    return np.clip(wall + rng.normal(0, rng.uniform(0, 6), (height, width, 1)), 0, 255).astype(np.uint8)


def size_of(rng: np.random.Generator) -> tuple[int, int]:
    """Return height and width of an image whose long side is `LONG_SIDE`."""
    aspect = float(rng.choice(ASPECTS))
    return round(min(LONG_SIDE, LONG_SIDE / aspect)), round(min(LONG_SIDE, LONG_SIDE * aspect))


def background(photos: Sequence[Photo], rng: np.random.Generator, selfie_model: Path | None) -> Pixels:
    """Return a scene without people, (h, w, 3) uint8, its long side `LONG_SIDE`."""
    size = size_of(rng)
    if rng.random() < 0.2:
        return backdrop(rng, size)
    for _ in range(20):
        photo = photos[int(rng.integers(len(photos)))]
        box = empty_window(photo, rng)
        if box is not None and not (selfie_model and has_passers_by(box.cut(photo.image), selfie_model)):
            scene = cv2.resize(box.cut(photo.image), size[::-1], interpolation=cv2.INTER_LINEAR)
            if rng.random() < 0.5:
                scene = scene[:, ::-1]
            return recoloured(np.ascontiguousarray(scene), rng, 0.3)
    return backdrop(rng, size)


def background_of_portrait(photos: Sequence[Photo], rng: np.random.Generator, selfie_model: Path | None) -> Pixels:
    """Return a wall or a scene without people, which is out of focus more often than not."""
    scene = backdrop(rng, size_of(rng)) if rng.random() < 0.3 else background(photos, rng, selfie_model)
    if rng.random() < 0.6:
        scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), np.exp(rng.uniform(0, np.log(12)))), np.uint8)
    return scene


def recoloured(image: Pixels, rng: np.random.Generator, strength: float) -> Pixels:
    """Return an image under another light: a gain for each channel, and a gamma."""
    gains = np.exp(rng.normal(0, 0.25 * strength, 3) + rng.normal(0, 0.6 * strength))
    values = (np.arange(256) / 255) ** np.exp(rng.normal(0, strength))
    table = np.clip(255 * values[None, :, None] * gains, 0, 255).astype(np.uint8)
    return cv2.LUT(image, np.ascontiguousarray(table)).astype(np.uint8)


def cutout(photo: Photo, scale: float, turn: float) -> tuple[Pixels, Pixels]:
    """Return a person alone, enlarged and turned by degrees: colours (h, w, 3) uint8, opacity (h, w) uint8."""
    rows, columns = np.flatnonzero(photo.mask.any(1)), np.flatnonzero(photo.mask.any(0))
    box = Box(columns[0] - 3, rows[0] - 3, columns[-1] + 4, rows[-1] + 4)
    image: Pixels = box.cut(photo.image)
    # The outermost pixels show the old background, too.
    mask: Pixels = cv2.erode(255 * box.cut(photo.mask), np.ones((3, 3), np.uint8))
    if scale < 1:
        size = (max(2, round(mask.shape[1] * scale)), max(2, round(mask.shape[0] * scale)))
        image, mask = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (image, mask))
        scale = 1.0
    height, width = mask.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, scale)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    new_size = (round(height * sine + width * cosine), round(height * cosine + width * sine))
    matrix[:, 2] += (new_size[0] - width) / 2, (new_size[1] - height) / 2
    turned = cv2.warpAffine(image, matrix, new_size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    opacity = cv2.warpAffine(mask, matrix, new_size, flags=cv2.INTER_LINEAR)
    return turned, cv2.GaussianBlur(opacity, (3, 3), 0)


def paste(into: Scene, colours: Pixels, opacity: Pixels, place: tuple[int, int]) -> None:
    """Draw a person into image and mask of a sample, in place, its upper left at (top, left); the rest is cut off."""
    scene, mask = into.image, into.mask
    (height, width), (top, left) = mask.shape, place
    rows = slice(max(0, top), min(height, top + opacity.shape[0]))
    columns = slice(max(0, left), min(width, left + opacity.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    share = opacity[part][..., None].astype(np.float32) / 255
    scene[rows, columns] = np.rint(scene[rows, columns] * (1 - share) + colours[part] * share).astype(np.uint8)
    mask[rows, columns] |= (opacity[part] > 127).astype(np.uint8)


def add_person(
    into: Scene, photo: Photo, rng: np.random.Generator, height: float, *, middle: float = 0.05, wild: float = 0.08
) -> None:
    """Draw the person of a photo into a sample, in place.

    Args:
        into: The sample.
        photo: The photo of the person.
        rng: Draws place, turn and light.
        height: Of the person, in heights of the image.
        middle: Least distance of the person's middle from the left and the right, as a share of the width.
        wild: Share of persons who lie or fall.
    """
    if not photo.mask.any():
        return
    turn = rng.uniform(-90, 90) if rng.random() < wild else rng.normal(0, 6)
    full, width = into.mask.shape
    colours, opacity = cutout(photo, height * full / np.flatnonzero(photo.mask.any(1)).size, turn)
    if rng.random() < 0.5:
        colours, opacity = colours[:, ::-1], opacity[:, ::-1]
    colours = recoloured(np.ascontiguousarray(colours), rng, 0.15)
    left = round(rng.uniform(middle, 1 - middle) * width - opacity.shape[1] / 2)
    if opacity.shape[0] > full:  # the head is in the picture
        top = round(rng.uniform(-0.05, 0.35) * full)
    else:
        top = round(rng.uniform(0.3, 1.05) * (full - opacity.shape[0]))
    paste(into, colours, opacity, (top, left))


def in_one_light(sample: Scene, rng: np.random.Generator) -> Scene:
    """Return a composite, every other one as if one light and one lens had made it."""
    if rng.random() < 0.5:
        return sample
    image = cv2.GaussianBlur(recoloured(sample.image, rng, 0.12), (0, 0), rng.uniform(0.3, 0.8))
    return Scene(image, sample.mask)


def draw_composite(photos: Sequence[Photo], rng: np.random.Generator, selfie_model: Path | None) -> Scene:
    """Return one to three people before another background: small, large, cut off, turned, in other light."""
    scene = background(photos, rng, selfie_model)
    sample = Scene(scene, np.zeros(scene.shape[:2], np.uint8))
    count = int(rng.choice(GROUP_SIZES, p=GROUP_CHANCES))
    for height in sorted(np.exp(rng.uniform(np.log(0.25), np.log(4.5 if count == 1 else 1.8), count))):
        add_person(sample, photos[int(rng.integers(len(photos)))], rng, height)
    return in_one_light(sample, rng)


def draw_close(photos: Sequence[Photo], rng: np.random.Generator, selfie_model: Path | None) -> Scene:
    """Return one person from near before another background."""
    scene = background_of_portrait(photos, rng, selfie_model)
    sample = Scene(scene, np.zeros(scene.shape[:2], np.uint8))
    add_person(sample, photos[int(rng.integers(len(photos)))], rng, rng.uniform(1.8, 6.0), middle=0.25, wild=0.03)
    return in_one_light(sample, rng)


def empty(photos: Sequence[Photo], rng: np.random.Generator, selfie_model: Path | None) -> Scene:
    """Return a place without people; every other one is such as there are behind people from near, too."""
    draw = background_of_portrait if rng.random() < 0.5 else background
    scene = draw(photos, rng, selfie_model)
    return Scene(scene, np.zeros(scene.shape[:2], np.uint8))
