"""Synchronous halving, worked by hand."""

import pytest

from config.objects import instantiate
from search.schedulers import SECTIONS
from search.schedulers.base import Decision, Ending, Job
from search.schedulers.halving import Hyperband, RandomSearch, SuccessiveHalving
from search.schedulers.rungs import bracket_sizes, rung_epochs
from tests.support.schedulers import all_jobs, next_job
from utils.errors import ConfigError


def train(scheduler, job, value):
    """Report the same value after each epoch of a job until the scheduler ends it; the last verdict."""
    for epoch in range(job.start + 1, job.end + 1):
        verdict = scheduler.report(job.candidate, epoch, (value,))
    return verdict


def rung_table(scheduler):
    return [(rung.bracket, rung.epochs, sorted(rung.values), list(rung.promoted)) for rung in scheduler.rungs()]


@pytest.mark.parametrize(
    ("max_epochs", "grace", "factor", "expected"),
    [
        (50, 2, 3, (2, 6, 18, 50)),  # 54 would be beyond
        (81, 1, 3, (1, 3, 9, 27, 81)),
        (28, 1, 3, (1, 3, 9, 28)),  # 27 * sqrt(3) > 28: nearer to the end than half a step
        (20, 2, 3, (2, 6, 20)),
        (500, 3, 3, (3, 9, 27, 81, 243, 500)),  # 243 * sqrt(3) = 421
        (5, 5, 3, (5,)),
        (1, 1, 2, (1,)),
    ],
)
def test_rungs_end_in_a_full_training(max_epochs, grace, factor, expected):
    assert rung_epochs(max_epochs, grace, factor) == expected


def test_nine_candidates_are_halved_to_three_and_one():
    scheduler = SuccessiveHalving(9, 9)
    jobs = all_jobs(scheduler)
    assert jobs == [Job(candidate, 0, 1) for candidate in range(9)]
    values = [0.1, 0.8, 0.3, 0.8, 0.5, 0.2, 0.9, 0.4, 0.0]
    for job in jobs[:-1]:
        assert train(scheduler, job, values[job.candidate]).decision is Decision.PAUSE
    assert next_job(scheduler) is None  # one of the rung has not been heard of
    train(scheduler, jobs[-1], values[8])
    # 9 // 3 = 3 go on, the best first, of equals the lower number.
    second = all_jobs(scheduler)
    assert second == [Job(6, 1, 3), Job(1, 1, 3), Job(3, 1, 3)]
    for job, value in zip(second, [0.5, 0.6, 0.7], strict=True):
        train(scheduler, job, value)
    (last,) = all_jobs(scheduler)
    assert last == Job(3, 3, 9)
    verdict = train(scheduler, last, 0.7)
    assert (verdict.decision, verdict.rung) == (Decision.STOP, 9)
    assert scheduler.is_done
    assert rung_table(scheduler) == [(0, 1, list(range(9)), [6, 1, 3]), (0, 3, [1, 3, 6], [3]), (0, 9, [3], [])]


@pytest.mark.parametrize(("number", "sizes"), [(81, [81, 27, 9, 3]), (10, [10, 3, 1, 1]), (2, [2, 1, 1, 1])])
def test_rung_sizes(number, sizes):
    scheduler = SuccessiveHalving(number, 50, grace_period=2)
    while jobs := all_jobs(scheduler):
        for job in jobs:
            train(scheduler, job, float(job.candidate))
    assert [len(rung.values) for rung in scheduler.rungs()] == sizes


def test_each_rung_may_have_its_own_epochs_and_factor():
    scheduler = SuccessiveHalving(50, 20, rungs=[(2, 6), (5, 4), (12, 2)])
    while jobs := all_jobs(scheduler):
        for job in jobs:
            train(scheduler, job, float(job.candidate))
    # 50, 50 // 6, 50 // 24 and 50 // 48, at least one
    assert [(rung.epochs, len(rung.values)) for rung in scheduler.rungs()] == [(2, 50), (5, 8), (12, 2), (20, 1)]


def test_failures_are_worst_and_never_promoted():
    scheduler = SuccessiveHalving(6, 4, grace_period=1, reduction_factor=2)  # 1, 2, 4: of 6, 3, 1
    jobs = all_jobs(scheduler)
    for job in jobs[:4]:
        scheduler.end(job.candidate, Ending.FAILED)
    train(scheduler, jobs[4], float("nan"))
    train(scheduler, jobs[5], -float("inf"))
    assert [job.candidate for job in all_jobs(scheduler)] == [5, 4]  # there are 3 places


