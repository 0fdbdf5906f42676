"""ASHA, worked by hand."""

import math

import numpy as np
import pytest

from search.schedulers.asha import ASHA, AsyncRung, interleave
from search.schedulers.base import Decision, Ending, Job

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
    job = scheduler.ask()
    train(scheduler, job, *values)
    return job


@pytest.mark.parametrize("mode", ["stop", "promote"])
def test_published_rungs(mode):
    assert [rung.epochs for rung in ASHA(10, 500, mode=mode).rungs()] == [3, 9, 27, 81, 243]


def test_rungs_of_other_settings():
    halving = ASHA(1, 300, grace_period=1, reduction_factor=2)
    assert [rung.epochs for rung in halving.rungs()] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert [rung.epochs for rung in ASHA(1, 27, grace_period=1).rungs()] == [1, 3, 9, 27]


def test_stop_decisions_at_a_rung():
    """Rungs at 1, 3, 9 of 10; the cut-off is the 2/3 quantile of the values before."""
    scheduler = ASHA(8, 10, grace_period=1)
    table = [
        # value, cut-off, decision
        (0.5, None, CONTINUE),  # nothing recorded
        (0.4, 0.5, STOP),  # of 0.5
        (0.5, 0.4 + (0.5 - 0.4) * 2 / 3, CONTINUE),  # of 0.4 0.5: place 2/3
        (0.5, 0.5, CONTINUE),  # of 0.4 0.5 0.5: place 4/3; a tie goes on
        (0.9, 0.5, CONTINUE),  # of 0.4 0.5 0.5 0.5: place 2
        (0.6, 0.5 + (0.5 - 0.5) * 2 / 3, CONTINUE),  # of 0.4 0.5 0.5 0.5 0.9: place 8/3, between 0.5 and 0.5
        (0.52, 0.5 + (0.6 - 0.5) * 1 / 3, STOP),  # of 0.4 0.5 0.5 0.5 0.6 0.9: place 10/3
        (NAN, 0.52, STOP),  # of 0.4 0.5 0.5 0.5 0.52 0.6 0.9: place 4
    ]
    for value, cutoff, decision in table:
        verdict = scheduler.report(scheduler.ask().candidate, 1, (value,))
        assert verdict.decision is decision
        assert verdict.rung == 1
        assert verdict.cutoff == (None if cutoff is None else pytest.approx(cutoff))


def test_stop_mode_goes_on_through_its_rungs_to_the_end():
    scheduler = ASHA(2, 4, grace_period=1)
    assert scheduler.ask() == Job(0, 0, 4)
    verdicts = [scheduler.report(0, epoch, (epoch / 10,)) for epoch in (1, 2, 3, 4)]
    assert [verdict.decision for verdict in verdicts] == [CONTINUE, CONTINUE, CONTINUE, STOP]
    assert [verdict.rung for verdict in verdicts] == [1, None, 3, None]
    assert scheduler.ask() == Job(1, 0, 4)
    assert scheduler.report(1, 1, (0.2,)).decision is CONTINUE  # 0.2 > 0.1
    assert scheduler.report(1, 2, (0.2,)).decision is CONTINUE
    assert scheduler.report(1, 3, (0.2,)).decision is STOP  # 0.2 < 0.3
    assert scheduler.is_done
    assert [(rung.values, rung.promoted) for rung in scheduler.rungs()] == [
        ({0: (0.1,), 1: (0.2,)}, (0, 1)),
        ({0: (0.3,), 1: (0.2,)}, (0,)),
    ]


def test_a_value_that_is_no_number_stops_unless_there_is_none():
    rung = AsyncRung(0, 1, 3)
    assert rung.decide(0, (NAN,)).decision is CONTINUE  # the first
    assert rung.decide(1, (NAN,)).decision is CONTINUE  # as good as the other
    assert rung.decide(2, (-INF,)) == (CONTINUE, 1, None)  # better than NaN
    assert rung.decide(3, (-INF,)) == (CONTINUE, 1, None)  # of NaN NaN -inf: place 4/3 is no number either
    assert rung.decide(4, (NAN,)) == (STOP, 1, -INF)  # of NaN NaN -inf -inf: place 2


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
    scheduler = ASHA(4, 10, grace_period=2)
    for _ in range(3):
        scheduler.end(scheduler.ask().candidate, Ending.FAILED)
    verdict = train(scheduler, Job(scheduler.ask().candidate, 0, 2), -INF)
    assert verdict.decision is CONTINUE
    assert [len(rung.values) for rung in scheduler.rungs()] == [4, 0]


