"""Networks of a cell: which cells are built, costs by plan and by count, options, drop path, exits, sizes."""

import copy
import logging

import numpy as np
import pytest
import torch
from torch import nn

from build import DataSpec, build_loader, build_model, read_data_spec
from config import signature_of
from models.layers.drop_path import SurvivingPaths
from models.popnas import CellNet, CellNetSegmenter
from models.popnas.model import DEFAULT_CELLS
from tests.support.groups import from_flat
from utils.architecture.cells.cell import Cell
from utils.architecture.cells.costs import CostModel
from utils.architecture.cells.grammar import Grammar
from utils.architecture.cells.network import CellOptions, MacroOptions, NetworkOptions, plan_network
from utils.errors import ConfigError

TWO_BACK = "[(-2, '3x3 dconv', -2, 'identity')]"
DEEP = "[(-1, '3x3 conv', -2, '3x3 maxpool');(0, 'identity', -2, '3x3 dconv');(-1, 'identity', -1, '2 SE')]"
THREE_BACK = "[(-3, '3x3 conv', -1, 'identity');(-2, '3x3 avgpool', 0, '1x3-3x1 conv')]"
SERIES = "[(-1, '5 conv', -2, 'lstm');(0, 'gru', -2, '3 zconv:2');(-1, '3 maxpool', -1, '2 SE')]"
LONG = "[(-1, '7 dconv', -2, '5 conv');(0, '3 maxpool', -1, 'identity')]"
LETTERS = "a b c d e f g h i j k"
SMALL = {"filters": 4, "motifs": 2, "normal_cells": 1}


def build(cell, kind="images", num_classes=3, **args):
    torch.manual_seed(0)
    target = CellNet if kind in ("images", "series") else CellNetSegmenter
    given = {"images": {}, "series": {"dims": 1}}.get(kind, {"decoder": kind})
    return from_flat(target, num_classes=num_classes, in_channels=2, cell=cell, **given, **{**SMALL, **args})


def plan(lookbacks, *, decoder=None, multi_output=False, **macro):
    options = NetworkOptions(3, 2, macro=MacroOptions(**macro), decoder=decoder, multi_output=multi_output)
    return plan_network(lookbacks, options)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def assert_exact_costs(model, size):
    costs = CostModel(model.plan.options, size).costs(model.cell)
    assert (costs.params, costs.flops) == (model.parameter_count(), model.flops(size))


@pytest.mark.parametrize(("motifs", "normal_cells"), [(3, 2), (1, 1), (2, 0), (4, 1), (3, 4)])
def test_there_are_m_times_n_plus_one_less_one_cells(motifs, normal_cells):
    found = plan((-1, -2), motifs=motifs, normal_cells=normal_cells)
    assert found.num_cells == len(found.built_cells) == motifs * (normal_cells + 1) - 1
    last = found.shapes[found.output]
    assert last.filters == 24 * 2 ** (motifs - 1)
    assert last.stride == 2 ** (motifs - 1)


def test_shapes_along_the_default_network():
    found = plan((-1, -2))
    assert [(shape.stride, shape.filters) for shape in found.shapes] == [
        (1, 24), (1, 24), (1, 24), (2, 48), (2, 48), (2, 48), (4, 96), (4, 96), (4, 96),
    ]  # fmt: skip
    first_after_reduction = found.built_cells[3]
    assert [each.given.stride for each in first_after_reduction.lookbacks] == [2, 1]
    assert found.levels == (2, 5, 8)


def test_an_imagenet_stem_reaches_the_width_after_two_reductions():
    found = plan((-1, -2), stem="imagenet", filters=24)
    assert [(shape.stride, shape.filters) for shape in found.shapes][:5] == [(2, 6), (4, 12), (8, 24), (8, 24), (8, 24)]
    assert found.num_cells == 10
    # Two reductions apart: pooled first, so that no operator has a stride above 2.
    assert [(each.pool, each.shape.stride) for each in found.built_cells[1].lookbacks] == [(1, 4), (2, 4)]


def test_a_cell_that_reads_only_two_back_halves_the_depth_and_says_so(caplog):
    caplog.set_level(logging.INFO)
    model = build(TWO_BACK, motifs=3, normal_cells=2)
    assert [cell.number for cell in model.plan.built_cells] == [1, 3, 5, 7]
    assert len(model.stack.nodes) == 4
    assert "4 of the 8 cells are built: no path to the output" in caplog.text
    assert "reads only the inputs -2" in caplog.text
    assert_exact_costs(model, (11, 9))
    caplog.clear()
    build(DEEP)
    assert "cells are built" not in caplog.text


