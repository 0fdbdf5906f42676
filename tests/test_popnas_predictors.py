"""Predictors of cells: what they learn, when they are not trusted, and what their answers depend on."""

import json
import math

import numpy as np
import pytest
import torch

from search.schedulers.ranking import spearman
from search.worker.predictors import objective
from search.worker.predictors.acquisition import acquired_values, log_improvement
from search.worker.predictors.audit import compare_with_trainings
from search.worker.predictors.encoding import CellEncoder, EncodedCells, means_of_parents
from search.worker.predictors.ensemble import Known, ObjectivePredictor
from search.worker.predictors.learners.network import EnsembleOptions
from search.worker.predictors.learners.support import require_scikit_learn
from search.worker.predictors.scales import CostScale, ScoreScale
from search.worker.predictors.task import fit_and_estimate
from utils.architecture.cells.cell import Cell
from utils.architecture.cells.grammar import Grammar
from utils.architecture.cells.nasbench201 import Nasbench201Nodes
from utils.errors import SearchError

GRAMMAR = Grammar(("identity", "3x3 conv", "5x5 dconv", "3x3 maxpool"), lookbacks=2, blocks=4)
WORTH = {"identity": 0.0, "3x3 conv": 1.0, "5x5 dconv": 0.6, "3x3 maxpool": -0.4}
SECONDS = {"identity": 0.0, "3x3 conv": 3.0, "5x5 dconv": 2.0, "3x3 maxpool": 0.5}
QUICK = {"members": 3, "epochs": 40}


def planted_score(text):
    """Better with good operators, most of all on the previous cell, and if the sides of a block differ."""
    total = 0.0
    for block in Cell.parse(text).blocks:
        total += sum(WORTH[name] * (1.5 if read == -1 else 1.0) for read, name in block.sides)
        total += 0.5 * (block.first != block.second)
    return 0.5 + 0.4 * math.tanh(total / 8)


def planted_seconds(text):
    return 1.0 + sum(0.2 + SECONDS[name] for block in Cell.parse(text).blocks for name in block.operators)


@pytest.fixture(scope="module")
def cells():
    """The empty cell, all of one block, some of two; those of three blocks that grow from some of these."""
    one = [str(each) for each in GRAMMAR.one_block_cells()]
    grown = GRAMMAR.expand(one)
    two = grown.texts(np.random.default_rng(0).permutation(len(grown))[:40])
    return ["[]", *one, *two], GRAMMAR.expand(two[:6])


def request(folder, history, expansion, *, scores=None, seconds=None, before=(), objectives=None, **changes):
    folder.mkdir(exist_ok=True)
    results = {
        "val_accuracy": [planted_score(each) for each in history] if scores is None else scores,
        "training_time": [planted_seconds(each) for each in history] if seconds is None else seconds,
    }
    content = {"cells": history, "results": results, "before": list(before)}
    (folder / "history.json").write_text(json.dumps(content))
    expansion.save(folder / "expansion.npz")
    names = ["max val_accuracy"] if objectives is None else objectives
    return {"folder": str(folder), "objectives": names, "seed": 3, **QUICK, **changes}


def answer(*args, **changes):
    details = fit_and_estimate(request(*args, **changes))
    with np.load(details["file"]) as file:
        return {name: file[name] for name in file.files}, details


@pytest.mark.parametrize("predictor", ["auto", "graph", "features"])
def test_a_planted_rule_is_learned_and_holds_for_larger_cells(tmp_path, cells, predictor):
    history, expansion = cells
    arrays, details = answer(tmp_path, history, expansion, predictor=predictor)
    truth = np.array([planted_score(each) for each in expansion.texts()])
    assert spearman(arrays["mean.val_accuracy"], truth) > 0.8
    reached = details["predictors"]["val_accuracy"]["rank_correlations"]
    assert all(reached[name] > 0.8 for name in {"graph", "features"} & reached.keys())
    assert predictor == "auto" or predictor in reached
    assert spearman(arrays["acquired.val_accuracy"], arrays["mean.val_accuracy"]) == pytest.approx(1)


def test_times_are_learned_with_and_without_scikit_learn(tmp_path, cells, monkeypatch):
    history, expansion = cells
    truth = np.array([planted_seconds(each) for each in expansion.texts()])
    for has_package in (True, False):
        monkeypatch.setattr(objective, "is_installed", lambda found=has_package: found)
        arrays, details = answer(tmp_path, history, expansion, objectives=["min training_time"])
        assert spearman(arrays["mean.training_time"], truth) > 0.95
        assert ("svr" in details["predictors"]["training_time"]["rank_correlations"]) == has_package
    assert spearman(arrays["acquired.training_time"], -arrays["mean.training_time"]) == pytest.approx(1)


