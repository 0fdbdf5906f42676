"""Loaders of a few small photos of this repository."""

from pathlib import Path

PEOPLE = Path(__file__).resolve().parents[2] / "data/people"


def people_loader(split, samples, **more):
    """The section of a loader of some samples at 32 x 24 pixels."""
    args = {"pairs_file": str(PEOPLE / f"{split}_pairs.txt"), "samples": samples, **more}
    return {"type": "SegmentationDataLoader", "args": {"num_classes": 2, "resize": [32, 24], "batch_size": 4, **args}}


def people_config(save_dir, epochs):
    """A small training on the photos, of a network that trains in no time."""
    return {
        "name": "small",
        "n_gpu": 0,
        "arch": {"type": "UNet", "args": {"channels": [4, 8], "norm": "group"}},
        "train_loader": people_loader("train", 8, flip_hor=0.5),
        "valid_loader": people_loader("valid", 4, is_training=False),
        "optimizer": {"type": "SGD", "args": {"lr": 0.05, "momentum": 0.9}},
        "loss": "ce_loss",
        "metrics": ["miou"],
        "trainer": {"epochs": epochs, "save_dir": str(save_dir), "monitor": "max val_miou", "precision": "fp32"},
    }
