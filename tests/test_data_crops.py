"""Crops come from the full-size image: as sharp as those cut from the file, for every loader that crops."""

import cv2
import numpy as np
import pytest
from PIL import Image

from data_loader.classification.loader import ImageClassificationDataLoader
from data_loader.common.image_cache import share_decoded
from data_loader.common.options import ArrayOptions, AugmentationOptions, ImageOptions, TurnOptions
from data_loader.images.arrays import ArrayPreprocessing
from data_loader.images.augmentation import Augmentation, RandomValues
from data_loader.images.preprocessing import Enlargement, Preprocessing
from data_loader.segmentation.loader import SegmentationDataLoader
from tests.support.groups import from_flat

FILE = (240, 320)


class Chosen:
    """A generator whose next eleven numbers are chosen; in the middle if not named."""

    def __init__(self, **values):
        self.values = values

    def random(self, count):
        return np.array([self.values.get(name, 0.5) for name in RandomValues._fields])[:count]

    def integers(self, _):
        return np.int64(7)


def scene(seed=0, size=FILE):
    """An image with the spectrum of photos, in which the amplitude falls with the frequency: (h, w, 3) uint8."""
    generator = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None]
    amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / max(size))
    channels = [np.fft.ifft2(np.fft.fft2(generator.normal(size=size)) * amplitude).real for _ in range(3)]
    image = np.stack(channels, axis=2)
    return np.clip(128 + 45 * (image - image.mean()) / image.std(), 0, 255).astype(np.uint8)


def areas(image, top, left, window, size):
    """Return the window of an image (h, w, C), at any fractions of pixels, as averages of areas, (H, W, C) float."""
    for start, length, count in ((top, window[0], size[0]), (left, window[1], size[1])):
        edges = np.linspace(start, start + length, count + 1)
        sums = np.concatenate((np.zeros_like(image[:1], float), np.cumsum(image, axis=0, dtype=float)))
        whole = np.clip(np.floor(edges).astype(int), 0, len(image) - 1)
        share = (edges - whole).reshape(-1, 1, 1)
        image = np.diff(sums[whole] * (1 - share) + sums[whole + 1] * share, axis=0) * count / length
        image = image.transpose(1, 0, 2)
    return image


def sharpness(image):
    """Return the mean absolute Laplacian of an image (H, W, C), without its edge."""
    grey = np.asarray(image, float).mean(axis=2)
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_64F))[1:-1, 1:-1].mean())


def augment(file, mask=None, *, resize, values, **options):
    """Return image and mask as a loader makes them of a file."""
    preprocessing = Preprocessing(ImageOptions(resize))
    augmentation = Augmentation(AugmentationOptions(**options), preprocessing, 255)
    mask = np.zeros(file.shape[:2], np.uint8) if mask is None else mask
    kept = preprocessing.shrink(file, augmentation.enlargement)
    size = kept.shape[:2]
    small = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return augmentation(kept, small, Chosen(**values), file.shape[:2])


def relative_sharpness(*, resize, smallest, crop, values=None, **options):
    """Return sharpness of crops from the middle of some files, relative to those cut from the files themselves."""
    drawn = (crop - smallest) / (1.0 - smallest)
    found = ideal = 0.0
    for seed in range(4):
        file = scene(seed)
        image, _ = augment(
            file, resize=resize, values={"crop": drawn, **(values or {})}, crop_range=[smallest, 1.0], **options
        )
        height, width = crop * FILE[0], crop * FILE[1]
        found += sharpness(image)
        ideal += sharpness(areas(file, (FILE[0] - height) / 2, (FILE[1] - width) / 2, (height, width), resize))
    return found / ideal


@pytest.mark.parametrize("crop", [0.5, 0.55, 0.6, 0.75, 0.9, 1.0])
@pytest.mark.parametrize("resize", [(120, 160), (80, 108), (60, 80), (30, 40)])
def test_a_crop_is_as_sharp_as_one_that_is_cut_from_the_file(resize, crop):
    """Files of 2 to 8 times the input; images kept at the input's size had 0.4 to 0.6 of the sharpness."""
    resize = Preprocessing(ImageOptions(list(resize))).geometry(FILE).resized
    assert 0.95 <= relative_sharpness(resize=resize, smallest=0.5, crop=crop) <= 1.2