def test_without_scikit_learn_support_vectors_say_what_to_install(monkeypatch):
    monkeypatch.setattr("search.worker.predictors.learners.support.find_spec", lambda _: None)
    with pytest.raises(SearchError, match=r"svr: .*scikit-learn is not installed. Run: pip install scikit-learn"):
        require_scikit_learn()


def test_the_answer_depends_neither_on_threads_nor_on_the_order_of_the_history(tmp_path, cells):
    history, expansion = cells
    goals = ["max val_accuracy", "min training_time"]
    changes = {"objectives": goals, "epochs": 5}
    files = []
    threads = torch.get_num_threads()
    try:
        for count, order in ((1, history), (2, history), (2, history[::-1])):
            torch.set_num_threads(count)
            _, details = answer(tmp_path / str(len(files)), order, expansion, **changes)
            assert torch.get_num_threads() == count
            files.append(((tmp_path / str(len(files)) / "estimates.npz").read_bytes(), details["predictors"]))
    finally:
        torch.set_num_threads(threads)
    assert files[0] == files[1] == files[2]
    arrays, _ = answer(tmp_path / "other", history, expansion, seed=4, epochs=5, predictor="graph")
    with np.load(tmp_path / "0" / "estimates.npz") as file:
        assert not np.array_equal(arrays["mean.val_accuracy"], file["mean.val_accuracy"])


def test_noise_is_not_believed(tmp_path, cells):
    history, expansion = cells
    trusted = 0
    for seed in range(4):
        scores = np.random.default_rng(seed).random(len(history)).tolist()
        _, details = answer(tmp_path, history, expansion, scores=scores, predictor="features")
        described = details["predictors"]["val_accuracy"]
        trusted += described["name"] not in ("parents", "operations")
    assert trusted <= 1
    assert "which chance may reach" in described["reason"] or "on cells left out, " in described["reason"]


def test_one_that_was_worse_than_trivial_is_switched_off():
    trained = np.linspace(0.5, 0.9, 12)
    disordered = np.random.default_rng(0).permutation(trained)
    by_each = {"parents": trained + 0.01, "operations": disordered, "graph": -trained, "features": trained * 2}
    audit = compare_with_trainings(trained, trained + 0.02, np.full(12, 0.01), by_each)
    assert list(audit.switched_off) == ["graph"]
    assert audit.switched_off["graph"] == (
        "worse than parents in the last generation (rank correlation -1.00 and 1.00)"
    )
    assert audit.details["cells"] == 12
    assert audit.details["rank_correlation"] == pytest.approx(1)
    assert audit.details["error"] == pytest.approx(0.02)
    assert audit.details["within_80"] == 0
    assert audit.details["error_in_deviations"] == pytest.approx(2)
    assert audit.widening == pytest.approx(2)


def test_too_few_cells_switch_nothing_off():
    trained = np.array([0.1, 0.2, 0.3, 0.4])
    audit = compare_with_trainings(
        trained, trained, np.full(4, np.nan), {"parents": trained, "operations": trained, "graph": -trained}
    )
    assert audit.switched_off == {}
    assert audit.details["rank_correlation"] is None
    assert compare_with_trainings(trained[:0], trained[:0], trained[:0], {}).details == {}


def test_switched_off_predictors_are_not_used(cells):
    history, _ = cells
    encoder = CellEncoder(GRAMMAR)
    codes = GRAMMAR.encode(history)
    scale = ScoreScale(np.array([planted_score(each) for each in history]), 1)
    parents = means_of_parents(encoder.family(codes), scale.normal)
    known = Known(encoder.for_scores(codes), scale.normal, parents)
    network = EnsembleOptions(3, 20)
    both = ObjectivePredictor(known, ("graph", "features"), {"graph": "worse"}, network, 0)
    assert both.used == ("features",)
    none = ObjectivePredictor(known, ("graph", "features"), {"graph": "worse", "features": "bad"}, network, 0)
    assert none.used[0] in ("parents", "operations")
    assert none.reason == "graph: worse; features: bad"


def test_the_last_generation_is_audited(tmp_path, cells):
    history, expansion = cells
    before = [
        {"cell": each, "reason": "front", "estimates": {"val_accuracy": planted_score(each) + 0.01},
         "deviations": {"val_accuracy": 0.01}}
        for each in history[-20:]
    ]  # fmt: skip
    _, details = answer(tmp_path, history, expansion, before=before)
    found = details["audit"]["val_accuracy"]
    assert found["cells"] == 20
    assert found["rank_correlation"] == pytest.approx(1)
    assert found["error"] == pytest.approx(0.01)
    assert found["within_80"] == 1
    assert found["by"].keys() == {"parents", "operations", "graph", "features"}
    assert found["by"]["features"]["rank_correlation"] > 0.7
    json.dumps(details)


