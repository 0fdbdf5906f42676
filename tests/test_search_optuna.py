"""The samplers of Optuna."""

import builtins
import importlib.util
import random
import sys

import numpy as np
import pytest

from config import instantiate
from search.samplers import SECTIONS
from search.samplers.base import Observation
from search.samplers.optuna_adapter import OptunaSampler, bounded
from search.space.space import Space
from tests.support.sampler_laws import MARKED, drawn_of
from utils.errors import ConfigError

optuna = pytest.importorskip("optuna")

NUMBERS = {"name": "s", "x": {"$uniform": [0, 1]}, "y": {"$loguniform": [0.001, 1]}, "n": {"$logrange": [1, 64]}}


def kinds():
    """Return the short names; those that need a package that is absent are skipped."""
    absent = {"cmaes": "cmaes", "gp": "torch"}
    found = []
    for name in ("tpe", "gp", "cmaes", "nsga2", "nsga3", "qmc", "random"):
        mark = pytest.mark.skipif(
            importlib.util.find_spec(absent.get(name, "sys")) is None, reason="a package is absent"
        )
        found.append(pytest.param(name, marks=mark))
    return found


def observed_in(space, count):
    drawn = [space.random(number) for number in range(count)]
    return [Observation(place, each, ((float(place % 5),),)) for place, each in enumerate(drawn)]


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("marked", ["numbers", "conditional", "lists"])
def test_every_sampler_searches_every_space(kind, marked):
    """With enough results to be past random draws; the same arguments give the same proposal."""
    space = Space({"name": "s", **({**MARKED, "numbers": NUMBERS}[marked])}, study_seed=2)
    args = {"population_size": 4} if kind.startswith("nsga") else {"n_startup_trials": 3} if kind == "gp" else {}
    known = observed_in(space, 13)
    running = [space.random(100), space.random(101)]
    proposals = [OptunaSampler(space, kind, dict(args), 0).propose(13, known, running) for _ in range(2)]
    assert proposals[0] == proposals[1]
    assert space.read(proposals[0].drawn.as_json()) == proposals[0].drawn
    assert proposals[0].origin == ("random" if kind in ("qmc", "random") else "model")
    if kind != "qmc":  # its number says all
        assert OptunaSampler(space, kind, dict(args), 0).propose(14, known, running) != proposals[0]


@pytest.mark.parametrize("kind", kinds())
def test_every_sampler_takes_several_objectives_or_says_that_it_does_not(kind):
    space = Space(NUMBERS)
    if kind == "cmaes":
        with pytest.raises(ConfigError, match=r'sampler "cmaes": takes one objective, and the search has 2. Use tpe'):
            OptunaSampler(space, kind, num_objectives=2)
        return
    known = [
        Observation(each.number, each.drawn, ((each.values[0][0], -float(each.number)),))
        for each in observed_in(space, 12)
    ]
    assert drawn_of(OptunaSampler(space, kind, num_objectives=2).propose(12, known)) is not None


@pytest.mark.slow
def test_cma_es_goes_to_where_the_optimum_is():
    """Its state is found again from the observations."""
    pytest.importorskip("cmaes")
    space = Space({"name": "s", "x": [{"$uniform": [0, 1]}] * 3}, study_seed=1)
    sampler, known = OptunaSampler(space, "cmaes", random_share=0), []
    for number in range(90):
        drawn = drawn_of(sampler.propose(number, known))
        known.append(Observation(number, drawn, ((-sum((x - 0.8) ** 2 for _, x in drawn.choices),),)))
    best = [-each.values[0][0] for each in known]
    assert np.mean(best[-20:]) < 0.06 < np.mean(best[:20]) / 4


def test_points_of_a_sequence_fill_a_square():
    space = Space({"name": "s", "x": [{"$uniform": [0, 1]}] * 2}, study_seed=3)
    sampler = OptunaSampler(space, "qmc")
    points = np.array([space.config(drawn_of(sampler.propose(number)))["x"] for number in range(16)])
    assert len({tuple(box) for box in np.floor(points * 0.999999 * 4).astype(int)}) == 16


