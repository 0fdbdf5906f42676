"""People whom the annotators left out: passers-by in the background, found by a public model.

The selfie model of npm's `@mediapipe/selfie_segmentation` (Apache-2.0), run by `ai-edge-litert`. On 77 windows of test
photos that are empty by their labels, it found 12 of 14 in which passers-by were seen.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_loader.people_zoo.photos import Pixels
from utils.errors import ConfigError, DataError

SMALLEST, LARGEST = (
    0.002,
    0.4,
)  # of a window: it mistakes palms and shadows that fill it for people, passers-by are small
DISTANCE = 0.04  # of the long side, between the labelled person and a passer-by: nearer pixels are edges
IGNORED = 255


@lru_cache(maxsize=1)
def open_model(file: Path) -> Any:
    """Open the model; one for each process.

    Raises:
        ConfigError: ai-edge-litert is not installed.
        DataError: The file cannot be read.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ConfigError("--passers-by needs ai-edge-litert. Run: pip install ai-edge-litert") from error
    try:
        model = Interpreter(str(file), num_threads=1)
    except ValueError as error:
        raise DataError(f"{file} is no model that can be run ({error}). Name selfie_segmentation.tflite.") from error
    model.allocate_tensors()
    return model


def find_people(image: Pixels, file: Path) -> Pixels:
    """Return where the model sees people in an image (H, W, 3) uint8 RGB: (H, W) uint8, 0 or 1."""
    model = open_model(file)
    source, result = model.get_input_details()[0], model.get_output_details()[0]
    height, width = source["shape"][1:3]
    model.set_tensor(source["index"], cv2.resize(image, (width, height)).astype(np.float32)[None] / 255)
    model.invoke()
    chances = cv2.resize(model.get_tensor(result["index"])[0, ..., 0], image.shape[1::-1])
    return np.asarray(chances > 0.5, np.uint8)


def has_passers_by(image: Pixels, file: Path) -> bool:
    """Return whether people are seen in a window (H, W, 3) uint8 that is empty by its labels."""
    return bool(SMALLEST < find_people(image, file).mean() < LARGEST)


def without_passers_by(image: Pixels, mask: Pixels, bags: Pixels, file: Path) -> Pixels:
    """Return a mask (H, W) uint8 in which people are ignored who are seen away from labelled people and bags."""
    reach = 2 * round(DISTANCE * max(mask.shape)) + 1
    labelled = cv2.dilate(np.maximum(mask, bags), np.ones((reach, reach), np.uint8))
    away = find_people(image, file) & (1 - labelled)
    if away.mean() >= LARGEST:
        return mask
    return np.where(away == 1, np.uint8(IGNORED), mask)
