"""Draw the README's image: test photos, their true masks, and what a trained network cuts out.

python benchmarks/readme_picture.py saved/people_unet/RUN data/human_ccp/test_pairs.txt docs/people.jpg
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np

from benchmarks.result_files import require_kind
from data_loader.images.files import read_image, read_mask
from data_loader.segmentation.pairs import list_pairs
from inference import load
from utils.drawing import panel
from utils.images.palette import Palette
from utils.writing.outputs import Originals, OutputKind

CHOSEN = (2, 11, 23, 37, 58, 74)
PAPER = 245  # grey level behind a cut-out


def main(checkpoint: str, pairs_file: str, output: str) -> None:
    """Draw six photos in three rows."""
    pairs = list_pairs(Path(pairs_file)).whole()
    originals = [Path(checkpoint), Path(pairs_file), *(file for pair in pairs for file in pair)]
    jpeg = OutputKind("a JPEG", (".jpg",), lambda path: path.read_bytes().startswith(b"\xff\xd8\xff"))
    require_kind(Path(output), jpeg, "OUTPUT", Originals(originals))
    segmenter, palette = load(checkpoint), Palette.of(2)
    photos, truths, cut_outs = [], [], []
    for number in CHOSEN:
        photo, mask = read_image(pairs[number][0]), read_mask(pairs[number][1])
        person = segmenter.probabilities([photo])[0][1][..., None]
        photos.append(photo)
        truths.append(palette.overlay(photo, mask))
        cut_outs.append((photo * person + PAPER * (1 - person)).astype(np.uint8))
    rows = [
        panel(images, captions)
        for images, captions in (
            (photos, ["photo"] * len(CHOSEN)),
            (truths, ["truth"] * len(CHOSEN)),
            (cut_outs, ["cut out"] * len(CHOSEN)),
        )
    ]
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0)), constant_values=18) for row in rows]
    cv2.imwrite(output, cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main(*sys.argv[1:])