def test_a_search_in_which_everything_fails_ends():
    scheduler = SuccessiveHalving(4, 4, reduction_factor=2)
    for job in all_jobs(scheduler):
        scheduler.end(job.candidate, Ending.FAILED)
    assert next_job(scheduler) is None
    assert scheduler.is_done


def test_a_withdrawal_in_the_first_rung_draws_another():
    scheduler = SuccessiveHalving(3, 3)
    all_jobs(scheduler)
    scheduler.end(1, Ending.WITHDRAWN)
    assert all_jobs(scheduler) == [Job(3, 0, 1)]


def test_a_later_withdrawal_lets_the_next_best_go_on():
    scheduler = SuccessiveHalving(6, 9)  # 6, 2, 1 at 1, 3, 9
    for job in all_jobs(scheduler):
        train(scheduler, job, float(job.candidate))
    assert [job.candidate for job in all_jobs(scheduler)] == [5, 4]
    assert scheduler.may_resume(3)
    scheduler.end(5, Ending.WITHDRAWN)
    assert all_jobs(scheduler) == [Job(3, 1, 3)]
    train(scheduler, Job(4, 1, 3), 4.0)
    assert scheduler.may_resume(2)  # should 3 be withdrawn too
    train(scheduler, Job(3, 1, 3), 3.0)
    assert not scheduler.may_resume(2)
    assert rung_table(scheduler)[:2] == [(0, 1, [0, 1, 2, 3, 4], [4, 3]), (0, 3, [3, 4], [4])]


def test_one_that_finished_early_goes_on_without_a_job():
    scheduler = SuccessiveHalving(4, 9, grace_period=3, reduction_factor=2)  # 4, 2, 1 at 3, 6, 9? 6 * sqrt(2) < 9
    jobs = all_jobs(scheduler)
    scheduler.report(0, 1, (9.0,))
    scheduler.end(0, Ending.FINISHED)
    for job in jobs[1:]:
        train(scheduler, job, float(job.candidate))
    assert all_jobs(scheduler) == [Job(3, 3, 6)]
    train(scheduler, Job(3, 3, 6), 3.0)
    assert scheduler.is_done  # 0 is the best of 6 epochs too, and has its values at 9 already
    assert rung_table(scheduler)[-1] == (0, 9, [0], [])


def test_one_that_gives_up_before_its_first_report_failed():
    scheduler = SuccessiveHalving(1, 3)
    next_job(scheduler)
    scheduler.end(0, Ending.FINISHED)
    assert scheduler.is_done
    assert scheduler.rungs()[1].values == {}


def test_the_next_bracket_begins_while_one_ends():
    scheduler = SuccessiveHalving(5, 3, bracket_size=3)
    first = all_jobs(scheduler)
    assert [job.candidate for job in first] == [0, 1, 2]  # until it is known that none is withdrawn
    for job in first:
        train(scheduler, job, float(job.candidate))
    assert all_jobs(scheduler) == [Job(2, 1, 3), Job(3, 0, 1), Job(4, 0, 1)]


def test_draws_that_end_leave_a_smaller_bracket():
    scheduler = SuccessiveHalving(9, 3)
    for _ in range(4):
        next_job(scheduler)
    scheduler.end_draws()
    scheduler.end(3, Ending.WITHDRAWN)
    assert next_job(scheduler) is None
    for candidate in range(3):
        train(scheduler, Job(candidate, 0, 1), float(candidate))
    assert all_jobs(scheduler) == [Job(2, 1, 3)]  # 3 // 3


def test_random_search_trains_all_in_full():
    scheduler = RandomSearch(2, 5)
    assert all_jobs(scheduler) == [Job(0, 0, 5), Job(1, 0, 5)]
    assert train(scheduler, Job(0, 0, 5), 1.0).decision is Decision.STOP
    assert not scheduler.may_resume(0)


def test_hyperband_brackets():
    # ceil(5 * 3**4 / 5), ceil(5 * 27 / 4 = 33.75), ceil(5 * 9 / 3), ceil(5 * 3 / 2 = 7.5), 5
    assert bracket_sizes(5, 3) == [81, 34, 15, 8, 5]


