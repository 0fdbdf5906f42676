"""The pieces of test.py's report: table, confusion matrix, worst cases."""

import json
import math

import cv2
import numpy as np
import pytest
import torch

from base.samples import NamedMask, NamedSample
from logger.test_report.confusion_image import compact, draw_confusion
from logger.test_report.report import class_table, report_text, write_images
from logger.test_report.worst_cases import (
    INVENTED,
    MISSED,
    NOT_COUNTED,
    WorstClassified,
    WorstSegmented,
    draw_errors,
    image_of,
)
from utils.drawing import ramp_color
from utils.errors import ConfigError
from utils.files import without_nan
from utils.geometry import letterbox_geometry
from utils.images.palette import Palette


def make_source(index, size=(40, 30), name="folder/photo.jpg"):
    target = torch.zeros(size, dtype=torch.int64)
    target[:10] = 1
    return NamedMask(f"{index}_{name}", target, letterbox_geometry(size, (32, 32)), index)


def worst_cases(count, scores):
    """Worst cases whose score is in the corner of the logits, with these samples added in their order."""
    worst = WorstSegmented(count, Palette.of(2), ignore_index=None, score=lambda logits, _: float(logits[0, 0, 0]))
    for index, score in scores:
        source = make_source(index)
        logits = torch.rand(2, *source.target.shape, dtype=torch.float64)
        logits[0, 0, 0] = score
        worst.add(source, torch.rand(3, 32, 32), logits)
    return worst


def names(worst):
    return [(int(case["name"].split("_")[0]), case["score"]) for case in worst.ranking()]


def test_worst_cases_keeps_the_lowest_scores_whatever_the_order():
    scores = [0.9, 0.2, math.nan, 0.5, 0.2, 0.7]
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 4, 2, 5, 1]):
        worst = worst_cases(3, [(index, scores[index]) for index in order])
        assert names(worst) == [(1, 0.2), (4, 0.2), (3, 0.5)]


def test_worst_cases_of_a_small_set_and_of_none():
    assert names(worst_cases(8, [(0, 0.5)])) == [(0, 0.5)]
    assert names(worst_cases(0, [(0, 0.5)])) == []


def test_a_sample_seen_twice_is_no_trouble():
    assert names(worst_cases(2, [(0, 0.5)] * 4)) == [(0, 0.5), (0, 0.5)]


def test_worst_classified_are_those_whose_class_is_least_probable(tmp_path):
    worst = WorstClassified(2, ["cat", "dog"])
    for index, (target, logit) in enumerate([(0, 2.0), (1, 3.0), (-100, 9.0), (1, -1.0)]):
        sample = NamedSample(f"{index}.png", target, index)
        worst.add(sample, torch.rand(1, 8, 8), torch.tensor([logit, 0.0]))
    first, second = worst.ranking()
    probability = 1 / (1 + math.exp(-3))
    assert first == {
        "name": "1.png", "score": pytest.approx(1 - probability), "truth": "dog", "prediction": "cat",
        "probability": pytest.approx(probability),
    }  # fmt: skip
    assert (second["name"], second["truth"], second["prediction"]) == ("3.png", "dog", "dog")
    assert [cv2.imread(str(path)).shape[0] > 320 for path in worst.write(tmp_path)] == [True, True]


