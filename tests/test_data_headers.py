"""Headers that are read without a decoder, against Pillow; JPEGs that are decoded at a part of their size."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from data_loader.classification.loader import ImageClassificationDataLoader
from data_loader.common.options import ImageOptions
from data_loader.images import files
from data_loader.images.files import image_size, read_image, read_scaled_image
from data_loader.images.headers import HEAD_BYTES, quick_header
from data_loader.images.preprocessing import Preprocessing
from data_loader.segmentation.loader import SegmentationDataLoader
from tests.support.groups import from_flat

ROTATED = 6  # EXIF: a quarter turn clockwise


def content(mode, kind, size=(20, 30), **options):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA") if mode != "I;16" else Image.fromarray(pixels[..., 0].astype(np.uint16))
    (image if mode in ("RGBA", "I;16") else image.convert("RGB").convert(mode)).save(file, kind, **options)
    return file.getvalue()


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        *((mode, "PNG", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *((mode, "JPEG", {}) for mode in ("L", "RGB", "CMYK")),
        ("RGB", "JPEG", {"progressive": True, "exif": exif(1), "comment": b"x" * 100}),
        ("RGB", "PNG", {"dpi": (72, 72), "exif": exif(1)}),
    ],
)
def test_a_header_is_that_of_pillow(tmp_path, monkeypatch, mode, kind, options):
    data = content(mode, kind, **options)
    quick = quick_header(data[:HEAD_BYTES])
    slow = files._header_of_pillow(io.BytesIO(data), "a", data, upright=False)
    assert quick is not None
    assert quick._replace(has_exif=False) == slow
    assert quick.has_exif == ("exif" in options)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        content("RGB", "JPEG")[:300],
        content("RGB", "PNG")[:30],
        content("RGB", "PNG").replace(b"IHDR", b"IHDx"),
        content("RGB", "JPEG", exif=b"Exif\0\0" + bytes(2 * HEAD_BYTES))[:HEAD_BYTES],
        content("RGB", "BMP"),
        content("RGB", "WEBP"),
    ],
)
def test_what_is_not_common_is_left_to_pillow(data):
    assert quick_header(data) is None


def test_a_changed_header_of_a_png_is_not_believed():
    data = bytearray(content("RGB", "PNG"))
    data[19] ^= 1  # the width
    assert quick_header(bytes(data)) is None


def smooth(height, width):
    """A photo without details that reduced decoding could lose."""
    noise = np.random.default_rng(1).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def write_jpeg(path, image, **options):
    Image.fromarray(image).save(path, quality=95, **options)
    return path


@pytest.mark.parametrize(
    ("least", "expected"),
    [((105, 40), (208, 152)), ((104, 76), (104, 76)), ((52, 38), (52, 38)), ((26, 20), (52, 38)), ((9, 9), (26, 19))],
)
def test_a_jpeg_is_decoded_no_larger_and_no_smaller_than_needed(tmp_path, least, expected):
    path = write_jpeg(tmp_path / "a.jpg", smooth(208, 152))
    image, original = read_scaled_image(path, lambda size: least)
    assert (image.shape, original) == ((*expected, 3), (208, 152))
    whole = cv2.resize(read_image(path), expected[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - whole).mean() < 2


@pytest.mark.parametrize(
    ("width", "decoded"),
    [(1001, [1001] * 3), (1002, [501] * 3), (1003, [1003] * 3), (1004, [502, 251, 251]), (1008, [504, 252, 126])],
)
def test_an_image_that_is_decoded_at_a_part_of_its_size_lies_on_its_mask(tmp_path, width, decoded):
    photo = np.zeros((80, width, 3), np.uint8)
    photo[:, width - 70 :] = 255
    path = write_jpeg(tmp_path / "a.jpg", photo)
    preprocessing = Preprocessing(ImageOptions(resize=[40, 100]))

    def edge(image):
        shrunk = preprocessing.scaled(image, (10, 100))
        return 100 - shrunk[5, 80:, 0].sum() / 255  # no lower than the ringing of the JPEG

    for factor, expected in zip((2, 4, 8), decoded, strict=True):
        image, original = read_scaled_image(path, lambda size, factor=factor: (80 // factor, width // factor))
        assert (image.shape[1], original) == (expected, (80, width))
        assert edge(image) == pytest.approx(edge(read_image(path)), abs=0.02)


def test_the_orientation_counts_before_the_size(tmp_path):
    path = write_jpeg(tmp_path / "a.jpg", smooth(200, 150), exif=exif(ROTATED))
    asked = []
    image, original = read_scaled_image(path, lambda size: asked.append(size) or (40, 60))
    assert (image.shape, original, asked) == ((75, 100, 3), (150, 200), [(150, 200)])
    assert image_size(path, upright=True)[:2] == (150, 200)


def test_an_orientation_that_the_decoder_does_not_know_changes_nothing(tmp_path):
    camera = Image.Exif()
    camera[271] = "maker"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path = write_jpeg(tmp_path / "a.jpg", smooth(200, 400), exif=camera.tobytes(), xmp=xmp)
    with Image.open(path) as opened:
        assert opened.getexif()[274] == 6
    for least in ((20, 20), (300, 300)):
        image, original = read_scaled_image(path, lambda size, least=least: least)
        assert original == (200, 400) == image.shape[:2]


def test_other_files_are_decoded_as_they_are(tmp_path):
    for mode in ("RGB", "RGBA"):
        (tmp_path / "a.png").write_bytes(content(mode, "PNG", size=(40, 60)))
        image, original = read_scaled_image(tmp_path / "a.png", lambda size: (1, 1), in_channels=len(mode))
        assert (image.shape, original) == ((40, 60, len(mode)), (40, 60))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_loader_decodes_less_and_yields_nearly_the_same(tmp_path, channels):
    for split in ("train", "val"):
        for name in ("a", "b"):
            for side in ("data", "labels"):
                (tmp_path / side / split).mkdir(parents=True, exist_ok=True)
            write_jpeg(tmp_path / "data" / split / f"{name}.jpg", smooth(160, 120))
            cv2.imwrite(str(tmp_path / "labels" / split / f"{name}.png"), smooth(160, 120)[..., 0] // 128)
    options = {"num_classes": 2, "resize": [40, 40], "in_channels": channels, "is_training": False, "batch_size": 2}
    whole, reduced = (
        next(iter(from_flat(SegmentationDataLoader, folder=str(tmp_path), **options, reduced_decoding=value)))
        for value in (False, True)
    )
    difference = (whole[0] - reduced[0]).abs()
    assert difference.max() > 0
    assert difference.mean() < 0.04  # about two of 255 levels
    assert (whole[1] == reduced[1]).all()
    assert [each.geometry for each in whole[2]] == [each.geometry for each in reduced[2]]


def test_images_with_classes_are_reduced_too(tmp_path, monkeypatch):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        write_jpeg(tmp_path / name / "a.jpg", smooth(160, 120))
    loader = from_flat(ImageClassificationDataLoader, folder=str(tmp_path), resize=20, reduced_decoding=True)
    monkeypatch.setattr(files, "_decoded_image", None)  # decodes a whole image
    assert next(iter(loader))[0].shape == (2, 3, 20, 20)


def test_images_of_8_and_of_16_bits_share_a_batch(tmp_path):
    for name, dtype, value in (("8", np.uint8, 200), ("16", np.uint16, 200 * 257)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8, 3), value, dtype))
        cv2.imwrite(str(tmp_path / f"{name}_mask.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "pairs.txt").write_text("8.png, 8_mask.png\n16.png, 16_mask.png\n")
    options = {"num_classes": 2, "normalize": False, "batch_size": 2, "is_training": False, "shuffle": False}
    inputs, *_ = next(iter(from_flat(SegmentationDataLoader, pairs_file=str(tmp_path / "pairs.txt"), **options)))
    assert inputs.mean(dim=(1, 2, 3)).tolist() == pytest.approx([200 / 255] * 2)
