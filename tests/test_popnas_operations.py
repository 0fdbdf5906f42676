"""Every operation of a block, in one and two dimensions and all four cases of adaptation: shapes, costs, padding."""

import copy

import pytest
import torch

from base.inspection.flops import flop_counter
from models.layers.masked import split_padding
from models.popnas.layers import MapPool, SeriesExtent, Subsampling
from models.popnas.operations import build_block_operation
from utils.architecture.cells.costs import operator_costs
from utils.architecture.cells.operators import OPERATOR_KINDS, operator_forms, read_operator

MORE = {
    1: (
        "1 conv", "4 conv", "3 dconv", "4 dconv", "2-3 conv", "2 tconv", "5 tconv", "3 zconv:8", "3 maxpool",
        "3 avgpool",
    ),
    2: (
        "1x1 conv", "4x4 conv", "1x7-7x1 conv", "2x2 dconv", "2x2 tconv", "5x5 tconv", "3x3 zconv:8", "3x3 maxpool",
        "3x3 avgpool", "5x3 avgpool", "2 SE", "3-1-2 cvt",
    ),
}  # fmt: skip
CASES = [(dims, text) for dims in (1, 2) for text in dict.fromkeys((*operator_forms(dims), *MORE[dims]))]
ADAPTATIONS = {"normal": (6, 1), "depth": (10, 1), "spatial": (6, 2), "reduction": (3, 2)}  # input's width, stride
WIDTH = 6
SIZES = {1: ((13,), (1,), (16,)), 2: ((9, 12), (1, 1), (7, 5))}


def build(text, dims, in_channels, stride, activation="swish"):
    torch.manual_seed(0)
    operator = read_operator(text, dims)
    return build_block_operation(operator, in_channels, WIDTH, stride=stride, activation=activation)


def extent_of(maps, *, is_training=False):
    return SeriesExtent(split_padding(maps, is_training=is_training)[1]) if maps.dim() == 3 else None


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_kind_is_tried():
    assert {read_operator(text, dims).kind for dims, text in CASES} == set(OPERATOR_KINDS)


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize(("dims", "text"), CASES)
def test_shapes_gradients_and_costs(dims, text, adaptation):
    in_channels, stride = ADAPTATIONS[adaptation]
    layer = build(text, dims, in_channels, stride)
    for size in SIZES[dims]:
        maps = noise(2, in_channels, *size)
        result = layer.train()(maps, extent_of(maps, is_training=True))
        expected_size = tuple(-(-length // stride) for length in size)
        assert result.shape == (2, WIDTH, *expected_size)
        assert result.isfinite().all()
        costs = operator_costs(read_operator(text, dims), in_channels, WIDTH, stride, size)
        assert costs.params == sum(weight.numel() for weight in layer.parameters())
        with flop_counter() as counter, torch.no_grad():
            layer.eval()(maps[:1], extent_of(maps[:1]))
        assert costs.flops == counter.get_total_flops()
    maps = noise(3, in_channels, *SIZES[dims][0]).requires_grad_()
    layer.train()(maps, extent_of(maps)).square().sum().backward()
    assert [name for name, weight in layer.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("text", [text for dims, text in CASES if dims == 1])
def test_a_series_has_the_same_result_alone_and_with_padding(text, adaptation):
    in_channels, stride = ADAPTATIONS[adaptation]
    layer = build(text, 1, in_channels, stride)
    layer.train()(noise(4, in_channels, 24), extent_of(noise(4, in_channels, 24)))  # other statistics than at first
    layer.eval()
    for length in (1, 2, 7, 12):
        series = noise(1, in_channels, length, seed=length)
        alone = layer(series, extent_of(series))
        for more in (1, 2, 19):
            batch = torch.full((2, in_channels, length + more), torch.nan)
            batch[0, :, :length], batch[1] = series[0], 1.0
            zeroed, steps = split_padding(batch, is_training=False)
            together = layer(zeroed, SeriesExtent(steps))
            kept = -(-length // stride)
            torch.testing.assert_close(together[:1, :, :kept], alone, rtol=1e-4, atol=1e-5)
            assert not together[0, :, kept:].any()


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("text", [text for dims, text in CASES if dims == 1])
def test_padding_changes_nothing_in_training(text, adaptation):
    in_channels, stride = ADAPTATIONS[adaptation]
    layer = build(text, 1, in_channels, stride).train()
    twin = copy.deepcopy(layer)
    batch = noise(3, in_channels, 11)
    result = layer(batch, extent_of(batch, is_training=True))
    padded, steps = split_padding(torch.cat((batch, torch.full((3, in_channels, 6), torch.nan)), 2), is_training=True)
    other = twin(padded, SeriesExtent(steps))[:, :, : result.shape[2]]
    torch.testing.assert_close(other, result, rtol=1e-4, atol=1e-5)
    for one, two in zip(layer.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


def test_fused_layers_are_counted_as_their_products():
    with flop_counter() as counter, torch.no_grad():
        torch.nn.LSTM(8, 16, batch_first=True)(torch.zeros(1, 10, 8))
    assert counter.get_total_flops() == 10 * 2 * 4 * 16 * (8 + 16)
    queries = torch.zeros(1, 3, 50, 8)
    with flop_counter() as counter, torch.no_grad():
        torch.nn.functional.scaled_dot_product_attention(queries, queries, queries)
    assert counter.get_total_flops() == 3 * 2 * (2 * 50 * 50 * 8)


def test_pools_by_hand():
    maps = torch.tensor([[[1.0, 4.0, -2.0, 7.0, 5.0]]])
    extent = extent_of(maps)
    assert MapPool((2,), is_max=True)(maps, extent).tolist() == [[[4, 4, 7, 7, 5]]]
    assert MapPool((2,), stride=2, is_max=False)(maps, extent).tolist() == [[[2.5, 2.5, 5]]]
    assert MapPool((3,), is_max=False)(maps, extent).flatten().tolist() == pytest.approx([2.5, 1, 3, 10 / 3, 6])
    square = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]])
    assert MapPool((2, 2), is_max=False)(square, None).tolist() == [[[[3, 4, 4.5], [6, 7, 7.5], [7.5, 8.5, 9]]]]
    assert MapPool((2, 2), stride=2, is_max=True)(-square, None).tolist() == [[[[-1, -3], [-7, -9]]]]
    assert Subsampling(4, 1)(maps, extent).tolist() == [[[7, 5]]]
    assert Subsampling(2, 1)(-maps, extent).tolist() == [[[-1, 2, -5]]]


def test_a_transposed_convolution_sees_neighbours_on_both_sides():
    layer = build("3x3 tconv", 2, WIDTH, 1).eval()
    maps = torch.zeros(1, WIDTH, 7, 7, requires_grad=True)
    layer(maps, None)[0, :, 3, 3].sum().backward()
    seen = maps.grad[0].abs().sum(0) > 0
    assert seen[2:5, 2:5].all()


def test_a_zoomed_convolution_is_aligned():
    """A step in the middle stays in the middle: no shift from shrinking and enlarging."""
    layer = build("1x1 zconv:2", 2, WIDTH, 1, "relu").eval()
    with torch.no_grad():
        layer.unit.convolution.weight.copy_(torch.eye(WIDTH)[:, :, None, None])
    ramp = torch.arange(12.0).expand(1, WIDTH, 12, 12)
    enlarged = layer(ramp, None)[0, 0, 5]
    torch.testing.assert_close(enlarged[1:-1], torch.arange(1.0, 11.0), rtol=1e-3, atol=1e-3)
