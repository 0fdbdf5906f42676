"""The loader of photos and masks, from the shipped images to batches."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from base.samples import NamedMask
from data_loader import SECTIONS
from data_loader.images.files import read_image, read_mask
from data_loader.segmentation.loader import SegmentationDataLoader
from data_loader.segmentation.pairs import list_pairs
from tests.support.groups import from_flat
from utils.errors import ConfigError, DataError
from utils.registry import import_attribute

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

TRAIN, VALID = "data/people/train_pairs.txt", "data/people/valid_pairs.txt"
AUGMENTED = {"noise_std": 3, "crop_range": [0.9, 1.0], "flip_hor": 0.5, "rotate": 0.2, "angle": 10, "contrast": 0.2}


def load(pairs_file=TRAIN, **arguments):
    chosen = {"num_classes": 2, "resize": [48, 32], "batch_size": 8, "samples": 20, **arguments}
    return from_flat(SegmentationDataLoader, pairs_file, **chosen)


def collect(loader):
    batches = list(loader)
    loader.close()
    return batches


def equal(one, other):
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True))


def random_transforms():
    import albumentations

    return [
        albumentations.HorizontalFlip(p=0.5),
        albumentations.Affine(rotate=(-20, 20), p=1.0),
        albumentations.OneOf([albumentations.RandomBrightnessContrast(), albumentations.GaussNoise()], p=0.9),
    ]


def test_a_training_batch():
    images, masks = next(iter(load(**AUGMENTED)))
    assert (images.shape, images.dtype) == ((8, 3, 48, 32), torch.float32)
    assert (masks.shape, masks.dtype) == ((8, 48, 32), torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert set(masks.unique().tolist()) <= {0, 1, 255}


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_evaluation_batch_carries_its_sources(n_workers):
    loader = load(VALID, is_training=False, n_workers=n_workers, **AUGMENTED)
    batches = collect(loader)
    images, masks, sources = batches[0]
    assert len(images) == len(masks) == len(sources) == 8
    for position, (source, pair) in enumerate(zip(sources, list_pairs(VALID).whole(), strict=False)):
        assert isinstance(source, NamedMask)
        assert source.index == position
        assert source.name == str(pair.image)
        np.testing.assert_array_equal(source.target, read_mask(pair.mask))
        assert source.target.dtype == torch.int64
        expected, geometry = loader.preprocessing(read_image(source.name))
        np.testing.assert_array_equal(images[position], expected)
        assert geometry == source.geometry


def test_the_mask_lies_under_its_image():
    """Where the padding of the image is, the mask is ignored, and nowhere else."""
    images, masks, sources = next(iter(load(VALID, is_training=False, resize=[32, 48], normalize=False)))
    for image, mask, source in zip(images, masks, sources, strict=True):
        top, left = source.geometry.offset
        height, width = source.geometry.resized
        inside = torch.zeros(32, 48, dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        assert torch.equal(mask == 255, ~inside)
        assert (image[:, ~inside] == 0).all()


@pytest.mark.parametrize("with_transforms", [False, True])
def test_batches_do_not_depend_on_the_number_of_workers_and_epochs_differ(with_transforms):
    arguments = dict(AUGMENTED)
    if with_transforms:
        arguments = {"transforms": random_transforms()}
    runs = []
    for n_workers in (0, 1, 2):
        loader = load(n_workers=n_workers, **arguments)
        before = torch.get_rng_state()
        runs.append([*loader, *loader])
        assert torch.equal(before, torch.get_rng_state())
        loader.close()
    assert equal(runs[0], runs[1])
    assert equal(runs[0], runs[2])
    assert not torch.equal(runs[0][0][0], runs[0][3][0])


@pytest.mark.parametrize("with_transforms", [False, True])
def test_the_same_photo_is_augmented_anew_in_each_epoch(with_transforms):
    arguments = {"transforms": random_transforms()} if with_transforms else AUGMENTED
    loader = load(samples=1, batch_size=1, **arguments)
    assert len({next(iter(loader))[0].numpy().tobytes() for _ in range(4)}) == 4


def test_an_epoch_goes_on_in_the_middle():
    straight = load(**AUGMENTED)
    list(straight)
    expected = list(straight)
    resumed = load(**AUGMENTED, n_workers=1)
    resumed.set_position(1, 2)
    assert equal(collect(resumed), expected[2:])


def test_transforms_keep_masks_to_labels_and_ignore_what_they_bring_in():
    import albumentations

    rotate = albumentations.Rotate(limit=(45, 45), p=1.0, mask_interpolation=1)
    _, masks = next(iter(load(transforms=[albumentations.OneOf([rotate], p=1.0)], resize=None, batch_size=1)))
    assert masks.unique().tolist() == [0, 1, 255]


def test_transforms_may_crop():
    import albumentations

    loader = load(transforms=[albumentations.RandomCrop(height=64, width=48)], resize=None)
    assert next(iter(loader))[0].shape == (8, 3, 64, 48)


def test_transforms_that_leave_no_image_are_refused():
    import albumentations

    with pytest.raises(ConfigError, match=r"must leave an 8-bit image and a mask of the same size. Take Normalize"):
        next(iter(load(transforms=[albumentations.Normalize()])))
    with pytest.raises(ConfigError, match="RandomCrop cannot be applied to data"):
        next(iter(load(transforms=[albumentations.RandomCrop(height=999, width=999)])))


def test_a_single_composition_stands_for_a_list_of_one():
    import albumentations

    never = albumentations.Compose([albumentations.InvertImg(p=1.0)], p=0.0)
    assert equal(collect(load(transforms=never)), collect(load()))


def test_training_without_effects_sees_what_evaluation_sees():
    trained = load(shuffle=False, batch_size=10)
    for batch, (images, masks, _) in zip(trained, load(is_training=False, batch_size=10), strict=True):
        assert torch.equal(batch[0], images)
        assert torch.equal(batch[1], masks)


def test_evaluation_and_validation_are_never_augmented():
    plain = collect(load(VALID, is_training=False))
    assert equal(plain, collect(load(VALID, is_training=False, transforms=random_transforms(), **AUGMENTED)))
    training = load(validation_split=0.25, **AUGMENTED)
    validation = training.split_validation()
    assert (training.num_samples, validation.num_samples) == (15, 5)
    for images, _, sources in validation:
        for image, source in zip(images, sources, strict=True):
            np.testing.assert_array_equal(image, training.preprocessing(read_image(source.name))[0])
    assert validation.preprocessing is training.preprocessing
    assert (validation.num_classes, validation.ignore_index, validation.in_channels) == (2, 255, 3)


def test_processes_count_each_photo_once_and_fill_up_with_ignored_ones():
    arguments = {"samples": 9, "batch_size": 4, "is_training": False}
    names = []
    for rank in range(2):
        loader = load(VALID, **arguments)
        loader.shard(rank, 2)
        names += [source.index for batch in loader for source in batch[2]]
    assert sorted(names) == list(range(9))
    loader = load(samples=14, batch_size=4)
    loader.shard(0, 3)
    (_, first), *_, (_, last) = loader
    assert (last == 255).all()
    assert (first != 255).any()


def test_the_folder_layout(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for side in ("data", "labels"):
            (tmp_path / side / split).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((6, 4), number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / split / f"{number}.png")
            Image.fromarray(pixels % 2).save(tmp_path / "labels" / split / f"{number}.png")
    train = from_flat(SegmentationDataLoader, folder=str(tmp_path), num_classes=2)
    valid = from_flat(
        SegmentationDataLoader, folder=tmp_path.name, data_root=str(tmp_path.parent), num_classes=2, is_training=False
    )
    assert (train.num_samples, valid.num_samples) == (3, 2)
    assert [source.name for source in next(iter(valid))[2]] == [str(tmp_path / f"data/val/{n}.png") for n in (0, 1)]


@pytest.mark.parametrize(("arguments", "channels"), [({"color_channel": "GRAY"}, 1), ({"in_channels": 1}, 1), ({}, 3)])
def test_channels(arguments, channels):
    loader = load(**arguments, **AUGMENTED)
    assert loader.in_channels == channels
    assert next(iter(loader))[0].shape == (8, channels, 48, 32)


def test_what_is_known_of_the_task():
    loader = load(num_classes=None, classes=["background", "person"], ignore_index=7)
    assert (loader.num_classes, loader.class_names, loader.ignore_index) == (2, ["background", "person"], 7)
    assert load(num_classes=3).class_names == ["class_0", "class_1", "class_2"]
    assert load(num_classes=None, binary_masks=True).num_classes == 2


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("cache_mb", [None, 0])
def test_images_of_different_sizes_need_a_size_or_batches_of_one(is_training, cache_mb):
    message = (
        r"different sizes cannot share a batch: \S+\.jpg is \d+x\d+ \(height x width\), \S+\.jpg \d+x\d+, and "
        r"batch_size is 8. Set resize to \[height, width\], or batch_size to 1"
    )
    with pytest.raises(DataError, match=message):
        load(resize=None, is_training=is_training, cache_mb=cache_mb).prepare()
    with pytest.raises(DataError, match="different sizes cannot share a batch"):
        load(validation_split=4, resize=None).split_validation().prepare()
    sizes = {tuple(images.shape[2:]) for images, *_ in load(resize=None, batch_size=1, is_training=is_training)}
    assert len(sizes) > 1


def test_quarter_turns_need_a_size_too(tmp_path):
    for size, name in (((4, 6), "wide"), ((5, 5), "square")):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{name}.png")
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / f"{name}_mask.png")
        (tmp_path / f"{name}.txt").write_text(f"{name}.png, {name}_mask.png\n" * 2)
    arguments = {"num_classes": 2, "rotate": 0.5, "batch_size": 2}
    from_flat(SegmentationDataLoader, str(tmp_path / "square.txt"), **arguments).prepare()
    with pytest.raises(DataError, match=r"wide.png is 4x6 \(height x width\), \S+wide.png, turned by rotate, 6x4, and"):
        from_flat(SegmentationDataLoader, str(tmp_path / "wide.txt"), **arguments).prepare()


def test_faults_are_found_before_the_first_batch(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "i.png")
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "list.txt").write_text("i.png, m.png")
    loader = from_flat(SegmentationDataLoader, str(tmp_path / "list.txt"), num_classes=2, n_workers=1)
    with pytest.raises(DataError, match=r"m\.png holds the labels 255: masks must hold 0 to 1\."):
        loader.prepare()
    with pytest.raises(DataError, match=r"m\.png holds the labels 255"):
        iter(loader)


def test_an_error_in_a_worker_names_the_file(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"{name}.png")
        Image.fromarray(np.full((4, 4), int(name == "b") * 9, np.uint8)).save(tmp_path / f"{name}m.png")
    (tmp_path / "list.txt").write_text("a.png, am.png\nb.png, bm.png")
    loader = from_flat(
        SegmentationDataLoader, str(tmp_path / "list.txt"), num_classes=2, n_workers=1, batch_size=2, cache_mb=0
    )
    with pytest.raises(DataError, match=r"^\S+bm\.png holds the labels 9: masks must hold 0 to 1\."):
        list(loader)


def test_a_data_set_sent_to_a_spawned_worker_gives_the_same_samples():
    dataset = load(transforms=random_transforms(), **AUGMENTED).dataset.dataset
    dataset.prepare()
    again = pickle.loads(pickle.dumps(dataset))
    one, other = (each.sample(3, np.random.default_rng(1)) for each in (dataset, again))
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(dataset[3].image, again[3].image)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
@pytest.mark.parametrize("n_workers", [0, 2])
def test_pinned_batches_are_the_same(n_workers):
    for is_training in (True, False):
        plain = collect(load(VALID, is_training=is_training))
        pinned = collect(load(VALID, is_training=is_training, n_workers=n_workers, pin_memory=True))
        assert equal(plain, pinned)
        assert all(batch[0].is_pinned() and batch[0].stride() == plain[0][0].stride() for batch in pinned[:1])
        if not is_training:
            assert [source.geometry for source in pinned[0][2]] == [source.geometry for source in plain[0][2]]


def test_the_inputs_of_inference_need_no_data():
    made = from_flat(
        SegmentationDataLoader.make_preprocessing,
        resize=320,
        padding_value=0,
        color_channel="RGB",
        normalize=True,
        in_channels=3,
    )
    assert made.size == (320, 320)


def test_the_registry_names_what_is_there():
    section = SECTIONS["data_loader"]
    assert issubclass(import_attribute(section.entries["SegmentationDataLoader"]), import_attribute(section.expects))
    import albumentations

    for name in ("HorizontalFlip", "OneOf", "Compose"):
        assert issubclass(getattr(albumentations, name), import_attribute(SECTIONS["transform"].expects))
    assert section.nested["transforms"] in SECTIONS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"one_hot": True}, "one_hot is true, but every loss here takes class ids. Set one_hot to false"),
        ({"num_classes": None}, "num_classes is missing: say it in arch.args or in the loader's args, or list classes"),
        ({"classes": ["a"]}, "classes lists 1 names .* but num_classes is 2"),
        ({"classes": ["a", "a"]}, "1 different ones"),
        ({"pairs_file": None}, r"needs pairs_file \(a list\) or folder"),
        ({"folder": "x"}, "and not both"),
        ({"samples": 0}, "Wrong samples 0: it must be 1 or more, or null for all"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        load(**arguments)
