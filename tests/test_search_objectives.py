"""Objectives and constraints of a candidate over its epochs."""

import math

import pytest

from search.results.leaderboard import leaderboard, winner_of
from search.results.record import (
    CandidateRecord,
    RetrainedRecord,
    StudyRecord,
    Tally,
    leading_objective,
    leading_place,
    parse_constraints,
    parse_objectives,
    require_results,
    without_penalty,
)
from search.schedulers.ranking import best_first
from search.study.journal import RULES, Event
from search.study.state import StudyState
from utils.errors import SearchError

NAN = math.nan
BOTH = parse_objectives(["max val_miou", "min val_loss"])


def tally_of(objectives, rows, facts=(), constraints=(), **options):
    tally = Tally(parse_objectives(objectives), dict(facts), parse_constraints(constraints), **options)
    for epoch, row in enumerate(rows, start=1):
        tally.add({"epoch": epoch, **row})
    return tally


def curve(*pairs):
    return [{"val_miou": miou, "val_loss": loss} for miou, loss in pairs]


def test_the_values_of_one_epoch_belong_together():
    rows = curve((0.5, 0.2), (0.7, 0.4), (0.6, 0.1), (0.7, 0.05))  # of equal ones the first, as its checkpoint is
    tally = tally_of(["max val_miou", "min val_loss"], rows)
    assert tally.as_written() == {"val_miou": 0.7, "val_loss": 0.4}
    assert (tally.best_epoch, tally.values) == (2, (0.7, -0.4))


def test_the_first_objective_that_is_a_result_decides():
    tally = tally_of(["min params", "min val_loss", "max val_miou"], curve((0.5, 0.2), (0.7, 0.4)), {"params": 9})
    assert tally.as_written() == {"params": 9, "val_loss": 0.2, "val_miou": 0.5}
    assert tally.best_epoch == 1


def timed(*pairs):
    return [{"val_miou": miou, "training_time": seconds} for miou, seconds in pairs]


def test_a_measured_result_makes_no_epoch_the_best():
    rows = timed((0.5, 3.0), (0.7, 2.0), (0.6, 1.0))
    objectives = ["min training_time", "max val_miou"]
    tally = tally_of(objectives, rows)
    assert (tally.best_epoch, tally.values) == (2, (-2.0, 0.7))
    assert tally_of(objectives, rows, measured_decides=True).best_epoch == 3  # a study of earlier rules
    bounded = tally_of(["max val_miou"], rows, constraints=["training_time <= 1"])
    assert (bounded.best_epoch, bounded.violation) == (2, 1.0)
    only = tally_of(["min training_time"], rows)
    assert (only.best_epoch, only.values) == (None, (-1.0,))
    goals = parse_objectives(["min params", *objectives])
    assert (leading_place(goals), leading_objective(goals)) == (2, goals[2])
    assert leading_place(goals[:2]) == 1
    assert leading_objective(goals[:1]) is None


def test_a_study_retains_the_rules_that_it_was_begun_with():
    best = []
    for data in ({}, {"rules": 3}, {"rules": RULES}):
        state = StudyState(parse_objectives(["min training_time", "max val_miou"]), 9)
        state.apply(Event("study.created", None, data, 0.0))
        drawn = {"seed": 1, "drawn": [], "key": "", "choices": {}}
        state.apply(Event("search.drawn", 0, drawn, 0.0))
        for epoch, row in enumerate(timed((0.5, 3.0), (0.7, 2.0), (0.6, 1.0)), start=1):
            state.candidates[0].tally.add({"epoch": epoch, **row})
        best.append(state.candidates[0].tally.best_epoch)
    assert best == [3, 3, 2]


def test_studies_of_format_1_combine_epochs():
    rows = curve((0.5, 0.2), (0.7, 0.4), (0.6, 0.1))
    tally = tally_of(["max val_miou", "min val_loss"], rows, combines_epochs=True)
    assert tally.as_written() == {"val_miou": 0.7, "val_loss": 0.1}
    assert tally.best_epoch == 2


def test_an_epoch_that_is_not_finite_comes_after_all_others():
    objectives = ["max val_miou", "min val_loss"]
    assert tally_of(objectives, curve((0.9, NAN), (0.5, 0.3), (NAN, 0.1), (math.inf, 0.1))).best_epoch == 2
    only = tally_of(objectives, curve((0.9, NAN)))
    assert only.as_written() == {"val_miou": 0.9}
    assert all(map(math.isnan, only.values))
    nothing = tally_of(objectives, curve((NAN, 0.1)))
    assert (nothing.best_epoch, nothing.as_written(), nothing.violation) == (None, {}, 0.0)


def test_only_facts_have_no_best_epoch():
    tally = tally_of(["min params"], [{"val_miou": 0.5}], {"params": 9})
    assert (tally.best_epoch, tally.values) == (None, (-9,))


@pytest.mark.parametrize(
    ("text", "shown"),
    [("val_miou >= 0.9", "val_miou >= 0.9"), ("params<=2e5", "params <= 200000"), (" a >=-1 ", "a >= -1")],
)
def test_constraints_are_a_name_and_a_bound(text, shown):
    assert str(parse_constraints([text])[0]) == shown
    assert parse_constraints([shown]) == parse_constraints([text])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["val_miou > 0.9"], r'"val_miou > 0.9" must be "NAME >= NUMBER" or "NAME <= NUMBER".* Write it so'),
        (["val_miou >= nan"], "must be"),
        (["params <= 200,000"], "without separators"),
        ([">= 3"], "must be"),
        (["val_miou"], "must be"),
        (["a >= 1", "a >= 2"], r'"a >= 1" and "a >= 2" bound the same side. Leave'),
        (["a >= 2", "a <= 1"], r'no value keeps "a >= 2" and "a <= 1". Change'),
    ],
)
def test_what_is_no_constraint_is_named(texts, message):
    with pytest.raises(SearchError, match=message):
        parse_constraints(texts)