def test_markers_of_different_branches_at_a_path_are_different_parameters():
    """The best value of one branch says nothing of the other."""
    branches = [{"lr": {"$uniform": [0, 1]}}, {"lr": {"$range": [5, 50, 5]}}]
    space = Space({"name": "s", "x": {"$choice": branches}}, study_seed=1)
    sampler, known = OptunaSampler(space), []
    for number in range(40):
        drawn = drawn_of(sampler.propose(number, known))
        lr = space.config(drawn)["x"]["lr"]
        known.append(Observation(number, drawn, ((-abs(lr - 30) if isinstance(lr, int) else lr - 100,),)))
    assert max(each.values[0][0] for each in known) == 0
    assert sum(each.drawn.choices[0][1] == 1 for each in known) > 6  # of nine; then there are only worse ones left


@pytest.mark.parametrize(
    "marker",
    [
        {"$range": [9, 1, -2]},
        {"$range": [4]},
        {"$logrange": [3, 3]},
        {"$uniform": [2, 2]},
        {"$range": [-(2**53), 2**53]},  # not to be counted
        {"$logrange": [1, 2**53]},
    ],
)
def test_numbers_downwards_single_ones_and_very_many(marker):
    try:
        space = Space({"name": "s", "x": marker, "y": {"$uniform": [0, 1]}})
    except ConfigError:
        pytest.skip("no marker")
    known = observed_in(space, 12)
    assert drawn_of(OptunaSampler(space).propose(12, known)) is not None


def test_a_rounded_end_of_an_interval_is_within_it():
    space = Space({"name": "s", "x": {"$uniform": [0.1234567, 0.1234569]}})
    known = observed_in(space, 14)
    assert drawn_of(OptunaSampler(space).propose(14, known)) is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "tp"}, 'search.sampler: sampler "tp": Optuna has no such sampler. It has .*TPESampler.*tpe, gp'),
        ({"sampler": "GridSampler"}, 'sampler "GridSampler": needs objects of Python. Use the sampler grid instead'),
        (
            {"args": {"n_startup": 3}},
            'args.n_startup: TPESampler has no such argument. Did you mean "n_startup_trials"',
        ),
        ({"random_share": 1.5}, "random_share 1.5: must be from 0 to 1. Leave it out"),
        ({"args": {"seed": 3}}, "args.seed: it follows from the seed of the study. Remove it"),
        (
            {"sampler": "nsga2", "args": {"population_size": 1}},
            'NSGAIISampler refuses {"population_size": 1}: ValueError',
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    config = {"search": {"sampler": {"type": "optuna", "args": arguments}}}
    with pytest.raises(ConfigError, match=message):
        instantiate(config, "search.sampler", SECTIONS, runtime={"space": Space(NUMBERS)})


@pytest.mark.parametrize(("kind", "package"), [("cmaes", "cmaes"), ("GPSampler", "torch")])
def test_a_package_that_a_sampler_needs_is_named(kind, package, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )
    with pytest.raises(ConfigError, match=f'sampler "{kind}": .* needs the package {package}.*: pip install {package}'):
        OptunaSampler(Space(NUMBERS), kind)


def test_without_optuna_the_error_says_so(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] == "optuna":
            raise ImportError("No module named 'optuna'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigError, match=r'sampler "tpe": the package optuna cannot be imported .*pip install optuna'):
        OptunaSampler(Space(NUMBERS))


def test_infeasible_values_are_near_the_feasible_ones_in_their_order():
    rows = [(3.0,), (1.0,), (-1e100,), (-5e103,), (-1e100,)]
    assert bounded(rows) == [(3.0,), (1.0,), (0.0,), (-1.0,), (0.0,)]
    assert bounded([(-1e100,), (-2e100,)]) == [(-0.5,), (-1.0,)]
    assert bounded([]) == []


def test_nothing_of_the_process_changes(caplog, recwarn):
    level, state = optuna.logging.get_verbosity(), (random.getstate(), str(np.random.get_state()))
    space = Space(NUMBERS)
    OptunaSampler(space).propose(12, observed_in(space, 12))
    assert (random.getstate(), str(np.random.get_state())) == state
    assert optuna.logging.get_verbosity() == level
    assert not recwarn.list
    assert "optuna" in sys.modules
