"""One conformance suite over every classifier of the registry, and what series of unequal lengths ask of one."""

import copy

import pytest
import torch

from base.base_model import BaseModel
from build import build_model, registry
from config import DataSpec
from config.variants import complete_config
from models import SECTIONS
from models.fcn import FCN
from models.layers.masked import MaskedNorm, masked_max_pool, masked_mean, split_padding
from tests.support.groups import from_flat
from tests.support.tiny import CLASSIFIERS
from utils.errors import ConfigError
from utils.registry import import_attribute

CLASSES = 3
SERIES = {
    "fcn": ("FCN", {}),
    "fcn_of_two_layers": ("FCN", {"channels": [8, 6], "kernel_sizes": [4, 3], "dropout": 0.3}),
    "resnet1d": ("ResNet1d", {"dropout": 0.1}),
    "resnet1d_of_one_block": ("ResNet1d", {"channels": [8]}),
    "inceptiontime": ("InceptionTime", {}),
    "inceptiontime_of_four": ("InceptionTime", {"depth": 4, "width": 4, "kernel_sizes": [3, 8], "bottleneck": 2}),
    "lstmfcn": ("LSTMFCN", {}),
    "lstmfcn_small": ("LSTMFCN", {"cells": 5, "dropout": 0.0, "channels": [8, 8, 8, 8]}),
    "cellnet_of_series": ("CellNet", {"dims": 1, "filters": 6, "motifs": 2}),
}
IMAGES = {
    "convnet": ("ConvNet", {}),
    "convnet_deep": ("ConvNet", {"channels": [8, 16], "blocks": 2, "dropout": 0.2, "stem_stride": 2}),
    "mnist": ("MnistModel", {}),
    "cellnet": ("CellNet", {"filters": 6, "motifs": 2, "normal_cells": 1}),
}
CASES = {**SERIES, **IMAGES}


def build(case, in_channels=2):
    name, args = CASES[case]
    torch.manual_seed(0)
    model = from_flat(import_attribute(SECTIONS["arch"].entries[name]), CLASSES, in_channels, **args)
    assert isinstance(model, BaseModel)
    return model


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def inputs_of(case, batch, in_channels=2):
    return noise(batch, in_channels, 21) if case in SERIES else noise(batch, in_channels, 21, 17)


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def test_the_suite_covers_the_registry():
    assert {name for name, _ in CASES.values()} == set(CLASSIFIERS) <= set(SECTIONS["arch"].entries)
    assert len(CASES) == 13


@pytest.mark.parametrize("in_channels", [1, 3, 12])
def test_logits_for_any_size_and_number_of_variables(case, in_channels):
    model = build(case, in_channels).eval()
    for size in [(1,), (7,), (64,)] if case in SERIES else [(1, 1), (5, 9), (32, 28)]:
        with torch.no_grad():
            assert model(noise(2, in_channels, *size)).shape == (2, CLASSES)


def test_every_weight_matters(case):
    model = build(case).train()
    model(inputs_of(case, 4)).square().sum().backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


def test_a_single_step_trains(case):
    model = build(case).train()
    single = noise(1, 2, 1) if case in SERIES else noise(2, 2, 1, 1)
    logits = model(single)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_a_state_dict_makes_an_equal_model(case):
    model = build(case)
    twin = copy.deepcopy(model).eval()
    for weight in twin.state_dict().values():
        weight.zero_()
    twin.load_state_dict(model.state_dict())
    inputs = inputs_of(case, 2)
    with torch.no_grad():
        assert torch.equal(twin(inputs), model.eval()(inputs))


def test_evaluation_repeats_itself_in_any_batch(case):
    model = build(case)
    model(inputs_of(case, 4))  # running statistics that are not those of the beginning
    model.eval()
    inputs = inputs_of(case, 3)
    with torch.no_grad():
        together = model(inputs)
        assert torch.equal(together, model(inputs))
        torch.testing.assert_close(model(inputs[1:2]), together[1:2], rtol=1e-4, atol=1e-5)


def test_a_summary_counts_parameters_and_flops(case):
    model = build(case)
    summary = model.summary((21,) if case in SERIES else (21, 17))
    assert f"Parameters: {sum(weight.numel() for weight in model.parameters()):,} " in summary


def padded(series, more, batch=1):
    """The series (V, T) `batch` times, with so many steps of padding behind it."""
    return torch.cat((series, torch.full((len(series), more), torch.nan)), dim=1).expand(batch, -1, -1)


