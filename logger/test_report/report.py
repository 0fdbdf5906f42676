"""What test.py says: a table of the classes, images, and plain data for JSON."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logger.test_report.confusion_image import draw_confusion
from logger.test_report.worst_cases import WorstCases, WorstClassified, write_image
from utils.errors import ConfigError
from utils.files import write_text_atomically, writing_problem

LOG = logging.getLogger(__name__)
HEADINGS = {
    "iou": "IoU",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "pixel_share": "pixels",
    "support": "support",
}


def class_table(per_class: Mapping[str, Mapping[str, float]]) -> str:
    """A line per class: IoU, precision, recall, F1, and the class's share of the judged pixels or number of samples.

    Args:
        per_class: Class name -> values of `HEADINGS`, the same of every class; a NaN is shown as a dash.
    """
    width = max(len("class"), *(len(name) for name in per_class))
    shown = [key for key in HEADINGS if key in next(iter(per_class.values()))]
    lines = ["  ".join([f"{'class':{width}}", *(f"{HEADINGS[key]:>9}" for key in shown)])]
    for name, values in per_class.items():
        cells = [_cell(values[key], key) for key in shown]
        lines.append("  ".join([f"{name:{width}}", *(f"{cell:>9}" for cell in cells)]))
    return "\n".join(lines)


def metrics_line(metrics: Mapping[str, float]) -> str:
    """`miou 0.8512  loss 0.2031`: the results that are not of a single class."""
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if not name.startswith("iou_"))


def write_images(
    folder: Path,
    counts: NDArray[np.int64],
    class_names: Sequence[str],
    worst: WorstCases | WorstClassified,
    *,
    counted: str = "pixels",
) -> list[Path]:
    """Write `confusion.png` and the worst cases.

    Args:
        folder: Made where it is missing.
        counts: (K, K) pixels or samples, rows the truth.
        class_names: K names.
        worst: What was kept of the samples.
        counted: What was counted.

    Returns:
        The files, the confusion matrix first.

    Raises:
        ConfigError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / "confusion.png", draw_confusion(counts, class_names, counted))
        return [folder / "confusion.png", *worst.write(folder)]
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}). The images of a test go there. Name a folder that you "
            "may write to: --output FOLDER."
        ) from error


def require_writable(images: Path | None, file: Path | None) -> None:
    """Find out before anything is computed whether the results of a test can be written.

    Args:
        images: The folder of the images.
        file: The JSON file.

    Raises:
        ConfigError: One cannot be written.
    """
    asked = ((images and images / "confusion.png", "--output FOLDER"), (file, "--json FILE"))
    for path, option in asked:
        problem = path and writing_problem(path)
        if problem:
            raise ConfigError(
                f"{path}: cannot be written ({problem}). A test's results go there. Name a place that you may write "
                f"to: {option}."
            )


def report_text(result: Mapping[str, Any]) -> str:
    """What the console shows of a result of `test`: where from, the table, the metrics, and where the images are."""
    images = result["pictures"]
    parts = [
        f"{result['checkpoint']} (epoch {result['epoch']}) on {result['samples']} samples of {result['split']}",
        class_table(result["per_class"]),
        metrics_line(result["metrics"]),
        *_named_cases(result["worst"]),
    ]
    if images:
        parts.append(f"Confusion matrix:  {images[0]}\n{len(images) - 1} worst cases:  {Path(images[0]).parent}")
    return "\n\n".join(parts) + "\n"


def _named_cases(worst: Sequence[Mapping[str, Any]]) -> list[str]:
    """The worst samples of a classification, a line each; nothing for those of other tasks, which images show."""
    wrong = [case for case in worst if "truth" in case and case["truth"] != case["prediction"]]
    lines = [
        f"{case['name']}  is {case['truth']} ({case['score']:.3f}), taken for {case['prediction']} "
        f"({case['probability']:.3f})"
        for case in wrong
    ]
    return ["\n".join(["Worst cases, with probabilities:", *lines])] if lines else []


def write_result(file: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_json(file, result)
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be written ({error.strerror}). The result of a test goes there. Name a file that you may "
            "write to: --json FILE."
        ) from error


def record_in_run(folder: Path, result: Mapping[str, Any]) -> None:
    """Put the test's results, under `test_` names, into the `result.json` of a run, where there is one."""
    file = folder / "result.json"
    if not file.is_file():
        return
    named = {f"test_{name}": value for name, value in result["metrics"].items()}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        entry = {"checkpoint": Path(result["checkpoint"]).name, "samples": result["samples"], **named}
        _write_json(file, {**content, "test": entry})
    except (OSError, ValueError) as error:
        LOG.warning("%s: not brought up to date (%s)", file, error)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_text_atomically(file, json.dumps(without_nan(content), indent=2, allow_nan=False) + "\n")


def without_nan(value: Any) -> Any:
    """The same plain data with None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: float, key: str) -> str:
    if math.isnan(value):
        return "-"
    if key == "support":
        return str(int(value))
    return f"{value:.1%}" if key == "pixel_share" else f"{value:.4f}"
