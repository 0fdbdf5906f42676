"""What samplers take from observations, and regularised evolution: values by hand."""

import math

import numpy as np
import pytest

from search.samplers.base import Observation, Suggestion
from search.samplers.evolution import EvolutionSampler
from search.samplers.learning.evidence import Untaken, comparable_values
from search.samplers.optuna_adapter import OptunaSampler
from search.samplers.random import RandomSampler
from search.space.drawn import Drawn
from search.space.space import Space
from tests.support.sampler_laws import drawn_of
from tests.support.slow import slow_unless
from utils.errors import ConfigError

RUNGS = (1, 3, 9)


def seen(number, *values, **state):
    return Observation(number, Drawn(), tuple((value,) for value in values), **state)


def firsts(found):
    return {number: row[0] for number, row in found.items()}


def test_the_highest_rung_counts_that_enough_have_reached():
    known = [seen(n, 0.1, 0.2, 0.1 * n, *([9.0] * 6 if n < 2 else []), is_running=True) for n in range(4)]
    assert firsts(comparable_values(known, RUNGS, enough=4)) == pytest.approx({0: 0.2, 1: 0.2, 2: 0.2, 3: 0.3})
    assert firsts(comparable_values(known, RUNGS, enough=5)) == dict.fromkeys(range(4), 0.1)  # the first one at least
    at_end = comparable_values(known, RUNGS, enough=2)
    assert at_end[0] == at_end[1] == (9.0,)


def test_candidates_before_the_first_rung_have_no_value():
    known = [seen(0, 0.5, is_running=True), seen(1, is_running=True), seen(2, 0.1, 0.2, 0.3, is_running=True)]
    assert firsts(comparable_values(known, (3, 9))) == {2: 0.3}


def test_the_best_epoch_counts_with_all_its_objectives():
    known = [Observation(0, Drawn(), ((0.1, 5.0), (0.4, 1.0), (0.3, 9.0)))]
    assert comparable_values(known, (3,), 2) == {0: (0.4, 1.0)}
    assert comparable_values(known, (2, 3), 2, enough=9) == {0: (0.4, 1.0)}
    leading = [Observation(0, Drawn(), ((-9.0, 0.1), (-9.0, 0.8), (-9.0, 0.3)), leading=1)]  # the first is a fact
    assert comparable_values(leading, (3,), 2) == {0: (-9.0, 0.8)}


def test_an_estimate_follows_the_order_of_the_rung_if_that_is_the_order_of_later_ones():
    reached = [seen(n, 0.1 * n, 0.1 * n, 1.0 + n, is_running=True) for n in range(4, 10)]
    stopped = [seen(n, 0.1 * n) for n in range(4)]
    found = firsts(comparable_values([*stopped, *reached], (1, 3), enough=5))
    assert [found[n] for n in range(4, 10)] == [5, 6, 7, 8, 9, 10]
    assert found[0] < found[1] < found[2] < found[3] < 5  # worse than all that got there
    best = firsts(comparable_values([*reached, seen(20, 0.65)], (1, 3), enough=5))[20]
    assert 7 <= best <= 8  # between candidates 6 and 7


def test_an_estimate_is_in_the_middle_if_a_rung_says_nothing():
    late = [3.0, 1.0, 1.0, 3.0]  # of early results 0, .1, .2, .3: no line rises or falls
    known = [seen(n, 0.1 * n, 0.0, value, is_running=True) for n, value in enumerate(late)]
    found = firsts(comparable_values([*known, seen(8, -5.0), seen(9, 5.0)], (1, 3), enough=4))
    assert [found[8], found[9]] == pytest.approx([2.0, 2.0])


def test_failed_and_diverged_candidates_are_the_worst():
    known = [seen(0, 0.5), seen(1, 0.2), seen(2, math.nan), seen(3, 0.9, has_failed=True), seen(4, has_failed=True)]
    known += [seen(5, -math.inf), seen(6, math.nan, 0.3)]
    assert firsts(comparable_values(known)) == {0: 0.5, 1: 0.2, 2: 0.2, 3: 0.2, 4: 0.2, 5: 0.2, 6: 0.3}
    assert comparable_values([seen(0, has_failed=True)], RUNGS, 2) == {0: (0.0, 0.0)}
    assert comparable_values([]) == {}


def test_refused_candidates_have_no_value_and_those_of_another_study_come_first():
    known = [seen(2, 0.4), seen(0, is_refused=True), seen(-1, 0.1), seen(-2, 0.3)]
    assert list(comparable_values(known).items()) == [(-2, (0.3,)), (-1, (0.1,)), (2, (0.4,))]


