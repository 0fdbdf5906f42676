"""Masks mean the same labels whatever the container, palette or EXIF; what may mean another is refused."""

import io
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from data_loader.common.options import ImageOptions, LabelOptions, MaskLoaderOptions, PairOptions
from data_loader.images.files import image_size, read_image, read_mask
from data_loader.segmentation.loader import SegmentationDataLoader
from utils.errors import DataError

OBJECT = np.zeros((40, 60), bool)
OBJECT[10:25, 15:40] = True


def palette_file(path, indices, colors):
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([value for color in colors for value in color])
    image.save(path)
    return path


def soft():
    """The object with soft edges, as a JPEG holds it; no value lies near 128."""
    file = io.BytesIO()
    Image.fromarray(OBJECT * np.uint8(255)).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
@pytest.mark.parametrize("colors", [(WHITE, BLACK), (BLACK, WHITE), ((250,) * 3, (9,) * 3), (BLACK, (128, 0, 0))])
def test_binary_palettes_are_read_by_colour(tmp_path, suffix, colors):
    is_second = OBJECT if colors[0][0] < 128 else ~OBJECT
    path = palette_file(tmp_path / f"m.{suffix}", is_second, colors)
    np.testing.assert_array_equal(read_mask(path, is_binary=True) > 0, OBJECT)
    np.testing.assert_array_equal(read_mask(path), is_second)  # ids are indices, as before


def test_a_palette_of_which_one_colour_is_used_is_read_by_it(tmp_path):
    for indices, value in ((OBJECT * 0, 255), (OBJECT * 0 + 1, 0)):
        mask = read_mask(palette_file(tmp_path / "m.png", indices, (WHITE, BLACK)), is_binary=True)
        assert (mask == value).all()


@pytest.mark.parametrize(
    "colors",
    [((200, 0, 0), (0, 200, 0)), ((200, 0, 0), BLACK), (BLACK, BLACK), (WHITE, WHITE), ((100,) * 3, (120,) * 3)],
)
def test_two_colours_that_are_not_black_and_white_are_named(tmp_path, colors):
    path = palette_file(tmp_path / "m.png", OBJECT, colors)
    named = re.escape(f"m.png has a palette, and the colours (red, green, blue) of its indices 0, 1 are {colors[0]}, ")
    with pytest.raises(DataError, match=rf"{named}.*Save the mask as grey, 0 and 255"):
        read_mask(path, is_binary=True)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif", "jpg"])
@pytest.mark.parametrize("with_palette", [True, False])
def test_two_bright_greys_of_which_none_is_the_background_are_named(tmp_path, suffix, with_palette):
    greys, path = np.where(OBJECT, np.uint8(250), np.uint8(180)), tmp_path / f"m.{suffix}"
    if with_palette and suffix != "jpg":
        palette_file(path, OBJECT, ((180,) * 3, (250,) * 3))
    else:
        Image.fromarray(greys).save(path)
    with pytest.raises(DataError, match=rf"m\.{suffix} has areas of the values 180, .*250.* all of them would be"):
        read_mask(path, is_binary=True)
    Image.fromarray(np.where(OBJECT, np.uint8(255), np.uint8(251))).save(path)  # noise
    assert (read_mask(path, is_binary=True) == 255).all()


