"""What any scheduler of the registry must hold to, whatever happens to its candidates."""

import math
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from config.objects import instantiate
from search.schedulers import SECTIONS
from search.schedulers.base import Decision, Ending, Scheduler
from utils.registry import import_attribute

NUM_SAMPLES, MAX_EPOCHS = 20, 9
CASES = {
    "RandomSearch": [{}],
    "SuccessiveHalving": [
        {},
        {"bracket_size": 7, "reduction_factor": 2},
        {"grace_period": 9},
        {"rungs": [[2, 4], [5, 2]]},
    ],
    "ASHA": [
        {"grace_period": 1},
        {"grace_period": 1, "mode": "promote"},
        {"grace_period": 2, "mode": "promote", "reduction_factor": 2},
        {"grace_period": 1, "brackets": 2},
        {"grace_period": 1, "mode": "promote", "brackets": 3},
    ],
    "Hyperband": [{}, {"reduction_factor": 2}],
}
ALL = [(name, args) for name, cases in CASES.items() for args in cases]
every_scheduler = pytest.mark.parametrize(("name", "args"), ALL, ids=[f"{name}-{args}" for name, args in ALL])
SYNCHRONOUS = [case for case in ALL if case[0] != "ASHA"]


def make(name, args, num_samples=NUM_SAMPLES):
    config = {"scheduler": {"type": name, "args": args}}
    return instantiate(config, "scheduler", SECTIONS, runtime={"num_samples": num_samples, "max_epochs": MAX_EPOCHS})


def test_every_scheduler_of_the_registry_is_covered(record_property):
    entries = SECTIONS["scheduler"].entries
    assert set(entries) == set(CASES)
    assert len(entries) == 4
    record_property("covered", f"schedulers: {len(entries)} in {len(ALL)} cases")
    assert all(issubclass(import_attribute(entry), Scheduler) for entry in entries.values())


@dataclass
class World:
    """What happens to candidate i follows from i alone.

    Attributes:
        fates: What befalls some of them: a share each.
        num_objectives: Values that are reported.
        num_drawable: Candidates that the space has.
    """

    fates: dict[str, float] = field(default_factory=dict)
    num_objectives: int = 1
    num_drawable: int = 10**6

    def fate(self, candidate):
        """(what, after which epoch); an epoch of 0 is before the first report."""
        chance = random.Random(candidate)
        share, epoch = chance.random(), chance.randrange(MAX_EPOCHS)
        for what, of_all in self.fates.items():
            if share < of_all:
                return what.removesuffix("_first"), 0 if what.endswith("_first") else epoch
            share -= of_all
        return None, None

    def values(self, candidate, epoch):
        chance = random.Random(1000 * candidate + epoch)
        return tuple(
            chance.choice([0.1, 0.2, 0.3, 0.4, chance.random(), -math.inf, math.nan])
            for _ in range(self.num_objectives)
        )


ENDINGS = {"withdraw": Ending.WITHDRAWN, "fail": Ending.FAILED, "finish": Ending.FINISHED}
TROUBLE = {"withdraw_first": 0.15, "withdraw": 0.1, "fail": 0.2, "finish": 0.2}
WORLDS = {
    "quiet": World(),
    "troubled": World(TROUBLE),
    "all fail": World({"fail": 1.0}),
    "all finish": World({"finish": 1.0}),
    "few to draw": World(TROUBLE, num_drawable=8),
    "two objectives": World(TROUBLE, num_objectives=2),
}
every_world = pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))