def test_results_of_early_stopping_hold_for_all_later_epochs():
    known = [seen(0, 0.1, 0.6, 0.5, 0.2, 0.1), *(seen(n, *[0.1] * 9) for n in (1, 2))]
    assert firsts(comparable_values(known, RUNGS, enough=3)) == {0: 0.6, 1: 0.1, 2: 0.1}


def test_values_of_violated_constraints_retain_their_order():
    known = [seen(0, 0.5), seen(1, -3e100), seen(2, -1e100), seen(3, math.nan)]
    assert firsts(comparable_values(known)) == {0: 0.5, 1: -3e100, 2: -1e100, 3: -3e100}


def test_the_largest_numbers_compare_without_an_overflow(recwarn):
    late = (1.7e308, -1.7e308, 1e306, -1e306, 0.0)
    known = [seen(n, value, value, value) for n, value in enumerate(late)]
    found = firsts(comparable_values([*known, seen(5, 1.6e308), seen(6, -1.6e308)], RUNGS))
    assert found[0] == found[2] == max(found.values())
    assert all(map(math.isfinite, found.values()))
    assert found[5] > found[6]
    assert not recwarn.list


class Listed(Space):
    """Three points of an interval."""

    @property
    def listed(self):
        return [Drawn((("x", number),)) for number in (0.1, 0.5, 0.9)]


def test_a_space_that_is_a_list_gives_the_nearest_candidate_that_is_not_taken():
    space = Listed({"name": "s", "x": {"$uniform": [0, 1]}})
    untaken, rng = Untaken(space), np.random.default_rng(0)
    proposal = Suggestion(Drawn((("x", 0.2),)), "model")
    order, known = [], []
    while (found := untaken.first([proposal], untaken.taken(known, ()), rng)) is not None:
        assert found.origin == "model"
        order.append(found.drawn.choices[0][1])
        known.append(Observation(len(known), found.drawn, ((0.0,),)))
    assert order == [0.1, 0.5, 0.9]


def test_of_proposals_in_a_list_the_first_that_is_not_taken_is_chosen():
    space = Listed({"name": "s", "x": {"$uniform": [0, 1]}})
    untaken, rng = Untaken(space), np.random.default_rng(0)
    first, second, third = space.listed
    proposals = [Suggestion(first, "model"), Suggestion(third, "model"), Suggestion(second, "model")]
    assert untaken.first(proposals, untaken.taken((), ()), rng) == Suggestion(first, "model")
    assert untaken.first(proposals, untaken.taken((), [first]), rng) == Suggestion(third, "model"), "not the nearest"
    assert untaken.first(proposals, untaken.taken((), [first, third]), rng) == Suggestion(second, "model")
    assert untaken.first(proposals[:2], untaken.taken((), [first, third]), rng) == Suggestion(second, "model")
    assert untaken.first(proposals, untaken.taken((), space.listed), rng) is None


def test_the_last_candidates_of_a_space_are_found():
    space = Space({"name": "s", "x": [{"$range": [0, 10]}, {"$range": [0, 10]}]})
    everything = [Drawn((("x.0", a), ("x.1", b))) for a in range(10) for b in range(10)]
    untaken, rng = Untaken(space), np.random.default_rng(0)
    last = everything.pop(77)
    known = [Observation(number, drawn) for number, drawn in enumerate(everything)]
    proposal = Suggestion(everything[0], "model")
    assert untaken.first([proposal], untaken.taken(known, ()), rng).drawn == last
    assert untaken.first([proposal], untaken.taken(known, [last]), rng) is None


def test_candidates_of_another_study_may_be_proposed_unless_they_were_refused():
    space = Space({"name": "s", "x": {"$choice": ["a", "b"]}})
    untaken, rng = Untaken(space), np.random.default_rng(0)
    a, b = (Drawn((("x", number),)) for number in (0, 1))
    other = Observation(-1, a, ((0.5,),))
    assert untaken.first([Suggestion(a)], untaken.taken([other], ()), rng).drawn == a
    refused = Observation(-1, a, is_refused=True)
    assert untaken.first([Suggestion(a)], untaken.taken([refused], ()), rng).drawn == b


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population_size": 0}, "population_size 0: must be at least 1"),
        ({"sample_size": 0}, "sample_size 0: must be at least 1"),
        ({"random_share": -0.1}, "random_share -0.1: must be from 0 to 1"),
        ({"population_size": 4}, "sample_size 5: must be at most the population_size of 4"),
    ],
)
def test_sizes_of_evolution_are_checked(arguments, message):
    with pytest.raises(ConfigError, match=message):
        EvolutionSampler(Space({"name": "s", "x": 1}), **arguments)


def searched(sampler, value, count, workers=2):
    """Return the observations of a search; a candidate has its values when the next ones run."""
    known, running = [], []
    for number in range(count):
        drawn = drawn_of(sampler.propose(number, known, running))
        running.append(drawn)
        if len(running) == workers:
            done = running.pop(0)
            known.append(Observation(len(known), done, (value(sampler.space.config(done)),)))
    return known


