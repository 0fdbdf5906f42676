"""export.py for networks over arrays, and for loaders of one's own."""

import logging

import numpy as np
import pytest
import torch
from test_inference import save_untrained
from torch import nn

import export
from base import BaseDataLoader
from base.samples import NamedMask
from config import load_plugins
from data_loader.common.options import ArrayOptions, ImageOptions
from data_loader.images.arrays import ArrayPreprocessing
from data_loader.images.preprocessing import Preprocessing
from data_loader.time_series.preprocessing import SeriesOptions, SeriesPreprocessing
from models.export.comparison import Sample
from models.export.files import describe_export, from_bytes, recipe_of
from predictor.classifier import Classifier
from utils.errors import ConfigError, DataError
from utils.geometry import letterbox_geometry

CPU = torch.device("cpu")
SIZE = (8, 12)
NETWORK = """
from torch import nn

class Net(nn.Conv2d):
    def __init__(self):
        super().__init__(5, 2, 3, padding=1)
"""


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """A folder of arrays of 5 channels, and a checkpoint whose config names it as a folder that is not there."""
    folder = tmp_path_factory.mktemp("arrays")
    generator = np.random.default_rng(0)
    for name in "ab":
        np.save(folder / f"{name}.npy", generator.normal(size=(*SIZE, 5)).astype(np.float32))
    np.savez(folder / "c.npz", generator.integers(0, 9, (*SIZE, 5), dtype=np.uint8))
    (folder / "conv_of_arrays.py").write_text(NETWORK)
    load_plugins([folder / "conv_of_arrays.py"])
    arguments = {"folder": str(folder / "away"), "resize": list(SIZE), "in_channels": 5, "mean": 1.5, "std": 2.0}
    config = {
        "name": "arrays",
        "arch": {"type": "conv_of_arrays.Net", "args": {}},
        "valid_loader": {"type": "ArraySegmentationDataLoader", "args": {**arguments, "classes": ["x", "y"]}},
    }
    return folder, save_untrained(folder / "model.pth", config)


def test_a_network_over_arrays_is_compared_on_arrays_and_described_as_one(arrays, tmp_path):
    folder, checkpoint = arrays
    found = export.export(
        checkpoint, tmp_path / "net.pt2", form="torch", source=str(folder), plugins=[folder / "conv_of_arrays.py"]
    )
    assert found.samples == 3
    _, description = from_bytes((tmp_path / "net.pt2").read_bytes(), "torch", CPU)
    recipe = description["preprocessing"]["recipe"]
    assert recipe.startswith("Scale the array (height, width, channels) to fit into resize")
    assert "values as they are in the file" in recipe
    assert "255" not in recipe
    assert recipe.endswith("Logits: softmax over axis 1, cut the padding off, scale back.")


def test_arrays_to_compare_on_are_read_or_asked_for(arrays, tmp_path, caplog):
    folder, checkpoint = arrays
    trained = export.build_predictor(checkpoint)
    for source, count in ((folder, 3), (folder / "a.npy", 1), (folder / "c.npz", 1)):
        samples, ignored = export.open_samples(trained, str(source))
        assert [sample.inputs.shape for sample in samples] == [(5, *SIZE)] * count
        assert ignored is None
    with pytest.raises(DataError, match=r"no files \(\.npy \.npz\) to compare the networks on. Name some: --source"):
        next(export.open_samples(trained, None)[0])
    assert "The valid data of the config is not used to compare: The folder" in caplog.text
    (tmp_path / "broken.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"broken\.npy cannot be read as an array"):
        list(export.open_samples(trained, str(tmp_path))[0])
    np.save(tmp_path / "whole.npy", np.zeros((*SIZE, 5), np.uint8))
    with caplog.at_level(logging.WARNING):
        assert len(list(export.open_samples(trained, str(tmp_path))[0])) == 1
    assert "Not compared on: " in caplog.text


def test_files_that_cannot_be_used_are_named_before_the_next_sample(arrays, tmp_path, caplog):
    trained = export.build_predictor(arrays[1])
    (tmp_path / "a.npy").write_bytes(b"no array")
    np.save(tmp_path / "b.npy", np.zeros((*SIZE, 4), np.uint8))
    for name in "cd":
        np.save(tmp_path / f"{name}.npy", np.zeros((*SIZE, 5), np.uint8))
    samples = export.samples_of_source(trained, str(tmp_path))
    next(samples)  # as a command that takes the first ones only
    left_out = [record.getMessage() for record in caplog.records if "Not compared on" in record.message]
    assert len(left_out) == 2
    assert "a.npy cannot be read as an array" in left_out[0]
    assert left_out[1].startswith("Not compared on: b.npy: The image has 4 channels, but the network was trained on 5")
    assert len(list(samples)) == 1
    with pytest.raises(DataError, match=r"^b\.npy: The image has 4 channels"):
        next(export.samples_of_source(trained, str(tmp_path / "b.npy")))


@pytest.mark.parametrize("kind", [list, tuple, frozenset])
def test_a_preprocessing_may_list_the_suffixes_of_some_photos(kind, tmp_path, monkeypatch):
    """In data/people are JPEGs only."""
    preprocess = lambda image: (np.zeros((3, 4, 5), np.float32), None)  # noqa: E731  (a function takes attributes)
    preprocess.suffixes, preprocess.in_channels = kind([".jpg"]), None
    trained = Classifier(nn.Identity(), preprocess)
    monkeypatch.setattr(export, "PEOPLE", tmp_path)
    (tmp_path / "a.jpg").touch()
    preprocess.read = lambda path: np.zeros((2, 2, 3), np.uint8)
    for source in (None, str(tmp_path), str(tmp_path / "a.jpg")):
        assert len(list(export.samples_of_source(trained, source))) == 1
    preprocess.suffixes = kind([".png"])
    with pytest.raises(DataError, match=r"^There are no photos to compare the networks on\. Name some"):
        next(export.samples_of_source(trained, None))


def test_a_refused_series_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3, 7), np.float32), y=np.array([0, 1]))
    trained = Classifier(nn.Identity(), SeriesPreprocessing(in_channels=5, options=SeriesOptions(normalize="none")))
    with pytest.raises(DataError, match=r"^Row \d of .*a\.npz: The series has 3 variables"):
        next(export.samples_of_source(trained, str(tmp_path / "a.npz")))


