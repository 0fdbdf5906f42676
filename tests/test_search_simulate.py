"""The simulator: simulated workers and clock over tabulated curves."""

import math

import numpy as np
import pytest

from benchmarks.simulator import draw_order, simulate
from search.schedulers.asha import ASHA
from search.schedulers.halving import RandomSearch, SuccessiveHalving

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
