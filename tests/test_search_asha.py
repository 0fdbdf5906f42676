"""ASHA, worked by hand."""

import math

import numpy as np
import pytest

from search.cli.test_run import shrunk
from search.schedulers.asha import ASHA, AsyncRung
from search.schedulers.base import Decision, Ending, Job
from search.schedulers.halving import SuccessiveHalving
from search.schedulers.rungs import interleave
from search.study.settings import build_study_parts
from tests.support.schedulers import next_job

CONTINUE, PAUSE, STOP = Decision.CONTINUE, Decision.PAUSE, Decision.STOP
NAN, INF = math.nan, math.inf


def train(scheduler, job, *values):
    """Report the same values after each epoch of a job until the scheduler ends it; the last verdict."""
    for epoch in range(job.start + 1, job.end + 1):
        verdict = scheduler.report(job.candidate, epoch, values)
        if verdict.decision is not CONTINUE:
            break
    return verdict


def next_trained(scheduler, *values):
    job = next_job(scheduler)
    train(scheduler, job, *values)
    return job


def train_all(scheduler, values_of, workers=1):
    """Train to the end, one epoch of each worker's job after another; the epochs of each candidate."""
    running, epochs = [], {}
    while not scheduler.is_done:
        while len(running) < workers and (job := next_job(scheduler)):
            running.append(job)
        job = running.pop(0)
        epochs[job.candidate] = epochs.get(job.candidate, 0) + 1
        verdict = scheduler.report(job.candidate, epochs[job.candidate], values_of(job.candidate))
        if verdict.decision is CONTINUE:
            running.append(job)
    return epochs


@pytest.mark.parametrize("mode", ["stop", "promote"])
@pytest.mark.parametrize(
    ("max_epochs", "grace", "factor"), [(500, 3, 3), (300, 1, 2), (27, 1, 3), (28, 1, 3), (20, 2, 3), (5, 4, 3)]
)
def test_rungs_are_those_of_successive_halving(mode, max_epochs, grace, factor):
    scheduler = ASHA(10, max_epochs, mode=mode, grace_period=grace, reduction_factor=factor)
    halving = SuccessiveHalving(10, max_epochs, grace_period=grace, reduction_factor=factor)
    assert [rung.epochs for rung in scheduler.rungs()] == list(halving.fidelities())
    assert scheduler.fidelities() == halving.fidelities()


def test_published_rungs():
    """Those of the paper for at most 500 epochs, and a full training."""
    assert ASHA(10, 500, grace_period=3).fidelities() == (3, 9, 27, 81, 243, 500)


DISTINCT = [
    # value, cut-off, decision
    (0.5, None, CONTINUE),  # nothing recorded
    (0.4, 0.5, STOP),  # of 0.5
    (0.5, 0.4 + (0.5 - 0.4) * 2 / 3, CONTINUE),  # of 0.4 0.5: place 2/3; equal to another, but above the cut-off
]
AT_ONE_RUNG = {
    2: [
        *DISTINCT,
        (0.5, 0.5, STOP),  # of 0.4 0.5 0.5: place 4/3; a tie, and 2 of now 4 continued
        (0.9, 0.5, CONTINUE),  # of 0.4 0.5 0.5 0.5: place 2
        (0.6, 0.5 + (0.5 - 0.5) * 2 / 3, CONTINUE),  # of 0.4 0.5 0.5 0.5 0.9: place 8/3, between 0.5 and 0.5
        (0.52, 0.5 + (0.6 - 0.5) * 1 / 3, STOP),  # of 0.4 0.5 0.5 0.5 0.6 0.9: place 10/3
        (NAN, 0.52, STOP),  # of 0.4 0.5 0.5 0.5 0.52 0.6 0.9: place 4
    ],
    1: [
        *DISTINCT,
        (0.5, 0.5, CONTINUE),  # a tie goes on
        (0.9, 0.5, CONTINUE),
        (0.6, 0.5 + (0.5 - 0.5) * 2 / 3, CONTINUE),
        (0.52, 0.5 + (0.6 - 0.5) * 1 / 3, STOP),
        (NAN, 0.52, STOP),
    ],
}