@pytest.mark.parametrize("target", [1, torch.ones(4, 5, dtype=torch.int64)])
def test_samples_are_those_of_batches_of_two_or_of_three_parts(target):
    images = [torch.full((3, 4, 5), float(number)) for number in range(3)]
    loader = BaseDataLoader([(image, target) for image in images], 2, shuffle=False)
    samples = list(export.samples_of_loader(loader))
    assert all(torch.equal(sample.inputs, image) for sample, image in zip(samples, images, strict=True))
    assert all(torch.equal(sample.target, torch.as_tensor(target)) for sample in samples)
    assert all(sample.geometry is None for sample in samples)
    geometry = letterbox_geometry((2, 3), (4, 5))
    origin = NamedMask("a", torch.zeros(2, 3), geometry, 0)
    (sample,) = export.samples_of_loader([(images[0][None], torch.ones(1, 4, 5), [origin])])
    assert (sample.geometry, sample.target) == (geometry, origin.target)


def test_a_preprocessing_of_ones_own_is_named_and_not_described():
    recipe = recipe_of(lambda image: (image, None), has_masks=False, num_outputs=3)
    assert recipe == "As make_preprocessing of the loader's class makes it; float32. Logits: softmax over axis 1."


@pytest.mark.parametrize(
    ("preprocess", "white"),
    [
        (Preprocessing(ImageOptions(resize=2, in_channels=1, normalize=False)), 255),
        (ArrayPreprocessing(ArrayOptions(resize=2, in_channels=1)), 1),
    ],
)
def test_the_recipe_says_how_images_are_scaled(preprocess, white):
    assert "by area averages when shrinking, bilinear when growing" in preprocess.recipe
    stripes = np.zeros((8, 8), np.uint8)
    stripes[::4] = 200  # 0 in the rows 1, 2, 5 and 6, all that bilinear interpolation takes
    np.testing.assert_allclose(preprocess(stripes)[0] * white, 50, rtol=1e-6)


def test_mean_of_a_preprocessing_of_ones_own_may_be_one_number_or_none():
    preprocess = lambda image: (image, None)  # noqa: E731  (a function takes attributes)
    preprocess.mean, preprocess.std = 0.485, lambda: 1
    described = describe_export(
        preprocess, recipe="r", loader="l", loader_arguments={}, class_names=[], num_classes=2, origin={}
    )
    assert described["preprocessing"] == {"mean": [0.485], "recipe": "r"}


class Own(BaseDataLoader):
    """A loader that has no argument `resize`."""

    def __init__(self) -> None:
        raise NotImplementedError


def test_the_size_of_a_loader_without_resize_is_that_of_its_samples(monkeypatch):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 2)).eval()
    trained = Classifier(network, lambda image: (image, None))
    monkeypatch.setattr(export, "class_and_arguments", lambda *_: (Own, {}))
    traced = export.trace_network(trained, Sample(torch.zeros(3, 4, 5)))
    assert [traced.sides[name].fixed for name in ("height", "width")] == [4, 5]
    for other in (224, (5, 4)):  # of a preprocessing of one's own: one side, or (width, height)
        trained.preprocess.size = other
        traced = export.trace_network(trained, Sample(torch.zeros(3, 4, 5)))
        assert [traced.sides[name].fixed for name in ("height", "width")] == [4, 5]
    with pytest.raises(ConfigError, match=r"An input of the network is \(7,\). Images .* can be exported"):
        export.trace_network(trained, Sample(torch.zeros(7)))
