"""Images and masks of every kind come in with the values they were written with."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_loader.images.files import image_size, read_image, read_mask
from data_loader.images.tiff import with_colours_as_stored
from utils.errors import DataError

PEOPLE = "data/people/images/valid/0009.jpg"


def draw(*shape, dtype=np.uint8):
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def write(path, rgb):
    order = {2: ..., 3: (..., [2, 1, 0, 3][: rgb.shape[-1]])}[rgb.ndim]
    assert cv2.imwrite(str(path), rgb[order])
    return path


def grey_png(ids, bits):
    """A PNG of 1, 2 or 4 bits per pixel, which no writer here makes."""
    rows = b""
    for row in ids:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_images_are_rgb_and_lose_their_alpha(tmp_path, suffix, dtype, channels):
    pixels = draw(7, 5, channels, dtype=dtype)
    path = write(tmp_path / f"a.{suffix}", pixels)
    image = read_image(path)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, pixels[..., :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_grey_image_has_three_equal_channels(tmp_path, dtype):
    pixels = draw(7, 5, dtype=dtype)
    image = read_image(write(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(image, np.stack([pixels] * 3, axis=2))


def test_the_fourth_channel_is_kept_on_demand(tmp_path):
    pixels = draw(7, 5, 4)
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.png", pixels), in_channels=4), pixels)
    with pytest.raises(DataError, match=r"no fourth channel, but in_channels is 4. Set in_channels to 3 or 1"):
        read_image(PEOPLE, in_channels=4)


def test_a_path_may_hold_any_character(tmp_path):
    path = tmp_path / "Größe 图.png"
    path.write_bytes(write(tmp_path / "a.png", draw(3, 4, 3)).read_bytes())
    assert read_image(path).shape == (3, 4, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_their_exif_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((40, 20, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    expected = (40, 20) if orientation < 5 else (20, 40)
    assert read_image(tmp_path / "a.jpg").shape[:2] == expected
    assert image_size(tmp_path / "a.jpg", upright=True)[:2] == expected
    assert image_size(tmp_path / "a.jpg", upright=False)[:2] == (40, 20)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_masks_keep_their_ids(tmp_path, dtype, suffix):
    ids = draw(7, 5, dtype=dtype)
    mask = read_mask(write(tmp_path / f"m.{suffix}", ids))
    assert mask.dtype == dtype
    np.testing.assert_array_equal(mask, ids)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_a_palette_mask_gives_indices_not_colours(tmp_path, suffix):
    ids = draw(7, 5) % 4
    image = Image.fromarray(ids)
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    image.save(tmp_path / f"m.{suffix}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"m.{suffix}"), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_are_not_stretched(tmp_path, bits):
    ids = draw(7, 5) % (2**bits)
    (tmp_path / "m.png").write_bytes(grey_png(ids, bits))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), ids)


def test_a_grey_mask_saved_with_colour_channels_is_read_but_colours_are_refused(tmp_path):
    ids = draw(7, 5)
    np.testing.assert_array_equal(read_mask(write(tmp_path / "m.png", np.stack([ids] * 3, axis=2))), ids)
    with pytest.raises(DataError, match=r"c\.png has colours; a mask must hold one class id per pixel"):
        read_mask(write(tmp_path / "c.png", draw(7, 5, 3)))


@pytest.mark.parametrize("read", [read_image, read_mask, lambda path: image_size(path, upright=True)])
def test_what_cannot_be_read_is_named(tmp_path, read):
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        read(tmp_path / "none.png")
    for name, content in (("empty.png", b""), ("text.jpg", b"hello")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} cannot be read as an image: it is .*Replace the file"):
            read(tmp_path / name)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_file_cut_off_is_an_error(tmp_path, suffix, share):
    whole = tmp_path / f"whole.{suffix}"
    write(whole, read_image(PEOPLE))
    data = whole.read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(data[: int(len(data) * share)])
    assert read_image(whole).shape == (192, 129, 3)
    with pytest.raises(DataError, match=r"cut\.\w+ cannot be read as an image"):
        read_image(tmp_path / f"cut.{suffix}")


def test_the_thumbnail_in_a_jpeg_does_not_hide_that_it_is_cut(tmp_path):
    """The end mark of an embedded thumbnail is not the end of the photo."""
    photo = Path(PEOPLE).read_bytes()
    thumbnail = b"Exif\0\0" + photo[:2000] + b"\xff\xd9"
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    (tmp_path / "a.jpg").write_bytes(photo[:2] + segment + photo[2:])
    assert read_image(tmp_path / "a.jpg").shape == (192, 129, 3)
    (tmp_path / "cut.jpg").write_bytes((photo[:2] + segment + photo[2:])[:-3000])
    with pytest.raises(DataError, match=r"cut\.jpg cannot be read"):
        read_image(tmp_path / "cut.jpg")


def test_sixteen_bits_are_seen_in_the_header(tmp_path):
    assert image_size(write(tmp_path / "a.png", draw(7, 5, 3, dtype=np.uint16)), upright=True) == (7, 5, 2)
    assert image_size(PEOPLE, upright=True) == (192, 129, 1)


def test_masks_of_fractions_are_refused(tmp_path):
    Image.fromarray(np.full((4, 6), 0.5, np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(DataError, match=r"m\.tif holds float32 values; a mask must hold one class id per pixel"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize(("value", "named"), [(70000, "70000"), (-3, "-3")])
def test_masks_of_values_that_are_no_ids_are_refused(tmp_path, value, named):
    Image.fromarray(np.full((4, 6), value, np.int32)).save(tmp_path / "m.tif")
    with pytest.raises(DataError, match=rf"m\.tif holds the value {named}; class ids are 0 to 65535. Correct the mask"):
        read_mask(tmp_path / "m.tif")


def test_black_and_white_jpeg_masks_are_divided_at_half_the_range(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[10:31, 7:22] = 255
    Image.fromarray(mask).save(tmp_path / "m.jpg", quality=60)
    ringing = cv2.imread(str(tmp_path / "m.jpg"), cv2.IMREAD_GRAYSCALE)
    assert ((ringing > 0) & (mask == 0)).sum() > 50
    assert ((read_mask(tmp_path / "m.jpg", is_binary=True) > 0) == (mask > 0)).mean() > 0.98
    Image.fromarray(mask * 0).save(tmp_path / "empty.jpg")
    assert not read_mask(tmp_path / "empty.jpg", is_binary=True).any()


def test_jpeg_masks_of_ids_are_refused(tmp_path):
    Image.fromarray(np.full((8, 8), 1, np.uint8)).save(tmp_path / "m.jpg")
    with pytest.raises(DataError, match=r"m\.jpg is a JPEG. JPEG changes labels: save masks as PNG. Only masks of 0"):
        read_mask(tmp_path / "m.jpg")
    with pytest.raises(DataError, match=r"m\.jpg is a JPEG whose largest value is 1. A JPEG is divided at 128"):
        read_mask(tmp_path / "m.jpg", is_binary=True)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_changes_no_colour_of_a_tiff(tmp_path, mode, options):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, len(mode)), dtype=np.uint8)
    Image.fromarray(pixels, mode).save(tmp_path / "a.tif", **options)
    colours = pixels[..., :3] if mode == "RGBA" else np.repeat(pixels[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), colours)
    if mode == "RGBA":
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif", in_channels=4), pixels)


def test_a_tiff_that_would_be_decoded_wrongly_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), np.zeros((4, 6, 3), np.uint16))
    data = (tmp_path / "a.tif").read_bytes()
    interleaved, separate = (struct.pack("<HHIH", 284, 3, 1, kind) for kind in (1, 2))
    assert interleaved in data
    (tmp_path / "a.tif").write_bytes(data.replace(interleaved, separate))
    with pytest.raises(
        DataError, match=r"a\.tif cannot be read .* channels of 16 bits lie in separate planes, and must"
    ):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("kind", "form"), [(1, "Bxxx"), (3, "Hxx"), (4, "I")])
def test_planes_are_refused_if_their_bits_are_stored_once(kind, form):
    """A list of three properties: 16 bits, three channels, in separate planes, each a whole number of any length."""
    entries = [struct.pack(f"<HHI{form}", tag, kind, 1, value) for tag, value in ((258, 16), (277, 3), (284, 2))]
    data = struct.pack("<2sHIH", b"II", 42, 8, 3) + b"".join(entries)
    with pytest.raises(ValueError, match=r"channels of 16 bits lie in separate planes, and must be interleaved"):
        with_colours_as_stored(data)
    one = data.replace(entries[1], entries[1][:8] + struct.pack(f"<{form}", 1))
    assert with_colours_as_stored(one) == one
    alpha = struct.pack(f"<2sHIHHHI{form}", b"II", 42, 8, 1, 338, kind, 1, 2)
    assert with_colours_as_stored(alpha) == alpha[:-4] + bytes(4)


def test_headers_of_tiffs_of_any_kind_are_read():
    """A list of one property: ExtraSamples, of which the second says alpha that is independent of the colours."""
    plain = struct.pack(">2sHIHHHI2HI", b"MM", 42, 8, 1, 338, 3, 2, 0, 2, 0)
    assert with_colours_as_stored(plain) == plain.replace(b"\0\0\0\2\0\0\0\0", bytes(8))
    far = struct.pack("<2sHIHHHII3H", b"II", 42, 8, 1, 338, 3, 3, 22, 0, 1, 2)
    assert with_colours_as_stored(far) == far[:-2] + bytes(2)
    cut, beyond = far[:-1], struct.pack("<2sHIQQHHQQ", b"II", 43, 8, 16, 1, 338, 3, 9, 2**64 - 1)
    for data in (cut, beyond, b"II*\0", b"MM\0+", plain[:12]):
        assert with_colours_as_stored(data) == data
