"""The Gaussian process of `gp` and `auto`: its parts by hand, and what it finds on functions that are known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import check_grad

from search.results.hypervolume import hypervolume
from search.samplers.auto import AutoSampler
from search.samplers.base import Observation, Suggestion
from search.samplers.gp import GPSampler
from search.samplers.learning.curve_model import CurveModel, Features, thinned
from search.samplers.learning.gaussian_process import CurveProcess, Points, _Pairs
from search.samplers.learning.warping import Warping
from search.samplers.random import RandomSampler
from search.space.drawn import Drawn
from search.space.space import Space
from search.space.table_space import TableSpace
from utils.errors import ConfigError

PLANE = {"x": {"$uniform": [0, 1]}, "y": {"$uniform": [0, 1]}}
RATE = {"lr": {"$loguniform": [1e-4, 1]}}
CONDITIONAL = {
    "optimizer": {
        "$choice": [
            {"type": "SGD", "args": {"lr": {"$loguniform": [1e-4, 1]}, "momentum": {"$uniform": [0, 1]}}},
            {"type": "Adam", "args": {"lr": {"$loguniform": [1e-4, 1]}}},
        ]
    },
    "width": {"$choice": [8, 16, 32]},
}


def space_of(content, seed=0):
    return Space({"name": "s", **content}, study_seed=seed)


def run(sampler, value, count, epochs=1, fails=lambda config: False):
    """Search with one worker; `value` of config and epoch."""
    known = []
    for number in range(count):
        proposed = sampler.propose(number, known)
        config = sampler.space.config(proposed.drawn)
        rows = () if fails(config) else tuple(np.atleast_1d(value(config, epoch)) for epoch in range(1, epochs + 1))
        known.append(
            Observation(number, proposed.drawn, tuple(map(tuple, rows)), fails(config), origin=proposed.origin)
        )
    return known


def best_of(known):
    return max((row[0] for each in known for row in each.values), default=-math.inf)


def points(count, seed, markers=3):
    rng = np.random.default_rng(seed)
    candidate = np.arange(count) // 2
    return Points(rng.random((count, markers))[candidate], rng.choice([0.0, 0.7, 2.0], count), candidate)


class TestCurveProcess:
    @pytest.mark.parametrize("seed", range(3))
    def test_the_gradient_is_that_of_the_loss(self, seed):
        process = CurveProcess(np.array([0, 1, 1]))
        pairs = _Pairs(points(12, seed), np.array([0, 1, 1]), 2)
        values = np.random.default_rng(seed).standard_normal(12)
        at = process._modes + 0.3 * np.random.default_rng(seed + 1).standard_normal(8)
        error = check_grad(
            lambda p: process._loss(p, pairs, values)[0], lambda p: process._loss(p, pairs, values)[1], at
        )
        assert error < 1e-3

    def test_the_loss_is_the_likelihood_times_the_prior(self):
        from scipy.stats import multivariate_normal

        process, known, values = CurveProcess(np.array([0, 1, 2])), points(6, 0), np.arange(6.0)
        covariance = process._covariance(known, known) + (process.noise + 1e-6) * np.eye(6)
        expected = -multivariate_normal(np.zeros(6), covariance).logpdf(values) - 3 * math.log(2 * math.pi)
        assert process._loss(process._modes, _Pairs(known, np.arange(3), 3), values)[0] == pytest.approx(expected)

    def test_known_values_are_predicted_and_far_ones_are_uncertain(self):
        known = Points(np.array([[0.1], [0.9]]), np.array([2.0, 2.0]), np.array([0, 1]))
        process = CurveProcess(np.array([0]))
        process.condition(known, np.array([1.0, -1.0]))
        mean, deviation = process.predict(known)
        assert mean == pytest.approx([1.0, -1.0], abs=0.1)
        _, far = process.predict(Points(np.array([[30.0]]), np.array([2.0]), np.array([-1])))
        assert (deviation < far / 3).all()

    def test_a_curve_is_continued_by_its_own_points(self):
        """Of two candidates with equal settings, that with the better beginning is expected to end better."""
        known = Points(np.full((2, 1), 0.5), np.zeros(2), np.array([0, 1]))
        process = CurveProcess(np.array([0]))
        process.condition(known, np.array([1.0, -1.0]))
        later = Points(np.full((2, 1), 0.5), np.full(2, 0.2), np.array([0, 1]))
        better, worse = process.mean(later)
        assert better > 0 > worse

    def test_imagined_values_change_no_mean_but_the_deviation(self):
        known = Points(np.array([[0.1], [0.9]]), np.array([2.0, 2.0]), np.array([0, 1]))
        there = Points(np.array([[0.5]]), np.array([2.0]), np.array([-1]))
        process = CurveProcess(np.array([0]))
        process.condition(known, np.array([1.0, -1.0]))
        mean, deviation = process.predict(there)
        process.imagine(there)
        again, smaller = process.predict(there)
        assert again == pytest.approx(mean, abs=1e-6)
        assert smaller < deviation / 2


class TestWarping:
    def test_values_become_a_normal_distribution_in_their_order(self):
        warping = Warping(np.array([3.0, 1.0, 2.0, 1e9, 2.0, -7.0]))
        assert (np.argsort(warping.normal, kind="stable") == [5, 1, 2, 4, 0, 3]).all()
        assert warping.normal.std() == pytest.approx(1)
        assert warping.normal.mean() == pytest.approx(0)
        assert warping.normal[2] == warping.normal[4]

    def test_what_is_not_finite_is_the_worst(self):
        warping = Warping(np.array([np.nan, 0.5, -np.inf, 0.7]))
        assert warping.normal[0] == warping.normal[2] < warping.normal[1] < warping.normal[3]
        assert warping.ends == (0.5, 0.7)

    def test_violated_constraints_are_below_all_values_and_in_their_order(self):
        warping = Warping(np.array([-1e100, -2e100, -5.0, 3.0]))
        assert (np.argsort(warping.normal) == [1, 0, 2, 3]).all()
        assert warping.ends == (-5.0, 3.0)

    @pytest.mark.parametrize("values", [[1.0, 2.0, 4.0, 8.0], [0.3] * 4 + [0.9], [5.0, np.nan, 1.0]])
    def test_the_inverse_returns_the_values(self, values):
        warping = Warping(np.array(values))
        known = np.isfinite(values)
        assert warping.inverse(warping.normal)[known] == pytest.approx(np.array(values)[known])

    def test_the_line_continues_beyond_the_ends(self):
        warping = Warping(np.linspace(0, 1, 50))
        low, middle, high = warping.inverse(np.array([-9.0, 0.0, 9.0]))
        assert low < 0 < middle < 1 < high

    def test_very_large_values_are_beyond_no_float(self, recwarn):
        warping = Warping(np.array([1.7e308, 1e308, 0.5, -1e40, -1e48]))
        assert (np.argsort(warping.normal) == [4, 3, 2, 1, 0]).all()
        assert np.isfinite(warping.inverse(np.array([-9.0, 9.0]))).all()
        assert not recwarn.list

    def test_without_a_value_nothing_is_known(self):
        assert np.isnan(Warping(np.array([np.nan, np.nan])).inverse(np.zeros(2))).all()


def test_curves_are_thinned_to_the_rungs_and_the_last_epoch():
    drawn = space_of(RATE).random(0)
    curve = Observation(0, drawn, tuple((value,) for value in (0.1, 0.3, np.nan, 0.2, 0.5)), is_running=True)
    failed = Observation(1, drawn, ((0.4,), (np.nan,)), has_failed=True)
    without = Observation(2, drawn, (), has_failed=True)
    curves = thinned([curve, failed, without], (1, 3, 9), 1)
    assert curves.candidate.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert curves.epoch.tolist() == [1, 3, 5, 1, 2, 3, 1]
    assert curves.values[:, 0].tolist() == [0.1, 0.3, 0.5, 0.4, 0.4, -math.inf, -math.inf], "the best so far"


def test_the_best_epoch_is_that_of_the_first_result_if_a_fact_is_named_before_it():
    rows = tuple((-9.0, value) for value in (0.1, 0.5, 0.3))
    curves = thinned([Observation(0, Drawn(), rows, leading=1)], (1, 3), 2)
    assert curves.values.tolist() == [[-9.0, 0.1], [-9.0, 0.5]]


@pytest.mark.parametrize(
    ("epochs", "has_failed", "expected"),
    [
        (5, False, [(1, 1.0), (3, 3.0)]),  # a longer one of another study
        (3, True, [(1, 1.0), (3, -math.inf)]),  # after its last epoch
        (2, True, [(1, 1.0), (2, 2.0), (3, -math.inf)]),
    ],
)
def test_no_point_is_after_a_full_training(epochs, has_failed, expected):
    rows = tuple((float(epoch),) for epoch in range(1, epochs + 1))
    curves = thinned([Observation(0, Drawn(), rows, has_failed)], (1, 3), 1)
    assert list(zip(curves.epoch.tolist(), curves.values[:, 0].tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("late", "rungs"),
    [
        ([0, 1, 2, 3, 4], [1, 3]),
        ([4, 1, 2, 3, 0], [3]),  # a correlation of -0.6
        ([3, 1, 2, 4, 0], [3]),  # of -0.3
        ([4, 3, 2, 1], [1, 3]),  # of -1, by too few
    ],
)
def test_a_rung_that_says_nothing_of_the_next_one_is_left_out(late, rungs):
    drawn = space_of(RATE).random(0)
    known = [Observation(n, drawn, ((n,), (n,), (n + 10 * value,), (99,))) for n, value in enumerate(late)]
    curves = thinned(known, (1, 3, 9), 1)
    assert curves.epoch[curves.candidate == 0].tolist() == [*rungs, 4]


def test_of_very_many_curves_the_last_points_of_the_best_remain():
    drawn = space_of(RATE).random(0)
    known = [Observation(n, drawn, tuple((n + epoch / 10,) for epoch in range(9))) for n in range(1000)]
    curves = thinned(known, (1, 3, 9), 1)
    assert len(curves.epoch) == 1500
    assert set(curves.candidate[curves.epoch == 9]) == set(range(1000)), "each has its last point"
    assert curves.candidate[curves.epoch < 9].min() == 750, "the better half of the others"


def test_distances_of_features_are_those_of_the_documentation():
    space = space_of(CONDITIONAL)
    sgd = {"optimizer.type": "SGD", "optimizer.args.lr": 0.01, "width": 8}
    drawn = [
        space.find({**sgd, "optimizer.args.momentum": 0.5}),
        space.find({**sgd, "optimizer.args.momentum": 1.0}),
        space.find({**sgd, "optimizer.args.momentum": 0.5, "width": 32}),
        space.find({"optimizer.type": "Adam", "optimizer.args.lr": 0.01, "width": 8}),
    ]
    features = Features(space)
    rows = features.of(drawn)
    distances = {
        path: ((rows - rows[0])[:, features.groups == place] ** 2).sum(axis=1)
        for place, path in enumerate(features.paths)
    }
    assert distances["optimizer.args.momentum"] == pytest.approx([0, 0.25, 0, 0.25])
    assert distances["width"] == pytest.approx([0, 0, 1, 0])
    assert distances["optimizer"] == pytest.approx([0, 0, 0, 1])


@pytest.mark.parametrize("kind", [GPSampler, AutoSampler])
def test_it_finds_an_optimum_that_random_draws_do_not(kind):
    def value(config, epoch):
        return -((config["x"] - 0.31) ** 2) - (config["y"] - 0.77) ** 2

    for seed in range(3):
        space = space_of(PLANE, seed)
        assert best_of(run(kind(space, (1,)), value, 30)) > best_of(run(RandomSampler(space), value, 60))
        assert best_of(run(kind(space, (1,)), value, 30)) > -1e-3


def test_it_finds_the_branch_and_its_values():
    def value(config, epoch):
        args = config["optimizer"]["args"]
        is_good = config["optimizer"]["type"] == "SGD"
        return is_good * (1 + args.get("momentum", 0)) - abs(math.log10(args["lr"]) + 2) + config["width"] / 32

    known = run(GPSampler(space_of(CONDITIONAL), (1,)), value, 40)
    assert best_of(known) > 2.8  # of 3
    assert np.mean([value(c, 1) for c in map(space_of(CONDITIONAL).config, (each.drawn for each in known[20:]))]) > 1.5


def test_curves_that_were_stopped_early_teach_it():
    """Most candidates have one epoch, at which the order is that of the end."""

    def value(config, epoch):
        return (1 - abs(config["x"] - 0.6)) * (1 - math.exp(-epoch / 5))

    space = space_of(PLANE)
    sampler = GPSampler(space, (1, 3, 9, 27))
    known = []
    for number in range(30):
        drawn = sampler.propose(number, known).drawn
        epochs = 27 if number % 9 == 0 else 1
        rows = tuple((value(space.config(drawn), epoch),) for epoch in range(1, epochs + 1))
        known.append(Observation(number, drawn, rows))
    late = [abs(space.config(each.drawn)["x"] - 0.6) for each in known[15:]]
    assert np.median(late) < 0.08


def test_regions_where_trainings_fail_are_avoided():
    space = space_of(PLANE)
    known = run(GPSampler(space, (1,)), lambda config, epoch: config["x"], 40, fails=lambda config: config["x"] > 0.7)
    late = [each for each in known[20:] if each.origin == "model"]
    assert np.mean([each.has_failed for each in late]) < 0.5  # of random draws .3, of those that follow x alone all
    assert best_of(known) > 0.65


def test_several_objectives_fill_the_front():
    def value(config, epoch):
        return (config["x"] * (1 - 0.5 * config["y"]), 1 - config["x"] ** 2)

    def volume(known):
        return hypervolume(np.array([each.values[0] for each in known]))

    for seed in range(2):
        space = space_of(PLANE, seed)
        modelled = volume(run(GPSampler(space, (1,), 2), value, 24))
        assert modelled > volume(run(RandomSampler(space), value, 24))


def test_what_runs_lowers_the_promise_of_its_neighbourhood():
    space = space_of(RATE)
    known = run(RandomSampler(space), lambda config, epoch: -abs(math.log10(config["lr"]) + 2), 6)
    features, drawn = Features(space), [space.at(lambda *_, share=place / 80: share) for place in range(80)]
    settings = features.of(drawn)
    model = CurveModel(features, thinned(known, (1,), 1), 1, np.random.default_rng(0))
    improving = SimpleNamespace(random=lambda: 0.9)  # no possible value is drawn, so the expected improvement decides
    before = model.merit(settings, improving)
    best = int(before.argmax())
    model.imagine([drawn[best]])
    assert model.merit(settings, improving)[best] < before[best] / 2


def test_a_share_of_the_proposals_is_random_and_says_so():
    space = space_of(PLANE)
    known = run(GPSampler(space, (1,)), lambda config, epoch: config["x"], 10)
    assert [each.origin for each in known[:5]] == ["random"] * 5
    sampler = GPSampler(space, (1,), random_share=0.25)
    origins = [sampler.propose(number, known).origin for number in range(10, 210)]
    assert 30 <= origins.count("random") <= 70
    with pytest.raises(ConfigError, match="random_share 2: must be from 0 to 1"):
        GPSampler(space, random_share=2)
    with pytest.raises(ConfigError, match="num_random 1: must be at least 2"):
        GPSampler(space, num_random=1)


def test_auto_doubts_a_model_whose_candidates_are_no_better():
    space = space_of(PLANE)
    sampler = AutoSampler(space, (1,))

    def known(model_values, random_values):
        rows = [("model", value) for value in model_values] + [("random", value) for value in random_values]
        return [Observation(n, space.random(n), ((value,),), origin=origin) for n, (origin, value) in enumerate(rows)]

    assert sampler.share_of_random(known(np.linspace(0.5, 1, 10), np.linspace(0, 0.7, 10))) == 0.1
    assert sampler.share_of_random(known(np.linspace(0, 0.7, 10), np.linspace(0.5, 1, 10))) == 0.5
    assert sampler.share_of_random(known([0.5] * 10, [0.5] * 10)) == 0.5, "no better"
    assert sampler.share_of_random(known([0.0] * 7, [0.5] * 10)) == 0.1, "too few to say"


def test_where_nothing_can_be_learnt_auto_is_as_good_as_random_draws():
    noise = np.random.default_rng(1).random(400).tolist()

    def value(config, epoch):
        return noise[int(config["x"] * 1e5) % 400]

    bests = {
        kind: np.mean([best_of(run(kind(space_of(PLANE, seed)), value, 40)) for seed in range(6)])
        for kind in (AutoSampler, RandomSampler)
    }
    assert bests[AutoSampler] > bests[RandomSampler] - 0.01


def test_beliefs_are_predictions_in_the_unit_of_the_objective_and_shares_of_markers():
    def value(config, epoch):
        return 50 + 10 * config["x"] - 5 / epoch

    space = space_of(PLANE)
    sampler = GPSampler(space, (1, 3, 9))
    known = run(sampler, value, 30, epochs=9)
    begun = [
        Observation(30 + n, drawn, tuple((value(space.config(drawn), epoch),) for epoch in (1, 2, 3)), is_running=True)
        for n, drawn in enumerate(space.random(place) for place in range(100, 120))
    ]
    beliefs = sampler.beliefs([*known, *begun])
    assert beliefs.predictions.keys() == {each.number for each in begun}
    ends = {each.number: value(space.config(each.drawn), 9) for each in begun}
    errors = [abs(beliefs.predictions[number].mean - end) for number, end in ends.items()]
    assert np.median(errors) < 0.5
    inside = [each.low <= ends[number] <= each.high for number, each in beliefs.predictions.items()]
    assert np.mean(inside) >= 0.8
    assert all(each.low < each.mean < each.high for each in beliefs.predictions.values())
    # The best epoch counts: a result cannot fall, and many rise no more.
    present = {each.number: each.values[-1][0] for each in begun}
    assert {number: each.low for number, each in beliefs.predictions.items()} == present
    assert beliefs.importances["x"] > 0.95
    assert beliefs.importances["y"] < 0.05
    assert sampler.beliefs(known[:3]).predictions == {}


def test_the_order_of_a_table_does_not_change_what_is_important():
    """In its first half x has one value, so that these rows alone would say that it is of no importance."""
    x = np.repeat([0.0, 1.0], 1100)
    space = TableSpace({}, {"x": x.tolist(), "y": np.random.default_rng(0).random(2200).tolist()})
    known = [
        Observation(n, space.listed[row], ((float(x[row]) + 0.1 * n / 30,),))
        for n, row in enumerate(np.random.default_rng(1).permutation(2200)[:30].tolist())
    ]
    importances = GPSampler(space, (1,)).beliefs(known).importances
    assert importances["x"] > 0.5 > importances["y"]


def test_the_model_is_that_of_the_results_however_they_came():
    """A sampler that has proposed before, and one that has not, have the same model; its blocks are a cache."""
    space = space_of(PLANE)
    known = run(GPSampler(space, (1,)), lambda config, epoch: config["x"], 20)
    old = GPSampler(space, (1,))
    for number in (5, 100, 400):
        old.propose(number, known)
    assert isinstance(old.propose(60, known), Suggestion)
    assert old.propose(60, known) == GPSampler(space, (1,)).propose(60, known)
    rng = np.random.default_rng(0)
    curves = thinned(known, (1,), 1)
    found = space.config(CurveModel(Features(space), curves, 1, rng).best(1)[0])
    assert found["x"] == max(space.config(each.drawn)["x"] for each in known)