@pytest.mark.parametrize("name", SERIES)
def test_padding_changes_nothing_in_evaluation(name):
    model = build(name)
    model(noise(4, 2, 30))
    model.eval()
    series = noise(2, 13)
    with torch.no_grad():
        alone = model(series[None])
        for more in (1, 50):
            torch.testing.assert_close(model(padded(series, more)), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["fcn", "resnet1d_of_one_block", "inceptiontime", "lstmfcn_small", "cellnet_of_series"]
)
def test_padding_changes_nothing_in_training(name):
    model = build(name).train()
    twin = copy.deepcopy(model)
    batch = noise(3, 2, 13)
    logits = model(batch)
    logits.square().sum().backward()
    others = twin(torch.cat((batch, torch.full((3, 2, 9), torch.nan)), dim=2))
    others.square().sum().backward()
    torch.testing.assert_close(others, logits, rtol=1e-4, atol=1e-4)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-2, atol=1e-3)
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_masked_parts_by_hand():
    nan = float("nan")
    maps, steps = split_padding(torch.tensor([[[1.0, 3.0, nan, nan]], [[-5.0, 1.0, 7.0, 9.0]]]), is_training=True)
    assert maps.tolist() == [[[1, 3, 0, 0]], [[-5, 1, 7, 9]]]
    assert steps.positions.tolist() == [0, 1, 4, 5, 6, 7]
    assert steps.valid.sum(dim=(1, 2)).tolist() == [2, 4]
    assert masked_mean(maps, steps).tolist() == [[2], [3]]
    assert masked_max_pool(-maps, steps).tolist() == [[[-1, -1, 0, 0]], [[5, 5, -1, -7]]]
    norm = MaskedNorm(1).train()
    normed = norm(maps, steps)
    values = torch.tensor([1.0, 3.0, -5.0, 1.0, 7.0, 9.0])
    expected = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(normed.flatten()[[0, 1, 4, 5, 6, 7]], expected)
    assert normed[0, 0, 2:].tolist() == [0, 0]
    assert norm.norm.running_mean.item() == pytest.approx(0.1 * 16 / 6)


def test_a_variable_that_is_missing_at_one_step_is_no_padding():
    inputs = torch.tensor([[[1.0, float("nan")], [2.0, 4.0]]])
    _, steps = split_padding(inputs, is_training=True)
    assert steps.valid.tolist() == [[[1, 1]]]
    assert steps.positions is None


def test_the_widths_of_the_papers():
    assert [layer.convolution[1].weight.shape for layer in FCN(2).layers] == [(128, 1, 8), (256, 128, 5), (128, 256, 3)]
    assert build("inceptiontime").head.in_features == 128
    assert len(build("inceptiontime").shortcuts) == 2
    assert build("lstmfcn").head.in_features == 128 + 64


def test_as_many_kernels_as_convolutions():
    with pytest.raises(ConfigError, match=r"3 kernel_sizes \[8, 5, 3\] for 2 convolutions .* Give as many of each"):
        FCN(2, channels=[8, 8])


TOLD = {"num_classes": 5, "in_channels": 1}


@pytest.mark.parametrize(
    ("name", "args", "filled"),
    [
        ("timm.create_model", {"model_name": "resnet10t"}, {"num_classes": 5, "in_chans": 1}),
        ("torchvision.models.resnet18", {}, {"num_classes": 5}),
        ("ConvNet", {"channels": [8]}, {"num_classes": 5, "in_channels": 1}),
    ],
)
def test_foreign_networks_are_told_classes_and_channels(name, args, filled):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    values = {**TOLD, "in_channels": 3} if name.startswith("torchvision") else TOLD
    config = {"arch": {"type": name, "args": args}}
    with torch.device("meta"):
        model = build_model(config, DataSpec(**values))
        channels = values["in_channels"]
        assert model(torch.zeros(2, channels, 64, 64)).shape == (2, 5)
    complete = complete_config(
        {**config, "train_loader": "ImageClassificationDataLoader"}, DataSpec(**values), registry()
    )
    assert complete["arch"]["args"] == {**args, **filled}
    with torch.device("meta"):
        build_model(complete, DataSpec())  # as from a checkpoint, without data


def test_foreign_networks_that_do_not_fit_the_data_are_refused():
    config = {"arch": {"type": "torchvision.models.resnet18", "args": {"num_classes": 7}}}
    with pytest.raises(
        ConfigError, match=r"arch\.args\.num_classes: 7, but the run has num_classes 5\. Both must agree"
    ):
        build_model(config, DataSpec(num_classes=5, in_channels=3))
    with pytest.raises(ConfigError, match=r"resnet18 takes images of 3 channels, .* in_channels 1\. Set in_channels"):
        build_model({"arch": "torchvision.models.resnet18"}, DataSpec(**TOLD))
