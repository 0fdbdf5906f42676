"""Samplers: the laws of all, and what each of them proposes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from config import instantiate
from config.faults import show
from search.samplers import SECTIONS, sobol
from search.samplers.base import Observation, Suggestion
from search.samplers.enqueued import KnownFirst
from search.samplers.grid import GridSampler
from search.samplers.random import RandomSampler
from search.samplers.sobol import SobolSampler
from search.space.drawn import Drawn
from search.space.space import Space
from tests.support.pages import FILES
from tests.support.random_spaces import random_space
from tests.support.sampler_laws import LearningSamplerLaws, SamplerLaws, drawn_of
from utils.errors import ConfigError, SearchError

ROOT = Path(__file__).resolve().parents[1]
KNOWN = [{}, {"name": "s"}]


BLIND = ("grid", "random", "sobol")  # they do not look at results


def registered(name, space, fidelities=(1, 2), num_objectives=1):
    runtime = {"space": space, "fidelities": fidelities, "num_objectives": num_objectives}
    return instantiate({"search": {"sampler": name}}, "search.sampler", SECTIONS, runtime=runtime)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (3, "TypeError.*it proposes a int, not choices of its space"),
        (Suggestion(None), "TypeError.*it proposes a NoneType, not choices"),
        (Suggestion(Drawn(), "luck"), "ValueError.*the origin 'luck', not one of random, model, enqueued"),
    ],
)
def test_a_proposal_that_is_none_is_named(answer, reason):
    class Faulty(RandomSampler):
        def suggest(self, *_):
            return answer

    with pytest.raises(SearchError, match=f"search.sampler: Faulty cannot propose number 4: {reason}"):
        Faulty(Space({"name": "s", "x": {"$choice": [1, 2]}})).propose(4)


class TestRegistered(SamplerLaws):
    @pytest.fixture(params=BLIND)
    def build(self, request):
        return lambda space: registered(request.param, space)


class TestLearning(LearningSamplerLaws):
    @pytest.fixture(params=sorted(set(SECTIONS["sampler"].entries) - set(BLIND)))
    def build(self, request):
        return lambda space: registered(request.param, space)

    def test_several_objectives_after_different_numbers_of_epochs(self, build, space, request):
        sampler = registered(request.node.callspec.params["build"], space, (1, 3, 9), 2)
        known = []
        for number in range(20):
            proposal = drawn_of(sampler.propose(number, known))
            if proposal is not None:
                rows = tuple((0.1 * number, -epoch / (1 + number)) for epoch in range((1, 3, 9, 2)[number % 4]))
                known.append(Observation(number, proposal, rows, is_running=number % 3 == 0, leading=number % 2))
        distinct = space.distinct() if space.has_markers else 1
        assert len({space.key(each.drawn) for each in known}) == min(20, distinct)


class TestDocumented(SamplerLaws):
    @pytest.fixture
    def build(self):
        shown = {}
        exec(FILES["nearest.py"], shown)
        return shown["Nearest"]


class TestKnownFirst(SamplerLaws):
    @pytest.fixture(params=[RandomSampler, GridSampler])
    def build(self, request):
        return lambda space: KnownFirst(space, request.param(space), KNOWN)


def values(sampler, count, space):
    proposals = [drawn_of(sampler.propose(number)) for number in range(count)]
    return [None if each is None else space.config(each)["x"] for each in proposals]


def test_random_draws_are_those_of_the_space():
    space = Space({"name": "s", "x": {"$uniform": [0, 1]}}, study_seed=5)
    assert values(RandomSampler(space), 9, space) == [space.config(space.random(number))["x"] for number in range(9)]


@pytest.mark.parametrize(
    ("value", "steps", "expected"),
    [
        ([{"$choice": ["a", "b"]}, {"$range": [1, 3]}], 5, [["a", 1], ["a", 2], ["b", 1], ["b", 2]]),
        ({"$choice": [[{"$range": [2]}], 7, {"$choice": [8, 9]}]}, 5, [[0], [1], 7, 8, 9]),
        (
            {"$repeat": {"of": {"$choice": [1, 2]}, "times": {"$range": [0, 3]}}},
            5,
            [[], [1], [2], [1, 1], [1, 2], [2, 1], [2, 2]],
        ),
        ({"$uniform": [0, 1]}, 3, [0.0, 0.5, 1.0]),
        ({"$uniform": [0, 1]}, 1, [0.5]),
        ({"$loguniform": [0.01, 1]}, 3, [0.01, 0.1, 1.0]),
        ({"$logrange": [3, 5]}, 2, [3, 4, 5]),
        ({"$choice": ["a", "a"]}, 5, ["a", "a"]),
    ],
)
def test_a_grid_has_every_outcome_once(value, steps, expected):
    space = Space({"name": "s", "x": value})
    assert values(GridSampler(space, steps), len(expected) + 2, space) == [*expected, None, None]


def test_a_variable_is_one_digit():
    config = {"name": "s", "$defs": {"v": {"$choice": [1, 2]}}, "x": [{"$choice": [0, {"$var": "v"}]}, {"$var": "v"}]}
    space = Space(config)
    assert values(GridSampler(space), 5, space) == [[0, 1], [0, 2], [1, 1], [2, 2], None]


@pytest.mark.parametrize("seed", range(40))
def test_a_grid_of_any_space_has_all_outcomes(seed):
    kinds = ("plain", "choice", "range", "logrange", "repeat", "var", "object", "list")
    space = Space(random_space(seed, kinds), study_seed=seed)
    grid, found = GridSampler(space), []
    while space.has_markers and len(found) < 300 and (proposal := drawn_of(grid.propose(len(found)))) is not None:
        found.append(proposal)
    assert len(set(found)) == len(found)
    if space.has_markers and len(found) < 300:
        assert len({space.key(each) for each in found}) == space.extent.count
        assert {space.random(number) for number in range(50)} <= set(found)


def test_steps_are_at_least_one():
    with pytest.raises(ConfigError, match="steps 0: must be at least 1"):
        GridSampler(Space({"name": "s", "x": 1}), steps=0)


def test_sobol_points_fill_a_square_evenly():
    space = Space({"name": "s", "x": [{"$uniform": [0, 1]}, {"$uniform": [0, 1]}]}, study_seed=4)
    points = np.array(values(SobolSampler(space), 64, space))
    # A (0, 6, 2)-net: one point in each of the 64 boxes, however they are cut.
    for rows, columns in ((8, 8), (1, 64), (64, 1), (2, 32)):
        boxes = np.floor(points * 0.999999 * (rows, columns)).astype(int)
        assert len({tuple(box) for box in boxes}) == 64
    other = Space({"name": "s", "x": [{"$uniform": [0, 1]}, {"$uniform": [0, 1]}]}, study_seed=5)
    assert values(SobolSampler(other), 8, other) != points[:8].tolist()


def test_sobol_points_fill_each_branch_evenly():
    branches = [{"lr": {"$uniform": [0, 1]}}, {"lr": {"$range": [0, 16]}}]
    space = Space({"name": "s", "x": {"$choice": branches}})
    lrs = [value["lr"] for value in values(SobolSampler(space), 64, space)]
    numbers = [lr for lr in lrs if isinstance(lr, int)]
    assert len(numbers) == 32
    assert [numbers.count(number) for number in range(16)] == [2] * 16


def test_dimensions_beyond_those_of_sobol_are_random(monkeypatch):
    space = Space({"name": "s", "x": {"$repeat": {"of": {"$uniform": [0, 1]}, "times": 6}}})
    complete = values(SobolSampler(space), 4, space)
    monkeypatch.setattr(sobol, "_MOST_DIMENSIONS", 2)
    partly = values(SobolSampler(space), 4, space)
    assert all(len(set(each)) == 6 for each in partly)
    assert [each[2:] for each in partly] != [each[2:] for each in complete]


@pytest.mark.slow
def test_the_sampler_of_the_documentation_finds_better_candidates():
    shown = {}
    exec(FILES["nearest.py"], shown)
    spaces = [Space({"name": "s", "x": [{"$range": [0, 10]}] * 6}, study_seed=seed) for seed in range(5)]

    def best_of(sampler):
        known = []
        for number in range(150):
            drawn = drawn_of(sampler.propose(number, known))
            known.append(Observation(number, drawn, ((float(sum(sampler.space.config(drawn)["x"])),),)))
        return max(each.values[-1][0] for each in known)

    evolved, random = ([best_of(kind(space)) for space in spaces] for kind in (shown["Nearest"], RandomSampler))
    assert np.mean(evolved) > np.mean(random) + 2  # of 54 at most


def test_known_candidates_come_first():
    space = Space({"name": "s", "x": {"$choice": ["a", "b", "c"]}, "y": {"$uniform": [0, 1]}}, study_seed=2)
    sampler = KnownFirst(space, GridSampler(space, 1), [{"x": "c", "y": 0.123456789}, {"x": "b"}])
    proposals = [drawn_of(sampler.propose(number)) for number in range(6)]
    configs = [None if each is None else space.config(each) for each in proposals]
    assert configs[0] == {"name": "s", "x": "c", "y": 0.123456789}
    assert configs[1]["x"] == "b"
    assert [each["x"] for each in configs[2:5]] == ["a", "b", "c"]
    assert configs[5] is None


def test_all_faults_of_known_candidates_are_named_before_a_search():
    space = Space({"name": "s", "x": {"$choice": ["a", "b"]}, "y": {"$uniform": [0, 1]}})
    with pytest.raises(ConfigError) as error:
        KnownFirst(space, RandomSampler(space), [{"x": "c"}, {"x": "a"}, {"y": 2}])
    text = str(error.value)
    assert f"search.first.0.x: {show('c')} cannot be drawn" in text
    assert 'search.first.2.y: 2 cannot be drawn: the space has {"$uniform": [0, 1]} there' in text
    assert "search.first.1" not in text


def test_scipy_loads_only_where_it_is_used():
    program = (
        "import sys; from search.samplers import random, grid, sobol, enqueued; from search.space import space; "
        "sys.exit('scipy' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