def test_with_an_ignored_label_a_palette_begins_with_black(tmp_path):
    """As in PASCAL VOC: 0 background, 15 person, 255 border."""
    indices = OBJECT * 15
    indices[8:10, 15:40] = 255
    colors = [BLACK] + [(192, 128, 128)] * 254 + [(224, 224, 192)]
    mask = read_mask(palette_file(tmp_path / "m.png", indices, colors), is_binary=True, ignore_index=255)
    np.testing.assert_array_equal(mask, np.where(indices == 15, 254, indices))
    with pytest.raises(DataError, match=r"m\.png has a palette.*0, the background, must be black"):
        read_mask(palette_file(tmp_path / "m.png", OBJECT, (WHITE, BLACK)), is_binary=True, ignore_index=255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("is_binary", [True, False])
def test_an_object_in_the_alpha_channel_is_refused(tmp_path, mode, value, is_binary):
    image = Image.new("L", (60, 40), value).convert(mode)
    image.putalpha(Image.fromarray(OBJECT * np.uint8(255)))
    for suffix in ("png", "tif"):
        image.save(tmp_path / f"m.{suffix}")
        with pytest.raises(
            DataError, match=rf"m\.{suffix} has the one value {value} everywhere, and a shape in its al"
        ):
            read_mask(tmp_path / f"m.{suffix}", is_binary=is_binary)


def test_alpha_that_agrees_with_the_colours_or_says_nothing_is_accepted(tmp_path):
    grey = Image.fromarray(OBJECT * np.uint8(255)).convert("RGBA")
    for alpha in (OBJECT * np.uint8(255), np.full(OBJECT.shape, 7, np.uint8), np.zeros(OBJECT.shape, np.uint8)):
        grey.putalpha(Image.fromarray(alpha))
        grey.save(tmp_path / "m.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "m.png", is_binary=True) > 0, OBJECT)
    erased = np.full(OBJECT.shape, 255, np.uint8)
    erased[10:12] = 0  # two rows of the object, erased in an editor that leaves their colour
    grey.putalpha(Image.fromarray(erased))
    grey.save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png is transparent at 50 pixels of the object"):
        read_mask(tmp_path / "m.png", is_binary=True)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "gif", "webp", "16.png", "jpeg.tif", "rgb.png"])
def test_soft_masks_are_divided_at_half_the_range_whatever_the_container(tmp_path, suffix):
    grey = soft()
    assert np.count_nonzero((grey > 0) & ~OBJECT) > 50
    path = tmp_path / f"m.{suffix}"
    if suffix == "16.png":
        cv2.imwrite(str(path), grey.astype(np.uint16) * 257)
    else:
        lossless = {"webp": {"lossless": True}, "jpeg.tif": {"compression": "jpeg", "quality": 95}}
        image = Image.fromarray(grey if suffix != "jpg" else OBJECT * np.uint8(255))
        image = image.convert("RGB") if suffix in ("webp", "rgb.png") else image
        image.save(path, **lossless.get(suffix, {}))
    np.testing.assert_array_equal(read_mask(path, is_binary=True), OBJECT * np.uint8(255))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("size", [(1, 1), (5, 1), (1, 5)])
def test_masks_of_one_row_or_column(tmp_path, suffix, size):
    options = {"lossless": True} if suffix == "webp" else {}
    image = Image.fromarray(np.full(size, 255, np.uint8))
    image.convert("RGB" if suffix == "webp" else "L").save(tmp_path / f"m.{suffix}", **options)
    np.testing.assert_array_equal(read_mask(tmp_path / f"m.{suffix}", is_binary=True), np.full(size, 255))


@pytest.mark.parametrize("scale", [1, 7, 255, 300, 1000])
def test_every_value_above_0_is_the_object_if_none_reaches_half_the_range(tmp_path, scale):
    cv2.imwrite(str(tmp_path / "m.png"), OBJECT.astype(np.uint16 if scale > 255 else np.uint8) * scale)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", is_binary=True) > 0, OBJECT)


@pytest.mark.parametrize("third", [1, 15, 100, 200])
def test_a_third_value_that_fills_areas_is_named(tmp_path, third):
    mask = OBJECT * np.uint8(third)
    mask[28:36, 15:40] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=rf"m\.png has areas of the values 0, {third}, 255: .* ignore_index, or give "):
        read_mask(tmp_path / "m.png", is_binary=True)
    ignored = read_mask(tmp_path / "m.png", is_binary=True, ignore_index=255)
    np.testing.assert_array_equal(ignored, np.where(mask == third, 254, mask))


@pytest.mark.parametrize(
    ("suffix", "kind", "options"),
    [
        ("jpg", "JPEG", {"quality": 95}),
        ("webp", "lossy WebP", {"quality": 80}),
        ("tif", "TIFF with JPEG inside", {"compression": "jpeg", "quality": 75}),
        ("jp2", "JPEG2000", {}),
        ("avif", "AVIF", {}),
    ],
)
def test_ids_in_lossy_containers_are_refused(tmp_path, suffix, kind, options):
    path = tmp_path / f"m.{suffix}"
    Image.fromarray(OBJECT * np.uint8(3)).convert("RGB").save(path, **options)
    with pytest.raises(DataError, match=rf"m\.{suffix} is a {kind}. {kind} changes labels: save masks as PNG"):
        read_mask(path)
    with pytest.raises(DataError, match=rf"is a {kind} whose largest value is [1-9]. A {kind} is divided at 128"):
        read_mask(path, is_binary=True)


