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
from models.export.comparison import Sample
from models.export.files import from_bytes, recipe_of
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
    with pytest.raises(DataError, match=r"no arrays to compare the networks on. Name some: --source FOLDER"):
        next(export.open_samples(trained, None)[0])
    assert "The valid data of the config is not used to compare: The folder" in caplog.text
    (tmp_path / "broken.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"broken\.npy cannot be read as an array"):
        list(export.open_samples(trained, str(tmp_path))[0])
    np.save(tmp_path / "whole.npy", np.zeros((*SIZE, 5), np.uint8))
    with caplog.at_level(logging.WARNING):
        assert len(list(export.open_samples(trained, str(tmp_path))[0])) == 1
    assert "Not compared on: " in caplog.text


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
    with pytest.raises(ConfigError, match=r"An input of the network is \(7,\). Images .* can be exported"):
        export.trace_network(trained, Sample(torch.zeros(7)))