@pytest.mark.parametrize("version", [1, 2])
def test_stop_decisions_at_a_rung(version):
    """Rungs at 1, 3, 10; the cut-off is the 2/3 quantile of the values before. Format 1 as its journals have it."""
    scheduler = ASHA(8, 10, grace_period=1, mode="stop")
    scheduler.follow_format(version)
    for value, cutoff, decision in AT_ONE_RUNG[version]:
        verdict = scheduler.report(next_job(scheduler).candidate, 1, (value,))
        assert verdict.decision is decision
        assert verdict.rung == 1
        assert verdict.cutoff == (None if cutoff is None else pytest.approx(cutoff))


# One in three of 27 equal ones: 27 train 1 epoch, 9 of them 3, 3 of them 9, 1 of them 27.
ALL_EQUAL = 27 + 9 * 2 + 3 * 6 + 18


@pytest.mark.parametrize("values", [(0.4,), (NAN,), (-INF,), (INF,), (0.4, 0.7), (NAN, NAN), (0.4, -INF)])
@pytest.mark.parametrize("mode", ["stop", "promote"])
def test_of_equal_candidates_one_in_three_continues(mode, values):
    epochs = train_all(ASHA(27, 27, grace_period=1, mode=mode), lambda _: values)
    assert sum(epochs.values()) == ALL_EQUAL == 81
    epochs = train_all(ASHA(27, 27, grace_period=1, mode=mode), lambda _: values, workers=8)
    assert 81 <= sum(epochs.values()) <= 3 * 81


@pytest.mark.parametrize("mode", ["stop", "promote"])
@pytest.mark.parametrize("num_objectives", [1, 2])
def test_equal_candidates_that_arrive_in_any_order(mode, num_objectives):
    """In the reverse order of their numbers each of them is the first of the equal ones."""
    scheduler = ASHA(27, 3, grace_period=1, mode=mode)
    for job in [next_job(scheduler) for _ in range(27)][::-1]:
        scheduler.report(job.candidate, 1, (0.4,) * num_objectives)
        if mode == "promote":
            next_job(scheduler)
    assert len(scheduler.rungs()[0].promoted) == 9


@pytest.mark.parametrize(
    ("values", "expected"),
    # With two objectives, the last of equal ones is at an end of their front, and so the second of them: it stops only
    # as long as there are at most four at the rung.
    [((0.4,), 27 * 27), ((NAN,), 27 * 27), ((0.4, 0.7), 18 * 27 + 3 * 1 + 3 * 3 + 3 * 9)],
)
def test_in_format_1_equal_candidates_all_continue(values, expected):
    scheduler = ASHA(27, 27, grace_period=1, mode="stop")
    scheduler.follow_format(1)
    epochs = train_all(scheduler, lambda _: values)
    assert sum(epochs.values()) == expected


