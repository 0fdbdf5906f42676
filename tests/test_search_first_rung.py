"""ASHA's first rung that is found by the results, and its defaults in studies of earlier versions."""

import math

import pytest

from search.schedulers.asha import ASHA
from search.schedulers.base import FAILED, Decision, Ending, Job
from search.schedulers.grace import FirstRung
from search.study.journal import RULES, Event
from tests.support.schedulers import next_job
from utils.errors import ConfigError

CONTINUE, PAUSE, STOP = Decision.CONTINUE, Decision.PAUSE, Decision.STOP
NAN = math.nan
NOISE = (2, 5, 7, 0, 4, 6, 1, 3)  # at epoch 3, of candidates with 0 to 7 at epoch 1: a correlation of -0.05


def train(scheduler, job, *values):
    """Report a value at each epoch of a job; the decisions."""
    return [
        scheduler.report(job.candidate, epoch, (float(value),)).decision
        for epoch, value in enumerate(values, job.start + 1)
    ]


def test_all_pass_until_eight_agree_then_the_first_rung_compares():
    scheduler = ASHA(30, 9)
    for number in range(8):
        job = next_job(scheduler)
        assert job == Job(number, 0, 3)
        assert train(scheduler, job, number, number, number) == [CONTINUE, CONTINUE, PAUSE]
    # Of the eight that passed two count at the second rung, so that nobody is promoted to 9 epochs yet.
    assert next_job(scheduler) == Job(8, 0, 1)


def test_eight_that_disagree_let_the_second_rung_compare():
    scheduler = ASHA(30, 9)
    for number, value in enumerate(NOISE):
        job = next_job(scheduler)
        assert job == Job(number, 0, 3), "no decision at 3 epochs before"
        train(scheduler, job, number, number, value)
    promoted = [next_job(scheduler) for _ in range(3)]
    assert promoted == [Job(2, 3, 9), Job(5, 3, 9), Job(8, 0, 3)]


def test_a_rung_without_use_is_tested_by_all_further_candidates():
    rung = FirstRung(3, is_chosen=False)
    for number, value in enumerate(NOISE):
        rung.add((number,), (value,))
    assert rung.passes(0)
    for number in range(8, 40):
        rung.add((number,), (number,))
    assert not rung.passes(0)
    rung.add((100.0,), (-100.0,))
    assert not rung.passes(0), "for good"


@pytest.mark.parametrize(
    ("before", "after", "correlation"),
    [
        (range(8), range(8), 1.0),
        ([1] * 8, range(8), NAN),  # ties
        (range(8), [1] * 8, NAN),
        ([NAN, *range(1, 8)], [NAN, *range(1, 8)], 1.0),
        (range(8), [1, 0, 3, 2, 5, 4, 7, 6], 0.904761905),  # 1 - 6 * 8 / (8 * 63)
        (range(8), [4, 1, 2, 3, 0, 5, 6, 7], 0.619047619),  # 1 - 6 * 32 / (8 * 63): not enough
        (range(8), range(8, 0, -1), -1.0),  # late-blooming
        (range(7), range(7), 1.0),  # too few
        ([1, 2], [1, 2], NAN),
    ],
)
def test_correlation(before, after, correlation):
    rung = FirstRung(3, is_chosen=False)
    assert math.isnan(rung.correlation())
    for pair in zip(before, after, strict=True):
        rung.add((pair[0],), (pair[1],))
    assert rung.correlation() == pytest.approx(correlation, nan_ok=True)
    assert rung.passes(0) == (not correlation >= 0.8 or len(before) < 8)


def test_of_several_objectives_each_must_be_predicted_unless_it_is_constant():
    rung = FirstRung(3, is_chosen=False)
    for number, value in enumerate([2, 5, 1, 3, 4]):
        rung.add((number, number, 1.0), (number, value, 1.0))
    assert rung.correlation() == pytest.approx(0.2)


def test_failures_after_the_first_rung_have_the_worst_rank():
    scheduler = ASHA(30, 9)
    for number in range(8):
        job = next_job(scheduler)
        if number == 0:
            train(scheduler, job, number)
            scheduler.end(job.candidate, Ending.FAILED)
        else:
            train(scheduler, job, number, number, number)
    assert scheduler.rungs()[1].values[0] is FAILED
    assert next_job(scheduler).end == 1


@pytest.mark.parametrize("mode", ["stop", "promote"])
def test_no_worker_waits(mode):
    scheduler = ASHA(100, 9, mode=mode)
    assert [next_job(scheduler).start for _ in range(64)] == [0] * 64


def test_stop_mode_lets_pass_then_compares():
    scheduler = ASHA(30, 9, mode="stop")
    for number in reversed(range(8)):
        decisions = train(scheduler, next_job(scheduler), *[number] * 3)
        assert decisions[0] is CONTINUE
        assert scheduler.is_done is False
    assert train(scheduler, next_job(scheduler), -1.0) == [STOP]


def test_a_higher_rung_of_stop_mode_compares_from_the_beginning_and_says_so():
    scheduler = ASHA(30, 9, mode="stop")
    decisions = [train(scheduler, next_job(scheduler), *[value] * 3) for value in (4, 3, 2, 1)]
    assert [each[-1] for each in decisions] == [CONTINUE, STOP, STOP, STOP]
    assert [rung.decides for rung in scheduler.rungs()] == ["passes all", "compares", "compares"]


@pytest.mark.parametrize(
    ("max_epochs", "brackets", "levels"),
    [
        (50, 1, (1, 3, 9, 27, 50)),
        (500, 1, (5, 15, 45, 135, 500)),
        (500, 2, (1, 3, 9, 27, 81, 243, 500)),
        (2, 1, (1, 2)),
    ],
)
def test_the_first_rung_is_early(max_epochs, brackets, levels):
    assert ASHA(10, max_epochs, brackets=brackets).fidelities() == levels


def test_only_auto_is_a_word():
    with pytest.raises(ConfigError, match='grace_period "early": must be a number of epochs, or "auto"'):
        ASHA(10, 9, grace_period="early")


@pytest.mark.parametrize(
    ("args", "same"),
    [
        ({}, {"grace_period": 3, "mode": "stop"}),
        ({"mode": "promote"}, {"grace_period": 3, "mode": "promote"}),
        ({"grace_period": 1}, {"grace_period": 1, "mode": "stop"}),
        ({"brackets": 2}, {"grace_period": 3, "mode": "stop", "brackets": 2}),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_study_that_was_begun_with_other_defaults_retains_them(args, same, version):
    found, expected = ASHA(40, 27, **args), ASHA(40, 27, **same)
    for scheduler in (found, expected):
        scheduler.follow_format(version)
    answers = [[], []]
    for scheduler, answer in zip((found, expected), answers, strict=True):
        while not scheduler.is_done:
            job = next_job(scheduler)
            for epoch in range(job.start + 1, job.end + 1):
                decision = scheduler.report(job.candidate, epoch, (hash((job.candidate, epoch // 4)) % 97,)).decision
                answer.append((job, epoch, decision))
                if decision is not CONTINUE:
                    break
    assert answers[0] == answers[1]
    assert found.fidelities() == expected.fidelities()


def test_the_first_event_says_which_defaults_a_study_has(tmp_path):
    from search.study.journal import JOURNAL, create_journal, read_events

    create_journal(tmp_path / JOURNAL)
    event = next(read_events(tmp_path / JOURNAL))
    assert (event.name, event.data) == ("study.created", {"rules": RULES})
    assert Event("study.created", None, {}, 0.0).data.get("rules", 2) == 2