def test_levels_that_the_decoder_reads_are_built_also_if_no_path_of_cells_leads_there():
    found = plan((-2,), decoder="deeplab", motifs=3, normal_cells=2)
    assert found.levels == (2, 5, 8)
    assert found.skips == (2,)
    assert {2, 8} <= {cell.state for cell in found.built_cells}
    assert {cell.state for cell in found.built_cells} == {2, 4, 6, 8}


@pytest.mark.parametrize("stem", ["none", "conv", "strided", "imagenet"])
@pytest.mark.parametrize("kind", ["images", "deeplab", "unet"])
def test_costs_are_those_of_the_network(kind, stem):
    for cell in ("[]", TWO_BACK, THREE_BACK):
        model = build(cell, kind, stem=stem, motifs=3, filters=5, multi_output=True).train()
        for size in ((1, 1), (9, 14)):
            output = model(noise(2, 2, *size))
            logits = output if isinstance(output, torch.Tensor) else output[0]
            assert logits.shape == ((2, 3) if kind == "images" else (2, 3, *size))
            assert_exact_costs(model, size)


OPTIONS = {
    "mean": {"block_join": "avg"},
    "reshape": {"lookback_reshape": True},
    "all_blocks": {"concat_only_unused": False},
    "plain": {"residual": False},
    "excitation": {"se_output": True},
    "one_exit": {"multi_output": "one"},
    "all": {"lookback_reshape": True, "concat_only_unused": False, "se_output": True, "activation": "relu"},
    "no_normal_cells": {"normal_cells": 0, "motifs": 3},
    "reshape_after_stem": {"lookback_reshape": True, "stem": "imagenet"},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", ["images", "deeplab", "unet", "series"])
def test_options_change_costs_as_the_network(kind, name):
    for cell in (SERIES,) if kind == "series" else (DEEP, THREE_BACK):
        model = build(cell, kind, **OPTIONS[name]).train()
        size = (13,) if kind == "series" else (9, 12)
        output = model(noise(2, 2, *size))
        (
            output if isinstance(output, torch.Tensor) else torch.stack([each.square().sum() for each in output])
        ).sum().backward()
        assert [key for key, weight in model.named_parameters() if weight.grad is None] == []
        assert_exact_costs(model, size)


@pytest.mark.parametrize("activation", ["swish", "relu", "gelu", "elu", "leaky_relu", "mish"])
def test_every_activation_leaves_padding_zero(activation):
    model = build(SERIES, "series", activation=activation)
    model(noise(4, 2, 30))
    model.eval()
    series = noise(1, 2, 9)
    padded = torch.cat((series, torch.full((1, 2, 14), torch.nan)), dim=2)
    torch.testing.assert_close(model(padded), model(series), rtol=1e-4, atol=1e-5)


def test_a_mean_is_half_of_a_sum():
    cell = "[(-1, '3x3 maxpool', -1, 'identity')]"
    added, averaged = (build(cell, residual=False, block_join=join, motifs=1).eval() for join in ("add", "avg"))
    maps = noise(1, 2, 6, 6)
    with torch.no_grad():
        (total, _), (mean, _) = (net.stack(maps, None)[net.plan.output] for net in (added, averaged))
    torch.testing.assert_close(mean, total / 2)


def test_residual_adds_the_nearest_input():
    cell = "[(-2, '3x3 conv', -2, 'identity')]"
    model = build(cell, motifs=1, normal_cells=2).eval()
    (placed,) = model.stack.nodes  # the second cell reads the stem, two back
    maps = noise(1, 4, 6, 6)
    with torch.no_grad():
        result = placed([maps], [None])
        torch.testing.assert_close(result - placed.blocks[0]([(maps, None)] * 2), maps)


def test_weights_of_exits_halve_from_cell_to_cell():
    model = build(DEEP, multi_output=True, motifs=2, normal_cells=2)
    assert model.auxiliary_weights == (1 / 16, 1 / 8, 1 / 4, 1 / 2)
    assert len(model.train()(noise(2, 2, 8, 8))) == 5
    assert isinstance(model.eval()(noise(2, 2, 8, 8)), torch.Tensor)
    one = build(DEEP, multi_output="one", motifs=3, normal_cells=2)
    assert one.auxiliary_weights == (pytest.approx(1 / 3),)
    assert one.plan.exits[0].depth == 5 / 8
    skipped = build(TWO_BACK, multi_output=True, motifs=3, normal_cells=2)
    assert skipped.auxiliary_weights == (1 / 64, 1 / 16, 1 / 4)


def test_dropout_of_an_exit_grows_with_its_depth():
    model = build(DEEP, multi_output=True, dropout=0.4, motifs=2, normal_cells=1)
    assert [each.dropout.p for each in model.exits] == pytest.approx([0.4 / 3, 0.8 / 3])
    assert model.head.dropout.p == 0.4


class TestDropPath:
    def drop(self, probability=0.6, share=1.0):
        torch.manual_seed(0)
        part = SurvivingPaths(probability)
        part.set_progress(share)
        return part

    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_at_least_one_path_survives_and_the_mean_is_kept(self, count):
        for probability in (0.3, 0.99):
            factors = self.drop(probability).factors(40_000, count, torch.device("cpu"))
            survivors = (factors > 0).sum(dim=0)
            assert survivors.min() >= 1
            torch.testing.assert_close(factors.sum(dim=0), torch.full((40_000,), float(count)))
            torch.testing.assert_close(factors.mean(dim=1), torch.ones(count), rtol=0, atol=0.03)

    def test_paths_are_dropped_as_often_as_stated(self):
        factors = self.drop(0.6, 0.5).factors(40_000, 2, torch.device("cpu"))
        # One dropped: 2 x 0.3 x 0.7; both, of which one survives: 0.3 x 0.3.
        assert (factors == 0).float().mean().item() == pytest.approx((2 * 0.3 * 0.7 + 0.09) / 2, abs=0.01)

    def test_none_is_dropped_in_evaluation_nor_at_the_beginning(self):
        paths = [noise(4, 2, 3), noise(4, 2, 3)]
        assert all(map(torch.equal, self.drop().eval()(paths), paths))
        assert all(map(torch.equal, self.drop(share=0.0)(paths), paths))

    def test_the_probability_grows_with_depth_and_progress(self):
        model = build(DEEP, drop_path=0.5, motifs=2, normal_cells=1)
        parts = [part for part in model.modules() if isinstance(part, SurvivingPaths)]
        assert len(parts) == 3 * (3 + 1)  # of each cell its blocks and its concatenation
        model.set_progress(0.5)
        assert {round(float(part.current), 4) for part in parts} == {round(0.25 * depth / 3, 4) for depth in (1, 2, 3)}
        assert not [part for part in build(DEEP).modules() if isinstance(part, SurvivingPaths)]

    def test_evaluation_repeats_itself(self):
        model = build(DEEP, drop_path=0.9)
        model.set_progress(0.9)
        images = noise(3, 2, 8, 8)
        assert not torch.equal(model(images), model(images))
        model.eval()
        assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_series_shorter_than_the_strides(length):
    model = build(SERIES, "series", motifs=4)
    assert model.train()(noise(1, 2, length)).isfinite().all()
    assert model.eval()(noise(1, 2, length)).isfinite().all()


def test_a_batch_of_one_tiny_image_trains():
    zoomed = "[(-1, '3x3 zconv:4', -2, '3x3 conv:2dr')]"
    for kind in ("images", "deeplab", "unet"):
        model = build(zoomed, kind, motifs=3).train()
        logits = model(noise(1, 2, 2, 3))
        logits.square().sum().backward()
        assert logits.isfinite().all()


def test_series_of_unequal_lengths_in_training():
    model = build(SERIES, "series", motifs=3, multi_output=True, drop_path=0.2).train()
    batch = noise(3, 2, 21)
    twin = copy.deepcopy(model)
    longer = torch.cat((batch, torch.full((3, 2, 10), torch.nan)), dim=2)
    for one, other in zip(model(batch), twin(longer), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)
    batch[0, :, 5:] = torch.nan
    assert all(logits.isfinite().all() for logits in model(batch))


def test_long_series_of_eleven_classes_from_the_file_to_the_gradients(tmp_path):
    time, chance = np.linspace(0, 1, 1500), np.random.default_rng(0)
    lines = ["@problemName Long", "@univariate true", "@equalLength false", "@classLabel true " + LETTERS, "@data"]
    for number, letter in enumerate(LETTERS.split() * 2):
        wave = np.sin(2 * np.pi * (5 + 4 * (number % 11)) * time) + 0.1 * chance.normal(size=len(time))
        lines.append(",".join(f"{value:.3f}" for value in wave[: 1500 - 10 * number]) + f":{letter}")
    (tmp_path / "Long_TRAIN.ts").write_text("\n".join(lines))
    config = {
        "arch": {"type": "CellNet", "args": {**SMALL, "cell": LONG}},
        "train_loader": {"type": "TimeSeriesDataLoader", "args": {"path": str(tmp_path), "batch_size": 22}},
    }
    loader = build_loader(config, "train")
    spec = read_data_spec(config, loader)
    assert (spec.num_classes, spec.in_channels, spec.dims) == (11, 1, 1)
    series, labels = next(iter(loader))[:2]
    assert (series.shape, sorted(labels.tolist())) == ((22, 1, 1500), sorted([*range(11)] * 2))
    model = build_model(config, spec)
    losses = []
    for _ in range(3):
        logits = model(series)
        assert logits.shape == (22, 11)
        losses.append(nn.functional.cross_entropy(logits, labels))
        weights = list(model.parameters())
        with torch.no_grad():
            for weight, gradient in zip(weights, torch.autograd.grad(losses[-1], weights), strict=True):
                weight.sub_(gradient, alpha=0.1)
    assert losses[2] < losses[0]


def test_the_default_cells_are_valid_and_canonical_arguments_join_equivalent_cells():
    for dims, text in DEFAULT_CELLS.items():
        assert len(CellNet(3, 2, dims=dims).cell) == len(Cell.parse(text)) == 2
    swapped = "[(-1, '3x3 conv', -2, '3x3 maxpool')]", "[(-2, '3x3 maxpool', -1, '3x3 conv')]"
    one, other = (CellNet.canonical_arguments({"cell": text, "filters": 8}) for text in swapped)
    assert one == other
    assert CellNet.canonical_arguments({"cell": "nonsense"}) == {"cell": "nonsense"}


def test_equivalent_cells_cost_the_same():
    one, other = Cell.parse(DEEP), Cell.parse(DEEP).canonical()
    model = CostModel(NetworkOptions(10, 3), (32, 32))
    assert model.costs(one) == model.costs(other)


def test_the_loader_says_whether_inputs_are_images_or_series():
    config = {"arch": {"type": "CellNet", "args": {"filters": 4}}}
    with torch.device("meta"):
        series = build_model(config, DataSpec(num_classes=3, in_channels=1, dims=1))
        images = build_model(config, DataSpec(num_classes=3, in_channels=1))
    assert (series.plan.options.dims, images.plan.options.dims) == (1, 2)
    assert isinstance(series.stack.stem.convolution, nn.Conv1d)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"cell": "[(-1, '3x3 cov', -1, 'identity')]"}, r"\"3x3 cov\" is no operator for images\. Did you mean"),
        ({"cell": "[(-1, '3x3 conv', 0, 'identity')]"}, r"block 0 reads 0"),
        ({"cell": "(-1)"}, r"is not in square brackets"),
        ({"motifs": 1, "normal_cells": 0}, r"here none\. Set normal_cells to 1 or more"),
        ({"filters": 0}, r"Wrong filters 0: it must be 1 or more"),
        ({"stem": "large"}, r"Wrong stem 'large': it must be one of none, conv, strided, imagenet"),
    ],
)
def test_faults_are_named(args, message):
    with pytest.raises(ConfigError, match=message):
        from_flat(CellNet, 3, 2, **args)