@pytest.mark.parametrize("smallest", [0.5, 0.7])
def test_of_a_file_that_is_little_larger_than_needed_a_crop_is_the_average_of_its_areas(smallest):
    file = scene()
    for crop in (smallest, 0.8, 1.0):
        drawn = (crop - smallest) / (1.0 - smallest)
        image, _ = augment(file, resize=[120, 160], values={"crop": drawn}, crop_range=[smallest, 1.0])
        height, width = int(crop * 240 + 1e-6), int(crop * 320 + 1e-6)
        top, left = round((240 - height) * 0.5), round((320 - width) * 0.5)
        expected = areas(file, top, left, (height, width), (120, 160))
        assert np.abs(image - expected).max() <= 1.0
        assert np.abs(image - expected).mean() <= 0.3  # that of rounding is 0.25


@pytest.mark.parametrize(
    ("resize", "largest"), [([120, 160], 0.0), ([160, 200], 0.0), ([60, 80], 3.0), ([30, 40], 3.0)]
)
def test_a_crop_of_the_whole_image_is_the_image_scaled_as_in_evaluation(resize, largest):
    """Equal if the file itself is in memory; if it was shrunk before, the mean difference is below 3 of 255 levels.

    The scene's deviation is 45 levels.
    """
    file = scene()
    image, _ = augment(file, resize=resize, values={"crop": 1.0}, crop_range=[0.6, 1.0])
    preprocessing = Preprocessing(ImageOptions(resize))
    geometry = preprocessing.geometry(FILE)
    expected = preprocessing.place(preprocessing.shrink(file), geometry)
    assert cv2.absdiff(image, expected).mean() <= largest


@pytest.mark.parametrize("side", [0.0, 0.99])
def test_a_quarter_turn_that_fits_a_larger_scale_is_sharp(side):
    """A landscape photo on a portrait input: turned, it fills 1.5 times the width of the one that is not."""
    preprocessing = Preprocessing(ImageOptions([150, 100]))
    file = scene(3, (200, 300))
    assert preprocessing.geometry((200, 300)).resized == (67, 100)
    image, _ = augment(file, resize=[150, 100], values={"turn": 0.0, "side": side}, rotate=1.0)
    expected = preprocessing.scaled(np.rot90(file, 1 if side < 0.5 else -1), (150, 100))
    assert 0.95 <= sharpness(image) / sharpness(expected) <= 1.05
    assert cv2.absdiff(image, expected).mean() < 2


@pytest.mark.parametrize("crop", [0.5, 0.7, 1.0])
def test_a_rotated_crop_is_sharp(crop):
    """Rotation by interpolation loses a fifth at most."""
    file = relative_sharpness(resize=(60, 80), smallest=0.5, crop=crop, values={"angle": 0.6}, angle=0.5)
    assert 0.8 <= file <= 1.25


@pytest.mark.parametrize("options", [{}, {"angle": 10.0}])
def test_a_window_much_larger_than_the_input_averages_what_lies_between(options):
    """Stripes of one pixel are grey from afar; an affine map alone would show every third of them, black and white."""
    file = np.zeros((240, 320, 3), np.uint8)
    file[:, ::2] = 255
    image, _ = augment(file, resize=[60, 80], values={"crop": 1.0}, crop_range=[0.25, 1.0], **options)
    assert image[20:40, 20:60].std() < 20


@pytest.mark.parametrize("options", [{}, {"angle": 20.0}, {"flip_hor": 1.0}, {"rotate": 1.0}])
@pytest.mark.parametrize("smallest", [0.3, 0.6])
def test_image_and_mask_stay_aligned(options, smallest):
    rows, columns = np.mgrid[:240, :320]
    mask = ((rows - 110) ** 2 + (columns - 180) ** 2 < 60**2).astype(np.uint8)
    file = np.stack([mask * 255] * 3, axis=2)
    for crop in (0.0, 0.3, 1.0):
        values = {"crop": crop, "left": 0.6, "top": 0.3, "flip": 0.1, "turn": 0.1, "angle": 0.9}
        image, placed = augment(file, mask, resize=[64, 80], values=values, crop_range=[smallest, 1.1], **options)
        inside = placed != 255
        labelled = placed[inside] == 1
        assert labelled.sum() > 200
        assert ((image[..., 0][inside] > 127) != labelled).sum() < 0.04 * labelled.sum()
        assert set(np.unique(placed)) <= {0, 1, 255}