@pytest.mark.parametrize("num_objectives", [1, 2])
def test_most_equal_and_some_better(num_objectives):
    """Most predict the background only; whoever is better continues, whenever it arrives."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        better = set(rng.choice(90, size=9, replace=False).tolist())
        values = {each: (0.5 + each / 1000 if each in better else 0.4,) * num_objectives for each in range(90)}
        scheduler = ASHA(90, 3, grace_period=1, mode="stop")
        train_all(scheduler, values.__getitem__)
        promoted = scheduler.rungs()[0].promoted
        assert len(promoted) <= 90 / 3 + 9  # of those that came before the better ones, too many of the others did
        assert better <= set(promoted)


def test_distinct_values_decide_as_in_format_1():
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=(200, 1)), rng.normal(size=(200, 2)), np.where(rng.random((200, 2)) < 0.1, NAN, 1)):
        rows = np.unique(values, axis=0)  # NaN is not equal to itself
        rows = [tuple(row) for row in rng.permutation(rows).tolist() if not np.isnan(row).any()]
        old, new = AsyncRung(0, 1, 3, splits_ties=False), AsyncRung(0, 1, 3)
        for candidate, row in enumerate(rows):
            assert old.decide(candidate, row) == new.decide(candidate, row)


def test_stop_mode_goes_on_through_its_rungs_to_the_end():
    scheduler = ASHA(2, 6, grace_period=1, mode="stop")
    assert next_job(scheduler) == Job(0, 0, 6)
    verdicts = [scheduler.report(0, epoch, (epoch / 10,)) for epoch in (1, 2, 3, 4, 5, 6)]
    assert [verdict.decision for verdict in verdicts] == [CONTINUE] * 5 + [STOP]
    assert [verdict.rung for verdict in verdicts] == [1, None, 3, None, None, 6]
    assert next_job(scheduler) == Job(1, 0, 6)
    assert scheduler.report(1, 1, (0.2,)).decision is CONTINUE  # 0.2 > 0.1
    assert scheduler.report(1, 2, (0.2,)).decision is CONTINUE
    assert scheduler.report(1, 3, (0.2,)).decision is STOP  # 0.2 < 0.3
    assert scheduler.is_done
    assert [(rung.values, rung.promoted) for rung in scheduler.rungs()] == [
        ({0: (0.1,), 1: (0.2,)}, (0, 1)),
        ({0: (0.3,), 1: (0.2,)}, (0,)),
        ({0: (0.6,)}, ()),
    ]


def test_a_value_that_is_no_number_stops_unless_there_is_none():
    rung = AsyncRung(0, 1, 3)
    assert rung.decide(0, (NAN,)).decision is CONTINUE  # the first
    assert rung.decide(1, (NAN,)).decision is STOP  # as good as the other, one of two continued
    assert rung.decide(2, (-INF,)) == (CONTINUE, 1, None)  # better than NaN
    assert rung.decide(3, (-INF,)) == (CONTINUE, 1, None)  # of NaN NaN -inf: place 4/3 is no number either
    assert rung.decide(4, (NAN,)) == (STOP, 1, -INF)  # of NaN NaN -inf -inf: place 2
    assert rung.decide(5, (-INF,)) == (CONTINUE, 1, None)  # of NaN NaN NaN -inf -inf: place 8/3
    assert rung.decide(6, (-INF,)) == (STOP, 1, -INF)  # of three each: place 10/3; 4 of 7 continued
    assert rung.decide(7, (0.0,)) == (CONTINUE, 1, -INF)


def test_failed_ones_are_equal_to_those_without_a_number():
    scheduler = ASHA(12, 3, grace_period=1, mode="stop")
    for _ in range(6):
        scheduler.end(next_job(scheduler).candidate, Ending.FAILED)
    decisions = [scheduler.report(next_job(scheduler).candidate, 1, (NAN,)).decision for _ in range(6)]
    # Of the 7, 8, ..., 12 at the rung 0, 1, 2, 3, 4, 4 continued before: fewer than a third, but for the last two.
    assert decisions == [CONTINUE] * 4 + [STOP] * 2


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_cutoffs_are_numpys_quantiles(factor):
    values = np.random.default_rng(0).normal(size=60)
    rung = AsyncRung(0, 1, factor)
    for count, value in enumerate(values.tolist()):
        verdict = rung.decide(count, (value,))
        if count:
            expected = np.quantile(values[:count], 1 - 1 / factor)
            assert verdict.cutoff == pytest.approx(expected, rel=1e-12)
            assert verdict.decision is (STOP if value < expected else CONTINUE)


def test_cutoffs_between_infinite_values():
    rung = AsyncRung(0, 1, 2)
    for candidate, value in enumerate([-INF, 1.0]):
        rung.record(candidate, (value,))
    assert rung.cutoff() == -INF  # half way
    rung.record(2, (1.0,))
    assert rung.cutoff() == 1.0
    rung.record(3, (INF,))
    rung.record(4, (INF,))
    rung.record(5, (INF,))
    assert rung.cutoff() == INF  # between 1 and infinity


def test_failures_count_at_the_rung_that_they_ran_for():
    scheduler = ASHA(4, 10, grace_period=2, mode="stop")
    for _ in range(3):
        scheduler.end(next_job(scheduler).candidate, Ending.FAILED)
    verdict = train(scheduler, Job(next_job(scheduler).candidate, 0, 2), -INF)
    assert verdict.decision is CONTINUE
    assert [len(rung.values) for rung in scheduler.rungs()] == [4, 0]


def test_finished_candidates_are_judged_at_the_later_rungs():
    scheduler = ASHA(2, 10, grace_period=1, mode="stop")
    next_job(scheduler)
    for epoch in (1, 2):
        scheduler.report(0, epoch, (0.5,))
    scheduler.end(0, Ending.FINISHED)
    assert [rung.values for rung in scheduler.rungs()] == [{0: (0.5,)}] * 3


def test_several_objectives_stop_by_place_in_the_ranking():
    scheduler = ASHA(6, 10, grace_period=1, reduction_factor=2, mode="stop")
    table = [
        # values, decision
        ((1.0, 1.0), CONTINUE),  # nothing recorded
        ((0.0, 0.0), STOP),  # behind one; none may stand before it: (1 - 1) / 2
        ((2.0, 0.0), STOP),  # beside (1, 1), equally sparse, the larger number; (2 - 1) / 2 = 0.5: none may
        ((3.0, 3.0), CONTINUE),
        ((2.0, 2.0), CONTINUE),  # behind (3, 3); (4 - 1) / 2 = 1.5: one may
        ((2.0, 1.0), CONTINUE),  # behind (3, 3) and (2, 2), before (2, 0); (5 - 1) / 2 = 2
    ]
    for values, decision in table:
        verdict = scheduler.report(next_job(scheduler).candidate, 1, values)
        assert (verdict.decision, verdict.cutoff) == (decision, None)


def test_promotions_as_they_happen():
    """Rungs at 1, 3 of 9, by threes: one of three goes on, the best of the highest rung first."""
    scheduler = ASHA(6, 9, grace_period=1, mode="promote")
    jobs = [next_trained(scheduler, value) for value in (0.1, 0.3, 0.2)]
    assert jobs == [Job(0, 0, 1), Job(1, 0, 1), Job(2, 0, 1)]
    assert next_job(scheduler) == Job(1, 1, 3)  # 3 // 3 = 1 place
    assert next_trained(scheduler, 0.4) == Job(3, 0, 1)
    assert next_job(scheduler) == Job(3, 1, 3)  # still one place, now candidate 3's
    assert [next_trained(scheduler, value).candidate for value in (0.05, 0.0)] == [4, 5]
    assert next_job(scheduler) is None  # 6 // 3 = 2 places: 3 and 1, who went on already
    assert scheduler.rungs()[0].promoted == (1, 3)
    assert not scheduler.may_resume(2)
    assert train(scheduler, Job(1, 1, 3), 0.5) == (PAUSE, 3, None)
    assert not scheduler.is_done
    assert train(scheduler, Job(3, 1, 3), 0.4).decision is PAUSE
    assert scheduler.may_resume(1)
    assert not scheduler.may_resume(3)
    assert next_job(scheduler) == Job(1, 3, 9)  # 2 // 3 = 0 places, but nothing else is left to do
    assert train(scheduler, Job(1, 3, 9), 0.5) == (STOP, 9, None)
    assert scheduler.is_done


def test_a_full_training_follows_the_last_rung():
    scheduler = ASHA(2, 12, grace_period=4, reduction_factor=2, mode="promote")  # 4, 8, 12
    next_trained(scheduler, 1.0)
    next_trained(scheduler, 2.0)
    assert next_trained(scheduler, 2.0) == Job(1, 4, 8)
    assert next_trained(scheduler, 2.0) == Job(1, 8, 12)
    assert scheduler.is_done


def test_a_finished_candidate_is_promoted_without_a_job():
    scheduler = ASHA(2, 9, grace_period=1, reduction_factor=2, mode="promote")  # 1, 2, 4, 8
    scheduler.report(next_job(scheduler).candidate, 1, (5.0,))
    assert next_job(scheduler) == Job(1, 0, 1)
    scheduler.report(1, 1, (6.0,))
    assert next_job(scheduler) == Job(1, 1, 2)
    scheduler.end(1, Ending.FINISHED)  # resumed, it stopped by itself at once
    assert scheduler.is_done
    assert [list(rung.values) for rung in scheduler.rungs()] == [[0, 1], [1], [1], [1]]


@pytest.mark.parametrize("asks", [0, 1, 3])
def test_one_that_finished_is_promoted_at_once_and_not_when_a_worker_asks(asks):
    scheduler = ASHA(3, 6, grace_period=2, reduction_factor=2, mode="promote")  # 2, 4, 6
    for _ in range(3):
        next_job(scheduler)
    scheduler.report(0, 1, (0.5,))
    scheduler.end(0, Ending.FINISHED)
    train(scheduler, Job(1, 0, 2), 0.1)
    assert [scheduler.ask() for _ in range(asks)] == [None] * asks
    train(scheduler, Job(2, 0, 2), 0.9)  # the best from now on, and there is one place
    assert next_job(scheduler) == Job(2, 2, 4)
    assert scheduler.rungs()[0].promoted == (0, 2)


def test_a_late_withdrawal_is_replaced_and_keeps_what_it_showed():
    scheduler = ASHA(3, 9, grace_period=1, mode="promote")
    for value in (0.1, 0.3, 0.2):
        next_trained(scheduler, value)
    assert next_job(scheduler) == Job(1, 1, 3)
    assert not scheduler.may_resume(2)
    scheduler.end(1, Ending.WITHDRAWN)
    assert not scheduler.may_resume(2)
    assert next_job(scheduler) == Job(3, 0, 1)
    train(scheduler, Job(3, 0, 1), 0.0)
    assert next_job(scheduler) is None  # 4 // 3 = 1 place, which 1 had
    assert scheduler.is_done


def test_leftovers_stay_paused_once_their_rung_is_full():
    scheduler = ASHA(9, 9, grace_period=1, mode="promote")
    for candidate in range(3):
        next_trained(scheduler, -float(candidate))
    # Of nine, three are promoted: each of the first three may be among them.
    assert [scheduler.may_resume(candidate) for candidate in range(3)] == [True] * 3
    assert next_trained(scheduler, 0.0) == Job(0, 1, 3)
    for _ in range(3):
        next_trained(scheduler, 1.0)
    assert [scheduler.may_resume(candidate) for candidate in (1, 2)] == [False, False]


def test_brackets_share_candidates_as_hyperbands_do():
    # Rungs 1, 3, 9: brackets of 9, 5 and 3. Two of them: 9 and 5 of every 14.
    dealt = interleave([9, 5])
    assert dealt[:5] == [0, 1, 0, 0, 1]
    assert [dealt.count(0), dealt.count(1)] == [9, 5]
    scheduler = ASHA(14, 9, grace_period=1, mode="promote", brackets=2)
    assert [(rung.bracket, rung.epochs) for rung in scheduler.rungs()] == [(0, 1), (0, 3), (0, 9), (1, 3), (1, 9)]
    assert [next_job(scheduler).end for _ in range(5)] == [1, 3, 1, 1, 3]


def test_format_1_has_a_rung_at_every_power():
    assert ASHA(10, 500, grace_period=3).fidelities() == (3, 9, 27, 81, 243, 500)
    for max_epochs, levels in [(500, [3, 9, 27, 81, 243]), (28, [3, 9, 27]), (27, [3, 9, 27])]:
        old = ASHA(10, max_epochs, mode="promote")
        old.follow_format(1)
        assert [rung.epochs for rung in old.rungs()] == levels
        assert old.fidelities() == tuple(sorted({*levels, max_epochs}))


def test_more_candidates_are_compared_with_those_that_were_there():
    scheduler = ASHA(3, 3, grace_period=1, mode="promote")
    for value in (0.1, 0.3, 0.2):
        next_trained(scheduler, value)
    assert next_trained(scheduler, 0.3) == Job(1, 1, 3)
    assert scheduler.is_done
    scheduler.grow(6)
    # 2 of 6 are promoted: 1 was; 2 is the second best, but its checkpoint may be deleted since nothing was left to do.
    assert [next_trained(scheduler, value) for value in (0.0, 0.25)] == [Job(3, 0, 1), Job(4, 0, 1)]
    assert next_trained(scheduler, 0.15) == Job(5, 0, 1)
    assert next_trained(scheduler, 0.25) == Job(4, 1, 3)
    assert scheduler.is_done
    assert scheduler.rungs()[0].promoted == (1, 4)


def test_those_that_may_continue_may_still_after_it_grew():
    scheduler = ASHA(6, 3, grace_period=1, mode="promote")
    for value in (0.3, 0.2, 0.1):
        next_trained(scheduler, value)
    scheduler.grow(12)
    assert [scheduler.may_resume(candidate) for candidate in range(3)] == [True, True, False]  # 2 of 6 before
    assert next_trained(scheduler, 0.3) == Job(0, 1, 3)
    for _ in range(9):
        next_trained(scheduler, 0.0)
    # 4 of 12, but 2 was out of question before.
    assert scheduler.rungs()[0].promoted == (0, 1)


def test_stop_mode_grows_at_any_time():
    scheduler = ASHA(1, 3, grace_period=1, mode="stop")
    train(scheduler, next_job(scheduler), 0.5)
    assert scheduler.is_done
    scheduler.grow(3)
    assert train(scheduler, next_job(scheduler), 0.4) == (STOP, 1, 0.5)
    assert train(scheduler, next_job(scheduler), 0.6) == (STOP, 3, None)
    assert scheduler.is_done


@pytest.mark.parametrize("is_next", [False, True])
def test_one_that_cannot_be_saved_is_not_promoted(is_next):
    scheduler = ASHA(6, 9, grace_period=1, mode="promote")
    for value in (0.3, 0.2):
        next_trained(scheduler, value)
    if is_next:
        scheduler.end_draws()  # nothing else is left to do: the first of the two continues
        scheduler.end(0, Ending.FAILED)
        assert next_job(scheduler) is None
        assert scheduler.is_done
        assert [list(rung.values) for rung in scheduler.rungs()] == [[0, 1], [0], []]
    else:
        scheduler.end(0, Ending.FAILED)
        assert next_trained(scheduler, 0.1) == Job(2, 0, 1)
        assert next_trained(scheduler, 0.1) == Job(3, 0, 1)  # one of three is promoted, which would be 0


@pytest.mark.parametrize(
    ("args", "epochs", "brackets"),
    [
        ({"brackets": 3}, 2, 2),
        ({"brackets": 3}, 1, 1),
        ({"brackets": 3, "grace_period": 4, "mode": "stop"}, 9, 2),
        ({"brackets": 3, "reduction_factor": 2}, 4, 3),
        ({"brackets": 2, "grace_period": 3}, 2, 1),
    ],
)
def test_a_test_run_has_the_brackets_that_its_epochs_allow(args, epochs, brackets):
    search = {"scheduler": {"type": "ASHA", "args": args}}
    config = {"name": "s", "trainer": {"epochs": 81, "monitor": "max val_miou"}, "x": {"$uniform": [0, 1]}}
    build_study_parts(config | {"search": search})
    small = shrunk(config | {"search": search}, f"{epochs},8,8,2")
    assert small["search"]["scheduler"]["args"]["brackets"] == brackets
    assert build_study_parts(small).max_epochs == epochs
