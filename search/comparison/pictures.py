"""Predictions of the same samples by several runs, from the records of their tests, as small images for a page."""

import base64
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.checking.splits import loader_section
from search.comparison.groups import RunGroup
from search.comparison.runs import SPLITS, ComparedRun, StoredTest
from search.results.spread import student_interval
from utils.files import open_regular
from utils.runs.stored_tests import IMAGE, PREDICTION, TRUTH, stored_file

MOST_RUNS = 24  # predictions of a sample
MOST_BYTES = 1_400_000  # of all images, before their encoding as text
_SIDES = (240, 160, 110, 80)  # longest side of an image in pixels, tried in turn
_LOSSLESS = 101  # a quality of WebP in OpenCV
_QUALITY = 70
_WRONG = (235, 60, 60)


@dataclass(frozen=True)
class ShownPrediction:
    """The prediction of one run for a sample.

    Attributes:
        label: Of the run.
        group: Number of its group.
        score: Of the sample, NaN if no pixel counts.
        mask: Data address of the predicted classes, transparent outside of the image; empty without a mask.
        errors: Data address of the wrong pixels; empty without a mask.
        text: The predicted class of a classification; empty for masks.
    """

    label: str
    group: int
    score: float
    mask: str
    errors: str
    text: str


@dataclass(frozen=True)
class SamplePictures:
    """A sample with the predictions of all runs that have it.

    Attributes:
        name: Of its file.
        size: (height, width) of its images on the page, in pixels.
        image: Data address of the input.
        truth: Data address of the true classes, empty for a classification.
        text: The true class of a classification; empty for masks.
        predictions: The best score first.
    """

    name: str
    size: tuple[int, int]
    image: str
    truth: str
    text: str
    predictions: list[ShownPrediction]


@dataclass(frozen=True)
class ScoreRow:
    """The scores of a run over all samples of its test.

    Attributes:
        label: Of the run.
        group: Number of its group.
        count: Samples with a score.
        mean: Of the scores.
        difference: Mean difference from the first run, over the samples that both have; None for that run itself.
        interval: Of this mean, see `student_interval`.
        better: Share of these samples of which the score is higher.
        pairs: Their number.
    """

    label: str
    group: int
    count: int
    mean: float
    difference: float | None = None
    interval: tuple[float, float] | None = None
    better: float | None = None
    pairs: int = 0


def tested_runs(groups: Sequence[RunGroup], split: str) -> list[tuple[str, int, ComparedRun, StoredTest]]:
    """Return label, number of the group, run, and records of each run that has records of a test on a split."""
    return [
        (f"{group.name}, seed {run.seed}" if len(group.runs) > 1 else group.name, number, run, run.tests[split])
        for number, group in enumerate(groups)
        for run in group.runs
        if split in run.tests
    ]


def shown_split(groups: Sequence[RunGroup]) -> str:
    """Return the split of which more runs have records; of as many, the test data.

    If no run has records, it is the test data, unless no run has any.
    """
    counts = {split: len(tested_runs(groups, split)) for split in SPLITS}
    if not any(counts.values()) and not any(loader_section(run.config, "test") for each in groups for run in each.runs):
        return "valid"
    return max(SPLITS, key=lambda split: counts[split])


def score_rows(groups: Sequence[RunGroup], split: str) -> list[ScoreRow]:
    """Return the scores of each run with records, compared sample by sample with the first of them."""
    rows: list[ScoreRow] = []
    first: dict[str, float] = {}
    for label, number, _, test in tested_runs(groups, split):
        scores = test.scores
        if not scores:
            continue
        mean = math.fsum(scores.values()) / len(scores)
        differences = [score - first[key] for key, score in scores.items() if key in first]
        if not differences:
            rows.append(ScoreRow(label, number, len(scores), mean))
            first = first or scores
            continue
        middle, interval = math.fsum(differences) / len(differences), student_interval(differences)
        better = sum(each > 0 for each in differences) / len(differences)
        rows.append(ScoreRow(label, number, len(scores), mean, middle, interval, better, len(differences)))
    return rows


def sample_pictures(groups: Sequence[RunGroup], split: str, most: int) -> list[SamplePictures]:
    """Return the samples that most runs have predictions of, those of the lowest mean score first.

    Args:
        groups: The groups.
        split: `test` or `valid`.
        most: Maximum number of samples.
    """
    runs = tested_runs(groups, split)
    if len(runs) > MOST_RUNS:  # one of each group
        firsts = {number: (group.name, number) for number, group in enumerate(groups)}
        runs = [(firsts.pop(each[1])[0], *each[1:]) for each in runs if each[1] in firsts][:MOST_RUNS]
    counts = Counter(key for *_, test in runs for key in test.shown)
    keys = [key for key, _ in counts.most_common(most)]  # stable: of equal counts those of the first run
    for side in _SIDES:
        found = [pictures for key in keys if (pictures := _pictures_of(key, runs, side)) is not None]
        if sum(map(_bytes_of, found)) <= MOST_BYTES:
            break
    return sorted(found, key=_mean_score)


