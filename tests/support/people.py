"""Loaders of a few small photos of this repository."""

from pathlib import Path

PEOPLE = Path(__file__).resolve().parents[2] / "data/people"


def people_loader(split, samples, **more):
    """The section of a loader of some samples at 32 x 24 pixels."""
    args = {"pairs_file": str(PEOPLE / f"{split}_pairs.txt"), "samples": samples, **more}
    return {"type": "SegmentationDataLoader", "args": {"num_classes": 2, "resize": [32, 24], "batch_size": 4, **args}}