@dataclass
class Driver:
    """Some workers in an order that chance decides, checking the contract at each step."""

    scheduler: Scheduler
    world: World
    workers: int
    seed: int = 0
    calls: list = field(default_factory=list)
    answers: list = field(default_factory=list)
    trained: dict = field(default_factory=lambda: defaultdict(int))
    paused: set = field(default_factory=set)
    given_up: set = field(default_factory=set)
    ended: dict = field(default_factory=dict)

    def call(self, method, *args):
        self.calls.append((method, args))
        answer = getattr(self.scheduler, method)(*args)
        self.answers.append(answer)
        return answer

    def run(self):
        chance, running = random.Random(self.seed), []
        while not self.scheduler.is_done:
            while len(running) < self.workers and (job := self.call("ask")):
                self.check(job)
                running.append(job)
            if not running:
                break
            job = running.pop(chance.randrange(len(running)))
            if self.advance(job):
                running.append(job)
            self.given_up |= {candidate for candidate in self.paused if not self.scheduler.may_resume(candidate)}
        assert self.scheduler.is_done
        assert self.call("ask") is None
        return self

    def check(self, job):
        assert job.start == self.trained[job.candidate], "epochs are trained once, and none is left out"
        assert job.start < job.end <= MAX_EPOCHS
        assert job.candidate not in self.ended
        assert job.candidate not in self.given_up, "it was said that it cannot be resumed"
        assert (job.candidate in self.paused) == (job.start > 0)
        if job.start == 0:
            assert job.candidate == len(self.trained) - 1, "numbers are given in order"
        self.paused.discard(job.candidate)

    def advance(self, job):
        """Whether the job goes on after an epoch or a blow of fate."""
        candidate, epoch = job.candidate, self.trained[job.candidate]
        what, when = self.world.fate(candidate)
        if candidate >= self.world.num_drawable:
            self.call("end_draws")
            what, when = "withdraw", epoch
        if what is not None and epoch >= when:
            self.call("end", candidate, ENDINGS[what])
            self.ended[candidate] = what
            return False
        self.trained[candidate] += 1
        verdict = self.call("report", candidate, epoch + 1, self.world.values(candidate, epoch + 1))
        if verdict.decision is Decision.CONTINUE:
            assert epoch + 1 < job.end
            return True
        if verdict.decision is Decision.PAUSE:
            assert epoch + 1 == job.end
            self.paused.add(candidate)
        else:
            self.ended[candidate] = "stop"
        return False

    def outcome(self):
        """What does not depend on time: rungs, and epochs of each candidate that counts."""
        epochs = {candidate: epochs for candidate, epochs in self.trained.items() if epochs}
        return [
            (rung.bracket, rung.epochs, repr(sorted(rung.values.items())), sorted(rung.promoted))
            for rung in self.scheduler.rungs()
        ], epochs


@every_scheduler
@every_world
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_a_search_ends_whatever_happens(name, args, world, workers):
    for seed in range(5):
        driver = Driver(make(name, args), world, workers, seed).run()
        assert not any(driver.scheduler.may_resume(candidate) for candidate in driver.trained)


@every_scheduler
def test_the_same_calls_give_the_same_answers(name, args):
    driver = Driver(make(name, args), WORLDS["troubled"], workers=3).run()
    again = make(name, args)
    answers = [getattr(again, method)(*arguments) for method, arguments in driver.calls]
    assert repr(answers) == repr(driver.answers)
    assert repr(again.rungs()) == repr(driver.scheduler.rungs())


@every_scheduler
def test_asking_about_it_changes_nothing(name, args):
    quiet = Driver(make(name, args), WORLDS["troubled"], workers=3).run()
    replayed = make(name, args)
    for method, arguments in quiet.calls:
        getattr(replayed, method)(*arguments)
        [replayed.may_resume(candidate) for candidate in range(30)]
        replayed.rungs()
    assert repr(replayed.rungs()) == repr(quiet.scheduler.rungs())


@every_scheduler
@pytest.mark.parametrize("workers", [1, 4])
def test_what_is_withdrawn_before_it_reports_does_not_count(name, args, workers):
    driver = Driver(make(name, args), World({"withdraw_first": 0.4, "fail": 0.2}), workers).run()
    withdrawn = [candidate for candidate, what in driver.ended.items() if what == "withdraw"]
    assert withdrawn
    assert len(driver.trained) - len(withdrawn) == NUM_SAMPLES


@every_scheduler
def test_draws_can_be_ended_before_the_first(name, args):
    scheduler = make(name, args)
    scheduler.end_draws()
    assert scheduler.is_done
    assert scheduler.ask() is None


@every_scheduler
def test_draws_can_be_ended_at_any_time(name, args):
    for number in range(1, NUM_SAMPLES):
        driver = Driver(make(name, args), World(num_drawable=number), workers=2, seed=number).run()
        assert sum(epochs > 0 for epochs in driver.trained.values()) == number


@every_scheduler
@pytest.mark.parametrize("num_samples", [1, 2, 3])
def test_even_a_few_candidates_end_with_one_trained_in_full(name, args, num_samples):
    driver = Driver(make(name, args, num_samples), World(), workers=2).run()
    assert max(driver.trained.values()) == MAX_EPOCHS


@pytest.mark.parametrize(("name", "args"), SYNCHRONOUS)
@every_world
def test_synchronous_decisions_do_not_depend_on_time(name, args, world):
    expected = Driver(make(name, args), world, workers=1).run().outcome()
    for workers in (1, 2, 3, 4, 30):
        for seed in range(4):
            assert Driver(make(name, args), world, workers, seed).run().outcome() == expected