def test_animated_and_extended_webp_are_seen_as_what_they_are(tmp_path):
    frames = [Image.fromarray(OBJECT * np.uint8(3)).convert("RGB"), Image.new("RGB", (60, 40))]
    for lossless in (True, False):
        frames[0].save(tmp_path / "m.webp", save_all=True, append_images=frames[1:], lossless=lossless)
        if lossless:
            np.testing.assert_array_equal(read_mask(tmp_path / "m.webp"), OBJECT * 3)
        else:
            with pytest.raises(DataError, match="is a lossy WebP"):
                read_mask(tmp_path / "m.webp")


def test_coloured_lossy_masks_are_refused_and_tinted_grey_is_not(tmp_path):
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = OBJECT * 255
    for suffix in ("jpg", "webp"):
        Image.fromarray(red).save(tmp_path / f"m.{suffix}")
        with pytest.raises(DataError, match=rf"m\.{suffix} has colours"):
            read_mask(tmp_path / f"m.{suffix}", is_binary=True)
        Image.fromarray(np.where(OBJECT[..., None], np.uint8([255, 250, 245]), np.uint8(0))).save(tmp_path / "t.jpg")
        np.testing.assert_array_equal(read_mask(tmp_path / "t.jpg", is_binary=True) > 0, OBJECT)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "palette.png"])
def test_photo_and_mask_are_turned_alike(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = Image.fromarray(OBJECT * np.uint8(255))
    options = {"lossless": True} if suffix == "webp" else {}
    if suffix == "palette.png":
        grey = grey.convert("P")
    grey.convert("RGB" if suffix == "webp" else grey.mode).save(tmp_path / f"m.{suffix}", exif=exif, **options)
    grey.convert("RGB").save(tmp_path / "p.jpg", exif=exif, quality=95)
    photo, mask = read_image(tmp_path / "p.jpg"), read_mask(tmp_path / f"m.{suffix}", is_binary=True)
    np.testing.assert_array_equal(mask > 0, photo[..., 0] > 128)
    assert image_size(tmp_path / f"m.{suffix}", upright=True)[:2] == mask.shape


def test_an_orientation_behind_the_pixels_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(OBJECT * np.uint8(255)).save(tmp_path / "m.png", exif=exif)
    data = (tmp_path / "m.png").read_bytes()
    start = data.index(b"eXIf") - 4  # length, name, content, checksum
    end, last = start + 12 + int.from_bytes(data[start : start + 4], "big"), data.index(b"IEND") - 4
    (tmp_path / "m.png").write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    mask = read_mask(tmp_path / "m.png", is_binary=True)
    np.testing.assert_array_equal(mask, np.rot90(OBJECT, -1) * np.uint8(255))
    np.testing.assert_array_equal(mask, read_image(tmp_path / "m.png")[..., 0])


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_a_photo_of_four_channels_is_turned_like_its_colours(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 8
    pixels = np.random.default_rng(0).integers(1, 256, (4, 6, 4), dtype=np.uint8)
    pixels[..., 3] = 254
    Image.fromarray(pixels).save(
        tmp_path / f"a.{suffix}", exif=exif, **({"lossless": True} if suffix == "webp" else {})
    )
    four = read_image(tmp_path / f"a.{suffix}", in_channels=4)
    np.testing.assert_array_equal(four, np.rot90(pixels))
    np.testing.assert_array_equal(four[..., :3], read_image(tmp_path / f"a.{suffix}"))


def test_a_loader_reads_white_first_palettes_like_grey(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (*OBJECT.shape, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "p.png")
    palette_file(tmp_path / "pal.png", ~OBJECT, (WHITE, BLACK))
    Image.fromarray(OBJECT * np.uint8(255)).save(tmp_path / "grey.png")
    masks = []
    for name in ("pal", "grey"):
        (tmp_path / "list.txt").write_text(f"p.png,{name}.png\n")
        loader = SegmentationDataLoader(
            PairOptions(pairs_file=str(tmp_path / "list.txt")),
            labels=LabelOptions(binary_masks=True),
            images=ImageOptions(),
            loading=MaskLoaderOptions(is_training=False, batch_size=1),
        )
        masks.append(next(iter(loader))[2][0].target.numpy())
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], OBJECT)