def test_worst_cases_are_written_worst_first_over_those_of_before(tmp_path):
    (tmp_path / "worst-07.png").write_bytes(b"of an earlier test")
    paths = worst_cases(2, [(0, 0.5), (1, 0.4)]).write(tmp_path)
    assert [path.name for path in paths] == ["worst-01.png", "worst-02.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["worst-01.png", "worst-02.png"]
    assert cv2.imread(str(paths[0])).shape[0] > 320


def test_error_map_tells_missed_from_invented_and_unjudged():
    truth = np.array([[0, 1, 0, 1, 255]])
    prediction = np.array([[0, 0, 1, 1, 1]])
    drawn = draw_errors(np.zeros((1, 5, 3), np.uint8), truth, prediction, 2, ignore_index=255)
    assert drawn[0].tolist() == [[0, 0, 0], list(MISSED), list(INVENTED), [0, 0, 0], list(NOT_COUNTED)]
    of_three = draw_errors(np.zeros((1, 5, 3), np.uint8), truth, prediction, 3)
    assert of_three[0, 1].tolist() == of_three[0, 2].tolist() == list(MISSED)


def test_image_of_a_sample_has_no_padding():
    source = make_source(0, size=(40, 20))
    inputs = torch.zeros(3, 32, 32)
    inputs[:, :, 8:24] = 1.0
    assert source.geometry.offset == (0, 8)
    assert image_of(source, inputs).min() == 255


def test_table_has_a_line_per_class_and_dashes_for_what_is_not_there():
    values = {"iou": 0.5, "precision": 1.0, "recall": 0.5, "f1": 2 / 3, "pixel_share": 0.25}
    table = class_table({"person": values, "absent": dict.fromkeys(values, math.nan)})
    assert [line.split() for line in table.splitlines()] == [
        ["class", "IoU", "precision", "recall", "F1", "pixels"],
        ["person", "0.5000", "1.0000", "0.5000", "0.6667", "25.0%"],
        ["absent", "-", "-", "-", "-", "-"],
    ]
    assert len({len(line) for line in table.splitlines()}) == 1


def test_line_of_metrics_leaves_single_classes_to_the_table():
    result = {
        "checkpoint": "x.pth", "epoch": 3, "samples": 5, "split": "test", "worst": [], "pictures": [],
        "metrics": {"loss": 0.25, "miou": 0.5, "iou_person": 0.4}, "per_class": {"person": {"iou": 0.4}},
    }  # fmt: skip
    head, _, metrics = report_text(result).strip().split("\n\n")
    assert head == "x.pth (epoch 3) on 5 samples of test"
    assert metrics == "loss 0.2500  miou 0.5000"


def test_json_gets_none_for_nan():
    content = {"a": [math.nan, 1.0], "b": {"c": math.inf}}
    assert json.dumps(without_nan(content), allow_nan=False) == '{"a": [null, 1.0], "b": {"c": null}}'


@pytest.mark.parametrize("num_classes", [1, 2, 11, 30, 200])
def test_confusion_image_of_any_number_of_classes(num_classes):
    image = draw_confusion(np.eye(num_classes, dtype=np.int64) * 1000, [f"class_{i}" for i in range(num_classes)])
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert max(image.shape) < 2400


def test_confusion_cells_are_shares_of_their_row():
    image = draw_confusion(np.array([[30, 10], [0, 0]]), ["a", "b"])
    seen = {tuple(color) for color in image.reshape(-1, 3).tolist()}
    assert {ramp_color(0.75), ramp_color(0.25)} <= seen


def test_an_ignored_class_has_no_row_and_a_column_only_if_it_was_predicted():
    names, counts = [f"class_{index}" for index in range(8)], np.diag([0, 40, 5, 5, 5, 5, 5, 5])
    without = draw_confusion(counts[1:, 1:], names[1:])
    assert np.array_equal(draw_confusion(counts, names, ignored=0), without)
    counts[1, 0] = 20
    image = draw_confusion(counts, names, ignored=0)
    assert image.shape[0] == without.shape[0]  # seven rows, eight columns
    assert image.shape[1] > without.shape[1]
    assert tuple(ramp_color(20 / 60)) in {tuple(color) for color in image.reshape(-1, 3).tolist()}


def test_a_sample_of_an_ignored_class_is_no_worst_case():
    worst = WorstClassified(3, ["a", "b"], ignore_index=0)
    for index, target in enumerate((0, 1, -100)):
        worst.add(NamedSample(str(index), target, index), torch.rand(3, 8, 8), torch.tensor([0.0, 1.0]))
    assert [case["name"] for case in worst.ranking()] == ["1"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1k"), (12345, "12.3k"), (999_600, "1000k"), (4_560_000, "4.56M")],
)
def test_compact_counts(count, text):
    assert compact(count) == text


def test_images_go_to_a_folder_that_is_made(tmp_path):
    worst = worst_cases(1, [(0, 0.5)])
    files = write_images(tmp_path / "a" / "b", np.eye(2, dtype=np.int64), ["x", "y"], worst)
    assert [file.name for file in files] == ["confusion.png", "worst-01.png"]
    assert all(file.stat().st_size > 100 for file in files)


def test_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written .* --output FOLDER"):
        write_images(tmp_path / "file" / "x", np.eye(2, dtype=np.int64), ["x", "y"], worst_cases(1, []))
