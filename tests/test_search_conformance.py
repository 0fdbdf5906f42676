"""What any scheduler of the registry must hold to, whatever happens to its candidates."""

import math
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from config.objects import instantiate
from search.schedulers import SECTIONS
from search.schedulers.base import Decision, Ending, Job, Need, Scheduler
from search.schedulers.halving import SynchronousScheduler
from utils.errors import ConfigError
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
        {"grace_period": 1, "mode": "stop"},
        {"grace_period": 1, "mode": "promote"},
        {"grace_period": 2, "mode": "promote", "reduction_factor": 2},
        {"grace_period": 1, "mode": "stop", "brackets": 2},
        {"grace_period": 1, "mode": "promote", "brackets": 3},
        {},
        {"mode": "stop"},
        {"reduction_factor": 2},
        {"mode": "stop", "reduction_factor": 2},
    ],
    "Hyperband": [{}, {"reduction_factor": 2}],
}
# Those of which every bracket was compared with all of its members, and needs more than these.
FIXED = [("SuccessiveHalving", {}), ("SuccessiveHalving", {"rungs": [[2, 4], [5, 2]]})]
SCHEDULERS = {name: import_attribute(entry) for name, entry in SECTIONS["scheduler"].entries.items()}
ALL = [(name, args) for name in SCHEDULERS for args in CASES.get(name, [{}])]
every_scheduler = pytest.mark.parametrize(("name", "args"), ALL, ids=[f"{name}-{args}" for name, args in ALL])
SYNCHRONOUS = [case for case in ALL if issubclass(SCHEDULERS[case[0]], SynchronousScheduler)]


def make(name, args, num_samples=NUM_SAMPLES):
    config = {"scheduler": {"type": name, "args": args}}
    return instantiate(config, "scheduler", SECTIONS, runtime={"num_samples": num_samples, "max_epochs": MAX_EPOCHS})


def test_every_scheduler_of_the_registry_is_covered(record_property):
    assert set(CASES) <= set(SCHEDULERS)
    assert len(SCHEDULERS) >= 4
    record_property("covered", f"schedulers: {len(SCHEDULERS)} in {len(ALL)} cases")
    assert all(issubclass(scheduler, Scheduler) for scheduler in SCHEDULERS.values())


@dataclass
class World:
    """What happens to candidate i follows from i alone.

    Attributes:
        fates: What befalls some of them: a share each.
        num_objectives: Values that are reported.
        num_drawable: Numbers after which the space has no other candidate.
        duplicates: Share of the numbers whose draws equal an earlier one.
    """

    fates: dict[str, float] = field(default_factory=dict)
    num_objectives: int = 1
    num_drawable: int = 10**6
    duplicates: float = 0.0

    def is_duplicate(self, number):
        return random.Random(number - 10**6).random() < self.duplicates

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


ENDINGS = {"withdraw": Ending.WITHDRAWN, "fail": Ending.FAILED, "finish": Ending.FINISHED, "unsaved": Ending.FAILED}
TROUBLE = {"withdraw_first": 0.15, "withdraw": 0.1, "fail": 0.2, "finish": 0.2}
WORLDS = {
    "quiet": World(),
    "troubled": World(TROUBLE),
    "all fail": World({"fail": 1.0}),
    "all finish": World({"finish": 1.0}),
    "few to draw": World(TROUBLE, num_drawable=8),
    "two objectives": World(TROUBLE, num_objectives=2),
    "duplicates": World(TROUBLE, duplicates=0.4),
    "few to draw, duplicates": World(TROUBLE, num_drawable=8, duplicates=0.4),
}
UNSAVED = World({**TROUBLE, "unsaved": 0.15}, duplicates=0.2)
every_world = pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))


