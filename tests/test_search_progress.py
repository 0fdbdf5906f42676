"""The course of a study: best result so far, hypervolume, rank correlation of the rungs."""

import math

import numpy as np
import pytest

from search.results.hypervolume import hypervolume, scaled
from search.results.progress import (
    best_so_far,
    hypervolumes,
    rank_correlations,
    reports_in_order,
    rung_correlation,
    spearman,
    working_time,
)
from search.results.record import CandidateRecord, Objective, RungRecord, StudyRecord
from tests.support.study_samples import sample_study

MIOU = Objective("val_miou", 1)


def study_of(*columns, objectives=("max val_miou",), status="completed"):
    """A study of candidates with these (time, value) reports."""
    study = StudyRecord("s", "saved/s", {}, "ASHA", list(objectives), 4, sessions=[(0.0, 10.0), (100.0, 110.0)])
    for index, column in enumerate(columns):
        reports = [
            {"epoch": epoch, "val_miou": value, "seconds_at": at, "epoch_seconds": 1.0}
            for epoch, (at, value) in enumerate(column, 1)
        ]
        best = max((value for _, value in column if math.isfinite(value)), default=math.nan)
        study.candidates.append(
            CandidateRecord(index, 0, [], status, reports=reports, objectives={"val_miou": best}, best_epoch=1)
        )
    return study


def test_time_of_a_search_has_no_pauses():
    worked = working_time(study_of())
    assert [worked(at) for at in (-5.0, 0.0, 4.0, 10.0, 50.0, 100.0, 103.0, 500.0)] == [0, 0, 4, 10, 10, 10, 13, 20]


def test_best_so_far_is_in_the_order_of_time():
    study = study_of([(1.0, 0.5), (5.0, 0.6), (101.0, 0.9)], [(2.0, 0.4), (3.0, 0.7), (6.0, math.nan)])
    course = best_so_far(study, MIOU)
    assert [(each.epochs, each.seconds, each.value, each.candidate) for each in course] == [
        (1, 1.0, 0.5, 0),
        (3, 3.0, 0.7, 1),
        (6, 11.0, 0.9, 0),
        (6, 11.0, 0.9, None),
    ]
    assert [each.value for each in best_so_far(study, Objective("val_miou", -1))] == [0.5, 0.4, 0.4]


def test_a_failed_candidate_is_never_the_best():
    study = study_of([(1.0, 0.9)], [(2.0, 0.4)])
    study.candidates[0].status = "failed"
    assert [each.value for each in best_so_far(study, MIOU)] == [0.4, 0.4]
    study.candidates[1].status = "failed"
    assert best_so_far(study, MIOU) == []


def test_an_epoch_that_violates_constraints_is_not_the_best():
    study = study_of([(1.0, 0.9), (2.0, 0.5)], [(3.0, 0.6)])
    study.constraints = ["val_miou <= 0.8", "params <= 10"]
    study.candidates[0].facts, study.candidates[1].facts = {"params": 10.0}, {"params": 11.0}
    assert [(each.epochs, each.value) for each in best_so_far(study, MIOU)] == [(2, 0.5), (3, 0.5)]


def test_the_hypervolume_is_that_of_candidates_that_keep_the_constraints():
    study = sample_study(40, objectives=("max val_miou", "min params"))
    study.constraints = ["params <= 100000"]
    for each in study.candidates:
        each.violation = max(0.0, each.facts["params"] / 100_000 - 1)
    kept = [each for each in study.candidates if each.objectives and each.status != "failed" and not each.violation]
    values = np.array([[each.objectives["val_miou"], -each.objectives["params"]] for each in kept])
    assert hypervolumes(study)[-1][1] == pytest.approx(hypervolume(scaled(values, values.min(0), values.max(0))))
    for each in study.candidates:
        each.violation = 1.0
    assert hypervolumes(study) == []


def test_without_times_the_reports_are_in_the_order_of_the_draws():
    study = study_of([(9.0, 0.5), (10.0, 0.6)], [(1.0, 0.7)])
    del study.candidates[0].reports[1]["seconds_at"]
    assert [(each.candidate.index, each.seconds) for each in reports_in_order(study)] == [
        (0, None),
        (0, None),
        (1, None),
    ]