def test_deviations_say_how_wrong_means_are(tmp_path, cells):
    history, expansion = cells
    rng = np.random.default_rng(1)
    noisy = [planted_score(each) + 0.02 * rng.standard_normal() for each in history]
    arrays, _ = answer(tmp_path, history, expansion, scores=noisy, predictor="features")
    truth = np.array([planted_score(each) for each in expansion.texts()]) + 0.02 * rng.standard_normal(len(expansion))
    within = np.abs(arrays["mean.val_accuracy"] - truth) < 1.2816 * arrays["deviation.val_accuracy"]
    assert 0.6 < within.mean() <= 1


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 10])
def test_few_trainings_are_enough_for_an_answer(tmp_path, cells, count):
    history, expansion = cells
    goals = ["max val_accuracy", "min training_time"]
    arrays, details = answer(tmp_path, history[1 : 1 + count], expansion, objectives=goals)
    assert all(np.isfinite(values).all() and len(values) == len(expansion) for values in arrays.values())
    assert details["predictors"]["val_accuracy"]["reason"]


def test_failed_equal_and_zero_results(tmp_path, cells):
    history, expansion = cells
    count, goals = 20, ["max val_accuracy", "min training_time"]
    failed = [None, float("nan"), *[0.5] * (count - 2)]
    cases = {
        "equal": ([0.5] * count, [0.0] * count),
        "failed": (failed, [None] * count),
        "all failed": ([None] * count, [None] * count),
    }
    for scores, seconds in cases.values():
        changes = {"scores": scores, "seconds": seconds, "objectives": goals}
        arrays, _ = answer(tmp_path, history[1 : 1 + count], expansion, **changes)
        assert all(np.isfinite(values).all() for values in arrays.values())
        assert (arrays["mean.training_time"] == 0).all()


def test_a_failed_training_is_the_worst():
    scale = ScoreScale(np.array([0.3, np.nan, 0.9]), 1)
    assert scale.normal.argmin() == 1
    loss = ScoreScale(np.array([0.3, np.nan, 0.9]), -1)
    assert loss.normal.argsort().tolist() == [1, 2, 0]
    mean, _ = loss.original(loss.normal[[0, 2]], np.ones(2))
    np.testing.assert_allclose(mean, [0.3, 0.9])
    np.testing.assert_array_equal(CostScale(np.array([2.0, np.nan])).is_known, [True, False])


def test_a_loss_is_better_the_smaller(tmp_path, cells):
    history, expansion = cells
    losses = [1 - planted_score(each) for each in history]
    path = tmp_path / "history.json"
    asked = request(tmp_path, history, expansion, objectives=["min val_loss"], predictor="features")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"results": {"val_loss": losses}}))
    with np.load(fit_and_estimate(asked)["file"]) as file:
        assert spearman(file["acquired.val_loss"], -file["mean.val_loss"]) == pytest.approx(1)
        truth = np.array([1 - planted_score(each) for each in expansion.texts()])
        assert spearman(file["mean.val_loss"], truth) > 0.8


def test_an_improvement_is_not_hoped_for_from_the_worst_cells(tmp_path, cells):
    history, expansion = cells
    # A few cells do not learn at all: in the unit of the score, predictions near them are far less certain.
    scores = [planted_score(each) if planted_score(each) > 0.45 else 0.1 for each in history]
    for acquisition in ("ei", "ucb"):
        arrays, _ = answer(tmp_path, history, expansion, scores=scores, predictor="features", acquisition=acquisition)
        best = np.argsort(-arrays["acquired.val_accuracy"])[:20]
        assert arrays["mean.val_accuracy"][best].min() > np.median(arrays["mean.val_accuracy"])


def test_what_counts_of_a_mean_and_a_deviation():
    mean, deviation = np.array([0.8, 0.9]), np.array([0.1, 0.01])
    np.testing.assert_allclose(acquired_values("mean", mean, deviation, 0.9, -1), [-0.8, -0.9])
    np.testing.assert_allclose(acquired_values("ucb", mean, deviation, 0.9, 1), [0.9, 0.91])
    np.testing.assert_allclose(acquired_values("ucb", mean, deviation, 0.9, -1), [-0.7, -0.89])
    # At the best value, the improvement is the deviation times the density at 0; one deviation below, 0.0833 of it.
    improvement = np.exp(acquired_values("ei", mean, deviation, 0.9, 1))
    np.testing.assert_allclose(improvement, [0.1 * 0.083315, 0.01 * 0.398942], rtol=1e-4)
    assert np.isfinite(acquired_values("ei", mean, np.zeros(2), 0.9, 1)).all()