def test_labels_are_those_under_the_centres_of_the_pixels():
    mask = (np.arange(240 * 320) % 251).astype(np.uint8).reshape(FILE)
    for left, top in ((0.0, 0.0), (0.37, 0.81), (1.0, 1.0)):
        values = {"crop": 0.0, "left": left, "top": top}
        _, placed = augment(scene(), mask, resize=[120, 160], values=values, crop_range=[0.7, 1.0])
        rows = round((240 - 168) * top) + ((np.arange(120) + 0.5) * 168 / 120).astype(int)
        columns = round((320 - 224) * left) + ((np.arange(160) + 0.5) * 224 / 160).astype(int)
        np.testing.assert_array_equal(placed, mask[rows][:, columns])


@pytest.mark.parametrize("options", [{}, {"crop_range": [0.5, 1.0]}, {"transforms": "one"}])
def test_a_sample_takes_the_same_random_values_as_ever(options):
    if "transforms" in options:
        options = {"transforms": [pytest.importorskip("albumentations").HorizontalFlip()], "crop_range": [0.5, 1.0]}
    generator, reference = np.random.default_rng(3), np.random.default_rng(3)
    preprocessing = Preprocessing(ImageOptions([60, 80]))
    augmentation = Augmentation(AugmentationOptions(**options), preprocessing, 255)
    augmentation(scene(), np.zeros(FILE, np.uint8), generator)
    if "transforms" in options:
        reference.integers(2**31)
    reference.random(11)
    assert generator.random() == reference.random()


@pytest.mark.parametrize(
    "options",
    [
        {"angle": 20.0},
        {"flip_hor": 1.0, "angle": 5.0},
        {"crop_range": [1.0, 1.0]},
        {"crop_range": [1.0, 1.5]},
        {"crop_range": [1.2, 1.3], "angle": 5.0},
    ],
)
def test_without_a_zoom_images_are_kept_at_the_size_of_the_input_and_warped_from_there(options):
    preprocessing = Preprocessing(ImageOptions([60, 80]))
    augmentation = Augmentation(AugmentationOptions(**options), preprocessing, 255)
    assert augmentation.enlargement == Enlargement(1.0, False)
    kept = preprocessing.shrink(scene(), augmentation.enlargement)
    assert kept.shape == (60, 80, 3)
    image, _ = augmentation(kept, np.zeros((60, 80), np.uint8), Chosen(angle=0.7), FILE)
    matrix = augmentation.move(RandomValues(**{**dict.fromkeys(RandomValues._fields, 0.5), "angle": 0.7})).matrix
    np.testing.assert_array_equal(image, cv2.warpAffine(kept, matrix((60, 80), (60, 80)), (80, 60)))


@pytest.mark.parametrize(
    ("size", "smallest", "kept"),
    [
        ((240, 320), 0.5, (240, 320)),  # the file is as large as needed
        ((90, 120), 0.5, (90, 120)),  # or smaller: it is never enlarged
        ((360, 480), 0.5, (360, 480)),  # or half as large again: left as it is
        ((480, 640), 0.5, (240, 320)),
        ((480, 640), 0.6, (200, 267)),
        ((480, 640), 0.59, (240, 320)),  # in steps of a tenth
        ((480, 640), 1.2, (120, 160)),
        ((1200, 1600), 0.05, (1200, 1600)),
        ((4800, 640), 0.5, (240, 32)),
    ],
)
def test_an_image_is_kept_as_large_as_the_largest_zoom_needs_it(size, smallest, kept):
    preprocessing = Preprocessing(ImageOptions([120, 160]))
    options = AugmentationOptions(crop_range=[smallest, 1.3])
    enlargement = Augmentation(options, preprocessing).enlargement
    assert preprocessing.shrunk_size(size, enlargement) == kept
    assert preprocessing.shrink(np.zeros((*size, 3), np.uint8), enlargement).shape[:2] == kept


def test_transforms_see_an_image_at_the_scale_at_which_its_crop_is_shown():
    albumentations = pytest.importorskip("albumentations")
    seen = []

    def look(image, **_):
        seen.append(image.shape[:2])
        return image

    transforms = [albumentations.Lambda(image=look, p=1.0)]
    for crop in (0.0, 0.4, 1.0):
        image, _ = augment(
            scene(), resize=[60, 80], values={"crop": crop}, crop_range=[0.5, 1.0], transforms=transforms
        )
        if crop == 0.0:
            assert 0.95 < sharpness(image) / sharpness(areas(scene(), 60, 80, (120, 160), (60, 80))) < 1.05
    assert seen == [(120, 160), (86, 115), (60, 80)]