def test_a_constraint_on_no_result_is_named():
    require_results(BOTH, ["val_miou", "val_loss"], parse_constraints(["params <= 3", "val_loss <= 1"]))
    with pytest.raises(SearchError, match=r'search.constraints: "val_iou >= 0.9" is not among the results \(val_miou'):
        require_results(BOTH, ["val_miou", "val_loss"], parse_constraints(["val_iou >= 0.9"]))


def test_a_violation_is_relative_to_the_bound():
    at_least, at_most = parse_constraints(["val_miou >= 0.8", "params <= 200"])
    assert at_least.violation({"val_miou": 0.6}) == pytest.approx(0.25)
    assert at_least.violation({"val_miou": 0.8}) == 0
    assert at_most.violation({"params": 300}) == 0.5
    assert at_most.violation({}) == at_most.violation({"params": NAN}) == math.inf
    assert parse_constraints(["change >= 0"])[0].violation({"change": -3}) == 3


def test_the_best_epoch_keeps_the_constraints():
    rows = curve((0.5, 0.2), (0.9, 0.6), (0.7, 0.3), (0.8, 0.5))
    tally = tally_of(["max val_miou"], rows, constraints=["val_loss <= 0.4"])
    assert (tally.best_epoch, tally.violation, tally.values) == (3, 0.0, (0.7,))


def test_without_such_an_epoch_it_is_that_of_the_least_violation():
    tally = tally_of(["max val_miou"], curve((0.9, 0.8), (0.5, 0.6), (0.7, 0.9)), constraints=["val_loss <= 0.4"])
    assert tally.best_epoch == 2
    assert tally.violation == pytest.approx(0.5)
    assert tally.as_written() == {"val_miou": 0.5}
    assert math.isnan(without_penalty(tally.values[0]))


def test_a_constraint_may_be_the_only_result():
    tally = tally_of(["min params"], curve((0.5, 1), (0.9, 1), (0.95, 1)), {"params": 9}, ["val_miou >= 0.8"])
    assert (tally.best_epoch, tally.violation, tally.values) == (2, 0.0, (-9,))


def test_a_scheduler_sees_infeasible_ones_behind_all_others():
    """In constrained domination with values of any size, down to the smallest violation."""
    constraints, objectives = ["val_miou >= 0.5", "flops <= 1e12"], ["max val_miou", "min flops"]

    def values(miou, flops):
        return tally_of(objectives, [{"val_miou": miou}], {"flops": flops}, constraints).values

    points = {
        0: values(0.5, 1e12),
        1: values(math.nextafter(0.5, 0), 1.0),
        2: values(0.4, 1.0),
        3: values(0.9, 1e300),
        4: values(0.9, NAN),
        5: values(NAN, 1.0),
    }
    assert best_first(points) == [0, 1, 2, 3, 4, 5]
    assert all(math.isfinite(value) for index in range(4) for value in points[index])
    assert without_penalty(-1e18) == -1e18
    zero = tally_of(["max change"], [{"change": -5e-324}], constraints=["change >= 0"])
    assert math.isnan(without_penalty(zero.values[0]))


def study_of(*candidates, objectives=("max val_miou",), constraints=("params <= 100",)):
    study = StudyRecord("s", "saved/s", {}, "ASHA", list(objectives), 9, constraints=list(constraints))
    study.candidates = [
        CandidateRecord(
            index,
            index,
            [],
            "completed",
            facts={"params": params},
            objectives={"val_miou": miou, "params": params},
            violation=max(0, params / 100 - 1),
        )
        for index, (miou, params) in enumerate(candidates)
    ]
    return study


def test_candidates_that_keep_the_constraints_rank_first():
    study = study_of((0.9, 150), (0.5, 90), (0.7, 100), (0.95, 120))
    assert [row.candidate.index for row in leaderboard(study)] == [2, 1, 3, 0]
    assert winner_of(study).index == 2


def test_where_none_keeps_them_the_least_violation_wins():
    study = study_of((0.9, 150), (0.5, 120), (0.7, 120))
    assert [row.candidate.index for row in leaderboard(study)] == [2, 1, 0]


def test_the_front_is_that_of_constrained_domination():
    study = study_of((0.9, 150), (0.5, 90), (0.7, 100), (0.4, 95), objectives=("max val_miou", "min params"))
    rows = leaderboard(study)
    assert [(row.candidate.index, row.is_on_front) for row in rows] == [(2, True), (1, True), (3, False), (0, False)]


def test_a_winner_that_was_trained_again_keeps_the_constraints():
    study = study_of((0.7, 90), (0.6, 90), constraints=("val_loss <= 0.5",))
    for candidate, rows in ((0, curve((0.9, 0.6), (0.4, 0.4))), (1, curve((0.6, 0.5), (0.8, 0.9)))):
        reports = [{"epoch": epoch, **row} for epoch, row in enumerate(rows, start=1)]
        study.retrained.append(RetrainedRecord(candidate, 1, 0, "completed", reports))
    assert winner_of(study).index == 1
