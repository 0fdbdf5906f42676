"""The report of test.py: the text for the console, images, and JSON."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logger.test_report.confusion_image import draw_confusion
from logger.test_report.worst_cases import WorstCases, write_image
from utils.errors import ConfigError, DataError
from utils.files import read_json_object, write_json
from utils.writing.text import in_one_line

LOG = logging.getLogger(__name__)
COLUMNS = {  # name of a value: heading, format
    "iou": ("IoU", ".4f"), "precision": ("precision", ".4f"), "recall": ("recall", ".4f"), "f1": ("F1", ".4f"),
    "pixel_share": ("pixels", ".1%"), "support": ("support", ".0f"),
}  # fmt: skip


def report_text(result: Mapping[str, Any]) -> str:
    """Return the text that the console shows of a result of `test`: data, classes, metrics, and image files."""
    metrics = {name: value for name, value in result["metrics"].items() if not name.startswith("iou_")}
    head = f"{result['checkpoint']} (epoch {result['epoch']}) on {result['samples']} samples of {result['split']}"
    parts = [in_one_line(head)]
    if metrics:  # else the data has no labels, and its predictions were exported
        line = "  ".join(f"{in_one_line(name)} {value:.4f}" for name, value in metrics.items())
        parts += [class_table(result["per_class"]), line]
    # The cases of a classification are named; those of a segmentation, which have no class, are shown by images only.
    wrong = [case for case in result["worst"] if "truth" in case and case["truth"] != case["prediction"]]
    lines = [
        in_one_line(
            f"{case['name']}  is {case['truth']} ({case['score']:.3f}), taken for {case['prediction']} "
            f"({case['probability']:.3f})"
        )
        for case in wrong
    ]
    if lines:
        parts.append("\n".join(["Worst cases, with probabilities:", *lines]))
    if "predictions" in result:
        parts.append(f"Predictions:  {in_one_line(result['predictions'])}")
    images = result["pictures"]
    if images:
        lines = [f"Confusion matrix:  {images[0]}"]
        lines += [f"{len(images) - 1} worst cases:  {Path(images[0]).parent}"] if len(images) > 1 else []
        parts.append("\n".join(map(in_one_line, lines)))
    return "\n\n".join(parts) + "\n"


def class_table(per_class: Mapping[str, Mapping[str, float]]) -> str:
    """Return a line per class: IoU, precision, recall, F1, and its fraction of the pixels or its number of samples.

    Args:
        per_class: Class name -> values of `COLUMNS`, the same of every class; a NaN is shown as a dash.
    """
    width = max(len("class"), *(len(in_one_line(name)) for name in per_class))
    shown = [name for name in COLUMNS if name in next(iter(per_class.values()))]
    lines = ["  ".join([f"{'class':{width}}", *(f"{COLUMNS[name][0]:>9}" for name in shown)])]
    for label, values in per_class.items():
        cells = ["-" if math.isnan(values[name]) else format(values[name], COLUMNS[name][1]) for name in shown]
        lines.append("  ".join([f"{in_one_line(label):{width}}", *(f"{cell:>9}" for cell in cells)]))
    return "\n".join(lines)


def _not_writable(path: Path, problem: str | None, option: str) -> ConfigError:
    return ConfigError(
        f"{path}: cannot be written ({problem}). The results of a test are written there. Name a path that you may "
        f"write to: {option}."
    )


def write_images(
    folder: Path,
    counts: NDArray[np.int64],
    class_names: Sequence[str],
    worst: WorstCases,
    *,
    counted: str = "pixels",
    ignored: int | None = None,
) -> list[Path]:
    """Write `confusion.png` and the worst cases.

    Args:
        folder: Created if it is missing.
        counts: (K, K) pixels or samples, rows are the truth.
        class_names: K names.
        worst: The worst samples.
        counted: "pixels" or "samples".
        ignored: A class that is ignored.

    Returns:
        The files, the confusion matrix first.

    Raises:
        ConfigError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / "confusion.png", draw_confusion(counts, class_names, counted, ignored))
        return [folder / "confusion.png", *worst.write(folder)]
    except OSError as error:
        raise _not_writable(folder, error.strerror, "--output FOLDER") from error


def write_result(file: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, result)
    except OSError as error:
        raise _not_writable(file, error.strerror, "--json FILE") from error


def record_in_run(folder: Path, result: Mapping[str, Any]) -> None:
    """Add the results of a test, under `test_` names, to the `result.json` of a run if there is one."""
    file = folder / "result.json"
    if not file.is_file():
        return
    named = {f"test_{name}": value for name, value in result["metrics"].items()}
    try:
        content = read_json_object(file, DataError)
        content["test"] = {"checkpoint": Path(result["checkpoint"]).name, "samples": result["samples"], **named}
        write_json(file, content)
    except (OSError, ValueError, DataError) as error:
        # The test itself succeeded, and its results are on the console.
        LOG.warning("%s: not updated (%s)", file, error)
