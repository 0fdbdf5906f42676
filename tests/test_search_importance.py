"""The share of variance that each searched value explains."""

import random

import pytest

from search.results.importance import NOT_DRAWN, Importance, columns_of, group_by_value, importances
from search.results.leaderboard import LeaderboardRow
from search.results.record import CandidateRecord


def rows_of(draws, value):
    """Rows ranked by a function of what was drawn."""
    ranked = sorted(draws, key=lambda drawn: -value(dict(drawn)))
    return [
        LeaderboardRow(rank, CandidateRecord(rank, 0, drawn, "completed"), False)
        for rank, drawn in enumerate(ranked, 1)
    ]


def draws(count=400):
    chance = random.Random(0)
    return [
        [("op", chance.choice("HVC")), ("lr", chance.uniform(0, 1)), ("seedlike", chance.randrange(8))]
        for _ in range(count)
    ]


def by_path(found):
    return {each.paths: each for each in found}


def test_the_value_that_decides_explains_nearly_all():
    found, reason = importances(rows_of(draws(), lambda drawn: {"H": 0, "V": 1, "C": 2}[drawn["op"]] + drawn["lr"] / 9))
    each = by_path(found)
    assert reason == ""
    assert found[0].paths == ("op",)
    assert found[0].best_group == "C"
    assert each[("op",)].share > 0.85
    assert each[("op",)].is_clear
    assert not each[("seedlike",)].is_clear


def test_two_that_act_only_together_are_found_as_a_pair():
    found, _ = importances(rows_of(draws(), lambda drawn: (drawn["op"] == "C") == (drawn["lr"] > 0.5)))
    best = max(found, key=lambda each: each.share)
    assert set(best.paths) == {"op", "lr"}


def test_shares_are_those_worked_out_by_hand():
    # Sums 2, 1, 0 hold the first 1/6, the next 1/2 and the last 1/3 of the ranks: means 1/12, 5/12, 5/6; variance 1/12.
    # With C the mean rank is 1/4, else 5/8: 1/3 * 2/3 * (3/8)^2 * 12 = 3/8. With much lr 11/36, else 25/36: 0.454.
    found, _ = importances(rows_of(draws(6000), lambda drawn: (drawn["op"] == "C") + (drawn["lr"] > 0.5)))
    each = by_path(found)
    assert each[("op",)].share == pytest.approx(0.375, abs=0.03)
    assert each[("lr",)].share == pytest.approx(0.454, abs=0.05)


def test_share_is_epsilon_squared():
    # Times 19^2: a total of 20 * 399 / 12 = 665, of which 2 * 10 * 99 / 12 = 165 within the halves, by 18 degrees.
    (found,), _ = importances(rows_of([[("bit", place < 10)] for place in range(20)], lambda drawn: drawn["bit"]))
    assert found.share == pytest.approx((500 - 165 / 18) / 665)


def test_a_value_that_differs_in_every_candidate_explains_nothing():
    (found,), _ = importances(rows_of([[("op", f"op{place}")] for place in range(20)], lambda drawn: 0))
    assert found.share == 0.0


def test_too_few_candidates_are_said_to_be():
    assert importances(rows_of(draws(19), lambda drawn: drawn["lr"])) == (
        [],
        "Importance needs 20 candidates with results; there are 19.",
    )


def test_nothing_that_differs_is_said_to_be():
    rows = rows_of([[("op", "H")]] * 30, lambda drawn: 0)
    assert importances(rows) == ([], "No value differs between the candidates.")


def test_numbers_of_many_outcomes_come_in_ranges_of_like_size():
    parts = group_by_value([*range(60), None])
    assert len(parts.labels) == 7
    assert parts.labels[-1] == NOT_DRAWN
    assert all((parts.codes == code).sum() == 10 for code in range(6))


def test_only_a_share_above_three_deviations_of_chance_is_clear():
    # Three groups by lot: a chi-squared with 2 degrees of freedom, of variance 4, in units of 1 / 400.
    found, _ = importances(rows_of(draws(400), lambda drawn: drawn["lr"]))
    assert by_path(found)[("op",)].chance == pytest.approx(3 * 2 / 400)
    assert not Importance(("lr",), 0.15, 0.15, "0.1", 0.3).is_clear
    assert Importance(("lr",), 0.1501, 0.15, "0.1", 0.3).is_clear


@pytest.mark.parametrize(("count", "best"), [(1, "H"), (2, "C")])
def test_the_best_group_has_a_twentieth_of_the_candidates_at_least(count, best):
    ops = ["C"] * count + ["H"] * 19 + ["V"] * (21 - count)
    (found,), _ = importances(rows_of([[("op", op)] for op in ops], lambda drawn: "VHC".index(drawn["op"])))
    assert found.best_group == best
    assert found.best_rank == pytest.approx((count - 1) / 2 / 39 if best == "C" else (1 + 10 - 1) / 39)


@pytest.mark.parametrize(("outcomes", "groups"), [(12, 12), (13, 6)])
def test_numbers_of_at_most_twelve_outcomes_are_groups_of_their_own(outcomes, groups):
    assert len(group_by_value([*range(outcomes)] * 3).labels) == groups


def test_conditional_values_stand_behind_what_they_follow():
    columns = columns_of([[("optimizer", "AdamW"), ("bs", 1)], [("optimizer", "SGD"), ("momentum", 0.9), ("bs", 2)]])
    assert columns == {"optimizer": ["AdamW", "SGD"], "momentum": [None, 0.9], "bs": [1, 2]}