def test_transforms_are_tried_on_the_sizes_that_the_crops_give_them():
    albumentations = pytest.importorskip("albumentations")
    found = []
    for window in ([0.5, 0.5], [0.5, 0.9], [0.5, 1.3], None):
        options = AugmentationOptions(crop_range=window, transforms=[albumentations.RandomCrop(60, 80)])
        augmentation = Augmentation(options, Preprocessing(ImageOptions([40, 54])), 255)
        found.append([str(error) for error in augmentation.unfit_transforms({3: FILE}, "photo{}.png".format)])
    assert found[0] == []  # 80x108 each time
    for errors in found[1:]:
        assert len(errors) == 1
        assert "RandomCrop cannot be applied to photo3.png" in errors[0]


def test_a_sample_may_be_written_to_although_its_image_is_cached(pairs):
    for options in ({"crop_range": None}, {"crop_range": [1.0, 1.0], "flip_hor": 0.5}):
        _, cache = batches(pairs, resize=[240, 320], **options)
        augmentation = Augmentation(AugmentationOptions(**options), cache.decoder.preprocessing, 255)
        for sample in cache.samples.values():
            before = sample.image.copy()
            for part in augmentation(sample.image, sample.mask, Chosen(flip=0.9), sample.original):
                part[...] = 0
            np.testing.assert_array_equal(sample.image, before)


def test_numbers_of_arrays_stay_within_their_range_and_classes_do_not_mix():
    values = np.random.default_rng(0).integers(0, 2, (240, 320, 6)).astype(np.float32)
    for interpolation, found in (("linear", None), ("nearest", {0.0, 1.0})):
        preprocessing = ArrayPreprocessing(ArrayOptions([60, 80], in_channels=6, interpolation=interpolation))
        augmentation = Augmentation(TurnOptions(crop_range=[0.6, 1.2], angle=3.0), preprocessing, 255)
        for crop in (0.0, 0.3, 0.9):
            for angle in (0.5, 0.8):  # 0.5: none
                kept = preprocessing.shrink(values, augmentation.enlargement)
                mask = np.zeros(kept.shape[:2], np.uint8)
                image, _ = augmentation(kept, mask, Chosen(crop=crop, angle=angle), (240, 320))
                assert image.dtype == np.float32
                assert image.shape == (60, 80, 6)
                assert 0.0 <= image.min() <= image.max() <= 1.0
                assert found is None or set(np.unique(image)) <= found


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_kind_of_image_is_cropped(dtype, channels):
    generator = np.random.default_rng(0)
    file = generator.integers(0, np.iinfo(dtype).max, (240, 320, channels), dtype=dtype)
    preprocessing = Preprocessing(ImageOptions([60, 80], in_channels=channels))
    augmentation = Augmentation(AugmentationOptions(crop_range=[0.5, 1.1], rotate=0.5), preprocessing, 255)
    kept = preprocessing.shrink(file, augmentation.enlargement)
    for turn in (0.0, 0.9):
        for crop in (0.0, 0.2, 0.5, 1.0):
            values = Chosen(turn=turn, crop=crop)
            image, mask = augmentation(kept, np.zeros(kept.shape[:2], np.uint8), values, (240, 320))
            assert image.shape == (60, 80, channels)
            assert image.dtype == dtype
            assert mask.shape == (60, 80)


@pytest.fixture
def pairs(tmp_path):
    """Six photos with masks of three sizes in the layout of folders."""
    for number in range(6):
        size = ((240, 320), (150, 200), (300, 200))[number % 3]
        for side, split in ((side, split) for side in ("data", "labels") for split in ("train", "val")):
            folder = tmp_path / side / split
            folder.mkdir(parents=True, exist_ok=True)
            image = scene(number, size) if side == "data" else (scene(number, size)[..., 0] > 128).astype(np.uint8)
            Image.fromarray(image).save(folder / f"{number}.png")
    return tmp_path


def batches(folder, **options):
    """Return the batches of an epoch and the number of images in memory."""
    arguments = {"num_classes": 2, "resize": [60, 80], "batch_size": 2, "seed": 5, "crop_range": [0.6, 1.1]}
    loader = from_flat(SegmentationDataLoader, folder=str(folder), **{**arguments, **options})
    loader.set_position(3)
    return [[part.numpy().copy() for part in batch[:2]] for batch in loader], loader.dataset.dataset.cache