def test_small_improvements_are_told_apart():
    excess = np.linspace(-60, 60, 2001)
    values = log_improvement(excess)
    assert (np.diff(values) > 0).all()
    assert np.abs(np.diff(values, 2)).max() < 0.05  # no step where one formula takes over from another
    np.testing.assert_allclose(log_improvement(np.array([50.0])), math.log(50))


def test_equivalent_cells_have_one_estimate(cells):
    encoder = CellEncoder(GRAMMAR)
    written = ["[(-1, 'identity', -2, '3x3 conv');(0, '3x3 conv', -1, 'identity')]",
               "[(-2, '3x3 conv', -1, 'identity');(-1, 'identity', 0, '3x3 conv')]"]  # fmt: skip
    first, second = (encoder.for_scores(GRAMMAR.encode([each])).graphs for each in written)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.edges, second.edges)


def test_a_cell_grows_from_each_that_lacks_one_block():
    texts = ["[]", "[(-1, 'identity', -1, 'identity')]", "[(-1, '3x3 conv', -1, '3x3 conv')]",
             "[(-1, '3x3 conv', -1, '3x3 conv');(-1, 'identity', -1, 'identity')]"]  # fmt: skip
    pairs = CellEncoder(GRAMMAR).family(GRAMMAR.encode(texts))
    assert sorted(zip(*pairs.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 3), (2, 3)]
    means = means_of_parents(pairs, np.array([0.0, 1.0, 3.0, np.nan]))
    np.testing.assert_array_equal(means, [np.nan, 0.0, 0.0, 2.0])
    assert CellEncoder(GRAMMAR).family(GRAMMAR.encode([])).shape == (2, 0)


def test_no_cell_of_the_table_is_a_parent_of_itself():
    """A growth of two nodes by a node that only carries the second one on is the same cell of the table."""
    grammar = Nasbench201Nodes()
    texts = [grammar.empty]
    for places in ([0, 3], [0, 9, 17, 24], [0, 7, 31, 124]):
        texts += grammar.expand(texts, texts).texts(places)
    pairs = CellEncoder(grammar).family(grammar.encode(texts))
    sizes = [int((code >= 0).sum()) for code in grammar.encode(texts)]
    assert all(sizes[parent] < sizes[child] for parent, child in pairs.T.tolist())
    assert {sizes[child] for child in pairs[1]} == {1, 3, 6}, "each generation has parents"


def test_the_reason_for_a_trivial_predictor_is_the_true_one(cells):
    history, _ = cells
    codes = GRAMMAR.encode(history[:10])
    cells_of_ten = CellEncoder(GRAMMAR).for_scores(codes)

    def reason(names, values):
        known = Known(cells_of_ten[np.arange(len(values))], values, np.full(len(values), np.nan))
        return ObjectivePredictor(known, names, {}, EnsembleOptions(2, 1), 0).reason

    assert reason(("graph",), np.arange(10.0)) == "too few trained cells to learn from (10, graph from 15 on)"
    assert reason(("graph", "features"), np.arange(3.0)).startswith("too few trained cells")
    assert reason(("features",), np.ones(10)) == "all 10 trained cells have the same value"
    assert reason((), np.arange(10.0)) == "only trivial predictors are asked for"


def test_what_the_table_never_uses_counts_for_times_only():
    grammar = Nasbench201Nodes()
    dead = grammar.encode(["|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|none~1|none~2|"])
    plain = grammar.encode(["|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"])
    encoder = CellEncoder(grammar)

    def counts(found: EncodedCells) -> list[float]:
        return found.graphs.label_counts[0].tolist()

    assert counts(encoder.for_scores(dead)) == counts(encoder.for_scores(plain))
    values = np.ones(5)
    assert counts(encoder.for_costs(dead, values)) != counts(encoder.for_costs(plain, values))


@pytest.mark.parametrize("content", ["{", "[]", '{"cells": []}', '{"cells": ["[]"], "results": {"val_accuracy": []}}'])
def test_a_damaged_history_is_named(tmp_path, cells, content):
    asked = request(tmp_path, *cells)
    (tmp_path / "history.json").write_text(content)
    with pytest.raises(SearchError, match=r"history\.json.* Delete"):
        fit_and_estimate(asked)