def test_costs_of_many_cells_are_fast_by_their_parts():
    """Parts are computed once: the number of different ones is small whatever the number of cells."""
    model = CostModel(NetworkOptions(10, 3), (32, 32))
    operators = ("identity", "3x3 conv", "5x5 dconv", "2x2 maxpool")
    cells = [
        Cell.parse(f"[({one}, '{a}', {two}, '{b}');(0, '{a}', {one}, '{b}')]")
        for one in (-1, -2)
        for two in (-1, -2)
        for a in operators
        for b in operators
    ]
    assert len({model.costs(cell) for cell in cells}) > 30
    assert len(model._plans) == 3
    assert sum(len(each._sides) for each in model._plans.values()) <= 3 * 3 * len(operators)


@pytest.mark.parametrize("options", [{}, {"concat_only_unused": False, "lookback_reshape": True}])
def test_costs_of_an_expansion_are_those_of_its_cells(options):
    grammar = Grammar(("identity", "3x3 conv", "2x2 maxpool", "2 SE"), lookbacks=3, blocks=3)
    model = CostModel(NetworkOptions(10, 3, cells=CellOptions(**options)), (32, 32))
    parents = grammar.expand(grammar.expand([grammar.empty]).texts()[::9]).texts()[::97]
    for expansion in (grammar.expand([grammar.empty]), grammar.expand(parents)):
        codes = expansion.codes()[::7]
        expected = [model.costs(grammar.cell(code)) for code in codes]
        assert model.of_codes(codes, grammar.operators).tolist() == [[each.params, each.flops] for each in expected]
    empty = model.costs(Cell())
    assert model.of_codes(grammar.encode(["[]"]), grammar.operators).tolist() == [[empty.params, empty.flops]]
    assert model.of_codes(grammar.encode([]), grammar.operators).shape == (0, 2)


def test_every_argument_of_the_issue_is_there():
    names = set(signature_of(CellNet).parameters)
    assert {field for group in (MacroOptions, CellOptions) for field in group.__dataclass_fields__} <= names
    assert names - set(signature_of(CellNetSegmenter).parameters) == {"dims"}
