"""EncDec: the known sizes of its members, its layers, and blocks that do not fit together."""

from typing import Any

import pytest
import torch
from torch import nn

from models.encdec import EncDec
from models.encdec.model import Layer, Unit
from utils.errors import ConfigError

C1 = ["C", 1]


def encdec(**changes: Any) -> EncDec:
    return EncDec(**{"num_classes": 2, "D_blocks": [[]], "B_blocks": [[C1]], "U_blocks": [[]], **changes})


def test_the_unet_of_base_64_has_the_known_number_of_parameters() -> None:
    with torch.device("meta"):
        unet = encdec(num_classes=20, base_channels=64, D_blocks=[[]] * 5, B_blocks=[[C1]], U_blocks=[[C1, C1]] * 5)
    assert unet.parameter_count() == 26_650_388


def test_the_smallest_member_has_the_known_number_of_parameters_but_for_the_norm_of_the_head() -> None:
    assert encdec(num_classes=20, base_channels=8).parameter_count() == 3_092 - 2 * 20


def test_the_head_is_a_bare_convolution() -> None:
    network = encdec(dropout_ratio=0.5)
    assert isinstance(network.head, nn.Conv2d)
    nn.init.constant_(network.head.bias, -100.0)
    assert float(network.train()(torch.rand(2, 3, 8, 8)).detach().max()) < -50  # neither rectified nor dropped


@pytest.mark.parametrize(
    ("layer", "kernel", "padding", "dilation"),
    [
        (Layer("H", 3), (1, 3), (0, 3), (1, 3)),
        (Layer("V", 2), (3, 1), (2, 0), (2, 1)),
        (Layer("C", 4), (3, 3), (4, 4), (4, 4)),
        (Layer("O"), (1, 1), (0, 0), (1, 1)),
    ],
)
def test_layers_are_convolution_norm_activation_dropout(layer: Layer, kernel: Any, padding: Any, dilation: Any) -> None:
    convolution, norm, activation, dropout = Unit(0.25, 0.3, "replicate", "relu").layer(layer, 4, 6)
    assert (convolution.kernel_size, convolution.padding, convolution.dilation) == (kernel, padding, dilation)
    assert (convolution.groups, convolution.padding_mode, norm.momentum, dropout.p) == (1, "replicate", 0.3, 0.25)
    assert isinstance(activation, nn.ReLU)


def test_22_layers_are_different() -> None:
    layers = [[[op, dilation]] for op in "HVCO" for dilation in range(1, 8)]
    names = {encdec(B_blocks=[layer], base_channels=1).arch for layer in layers}
    assert len(layers) == 28
    assert len(names) == 22
    sizes = {encdec(B_blocks=[[["O", dilation]]]).parameter_count() for dilation in (1, 7)}
    assert len(sizes) == 1


def test_the_architecture_is_one_line() -> None:
    network = encdec(
        D_blocks=[[["C", 3]], []],
        B_blocks=[[["C", 1], {"op": "O"}]],
        U_blocks=[[{"op": "H", "dilation": 2}], [["V", 1]]],
    )
    assert network.arch == "D0(C3)*D1()*B0(C1,O)*U0(H2)*U1(V1)"


def test_widths_double_on_the_way_down_and_halve_on_the_way_up() -> None:
    network = encdec(D_blocks=[[], [], []], U_blocks=[[], [], []], base_channels=4)
    features, bottom = network.encoder(torch.zeros(1, 3, 16, 24))
    assert [tuple(feature.shape[1:]) for feature in features] == [(4, 8, 12), (8, 4, 6), (16, 2, 3)]
    assert tuple(bottom.shape[1:]) == (16, 2, 3)
    # The join has twice the channels: what came last, and the halving block of that size.
    joins = [(block[0][0].in_channels, block[0][0].out_channels) for block in network.decoder.up]
    assert joins == [(32, 8), (16, 4), (8, 4)]
    assert tuple(network.decoder(features, bottom).shape[1:]) == (4, 16, 24)


def test_activations_are_not_shared() -> None:
    network = encdec(D_blocks=[[C1], [C1]], U_blocks=[[C1], [C1]])
    activations = [part for part in network.modules() if isinstance(part, nn.ReLU)]
    assert len({id(part) for part in activations}) == len(activations) == 4 + 1 + 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"D_blocks": []}, "0 D_blocks with 1 U_blocks: each halving needs one doubling.* Give as many of each"),
        ({"U_blocks": [[], []]}, "1 D_blocks with 2 U_blocks"),
        ({"B_blocks": []}, r"Wrong B_blocks \[\]: there is at least one"),
        ({"B_blocks": [[C1], []]}, r"Wrong B_blocks \[\['C1'\], \[\]\]: .* each has at least one layer"),
        ({"B_blocks": [[["X", 1]]]}, r"Wrong layer B_blocks\[0\]\[0\] \['X', 1\]: a layer is an op of H, V, C, O"),
        ({"D_blocks": [[C1, ["C", 0]]]}, r"Wrong layer D_blocks\[0\]\[1\] \['C', 0\]: .* dilation of 1 or more"),
        ({"D_blocks": [[(1,)]]}, r"Wrong layer D_blocks\[0\]\[0\] \[1\]"),
        ({"U_blocks": [[["C", "2"]]]}, r"Wrong layer U_blocks\[0\]\[0\] \['C', '2'\]"),
        ({"U_blocks": [[{"op": "C", "rate": 2}]]}, r"Wrong layer U_blocks\[0\]\[0\] \{'op': 'C', 'rate': 2\}"),
        ({"padding_mode": "reflect"}, "Wrong padding_mode 'reflect': there are zeros, replicate. Choose one"),
        ({"activation": "tanh"}, "Wrong activation 'tanh': there are relu, .* Choose one"),
    ],
)
def test_blocks_that_make_no_network_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encdec(**changes)


def test_one_sample_is_learned_by_heart() -> None:
    torch.manual_seed(0)
    network = encdec(D_blocks=[[C1], [C1]], U_blocks=[[C1], [C1]], base_channels=8).train()
    image = torch.rand(1, 3, 16, 16)
    target = (image.mean(dim=1) > 0.5).long()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(image), target).backward()
        optimizer.step()
    with torch.no_grad():
        assert (network(image).argmax(1) == target).float().mean() > 0.98
