"""Run folders as train.py and test.py leave them, made without training."""

import copy
import csv
import json
from pathlib import Path

import cv2
import numpy as np

from utils.runs.stored_tests import IMAGE, PREDICTION, TRUTH, stored_file, stored_folder, stored_results

CONFIG = {
    "name": "people",
    "arch": {"type": "UNet", "args": {"channels": [4, 8]}},
    "train_loader": {"type": "SegmentationDataLoader", "args": {"pairs_file": "pairs.txt", "n_workers": 0}},
    "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
    "trainer": {"epochs": 2, "save_dir": "saved/", "monitor": "max val_miou"},
}
KEYS = ("aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb")


def make_run(
    folder,
    miou,
    seed=0,
    *,
    name="people",
    lr=0.01,
    is_tested=True,
    is_finished=True,
    facts=None,
    scores=(0.4, 0.8),
    pictures=None,
    metric="miou",
    epochs=2,
):
    """Write a run whose last epoch is the best one.

    Args:
        folder: The run folder.
        miou: Of its test; that of the validation is 0.1 higher.
        seed: Of the training.
        name: Of the config.
        lr: A value of the config.
        is_tested: Whether there are records of a test.
        is_finished: Whether there is a `result.json`.
        facts: More for `result.json`.
        scores: Of the samples of the test.
        pictures: Image, truth and prediction of each sample by its key; by default of `KEYS`.
        metric: Name of the result by which the best epoch is chosen.
        epochs: Epochs that were trained; 0: it was killed in the first one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    config = {**copy.deepcopy(CONFIG), "name": name, "seed": seed}
    config["optimizer"]["args"]["lr"] = lr
    config["trainer"]["monitor"] = f"max val_{metric}"
    complete = copy.deepcopy(config)
    complete["train_loader"]["args"]["class_counts"] = [seed + 1, 2]  # learned from the data
    (folder / "config.json").write_text(json.dumps(complete))
    (folder / "environment.json").write_text(json.dumps({"asked": config}))
    rows = [
        {
            "epoch": epoch,
            "loss": 1.0 / epoch,
            f"val_{metric}": miou + 0.1 - 0.05 * (epochs - epoch),
            "val_iou_person": miou,
        }
        for epoch in range(1, epochs + 1)
    ]
    if rows:
        with open(folder / "metrics.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    lines = [
        f"2026-01-01 00:00:0{row['epoch']},000 INFO    logger.callbacks: Epoch {row['epoch']}/2  loss 0.5  "
        "val_miou 0.5 (best)  2.5 s, 88.8 samples/s, data 19%\n"
        for row in rows
    ]
    (folder / "info.log").write_text("".join(lines))
    if is_finished:
        result = {"monitor": f"max val_{metric}", "best": rows[-1], "epochs": epochs, **(facts or {})}
        (folder / "result.json").write_text(json.dumps(result))
    if is_tested:
        _store_test(folder, {metric: miou}, scores, pictures or dict.fromkeys(KEYS, _small_pictures()))
    return folder


def _store_test(folder, metrics, scores, pictures):
    (miou,) = metrics.values()
    stored_folder(folder, "test").mkdir(parents=True)
    classes = {"background": {"iou": miou + 0.05}, "person": {"iou": miou - 0.05}}
    shown = [{"key": key, "name": f"{key[0]}.jpg", "score": score} for key, score in zip(pictures, scores, strict=True)]
    content = {
        "format_version": 1, "checkpoint": "model_best.pth", "epoch": 2, "split": "test", "samples": len(scores),
        "metrics": {"loss": 0.5, **metrics}, "per_class": classes, "problem": "segmentation",
        "classes": list(classes), "ignore_index": 255, "facts": {"params": 100, "flops": 2000, "input_size": [8, 6]},
        "data": {"samples": len(scores), "digest": "abc"},
        "scores": dict(zip(pictures, scores, strict=True)), "shown": shown,
    }  # fmt: skip
    stored_results(folder, "test").write_text(json.dumps(content))
    for key, images in pictures.items():
        for kind, image in zip((IMAGE, TRUTH, PREDICTION), images, strict=True):
            cv2.imwrite(str(stored_file(folder, "test", key, kind)), image)


def _small_pictures():
    """Nine pixels of class 1, of which three are predicted as class 0."""
    truth = np.zeros((8, 6), np.uint8)
    truth[2:5, 2:5] = 1
    truth[0] = 255  # not counted
    prediction = np.zeros_like(truth)
    prediction[3:5, 2:5] = 1
    return np.full((8, 6, 3), 90, np.uint8), truth, prediction
