"""The simulator: simulated workers and clock over tabulated curves."""

import math

import numpy as np
import pytest

from benchmarks.simulator import draw_order, simulate
from search.samplers.base import Observation, Sampler, Suggestion
from search.samplers.random import RandomSampler
from search.schedulers.asha import ASHA
from search.schedulers.halving import RandomSearch, SuccessiveHalving
from search.space.table_space import TableSpace
from search.tables.table import ResultTable

NAN = math.nan
RISING = np.array([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7], [0.3, 0.4, 0.9]])


def test_one_worker_trains_one_after_the_other():
    found = simulate(RandomSearch(3, 3), RISING)
    assert (found.epochs, found.seconds) == (9, 9.0)
    assert found.setting == 2  # 0.9
    assert [event.epoch for event in found.trace] == [1, 2, 3] * 3
    assert [event.setting for event in found.trace[::3]] == draw_order(3, 0).tolist()


def test_two_workers_share_the_time_and_a_start_costs():
    found = simulate(RandomSearch(3, 3), RISING, workers=2, startup_seconds=5.0)
    assert (found.epochs, found.seconds) == (9, 16.0)  # 5 + 3 of two at once, then of the third
    assert {event.worker for event in found.trace} == {0, 1}


def test_each_setting_has_its_own_pace():
    found = simulate(RandomSearch(3, 3), RISING, workers=3, epoch_seconds=[1.0, 2.0, 4.0])
    assert found.seconds == 12.0


def test_settings_follow_from_the_seed_and_none_is_drawn_twice():
    assert sorted(draw_order(50, 1)) == list(range(50))
    assert draw_order(50, 1).tolist() == draw_order(50, 1).tolist()
    assert draw_order(50, 1).tolist() != draw_order(50, 2).tolist()


def test_a_table_that_is_used_up_ends_the_draws():
    found = simulate(ASHA(10, 3, grace_period=1), RISING, workers=2)
    assert {event.setting for event in found.trace} == {0, 1, 2}


def test_what_diverges_fails_and_is_not_chosen():
    found = simulate(RandomSearch(2, 2), [[0.9, NAN], [0.1, 0.2]])
    assert (found.setting, found.epochs) == (1, 4)
    assert sum(event.decision is None for event in found.trace) == 1
    assert simulate(RandomSearch(1, 2), [[NAN, NAN]]).setting is None


def test_the_budget_breaks_a_search_off():
    found = simulate(RandomSearch(3, 3), RISING, workers=2, budget=4)
    assert (found.epochs, found.seconds) == (4, 2.0)


def test_halving_saves_epochs():
    found = simulate(SuccessiveHalving(3, 3), RISING)  # 3 at 1, the best of them to 3
    assert (found.setting, found.epochs) == (1, 5)


def test_curves_that_are_too_short_are_refused():
    with pytest.raises(ValueError, match="max_epochs 4: the curves have 3 epochs"):
        simulate(RandomSearch(3, 4), RISING)


SETTINGS = {"lr": [0.1, 0.2, 0.3], "act": ["relu", "gelu", "relu"]}


def test_a_table_has_its_own_seconds():
    table = ResultTable.of({"val_accuracy": RISING}, seconds=[[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    found = simulate(RandomSearch(3, 3), table, workers=3)
    assert found.seconds == 24.0
    assert simulate(RandomSearch(3, 3), table, workers=3, max_seconds=10.0).seconds == 10.0
    assert len(simulate(RandomSearch(3, 3), table, workers=3, max_seconds=10.0).trace) == 3 + 2 + 1


def test_a_random_sampler_draws_what_the_seed_draws():
    values = np.random.default_rng(0).random((40, 9))
    table = ResultTable.of({"v": values}, settings={"a": list(range(40))})
    for seed in range(3):
        space = TableSpace({"name": "x"}, table.settings, study_seed=seed)
        with_sampler = simulate(ASHA(40, 9), table, sampler=RandomSampler(space), workers=3)
        assert with_sampler.trace == simulate(ASHA(40, 9), table, seed=seed, workers=3).trace


class Recording(Sampler):
    """Proposes rows 0, 0, 1, 2 and notes what it is asked with."""

    def __init__(self, space):
        super().__init__(space)
        self.asked = []

    def suggest(self, number, observations, running, rng):
        self.asked.append((number, list(observations), list(running)))
        return Suggestion(self.space.listed[max(0, number - 1)], "model")


def test_a_sampler_is_asked_as_in_a_study():
    table = ResultTable.of({"v": [[0.9, NAN], [0.1, 0.2], [0.3, 0.4]]}, settings=SETTINGS)
    space = TableSpace({"name": "x"}, SETTINGS)
    sampler = Recording(space)
    found = simulate(RandomSearch(3, 2), table, sampler=sampler, workers=2)
    rows = space.listed
    # Number 1 equals number 0: it is not admitted, and the next one is asked for.
    assert found.settings == {0: 0, 2: 1, 3: 2}
    assert set(found.origins.values()) == {"model"}
    assert [number for number, _, _ in sampler.asked] == [0, 1, 2, 3]
    assert sampler.asked[0][1:] == ([], [])
    assert sampler.asked[2][1:] == ([], [rows[0]])
    assert sampler.asked[3][1:] == (
        [
            Observation(0, rows[0], ((0.9,),), has_failed=True, origin="model"),
            Observation(2, rows[1], ((0.1,),), is_running=True, origin="model"),
        ],
        [],
    )
    assert found.candidate == 3


def test_several_objectives_with_facts_are_the_larger_the_better():
    table = ResultTable.of({"acc": RISING}, settings=SETTINGS, facts={"params": [3, 2, 1]})
    found = simulate(RandomSearch(3, 3), table, objectives=["max acc", "min params"])
    assert {each.values for each in found.trace if each.epoch == 3} == {(0.3, -3.0), (0.7, -2.0), (0.9, -1.0)}


def test_a_training_that_ended_by_itself_holds_its_last_value():
    table = ResultTable.of({"v": RISING}, lengths=[3, 1, 0])
    found = simulate(RandomSearch(3, 3), table)
    assert (found.setting, found.epochs) == (1, 4)  # .5 after one epoch
    assert 2 not in {each.setting for each in found.trace}  # never trained


def test_the_best_epoch_so_far_is_compared_if_a_study_would():
    falling = np.array([[0.9, 0.1], [0.5, 0.6]])
    assert simulate(RandomSearch(2, 2), falling).setting == 1
    assert simulate(RandomSearch(2, 2), falling, is_best_so_far=True).setting == 0


def test_one_repeat_is_chosen_per_seed_or_their_mean():
    repeats = np.array([[[0.1, 0.3, NAN]], [[NAN, NAN, NAN]]])  # two rows, one epoch, three seeds
    table = ResultTable.of({"v": repeats}, settings={"a": [1, 2]})
    assert {table.run(0, seed).results["v"][0] for seed in range(9)} == {0.1, 0.3}
    assert math.isnan(table.run(1, 5).results["v"][0])
    assert table.mean().run(0).results["v"] == [0.2]
    assert math.isnan(table.mean().run(1).results["v"][0])


def test_a_sampler_of_another_space_is_refused():
    space = TableSpace({"name": "x"}, {"a": [1, 2]})
    with pytest.raises(ValueError, match="another space"):
        simulate(RandomSearch(1, 1), RISING, sampler=RandomSampler(space))
