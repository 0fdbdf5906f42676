"""What a sampler has learnt: asked for with what it is given for its proposals."""

from search.samplers.base import Beliefs, PredictedValue, Sampler
from search.samplers.random import RandomSampler
from search.schedulers.asha import ASHA
from search.study.folders import create_study_folder
from search.study.study import Study
from tests.support.search_worker import WORKER
from tests.test_search_study import CONFIG, EPOCHS, QUALITIES, Space, parts_of

FATES = ("good", "diverges", "refused", "good", "good", "out_of_memory", "good")


class Watching(Sampler):
    """Notes what it is given, and expects the last value of each candidate that runs."""

    origin = "model"

    def __init__(self, space):
        super().__init__(space)
        self.proposed, self.believed = [], []

    def suggest(self, number, observations, running, rng):
        self.proposed.append((tuple(observations), self.believed[-1:]))
        return self.space.random(number)

    def beliefs(self, observations):
        self.believed.append(tuple(observations))
        values = {each.number: each.values[-1][0] for each in observations if each.is_running}
        return Beliefs({number: PredictedValue(value, value - 1, value + 2) for number, value in values.items()})


def prepared(tmp_path, sampler=Watching, **options):
    """A search that pauses its candidates at the first rung; some of them do not count or fail."""
    space = Space(QUALITIES, FATES)
    scheduler = ASHA(9, EPOCHS, mode="promote", grace_period=1, reduction_factor=3)
    parts = parts_of(scheduler, space, sampler=sampler(space), limits={}, **options)
    return Study(create_study_folder(str(tmp_path), "sample", CONFIG), parts, worker=WORKER)


def test_beliefs_follow_from_what_a_proposal_is_given_and_change_nothing(tmp_path):
    plain, asked = prepared(tmp_path / "plain"), prepared(tmp_path / "asked")
    asked.watchers = [lambda *_: asked.strategy.beliefs()]
    for study in (plain, asked):
        study.run()
    proposed = asked.parts.sampler.proposed
    assert [given for given, _ in proposed] == [given for given, _ in plain.parts.sampler.proposed]
    assert all([given] == believed for given, believed in proposed), "asked before the proposal, they are the same"
    assert {each.status for each in plain.record().candidates} >= {"refused", "failed", "out_of_memory", "completed"}


def test_a_study_that_is_read_believes_the_same(tmp_path):
    study = prepared(tmp_path)
    study.watchers = [lambda *_: study.strategy.beliefs()]
    study.run()
    again = Study(study.folder, prepared(tmp_path / "other").parts, worker="")
    again.restore()
    assert again.strategy.beliefs() == study.strategy.beliefs()
    assert again.parts.sampler.believed[-1] == study.parts.sampler.believed[-1]


def test_who_has_no_sampler_that_learns_believes_nothing(tmp_path):
    for sampler in (RandomSampler, lambda _: None):
        study = prepared(tmp_path, sampler)
        study.restore()
        assert study.strategy.beliefs() == Beliefs()
