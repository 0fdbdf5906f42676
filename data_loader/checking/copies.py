"""Images that are copies of others, or nearly: the next frame of a video, a shifted, scaled or recompressed copy.

Pairs whose fingerprints differ in few bits are compared on grey thumbnails. A smooth trend is taken out of these first:
the sky is bright and the road dark in every photo of a street. An image of which nothing is left then, such as a blank
sky, is no copy of anything. On pairs of CamVid and of photos of people that were looked at, two photos of the same
kind of scene reach 0.90 of correlation, and pictures of the same moment 0.96 and more.
"""

from collections.abc import Iterator, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from data_loader.checking.facts import THUMBNAIL, SplitFacts

_DIFFERENT_BITS = 14  # of 64, at most; 32 are expected by chance
_LEAST_CORRELATION = 0.94  # at the best shift
_LEAST_UNSHIFTED = 0.5
_MARGIN = 3  # of a thumbnail: the largest shift, about a tenth of the image
_BLUR = 1.0  # standard deviation: shifts by a fraction of a thumbnail's pixel then make no difference
_LEAST_CONTRAST = 4.0  # standard deviation of a thumbnail without its trend, in levels of 0 to 255
_NEAREST = 64  # fingerprints of the other split that are looked at for an image, at most
_ROWS = 1024  # images that are worked on at once
_MOST_CONFIRMED = 100_000  # pairs of thumbnails, about five seconds


def near_copies(one: SplitFacts, other: SplitFacts) -> list[tuple[int, int]]:
    """Return pairs of samples that look alike but are not equal, at most one for each sample of `other`, in its order.

    Args:
        one: Facts of a split.
        other: Facts of another split.
    """
    if not (len(one.compared) and len(other.compared)):
        return []
    first, has_first = _details(one.thumbnails)
    second, has_second = _details(other.thumbnails)
    best: dict[int, tuple[float, int]] = {}
    confirmed = 0
    for lefts, rights in _alike(one, other):
        usable = has_first[lefts] & has_second[rights]
        for left, right in zip(lefts[usable].tolist(), rights[usable].tolist(), strict=True):
            i, j = int(one.compared[left]), int(other.compared[right])
            if one.digests[i] == other.digests[j] or first[left] @ second[right] < _LEAST_UNSHIFTED:
                continue
            score = _best_correlation(first[left], second[right])
            if score >= _LEAST_CORRELATION and score > best.get(j, (0.0, 0))[0]:
                best[j] = (score, i)
            confirmed += 1
            if confirmed == _MOST_CONFIRMED:
                return _pairs(best)
    return _pairs(best)


def _pairs(best: Mapping[int, tuple[float, int]]) -> list[tuple[int, int]]:
    return [(best[position][1], position) for position in sorted(best)]


def _alike(one: SplitFacts, other: SplitFacts) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs whose fingerprints differ in few bits, as positions in `compared`."""
    first, second = (each.fingerprints.view(np.uint8).reshape(-1, 8) for each in (one, other))
    nearest = min(_NEAREST, len(first))
    for start in range(0, len(second), _ROWS):
        rows = second[start : start + _ROWS]
        bits, positions = cv2.batchDistance(rows, first, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=nearest)
        right, place = np.nonzero(bits <= _DIFFERENT_BITS)
        yield positions[right, place].astype(np.int64), right + start


def _details(thumbnails: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return thumbnails without their trend, of mean 0 and length 1, and which of them have enough details.

    Args:
        thumbnails: (n, 32, 32) uint8.

    Returns:
        (n, 1024) float32 and (n,) bool.
    """
    y, x = (axis.ravel() for axis in np.mgrid[-1 : 1 : THUMBNAIL * 1j, -1 : 1 : THUMBNAIL * 1j])
    trend, _ = np.linalg.qr(np.stack([x**0, x, y, x * y, x**2, y**2], axis=1))
    basis = trend.astype(np.float32)
    details = np.empty((len(thumbnails), THUMBNAIL**2), np.float32)
    has_details = np.empty(len(thumbnails), np.bool_)
    for start in range(0, len(thumbnails), _ROWS):
        rows = slice(start, start + _ROWS)
        blurred = [cv2.GaussianBlur(each, (0, 0), _BLUR).ravel() for each in thumbnails[rows].astype(np.float32)]
        flat = np.stack(blurred)
        flat -= (flat @ basis) @ basis.T
        lengths = np.linalg.norm(flat, axis=1, keepdims=True)
        has_details[rows] = lengths[:, 0] >= _LEAST_CONTRAST * THUMBNAIL
        details[rows] = flat / np.maximum(lengths, 1e-6)
    return details, has_details


def _best_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the correlation at the best shift of the middle of either on the other; the lower of the two."""
    first, second = (each.reshape(THUMBNAIL, THUMBNAIL) for each in (one, other))
    inner = slice(_MARGIN, THUMBNAIL - _MARGIN)
    scores = [
        float(cv2.matchTemplate(whole, middle[inner, inner].copy(), cv2.TM_CCOEFF_NORMED).max())
        for whole, middle in ((first, second), (second, first))
    ]
    return min(scores)