def trained(scheduler):
    """Train to the end; the rungs of each bracket as (epochs, candidates)."""
    while not scheduler.is_done:
        for job in all_jobs(scheduler):
            train(scheduler, job, float(job.candidate))
    sizes = {}
    for rung in scheduler.rungs():
        sizes.setdefault(rung.bracket, []).append((rung.epochs, len(rung.values)))
    return sizes


PAPER = {0: [(1, 9), (3, 3), (9, 1)], 1: [(3, 5), (9, 1)], 2: [(9, 3)]}


@pytest.mark.parametrize(
    ("num_samples", "expected"),
    [
        (17, PAPER),
        # The rest of 3, in the proportions 9, 5, 3: 1.6, 0.9 and 0.5.
        (20, PAPER | {3: [(1, 2), (3, 1), (9, 1)], 4: [(3, 1), (9, 1)]}),
        # 4.2, 2.4, 1.4
        (8, {0: [(1, 4), (3, 1), (9, 1)], 1: [(3, 2), (9, 1)], 2: [(9, 2)]}),
        # As many as the first bracket needs: 4.8, 2.6, 1.6
        (9, {0: [(1, 5), (3, 1), (9, 1)], 1: [(3, 2), (9, 1)], 2: [(9, 2)]}),
        (1, {0: [(1, 1), (3, 1), (9, 1)]}),
    ],
)
def test_hyperband_repeats_its_brackets_and_shares_what_does_not_fill_a_round(num_samples, expected):
    assert trained(Hyperband(num_samples, 9)) == expected


@pytest.mark.parametrize(
    ("num_samples", "expected"),
    [(20, PAPER | {3: [(1, 3), (3, 1), (9, 1)]}), (8, {0: [(1, 8), (3, 2), (9, 1)]})],
)
def test_in_format_1_the_last_bracket_of_hyperband_takes_the_rest(num_samples, expected):
    scheduler = Hyperband(num_samples, 9)
    scheduler.follow_format(1)
    assert trained(scheduler) == expected


def test_hyperband_that_grows_widens_the_bracket_that_is_open():
    scheduler = Hyperband(8, 9)  # 4, 2 and 2
    for job in all_jobs(scheduler):
        train(scheduler, job, float(job.candidate))
    assert len([job for job in all_jobs(scheduler) if job.start == 0]) == 2  # of the second bracket
    scheduler.grow(17)  # 9, 5 and 3, of which the first was compared; 5 remain: 3, 1 and 1
    train(scheduler, Job(3, 1, 3), 3.0)
    for candidate in (4, 5):
        train(scheduler, Job(candidate, 0, 3), 0.0)
    sizes = trained(scheduler)
    assert [sizes[bracket][0] for bracket in range(5)] == [(1, 4), (3, 5), (9, 3), (1, 3), (3, 1)]
    assert sum(rungs[0][1] for rungs in sizes.values()) == 17


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (RandomSearch(2, 3), {0: [(3, 2)], 1: [(3, 3)]}),
        (SuccessiveHalving(2, 3, bracket_size=2), {0: [(1, 2), (3, 1)], 1: [(1, 2), (3, 1)], 2: [(1, 1), (3, 1)]}),
        (SuccessiveHalving(2, 3, grace_period=3), {0: [(3, 2)], 1: [(3, 3)]}),
    ],
)
def test_a_search_that_is_done_grows_by_further_brackets(scheduler, expected):
    before = trained(scheduler)
    scheduler.grow(5)
    assert not scheduler.is_done
    assert trained(scheduler) == expected == before | expected


@pytest.mark.parametrize("args", [{}, {"bracket_size": 9}])
def test_a_bracket_that_is_being_filled_is_widened(args):
    scheduler = SuccessiveHalving(3, 9, **args)
    jobs = all_jobs(scheduler)
    train(scheduler, jobs[0], 0.0)
    scheduler.grow(6)
    jobs += all_jobs(scheduler)
    assert [job.candidate for job in jobs] == [0, 1, 2, 3, 4, 5]
    for job in jobs[1:]:
        train(scheduler, job, float(job.candidate))
    assert all_jobs(scheduler) == [Job(5, 1, 3), Job(4, 1, 3)]  # 6 // 3


def test_draws_that_were_ended_are_taken_up_again_by_a_search_that_grows():
    scheduler = RandomSearch(9, 3)
    next_job(scheduler)
    scheduler.end_draws()
    assert next_job(scheduler) is None
    scheduler.grow(10)
    assert len(all_jobs(scheduler)) == 9