@pytest.mark.parametrize(
    ("points", "volume"),
    [
        ([[0.5, 0.5]], 0.25),
        ([[1.0, 0.2], [0.4, 0.9], [0.4, 0.1], [0.2, 0.9]], 0.2 + 0.4 * 0.7),
        ([[0.5, 0.5], [0.5, 0.5]], 0.25),
        ([[0.0, 1.0], [1.0, -0.1]], 0.0),
        ([[0.5, 0.5, 0.5], [1.0, 0.25, 0.25]], 0.125 + 0.5 * 0.0625),
        ([[1.0, 1.0, 1.0]], 1.0),
        ([[0.5, 0.5, 0.5, 0.5]], 0.0625),
    ],
)
def test_hypervolume_is_that_worked_out_by_hand(points, volume):
    assert hypervolume(np.array(points)) == pytest.approx(volume, abs=1e-12 if len(points[0]) < 4 else 0.002)


def test_hypervolume_is_that_of_a_fine_grid():
    random = np.random.default_rng(0)
    axis = (np.arange(60) + 0.5) / 60
    grid = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    points = random.random((12, 3))
    covered = (grid[:, None] <= points[None]).all(2).any(1).mean()
    assert hypervolume(points) == pytest.approx(covered, abs=0.01)
    for objectives in (3, 4, 5):  # more points never take volume away
        points = random.random((20, objectives))
        volumes = [hypervolume(points[:count]) for count in range(1, 21)]
        assert (np.diff(volumes) > -1e-12).all()


def test_scaled_values_of_equal_ends_are_the_best():
    values = scaled(np.array([[1.0, 7.0]]), np.array([0.0, 7.0]), np.array([2.0, 7.0]))
    assert values.tolist() == [[0.5, 1.0]]


def test_the_course_of_the_hypervolume_grows_to_that_of_the_front():
    study = sample_study(60, objectives=("max val_miou", "min params"))
    course = hypervolumes(study)
    epochs, volumes = zip(*course, strict=True)
    assert len(course) == 60
    assert (np.diff(volumes) > -1e-12).all()
    assert (epochs[0], epochs[-1]) == (1, sum(each.epochs for each in study.candidates))
    ranked = [each.objectives for each in study.candidates if each.objectives and each.status != "failed"]
    values = np.array([[each["val_miou"], -each["params"]] for each in ranked])
    whole = scaled(values, values.min(0), values.max(0))
    assert volumes[-1] == pytest.approx(hypervolume(whole))
    assert hypervolumes(sample_study(10)) == []


def test_spearman_is_that_worked_out_by_hand():
    # Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15) = 0.8; with a tie the correlation of mean ranks.
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 30, 20, 40])) == pytest.approx(0.8)
    assert spearman(np.array([1.0, 2, 2]), np.array([5.0, 6, 7])) == pytest.approx(math.sqrt(0.75))
    assert math.isnan(spearman(np.array([1.0, 2]), np.array([1.0, 2])))
    assert math.isnan(spearman(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])))


def test_rungs_are_compared_by_the_best_so_far_of_those_that_reached_both():
    columns = [
        [(1.0, first), (2.0, 0.0), (3.0, third), (4.0, fourth)]
        for first, third, fourth in [(0.1, 0.3, 0.2), (0.2, 0.2, 0.9), (0.3, 0.5, 0.1)]
    ]
    study = study_of(*columns, [(1.0, 0.9)])
    study.rungs = [RungRecord(0, 1, {}, []), RungRecord(0, 3, {}, []), RungRecord(1, 3, {}, [])]
    found = {each.epochs: (round(each.value, 6), each.count) for each in rank_correlations(study, MIOU)}
    assert found == {(1, 3): (0.5, 3), (1, 4): (0.5, 3), (3, 4): (-0.5, 3)}
    study.rungs = []
    assert rank_correlations(study, MIOU) == []


def test_candidates_that_passed_without_a_decision_are_taken_for_the_agreement_of_rungs():
    values = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.9, 4: math.nan}
    above = RungRecord(0, 3, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.0, 4: 0.5}, [])
    assert rung_correlation(RungRecord(0, 1, values, [], frozenset({0, 1, 2, 4})), above) == (1.0, True)
    value, is_unbiased = rung_correlation(RungRecord(0, 1, values, [], frozenset({0, 1, 4})), above)
    assert value == pytest.approx(-0.2)
    assert not is_unbiased
    assert math.isnan(rung_correlation(above, RungRecord(0, 9, {}, []))[0])
