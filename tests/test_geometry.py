"""The way of logits back to the size of an image: hand-computed."""

import pytest
import torch

from utils.geometry import Geometry, letterbox_geometry, restore_logits


def test_logits_are_enlarged_between_the_centres_of_pixels():
    # Twice as wide: the new pixels lie a quarter before and after the old centres; the corners are not aligned.
    geometry = Geometry(original=(1, 4), resized=(1, 2), offset=(0, 0), padded=(1, 2))
    assert restore_logits(torch.tensor([[[0.0, 1.0]]]), geometry).tolist() == [[[0.0, 0.25, 0.75, 1.0]]]


def test_padding_is_cut_off_before_logits_are_enlarged():
    geometry = letterbox_geometry((2, 6), (4, 4))
    assert geometry == Geometry(original=(2, 6), resized=(1, 4), offset=(1, 0), padded=(4, 4))
    logits = torch.full((1, 4, 4), 100.0)
    logits[:, 1] = torch.tensor([0.0, 3.0, 6.0, 9.0])
    restored = restore_logits(logits, geometry)
    assert restored.shape == (1, 2, 6)
    # Pixel i of six is at (i + 0.5) * 4 / 6 - 0.5 of the four; beyond the first and last centre the value stays.
    expected = [0.0, 1.5, 3.5, 5.5, 7.5, 9.0]
    assert restored[0].tolist() == [pytest.approx(expected)] * 2


@pytest.mark.parametrize("size", [None, (3, 5)])
def test_logits_of_the_wanted_size_stay_as_they_are(size):
    geometry = Geometry(original=(3, 5), resized=(3, 5), offset=(1, 0), padded=(6, 5))
    logits = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(restore_logits(logits, geometry, size), logits[:, 1:4])


@pytest.mark.parametrize("original", [(200, 300), (300, 200), (200, 200), (30, 20)])
@pytest.mark.parametrize("num_classes", [1, 2, 3, 4, 21])
def test_channels_last_logits_are_enlarged_to_the_same_numbers_without_a_copy_to_another_format(original, num_classes):
    geometry = letterbox_geometry(original, (96, 96))
    logits = torch.randn(2, num_classes, 96, 96, generator=torch.Generator().manual_seed(1))
    sample = logits.to(memory_format=torch.channels_last)[1]
    restored = restore_logits(sample, geometry)
    (top, left), (height, width) = geometry.offset, geometry.resized
    inside = sample[:, top : top + height, left : left + width]
    plain = torch.nn.functional.interpolate(inside[None], size=original, mode="bilinear", align_corners=False)[0]
    assert torch.equal(restored, plain)
    assert (restored.stride(0) == 1) == (num_classes > 3)