def test_parents_are_of_the_latest_population():
    """The best of all is too old to be one."""
    space = Space({"name": "s", "x": [{"$uniform": [0, 1]}] * 8}, study_seed=1)
    known = [Observation(n, space.random(n), ((float(n == 0),),)) for n in range(7)]
    sampler = EvolutionSampler(space, population_size=6, sample_size=6, random_share=0)

    def parents(known):
        proposals = [sampler.propose(number, known) for number in range(20, 40)]
        assert {each.origin for each in proposals} == {"model"}
        changes = [
            [sum(a != b for a, b in zip(each.drawn.choices, old.drawn.choices, strict=True)) for old in known]
            for each in proposals
        ]
        assert all(min(each) == 1 for each in changes)  # one choice is another
        return {each.index(1) for each in changes}

    assert parents(known[:6]) == {0}
    assert parents(known) == {1}  # of equal ones the first
    assert {sampler.propose(number, known[:5]).origin for number in range(5, 9)} == {"random"}


def test_a_share_of_proposals_is_random():
    space = Space({"name": "s", "x": [{"$uniform": [0, 1]}] * 3})
    known = [Observation(n, space.random(n), ((0.5,),)) for n in range(30)]
    for make in (EvolutionSampler, OptunaSampler):
        sampler = make(space, random_share=0.5)
        origins = [sampler.propose(number, known).origin for number in range(30, 90)]
        assert 20 < origins.count("random") < 40


def test_those_that_run_are_no_parents():
    space = Space({"name": "s", "x": {"$uniform": [0, 1]}})
    known = [Observation(n, space.random(n), ((0.5,),), is_running=True) for n in range(9)]
    sampler = EvolutionSampler(space, population_size=5, fidelities=(3, 9))
    assert sampler.propose(9, known).origin == "random"
    assert EvolutionSampler(space, 5, random_share=0, fidelities=(1, 9)).propose(9, known).origin == "model"


def learning_class(kind):
    if kind == "optuna":
        pytest.importorskip("optuna")
    return {"evolution": EvolutionSampler, "optuna": OptunaSampler}[kind]


CONDITIONAL = {
    "name": "s",
    "x": {
        "$choice": [
            {"a": {"$uniform": [0, 1]}, "b": {"$uniform": [0, 1]}},
            {"a": {"$uniform": [0, 1]}},
            {"c": {"$choice": [1, 2, 3]}},
        ]
    },
    "y": {"$uniform": [0, 1]},
}


def conditional_value(config):
    x = config["x"]
    return (-((x.get("a", 0.0) - 0.8) ** 2) - (x.get("b", 0.0) - 0.3) ** 2 - 4 * (config["y"] - 0.6) ** 2,)


def flat_value(config):
    return (-sum((each - 0.7) ** 2 for each in config["x"]),)


@pytest.mark.parametrize(
    ("kind", "count"), slow_unless(lambda case: case[0] == "evolution", [("evolution", 140), ("optuna", 70)])
)
@pytest.mark.parametrize(
    ("config", "value"),
    [({"name": "s", "x": [{"$uniform": [0, 1]}] * 4}, flat_value), (CONDITIONAL, conditional_value)],
    ids=["flat", "conditional"],
)
def test_learning_finds_better_candidates_than_random_draws(kind, count, config, value):
    learning = learning_class(kind)
    spaces = [Space(config, study_seed=seed) for seed in range(6)]
    learned, random = (
        [max(each.values[-1][0] for each in searched(make(space), value, count)) for space in spaces]
        for make in (learning, RandomSampler)
    )
    assert sum(a > b for a, b in zip(learned, random, strict=True)) >= 5
    assert np.median(learned) > np.median(random) / 2  # both negative: half of the loss


def two_values(config):
    """Accuracy and cost: candidates with equal numbers are the front."""
    numbers = config["x"]
    spread = max(numbers) - min(numbers)
    return (sum(numbers) - spread, -sum(numbers) - spread)


@pytest.mark.parametrize("kind", ["evolution", "optuna"])
def test_several_objectives_lead_to_the_front(kind):
    learning = learning_class(kind)
    spaces = [Space({"name": "s", "x": [{"$uniform": [0, 1]}] * 3}, study_seed=seed) for seed in range(4)]

    def spreads(sampler):
        numbers = [sampler.space.config(each.drawn)["x"] for each in searched(sampler, two_values, 90)]
        return np.mean([max(each) - min(each) for each in numbers[-30:]])

    learned = [spreads(learning(space, num_objectives=2)) for space in spaces]
    random = [spreads(RandomSampler(space)) for space in spaces]
    assert np.mean(learned) < 0.7 * np.mean(random)