@pytest.mark.parametrize("options", [{}, {"angle": 8.0, "rotate": 0.5}, {"transforms": "one"}])
def test_samples_do_not_depend_on_workers_or_on_what_is_in_memory(pairs, options):
    if "transforms" in options:
        options = {"transforms": [pytest.importorskip("albumentations").RandomBrightnessContrast(p=0.5)]}
    expected, cache = batches(pairs, **options)
    assert len(cache.samples) == 6
    one = next(iter(cache.samples.values())).image.nbytes / 2**20
    for changed in ({"cache_mb": 0}, {"cache_mb": int(one * 2) + 1}, {"n_workers": 2}, {"n_workers": 1, "cache_mb": 0}):
        found, _ = batches(pairs, **options, **changed)
        for batch, other in zip(expected, found, strict=True):
            for part, same in zip(batch, other, strict=True):
                np.testing.assert_array_equal(part, same)


def test_an_epoch_that_is_resumed_continues_with_the_same_crops(pairs):
    expected, _ = batches(pairs)
    loader = from_flat(
        SegmentationDataLoader,
        folder=str(pairs),
        num_classes=2,
        resize=[60, 80],
        batch_size=2,
        seed=5,
        crop_range=[0.6, 1.1],
        cache_mb=0,
    )
    loader.set_position(3, 1)
    for batch, other in zip(expected[1:], loader, strict=True):
        np.testing.assert_array_equal(batch[0], other[0])


def test_the_log_says_what_the_crops_cost(pairs, caplog):
    with caplog.at_level("INFO"):
        batches(pairs)
        batches(pairs, crop_range=None)
    first, second = [record.getMessage() for record in caplog.records if "kept in memory" in record.getMessage()]
    assert "(0.4 MB), at the size that crop_range needs (1.67 times the side of the input)." in first
    assert second.endswith("6 of 6 pairs are decoded and kept in memory (0.1 MB).")


def test_evaluation_does_not_depend_on_the_crops_of_training(pairs):
    arguments = {"folder": str(pairs), "split": "train", "num_classes": 2, "resize": [60, 80], "is_training": False}
    plain = from_flat(SegmentationDataLoader, **arguments)
    cropping = from_flat(SegmentationDataLoader, **arguments, crop_range=[0.3, 1.0], rotate=0.5)
    held_out = from_flat(
        SegmentationDataLoader, **{**arguments, "is_training": True}, crop_range=[0.3, 1.0], validation_split=2
    ).split_validation()
    for batch, other in zip(plain, cropping, strict=True):
        np.testing.assert_array_equal(batch[0], other[0])
    images = {named.index: image for batch in plain for image, named in zip(batch[0], batch[2], strict=True)}
    for batch in held_out:
        for image, named in zip(batch[0], batch[2], strict=True):
            np.testing.assert_array_equal(image, images[named.index])


def test_candidates_share_decoded_images_of_the_same_size_only(pairs):
    with share_decoded(100) as shared:
        sizes = [
            (batches(pairs, crop_range=window)[1], len(shared._groups))
            for window in ([0.5, 1.0], [0.55, 0.9], [0.3, 1.0], None)
        ]
    assert [groups for _, groups in sizes] == [1, 1, 2, 3]
    for cache, _ in sizes:
        for sample in cache.samples.values():
            assert sample.image.shape[:2] == cache.decoder.preprocessing.shrunk_size(
                sample.original, cache.decoder.enlargement
            )


@pytest.mark.parametrize("options", [{}, {"angle": 4.0, "shift": 0.1, "cutout": 0.3}])
def test_images_with_one_class_are_cropped_from_the_file_too(tmp_path, options):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(scene(number)).save(tmp_path / "train" / name / f"{number}.png")
    found = []
    for cache_mb in (None, 0):
        loader = from_flat(
            ImageClassificationDataLoader,
            folder=str(tmp_path),
            resize=[60, 80],
            batch_size=4,
            shuffle=False,
            crop_range=[0.5, 0.5],
            normalize=False,
            cache_mb=cache_mb,
            **options,
        )
        found.append(next(iter(loader))[0].permute(0, 2, 3, 1).numpy() * 255)
        assert len(loader.dataset.dataset.cache.samples) == (0 if cache_mb == 0 else 4)
    np.testing.assert_array_equal(*found)
    if not options:
        expected = [sharpness(areas(scene(number), 60, 80, (120, 160), (60, 80))) for number in (0, 1)] * 2
        assert 0.9 < np.mean([sharpness(image) for image in found[0]]) / np.mean(expected) < 1.1
