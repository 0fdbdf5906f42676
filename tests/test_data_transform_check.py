"""Transforms that cannot be applied are found before the first step, with the file that shows it."""

import albumentations
import numpy as np
import pytest

from build import build_training
from data_loader.common.options import AugmentationOptions, ImageOptions
from data_loader.images.augmentation import Augmentation
from data_loader.images.preprocessing import Preprocessing
from tests.support.loader_cases import random_image, random_mask, save
from utils.errors import ConfigError

A = albumentations
SMALL = {0: (48, 40), 1: (200, 300), 2: (60, 70)}


def check(*transforms, sizes=SMALL, **images):
    augmentation = Augmentation(AugmentationOptions(transforms=transforms), Preprocessing(ImageOptions(**images)))
    for error in augmentation.unfit_transforms(sizes, "photo{}.png".format):
        raise error


@pytest.mark.parametrize(
    ("transforms", "named"),
    [
        ([A.RandomCrop(256, 256)], "RandomCrop cannot be applied to photo0.png, which it gets as 48x40"),
        ([A.RandomCrop(64, 8)], "RandomCrop cannot be applied to photo0.png, which it gets as 48x40"),
        ([A.CenterCrop(50, 50, p=0.001)], "CenterCrop cannot be applied to photo0.png"),
        ([A.Crop(0, 0, 100, 100)], "Crop cannot be applied to photo0.png"),
        ([A.OneOf([A.HorizontalFlip(), A.CropNonEmptyMaskIfExists(99, 9)], p=0.1)], "CropNonEmptyMaskIfExists cannot"),
        ([A.SmallestMaxSize(300, p=0.5), A.RandomCrop(256, 256)], "RandomCrop cannot be applied to photo0.png"),
        ([A.Sequential([A.Resize(64, 64), A.RandomCrop(65, 10)])], "RandomCrop .* which it gets as 64x64"),
        ([A.RandomScale((-0.6, -0.5)), A.RandomCrop(40, 40)], "RandomCrop cannot be applied to photo0.png"),
        ([A.HorizontalFlip(), A.Mosaic()], r"Mosaic cannot be applied to photo\d.png"),
    ],
)
def test_a_transform_that_cannot_be_applied_is_named(transforms, named):
    with pytest.raises(ConfigError, match=rf"transforms: {named}.* Correct the transform, let PadIfNeeded come before"):
        check(*transforms)


def test_transforms_that_can_be_applied_pass_and_stay_as_they_are():
    check(A.RandomCrop(48, 40), A.HorizontalFlip(), A.OneOf([A.MotionBlur(), A.GaussNoise()], p=0.3), A.RandomGamma())
    check(A.PadIfNeeded(256, 256), A.RandomCrop(256, 256))
    check(A.SmallestMaxSize(300), A.RandomCrop(256, 256), A.SomeOf([A.Rotate(), A.CoarseDropout()], n=1))
    check(A.RandomCrop(256, 256, pad_if_needed=True))
    check(A.RandomCrop(256, 256, p=0), A.Normalize())  # that the result is no image of 8 bits, the loader says
    check(A.RandomCrop(10, 10), sizes={})
    check(sizes={0: (1, 1)})


def test_transforms_get_images_at_the_scale_of_the_input():
    check(A.RandomCrop(32, 32), sizes={0: (640, 640)}, resize=(32, 32))
    with pytest.raises(ConfigError, match=r"to photo0\.png, which it gets as 32x32 \(height x width\)"):
        check(A.RandomCrop(33, 33), sizes={0: (640, 640)}, resize=(32, 32))


def test_random_values_of_training_do_not_depend_on_the_check():
    image, mask = random_image(0), random_mask(0, [0, 1])
    results = []
    for sizes in ({}, SMALL):
        options = AugmentationOptions(transforms=[A.RandomBrightnessContrast(p=1)])
        augmentation = Augmentation(options, Preprocessing(ImageOptions()))
        assert not list(augmentation.unfit_transforms(sizes, str))
        results.append(augmentation(image, mask, np.random.default_rng(1))[0])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("kind", ["segmentation", "classification"])
def test_a_training_is_refused_before_its_first_step(tmp_path, kind):
    large = {"type": "RandomCrop", "args": {"height": 99, "width": 9}}
    crop = {"transforms": [{"type": "OneOf", "args": {"transforms": [large]}}]}
    for index in range(4):
        save(tmp_path / f"data/{'a' if index % 2 else 'b'}/{index}.png", random_image(index))
        save(tmp_path / f"mask{index}.png", random_mask(index, [0, 1]))
    folders = ["b", "a", "b", "a"]
    lines = [f"data/{folder}/{index}.png, mask{index}.png" for index, folder in enumerate(folders)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    args = {"pairs_file": str(tmp_path / "list.txt"), "num_classes": 2}
    loader, arch = "SegmentationDataLoader", {"type": "UNet", "args": {"channels": [4, 4]}}
    if kind == "classification":
        args, loader = {"folder": str(tmp_path / "data")}, "ImageClassificationDataLoader"
        arch = {"type": "ConvNet", "args": {"channels": [4]}}
    config = {
        "name": "crop",
        "n_gpu": 0,
        "arch": arch,
        "train_loader": {"type": loader, "args": {**args, **crop, "batch_size": 2}},
        "optimizer": {"type": "SGD", "args": {"lr": 0.1}},
        "loss": "ce_loss",
        "trainer": {"epochs": 1, "save_dir": str(tmp_path / "saved")},
    }
    with pytest.raises(ConfigError, match=r"RandomCrop cannot be applied to \S+/\d\.png, which it gets as 12x16"):
        build_training(config)
    assert not (tmp_path / "saved").exists()