def test_halving_of_all_cannot_grow_once_they_were_compared():
    scheduler = SuccessiveHalving(3, 3)
    for job in all_jobs(scheduler):
        train(scheduler, job, float(job.candidate))
    with pytest.raises(ConfigError) as refused:
        scheduler.grow(20)
    assert str(refused.value) == (
        "search.num_samples 20: must stay 3, as the candidates were compared with each other after 1 epochs, and more "
        "of them would change who was promoted. Set search.num_samples back, or start a new search, whose scheduler "
        "may have a bracket_size."
    )
    assert all_jobs(scheduler) == [Job(2, 1, 3)]


def test_one_that_cannot_be_saved_is_not_promoted():
    scheduler = SuccessiveHalving(6, 9)  # 6, 2, 1
    jobs = all_jobs(scheduler)
    for job in jobs[:5]:
        train(scheduler, job, float(-job.candidate))
    scheduler.end(0, Ending.FAILED)  # the best, before they were compared
    train(scheduler, jobs[5], -5.0)
    scheduler.end(1, Ending.FAILED)  # promoted, not asked for
    scheduler.end(3, Ending.FAILED)  # not promoted
    assert all_jobs(scheduler) == [Job(2, 1, 3)]
    train(scheduler, Job(2, 1, 3), 0.0)
    assert all_jobs(scheduler) == [Job(2, 3, 9)]
    assert rung_table(scheduler)[:2] == [(0, 1, list(range(6)), [1, 2]), (0, 3, [1, 2], [2])]


def test_a_configuration_names_a_scheduler():
    config = {"scheduler": {"type": "SuccessiveHalving", "args": {"rungs": [[1, 3], [2, 2]], "bracket_size": 4}}}
    scheduler = instantiate(config, "scheduler", SECTIONS, runtime={"num_samples": 8, "max_epochs": 4})
    assert [len(all_jobs(scheduler)), scheduler.num_samples, scheduler.max_epochs] == [4, 8, 4]
    assert [rung.epochs for rung in scheduler.rungs()] == [1, 2, 4]


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("SuccessiveHalving", {"reduction_factor": 1}, "reduction_factor 1: must be at least 2"),
        ("SuccessiveHalving", {"bracket_size": 0}, "bracket_size 0: must be at least 1"),
        ("SuccessiveHalving", {"rungs": [[1, 2], [1, 2]]}, r"rungs at \[1, 1\] epochs: must ascend.*Write e.g."),
        ("SuccessiveHalving", {"rungs": [[4, 2]]}, r"rungs at \[4\] epochs: .* before the 4 epochs of a full training"),
        ("SuccessiveHalving", {"rungs": [[1, 1]]}, "rungs: a factor of 1: must be at least 2"),
        ("SuccessiveHalving", {"rungs": [[1, 2]], "grace_period": 2}, "with grace_period 2 .*Leave out either"),
        ("SuccessiveHalving", {"rungs": [2, 6]}, "rungs"),
        ("Hyperband", {"grace_period": 0}, "grace_period 0: must be at least 1"),
        ("ASHA", {"grace_period": 9}, "grace_period 9: must be at most the 4 epochs.*Set grace_period to 4 or less"),
        ("ASHA", {"grace_period": 1, "brackets": 3}, r"brackets 3: .* 2 rungs \(\[1, 4\]\).*Set brackets to 2 or less"),
        ("ASHA", {"mode": "halt"}, "halt"),
        ("ASHA", {"reduction_factor": 2.5}, "2.5"),
        ("RandomSearch", {"grace_period": 1}, "grace_period"),
    ],
)
def test_what_a_scheduler_refuses(name, args, message):
    config = {"scheduler": {"type": name, "args": args}}
    with pytest.raises(ConfigError, match=message):
        instantiate(config, "scheduler", SECTIONS, runtime={"num_samples": 8, "max_epochs": 4})


def test_reports_out_of_turn_are_refused():
    scheduler = RandomSearch(2, 5)
    next_job(scheduler)
    with pytest.raises(ValueError, match="Epoch 2 of candidate 0: epoch 1 must be reported next"):
        scheduler.report(0, 2, (1.0,))
    with pytest.raises(ValueError, match="Candidate 1: it does not run"):
        scheduler.end(1, Ending.FAILED)