@dataclass
class Driver:
    """Some workers in an order that chance decides, checking the contract at each step.

    A worker that was given a job may begin it much later, as if its candidate were still being saved.

    Attributes:
        grows: Numbers of candidates that it grows to, each at a moment that chance decides; the last when it is done.
        records_states: Whether it records what the scheduler says of itself after each call.
    """

    scheduler: Scheduler
    world: World
    workers: int
    seed: int = 0
    grows: tuple[int, ...] = ()
    records_states: bool = False
    number: int = 0
    num_grown: int = 0
    refusals: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    answers: list = field(default_factory=list)
    states: list = field(default_factory=list)
    trained: dict = field(default_factory=lambda: defaultdict(int))
    paused: set = field(default_factory=set)
    given_up: set = field(default_factory=set)
    ended: dict = field(default_factory=dict)

    def call(self, method, *args):
        self.calls.append((method, args))
        answer = getattr(self.scheduler, method)(*args)
        self.answers.append(answer)
        self.states.append(state_of(self.scheduler) if self.records_states else None)
        return answer

    def run(self):
        self.chance, waiting = random.Random(self.seed), list(self.grows)
        self.running = []
        self.work(waiting)
        while waiting:
            self.grow(waiting.pop(0))
            self.work([])
        return self

    def work(self, waiting):
        while not self.scheduler.is_done:
            while len(self.running) < self.workers and (job := self.next_job()):
                self.check(job)
                self.running.append(job)
            if not self.running:
                break
            job = self.running.pop(self.chance.randrange(len(self.running)))
            if self.advance(job):
                self.running.append(job)
            if len(waiting) > 1 and self.chance.random() < 0.03:
                self.grow(waiting.pop(0))
            self.given_up |= {candidate for candidate in self.paused if not self.scheduler.may_resume(candidate)}
        assert self.scheduler.is_done
        assert self.call("ask") is None

    def next_job(self):
        """A number is drawn for a candidate that is needed, another one if it is a duplicate."""
        asked = self.call("ask")
        if not isinstance(asked, Need):
            return asked
        while self.number < self.world.num_drawable and self.world.is_duplicate(self.number):
            self.number += 1
        if self.number >= self.world.num_drawable:
            assert self.call("ask") == Need(), "it was given none"
            self.call("end_draws")
            asked = self.call("ask")
            assert not isinstance(asked, Need)
            return asked
        job = self.call("admit", self.number)
        assert (job.candidate, job.start) == (self.number, 0)
        self.number += 1
        return job

    def grow(self, num_samples):
        before = repr(state_of(self.scheduler))
        try:
            self.call("grow", num_samples)
        except ConfigError as error:
            self.refusals.append(str(error))
            assert repr(state_of(self.scheduler)) == before
            self.calls.pop()
        else:
            self.num_grown += 1
            assert self.scheduler.num_samples == num_samples

    def check(self, job):
        assert job.start == self.trained[job.candidate], "epochs are trained once, and none is left out"
        assert job.start < job.end <= MAX_EPOCHS
        assert job.end in self.scheduler.fidelities()
        assert job.candidate not in self.ended
        assert job.candidate not in self.given_up, "it was said that it cannot be resumed"
        assert (job.candidate in self.paused) == (job.start > 0)
        self.paused.discard(job.candidate)

    def advance(self, job):
        """Whether the job goes on after an epoch or a blow of fate."""
        candidate, epoch = job.candidate, self.trained[job.candidate]
        what, when = self.world.fate(candidate)
        if what not in {None, "unsaved"} and epoch >= when:
            self.call("end", candidate, ENDINGS[what])
            self.ended[candidate] = what
            return False
        self.trained[candidate] += 1
        verdict = self.call("report", candidate, epoch + 1, self.world.values(candidate, epoch + 1))
        if verdict.decision is Decision.CONTINUE:
            assert epoch + 1 < job.end
            return True
        assert verdict.rung in {None, *self.scheduler.fidelities()}
        if verdict.decision is Decision.PAUSE:
            assert epoch + 1 == job.end
            self.paused.add(candidate)
        else:
            self.ended[candidate] = "stop"
        if what == "unsaved" and epoch + 1 >= when:
            self.call("end", candidate, ENDINGS[what])
            self.ended[candidate] = what
            self.paused.discard(candidate)
        return False

    def outcome(self):
        """What does not depend on time: rungs, and epochs of each candidate that counts."""
        epochs = {candidate: epochs for candidate, epochs in self.trained.items() if epochs}
        return [
            (rung.bracket, rung.epochs, repr(sorted(rung.values.items())), sorted(rung.promoted))
            for rung in self.scheduler.rungs()
        ], epochs


def state_of(scheduler):
    """Everything that a scheduler says of itself."""
    resumable = [candidate for candidate in range(60) if scheduler.may_resume(candidate)]
    return scheduler.is_done, resumable, scheduler.num_samples, scheduler.rungs()


@every_scheduler
@every_world
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_a_search_ends_whatever_happens(name, args, world, workers):
    for seed in range(5):
        driver = Driver(make(name, args), world, workers, seed).run()
        assert not any(driver.scheduler.may_resume(candidate) for candidate in driver.trained)