def _mean_score(pictures: SamplePictures) -> float:
    scores = [each.score for each in pictures.predictions if math.isfinite(each.score)]
    return math.fsum(scores) / len(scores) if scores else math.inf


def _bytes_of(pictures: SamplePictures) -> int:
    addresses = [pictures.image, pictures.truth]
    addresses += [address for each in pictures.predictions for address in (each.mask, each.errors)]
    return sum(map(len, addresses)) * 3 // 4


def _pictures_of(
    key: str, runs: Sequence[tuple[str, int, ComparedRun, StoredTest]], side: int
) -> SamplePictures | None:
    """Return a sample with its predictions; None if its input cannot be read."""
    having = [each for each in runs if key in each[3].shown]
    found = [(_read(test, key, IMAGE), test) for *_, test in having]
    # The input as the network saw it: of several, that of the largest network input.
    images = [(image, test) for image, test in found if image is not None]
    if not images:
        return None
    image, test = max(images, key=lambda each: math.prod(each[1].content["facts"].get("input_size") or (0,)))
    facts = test.shown[key]
    height, width = (max(1, round(length * min(1.0, side / max(image.shape[:2])))) for length in image.shape[:2])
    truth = _read(test, key, TRUTH)
    if truth is not None:
        truth = _nearest(truth, (height, width))
    predictions = []
    for label, number, _, each in having:
        mask, shown = _read(each, key, PREDICTION), each.shown[key]
        score = shown["score"] if shown.get("score") is not None else math.nan
        text, addresses = "", ("", "")
        if mask is not None:
            addresses = _drawn(_nearest(mask, (height, width)), truth, each)
        elif shown.get("prediction") is not None:
            text = f"{shown['prediction']} ({shown['probability']:.2f})"
        predictions.append(ShownPrediction(label, number, score, *addresses, text))
    predictions.sort(key=lambda each: -each.score if math.isfinite(each.score) else math.inf)
    return SamplePictures(
        name=str(facts["name"]),
        size=(height, width),
        image=_address(_resized(image, (height, width)), _QUALITY),
        truth="" if truth is None else _drawn(truth, None, test)[0],
        text=str(facts.get("truth") or ""),
        predictions=predictions,
    )


def _drawn(mask: NDArray[Any], truth: NDArray[Any] | None, test: StoredTest) -> tuple[str, str]:
    """Return classes in the colours of a test, and the pixels that differ from the truth, both as data addresses."""
    from utils.drawing import class_colors, colorize

    unknown = np.iinfo(mask.dtype).max
    counted = mask != unknown
    palette, most = test.content.get("palette") or {}, int(mask[counted].max()) + 1 if counted.any() else 1
    given = np.array(palette.get("colors") or [], np.uint8).reshape(-1, 3)
    colors = given if len(given) >= most else class_colors(most)
    is_drawn = counted & (mask != palette["background"]) if palette.get("background") is not None else counted
    drawn = np.dstack([colorize(mask, colors), np.where(is_drawn, 255, 0).astype(np.uint8)])
    if truth is None or truth.shape != mask.shape:
        return _address(drawn, _LOSSLESS), ""
    errors = np.zeros_like(drawn)
    errors[(truth != mask) & (truth != np.iinfo(truth.dtype).max)] = (*_WRONG, 255)
    return _address(drawn, _LOSSLESS), _address(errors, _LOSSLESS)


def _read(test: StoredTest, key: str, kind: str) -> NDArray[Any] | None:
    """Return a stored image, (h, w, 3) RGB or (h, w) ids; None if it is missing or damaged."""
    import cv2  # here, since many comparisons have no images

    path: Path = stored_file(test.folder, test.split, key, kind)
    try:
        with open_regular(path) as file:
            content = np.frombuffer(file.read(), np.uint8)
        image: NDArray[Any] | None = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if len(content) else None
    except (OSError, cv2.error):
        return None
    return image[..., ::-1] if image is not None and image.ndim == 3 else image


def _nearest(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def _resized(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    import cv2

    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    resized: NDArray[Any] = cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=cv2.INTER_AREA)
    return resized


def _address(image: NDArray[Any], quality: int) -> str:
    """Return an RGB or RGBA image as a data address of WebP."""
    import cv2

    channels = [2, 1, 0, *range(3, image.shape[2])]
    content = cv2.imencode(".webp", np.ascontiguousarray(image[..., channels]), [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return f"data:image/webp;base64,{base64.b64encode(content.tobytes()).decode('ascii')}"
