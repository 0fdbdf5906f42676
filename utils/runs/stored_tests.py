"""Places of the records that a test leaves in a run folder, from which runs are compared.

`predictions/<split>/results.json` has the results, facts of the network and the data, the score of each sample, and
the names of a few samples. These have an input each (`KEY_image.jpg`), and in segmentation truth and prediction as PNG
files of class ids; the largest id of the file's type is a pixel that does not count. A KEY is a hash of name and truth.
"""

from pathlib import Path

FORMAT = 1
IMAGE, TRUTH, PREDICTION = "image.jpg", "truth.png", "prediction.png"


def stored_folder(run: Path, split: str) -> Path:
    """Return the folder of the records of a test on a split, in a run folder."""
    return run / "predictions" / split


def stored_results(run: Path, split: str) -> Path:
    """Return the file of the results of a test on a split."""
    return stored_folder(run, split) / "results.json"


def stored_file(run: Path, split: str, key: str, kind: str) -> Path:
    """Return a file of a sample; its kind is `IMAGE`, `TRUTH` or `PREDICTION`."""
    return stored_folder(run, split) / f"{key}_{kind}"
