"""Auxiliary outputs: their loss, their weights, and the targets at their size."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from base.base_loss import loss_terms
from build import build_loss
from config import DataSpec
from models.bisenet import BiSeNet
from models.icnet import ICNet
from models.losses import CrossEntropyLoss
from models.losses.common import AuxiliaryLoss, resize_nearest
from models.pspnet import PSPNet
from models.pspnet.model import average_bins
from models.unet import UNet
from trainer.evaluation import output_at, term_weights, weights_of_step
from utils.errors import ConfigError


def certain(target: Tensor, probability: float) -> Tensor:
    """Logits of two classes that give each pixel's own label that probability."""
    odds = math.log(probability / (1 - probability))
    signs = torch.stack([1 - target, target], dim=1).float()
    return signs * odds


def test_auxiliary_terms_are_added_by_weight() -> None:
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    small = torch.zeros(1, 2, 2, dtype=torch.int64)
    output = (certain(target, 0.5), certain(small, 0.25), certain(small, 0.125))
    loss = AuxiliaryLoss(CrossEntropyLoss(), [0.4, 0.16])(output, target)
    assert float(loss) == pytest.approx(math.log(2) + 0.4 * math.log(4) + 0.16 * math.log(8))


def test_without_auxiliary_outputs_it_is_the_loss_alone() -> None:
    target = torch.ones(1, 4, 4, dtype=torch.int64)
    loss = AuxiliaryLoss(CrossEntropyLoss(), [1.0])
    assert float(loss(certain(target, 0.5), target)) == pytest.approx(math.log(2))
    assert float(loss((certain(target, 0.5),), target)) == pytest.approx(math.log(2))


def test_another_number_of_outputs_than_weights_is_refused() -> None:
    target = torch.zeros(1, 2, 2, dtype=torch.int64)
    logits = torch.zeros(1, 2, 2, 2)
    with pytest.raises(ConfigError, match=r"1 auxiliary outputs with 2 weights \[1.0, 1.0\]: each needs one. Correct"):
        AuxiliaryLoss(CrossEntropyLoss(), [1, 1])((logits, logits), target)


@pytest.mark.parametrize(
    ("length", "count", "places"),
    [
        (8, 4, [1, 3, 5, 7]),  # cells of two
        (8, 2, [2, 6]),
        (9, 5, [1, 3, 5, 7, 8]),  # the last cell of two reaches beyond
        (112, 4, [16, 48, 80, 111]),  # at stride 32, not 28
        (5, 5, [0, 1, 2, 3, 4]),
        (1, 1, [0]),
        (10, 6, [0, 2, 4, 5, 7, 9]),  # no power of two gives six: cells of 10 / 6
    ],
)
def test_targets_shrink_to_the_label_at_each_cells_centre(length: int, count: int, places: list[int]) -> None:
    target = torch.arange(length).view(1, 1, length)
    assert resize_nearest(target, (1, count)).flatten().tolist() == places
    assert resize_nearest(target.transpose(1, 2), (count, 1)).flatten().tolist() == places


def test_labels_are_not_mixed_and_ignored_ones_stay() -> None:
    target = torch.tensor([[[0, 0, 255, 255], [0, 7, 255, 255], [3, 3, 1, 1], [3, 3, 1, 2]]])
    assert resize_nearest(target, (2, 2)).tolist() == [[[7, 255], [3, 2]]]


@pytest.mark.parametrize(("network", "published"), [(BiSeNet, (1, 1)), (PSPNet, (0.4,)), (ICNet, (0.4, 0.16))])
def test_networks_have_the_published_weights(network: Any, published: tuple[float, ...]) -> None:
    with torch.device("meta"):
        assert network(2).auxiliary_weights == published
        own = [0.5] * len(published)
        assert network(2, auxiliary_weights=own).auxiliary_weights == tuple(own)
        with pytest.raises(ConfigError, match=rf"Wrong auxiliary_weights .*: the network has {len(published)} "):
            network(2, auxiliary_weights=[1.0, 1.0, 1.0])


def test_the_configured_loss_is_wrapped_where_the_network_asks_for_it() -> None:
    values = {"num_classes": 2, "ignore_index": 255}
    with torch.device("meta"):
        asking, plain = PSPNet(2), UNet(2)
    config: dict[str, Any] = {"loss": [{"type": "ce_loss", "weight": 1.0}, {"type": "dice_loss", "weight": 0.5}]}
    wrapped = build_loss(config, DataSpec(**values), asking)
    assert isinstance(wrapped, AuxiliaryLoss)
    assert wrapped.weights == [0.4]
    assert wrapped.loss.losses[0].ignore_index == 255
    assert not isinstance(build_loss(config, DataSpec(**values), plain), AuxiliaryLoss)


def test_evaluation_of_a_network_with_auxiliary_outputs_has_the_plain_loss() -> None:
    torch.manual_seed(0)
    network = PSPNet(2, output_stride=32).eval()
    image, target = torch.rand(1, 3, 32, 32), torch.zeros(1, 32, 32, dtype=torch.int64)
    with torch.no_grad():
        logits = network(image)
        assert torch.equal(AuxiliaryLoss(CrossEntropyLoss(), [0.4])(logits, target), CrossEntropyLoss()(logits, target))


@pytest.mark.parametrize("size", [(1, 1), (6, 6), (7, 5), (13, 20)])
def test_means_over_bins_are_those_of_adaptive_pooling(size: tuple[int, int]) -> None:
    maps = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    for bins in (1, 2, 3, 6):
        torch.testing.assert_close(average_bins(maps, bins), nn.functional.adaptive_avg_pool2d(maps, bins))


def test_bisenet_has_three_spatial_convolutions() -> None:
    with pytest.raises(
        ConfigError, match=r"Wrong spatial_channels \[8\]: the path has three convolutions.* Give three"
    ):
        BiSeNet(2, spatial_channels=[8])


@pytest.mark.parametrize(("size", "sides"), [((401, 641), (51, 81)), ((1242, 700), (156, 88)), ((64, 64), (8, 8))])
def test_the_size_of_auxiliary_logits_is_that_of_halvings(size, sides):
    target, other = torch.zeros(2, 375, 500), torch.zeros(3, *size)
    output = [torch.zeros(2, 4, 375, 500), torch.zeros(2, 4, 47, 63), torch.zeros(2, 4, 5, 5)]
    main, auxiliary, pooled = output_at(output, target, other)
    assert (main.shape, auxiliary.shape) == ((3, 4, *size), (3, 4, *sides))
    assert pooled.shape[2:] == (round(5 * size[0] / 375), round(5 * size[1] / 500))
    soft = output_at(output, torch.zeros(2, 4, 375, 500), torch.zeros(3, 4, *size))
    assert soft[1].shape == (3, 4, *sides)


def test_the_weights_of_a_step_are_those_of_its_batches_whichever_size_comes_first():
    loss = AuxiliaryLoss(CrossEntropyLoss(ignore_index=255), [0.4, 0.16])
    generator = torch.Generator().manual_seed(0)
    outputs, targets = [], []
    for side in (64, 192):
        outputs.append([torch.zeros(1, 3, side // each, side // each) for each in (1, 4, 8)])
        target = torch.randint(0, 3, (1, side, side), generator=generator)
        target[:, : side // 2, : side // 4] = 255
        targets.append(target)
    expected = sum(term_weights(loss_terms(loss, *each), 255) for each in zip(outputs, targets, strict=True))
    for output, target in zip(outputs, targets, strict=True):
        assert weights_of_step(loss, output, target, targets, 255).tolist() == pytest.approx(expected.tolist())
