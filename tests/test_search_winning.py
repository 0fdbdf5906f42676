"""Which candidate a study recommends."""

import math

from search.results.leaderboard import winner_of
from search.results.record import RetrainedRecord, StudyRecord
from search.results.summaries import retrained_summaries
from tests.support.study_samples import fixed_study, sample_study


def trained_again(candidate, rank, *values, status="completed"):
    return [
        RetrainedRecord(candidate, rank, seed, status, reports=[{"epoch": 1, "val_miou": value, "val_loss": 1 - value}])
        for seed, value in enumerate(values)
    ]


def test_the_first_of_the_leaderboard_where_none_was_trained_again():
    assert winner_of(fixed_study((0.5, 0.7, 0.6))).index == 1
    assert winner_of(StudyRecord("begun", "saved/begun", {}, "ASHA", ["max val_miou"], 9)) is None


def test_the_best_mean_of_those_trained_again():
    study = fixed_study((0.5, 0.7, 0.6))
    study.retrained = [*trained_again(1, 1, 0.5, 0.68), *trained_again(2, 2, 0.6, 0.62)]
    assert winner_of(study).index == 2


def test_a_training_that_failed_does_not_count():
    study = fixed_study((0.5, 0.7, 0.6))
    study.retrained = [*trained_again(1, 1, 0.5), *trained_again(2, 2, 0.9, status="failed")]
    assert winner_of(study).index == 1


def test_one_whose_seeds_failed_is_behind_those_that_are_complete():
    study = fixed_study((0.5, 0.7, 0.6))
    survivor = [*trained_again(1, 1, 0.9), *trained_again(1, 1, 0.0, status="failed")]
    study.retrained = [*survivor, *trained_again(2, 2, 0.5, 0.6)]
    assert winner_of(study).index == 2
    diverged = [*trained_again(2, 2, 0.6, math.nan, math.nan)]
    study.retrained = [*survivor, *diverged]
    assert winner_of(study).index == 1, "none is complete: that of the fewest failures"
    assert [each.label for each in retrained_summaries(study)] == [
        "rank 1, candidate 1, 1 of 2 seeds without a result",
        "rank 2, candidate 2, 2 of 3 seeds without a result",
    ]


def test_a_candidate_without_weights_gives_way_to_an_equal_one():
    study = fixed_study((0.5, 0.7, 0.6))
    study.candidates[1].is_deleted = True
    assert winner_of(study).index == 2
    study.candidates[2].violation = 0.1
    assert winner_of(study).index == 0
    study.candidates[0].violation = 0.2
    assert winner_of(study).index == 1, "rather one without weights than one that violates more"
    study.retrained = trained_again(1, 1, math.nan)
    assert winner_of(study).index == 1


def test_less_is_better_where_the_objective_says_so():
    study = fixed_study((0.5, 0.7))
    study.objectives = ["min val_loss"]
    for candidate in study.candidates:
        candidate.objectives = {"val_loss": 1 - candidate.objectives["val_miou"]}
    study.retrained = [*trained_again(1, 1, 0.5), *trained_again(0, 2, 0.6)]
    assert winner_of(study).index == 0


def test_several_objectives_keep_their_order():
    study = sample_study(40, objectives=("max val_miou", "min params"))
    first = next(run.candidate for run in study.retrained if run.rank == 1)
    study.retrained = [run for run in study.retrained if run.candidate != first]
    assert winner_of(study).index == first
