"""Ranking, ledger and statistics, against hand-worked numbers."""

import math

import numpy as np
import pytest

from search.results.leaderboard import first_front, leaderboard, ledger
from search.results.record import CandidateRecord, RetrainedRecord, RungRecord, StudyRecord
from search.results.summaries import class_summary, repeated_candidates, retrained_summaries, summarize
from tests.support.study_samples import fixed_study, sample_study


def study_of(*candidates, objectives=("max val_miou",), max_epochs=9):
    return StudyRecord("s", "saved/s", {}, "ASHA", list(objectives), max_epochs, candidates=list(candidates))


def candidate(index, status="completed", epochs=0, seconds=1.0, **objectives):
    reports = [{"epoch": epoch, "epoch_seconds": seconds} for epoch in range(1, epochs + 1)]
    return CandidateRecord(index, index, [], status, reports=reports, objectives=objectives)


def test_best_first_and_equal_ones_as_drawn():
    rows = leaderboard(study_of(*(candidate(i, val_miou=value) for i, value in enumerate([0.5, 0.7, 0.5, 0.6]))))
    assert [(row.rank, row.candidate.index) for row in rows] == [(1, 1), (2, 3), (3, 0), (4, 2)]


def test_less_is_better_where_it_says_min():
    rows = leaderboard(study_of(candidate(0, val_loss=0.5), candidate(1, val_loss=0.2), objectives=["min val_loss"]))
    assert [row.candidate.index for row in rows] == [1, 0]


def test_failed_refused_and_nan_have_no_rank():
    rows = leaderboard(
        study_of(
            candidate(0, "failed", val_miou=0.9),
            candidate(1, "refused"),
            candidate(2, val_miou=math.nan),
            candidate(3, "stopped", val_miou=0.1),
        )
    )
    assert [row.candidate.index for row in rows] == [3]


def test_the_front_comes_first():
    pairs = [(0.9, 100), (0.8, 200), (0.7, 50), (0.85, 100)]
    study = study_of(
        *(candidate(i, val_miou=miou, params=params) for i, (miou, params) in enumerate(pairs)),
        objectives=["max val_miou", "min params"],
    )
    assert [(row.candidate.index, row.is_on_front) for row in leaderboard(study)] == [
        (0, True),
        (2, True),
        (3, False),
        (1, False),
    ]


def test_front_is_that_of_comparing_all_pairs():
    values = np.random.default_rng(0).integers(0, 8, (200, 3)).astype(float)
    dominated = [any((other >= each).all() and (other > each).any() for other in values) for each in values]
    assert first_front(values).tolist() == [not each for each in dominated]


def test_ledger_counts_what_was_spared():
    costs = ledger(
        study_of(
            candidate(0, epochs=9, seconds=2.0),
            candidate(1, "stopped", epochs=3, seconds=4.0),
            candidate(2, "failed", epochs=1),
            candidate(3, "out_of_memory", epochs=1),
            candidate(4, "refused"),
        )
    )
    assert (costs.counted, costs.epochs, costs.epochs_in_full) == (3, 14, 9 + 9 + 1)
    assert costs.epochs_saved == 5
    assert costs.seconds == 18 + 12 + 1 + 1
    assert costs.seconds_saved == 6 * 4.0


def test_rung_statistics():
    rung = RungRecord(0, 3, {0: 0.2, 1: 0.4, 2: 0.6, 3: math.nan}, [2, 4])
    reached = summarize(rung.values.values())
    assert (reached.count, reached.median, reached.maximum, reached.minimum) == (3, 0.4, 0.6, 0.2)
    assert reached.mean == pytest.approx(0.4)
    assert reached.deviation == pytest.approx(0.2)
    assert rung.promoted_values == [0.6]


def test_classes_at_the_best_epoch():
    each = candidate(0)
    each.reports = [
        {"epoch": 1, "val_iou_cat": 0.9, "val_iou_dog": 0.9},
        {"epoch": 2, "val_iou_cat": 0.8, "val_iou_dog": 0.4, "val_iou_sky": 0.6, "val_miou": 0.6},
    ]
    each.best_epoch = 2
    found = class_summary(each)
    assert (found.median, found.worst) == (0.6, "dog")
    assert found.deviation == pytest.approx(math.sqrt((0.04 + 0.04) / 3))


def test_no_classes_no_spread():
    assert class_summary(candidate(0, epochs=2)) is None


def test_repeats_of_a_file_without_markers():
    (found,) = repeated_candidates(fixed_study((0.5, 0.6, 0.7)))
    assert found.label == "candidates 0, 1, 2"
    assert str(found.results["val_miou"]) == "0.6000 ± 0.1000 (3)"


def test_candidates_that_differ_are_no_repeats():
    assert repeated_candidates(sample_study(30)) == []


def test_seeds_of_the_winner():
    study = study_of()
    for seed, value in ((1, 0.7), (2, 0.9)):
        reports = [{"epoch": 1, "val_miou": value}, {"epoch": 2, "val_miou": value - 0.2}]
        study.retrained.append(RetrainedRecord(5, 1, seed, "completed", reports, {"test_miou": value - 0.1}))
    study.retrained.append(RetrainedRecord(5, 1, 3, "failed"))
    (found,) = retrained_summaries(study)
    label = "rank 1, candidate 5, 1 of 3 seeds without a result"
    assert (found.label, found.results["val_miou"].count) == (label, 2)
    assert found.results["val_miou"].mean == pytest.approx(0.8)
    assert found.results["test_miou"].mean == pytest.approx(0.7)


def test_nothing_has_no_mean():
    assert str(summarize([math.nan])) == "-"