def test_finished_candidates_are_judged_at_the_later_rungs():
    scheduler = ASHA(2, 10, grace_period=1)
    scheduler.ask()
    for epoch in (1, 2):
        scheduler.report(0, epoch, (0.5,))
    scheduler.end(0, Ending.FINISHED)
    assert [rung.values for rung in scheduler.rungs()] == [{0: (0.5,)}] * 3


def test_several_objectives_stop_by_place_in_the_ranking():
    scheduler = ASHA(6, 10, grace_period=1, reduction_factor=2)
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
        verdict = scheduler.report(scheduler.ask().candidate, 1, values)
        assert (verdict.decision, verdict.cutoff) == (decision, None)


def test_promotions_as_they_happen():
    """Rungs at 1, 3 of 9, by threes: one of three goes on, the best of the highest rung first."""
    scheduler = ASHA(6, 9, grace_period=1, mode="promote")
    jobs = [next_trained(scheduler, value) for value in (0.1, 0.3, 0.2)]
    assert jobs == [Job(0, 0, 1), Job(1, 0, 1), Job(2, 0, 1)]
    assert scheduler.ask() == Job(1, 1, 3)  # 3 // 3 = 1 place
    assert next_trained(scheduler, 0.4) == Job(3, 0, 1)
    assert scheduler.ask() == Job(3, 1, 3)  # still one place, now candidate 3's
    assert [next_trained(scheduler, value).candidate for value in (0.05, 0.0)] == [4, 5]
    assert scheduler.ask() is None  # 6 // 3 = 2 places: 3 and 1, who went on already
    assert scheduler.rungs()[0].promoted == (1, 3)
    assert not scheduler.may_resume(2)
    assert train(scheduler, Job(1, 1, 3), 0.5) == (PAUSE, 3, None)
    assert not scheduler.is_done
    assert train(scheduler, Job(3, 1, 3), 0.4).decision is PAUSE
    assert scheduler.may_resume(1)
    assert not scheduler.may_resume(3)
    assert scheduler.ask() == Job(1, 3, 9)  # 2 // 3 = 0 places, but nothing else is left to do
    assert train(scheduler, Job(1, 3, 9), 0.5) == (STOP, 9, None)
    assert scheduler.is_done


def test_a_full_training_follows_the_last_rung():
    scheduler = ASHA(2, 10, grace_period=4, reduction_factor=2, mode="promote")  # 4, 8
    next_trained(scheduler, 1.0)
    next_trained(scheduler, 2.0)
    assert next_trained(scheduler, 2.0) == Job(1, 4, 8)
    assert next_trained(scheduler, 2.0) == Job(1, 8, 10)
    assert scheduler.is_done


def test_a_finished_candidate_is_promoted_without_a_job():
    scheduler = ASHA(2, 9, grace_period=1, reduction_factor=2, mode="promote")  # 1, 2, 4, 8
    scheduler.report(scheduler.ask().candidate, 1, (5.0,))
    assert scheduler.ask() == Job(1, 0, 1)
    scheduler.report(1, 1, (6.0,))
    assert scheduler.ask() == Job(1, 1, 2)
    scheduler.end(1, Ending.FINISHED)  # resumed, it stopped by itself at once
    assert scheduler.is_done
    assert [list(rung.values) for rung in scheduler.rungs()] == [[0, 1], [1], [1], [1]]


def test_a_late_withdrawal_is_replaced_and_keeps_what_it_showed():
    scheduler = ASHA(3, 9, grace_period=1, mode="promote")
    for value in (0.1, 0.3, 0.2):
        next_trained(scheduler, value)
    assert scheduler.ask() == Job(1, 1, 3)
    assert not scheduler.may_resume(2)
    scheduler.end(1, Ending.WITHDRAWN)
    assert not scheduler.may_resume(2)
    assert scheduler.ask() == Job(3, 0, 1)
    train(scheduler, Job(3, 0, 1), 0.0)
    assert scheduler.ask() is None  # 4 // 3 = 1 place, which 1 had
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
    assert [scheduler.ask().end for _ in range(5)] == [1, 3, 1, 1, 3]