@every_scheduler
@every_world
@pytest.mark.parametrize("seed", range(5))
def test_it_grows_at_any_time(name, args, world, seed):
    driver = Driver(make(name, args), world, 1 + seed % 4, seed, grows=(21, 25, 33, 34)).run()
    assert driver.num_grown == 4 - len(driver.refusals)
    if (name, args) in FIXED:
        assert all(message.startswith("search.num_samples ") for message in driver.refusals)
    else:
        assert not driver.refusals
    num_counted = sum(driver.ended.get(candidate) != "withdraw" for candidate in driver.trained)
    if world.num_drawable > 100 and "withdraw" not in world.fates:
        assert num_counted == driver.scheduler.num_samples


@every_scheduler
@pytest.mark.parametrize("seed", range(4))
def test_what_cannot_be_saved_is_not_continued(name, args, seed):
    driver = Driver(make(name, args), UNSAVED, 3, seed, grows=(24, 30)).run()
    candidate = next(candidate for candidate, what in driver.ended.items() if what == "unsaved")
    with pytest.raises(ValueError, match=f"Candidate {candidate}: "):
        driver.scheduler.end(candidate, Ending.FAILED)  # twice


@every_scheduler
@pytest.mark.parametrize("world", ["troubled", "two objectives", "few to draw, duplicates"])
def test_calls_that_were_recorded_lead_to_the_same_state_at_each_of_them(name, args, world):
    """A journal has no question without an answer: neither a `Need` that nothing followed nor None."""
    for seed in range(3):
        driver = Driver(make(name, args), WORLDS[world], 3, seed, (22, 30), records_states=True).run()
        again = make(name, args)
        for (method, arguments), answer, state in zip(driver.calls, driver.answers, driver.states, strict=True):
            if method == "ask" and not isinstance(answer, Job):
                continue
            assert repr(getattr(again, method)(*arguments)) == repr(answer)
            assert repr(state_of(again)) == repr(state)


@every_scheduler
def test_numbers_ascend_and_answer_a_need(name, args):
    scheduler = make(name, args)
    assert scheduler.ask() == Need() == scheduler.ask()
    assert scheduler.admit(4).candidate == 4
    with pytest.raises(ValueError, match="Candidate 4: must be above the last one, 4"):
        scheduler.admit(4)
    assert scheduler.admit(7).candidate == 7
    scheduler.end_draws()
    with pytest.raises(ValueError, match="Candidate 9: none is needed"):
        scheduler.admit(9)


@every_scheduler
def test_it_does_not_shrink(name, args):
    for num_samples in (NUM_SAMPLES, 3):
        with pytest.raises(ConfigError, match=f"search.num_samples {num_samples}: must be more than the 20 .*21 or"):
            make(name, args).grow(num_samples)


@every_scheduler
def test_fidelities_ascend_to_a_full_training(name, args):
    fidelities = make(name, args).fidelities()
    assert list(fidelities) == sorted(set(fidelities))
    assert fidelities[-1] == MAX_EPOCHS


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


# Epochs of each candidate of 14 or 30, with two workers and the seed 1, as it was when journals had format 1.
FORMAT_1 = [
    ("ASHA", {"grace_period": 1}, "troubled", "90331112131112091311319190330530010"),
    ("ASHA", {"grace_period": 1}, "two objectives", "903111111313120911113631103101300101"),
    (
        "ASHA",
        {"grace_period": 1, "mode": "promote", "reduction_factor": 2},
        "troubled",
        "109211121512120814119121202205200101",
    ),
    (
        "ASHA",
        {"grace_period": 2, "mode": "promote", "reduction_factor": 2, "brackets": 2},
        "troubled",
        "20981522454282047424964280840420030202",
    ),
    (
        "ASHA",
        {"grace_period": 2, "mode": "promote", "reduction_factor": 2, "brackets": 2},
        "two objectives",
        "809815924542820424298482408405200302",
    ),
    ("Hyperband", {}, "troubled", "1093111211338203"),
    ("Hyperband", {}, "two objectives", "1093111113633203"),
]


@pytest.mark.parametrize(("name", "args", "world", "epochs"), FORMAT_1)
def test_decisions_of_format_1_are_repeated(name, args, world, epochs):
    scheduler = make(name, args, num_samples=14 if name == "Hyperband" else 30)
    scheduler.follow_format(1)
    driver = Driver(scheduler, WORLDS[world], workers=2, seed=1).run()
    assert "".join(str(driver.trained[candidate]) for candidate in sorted(driver.trained)) == epochs
