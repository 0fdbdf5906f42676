"""What a sampler has learnt: asked for with what it is given for its proposals, and shown in the user's sign."""

import json
import math

import pytest

from search.cli.live import PacedBeliefs, Terminal, log_draws
from search.results.beliefs import beliefs_shown, origin_counts
from search.results.record import CandidateRecord
from search.results.result import StudyResult
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

    def __init__(self, space, answer=None):
        super().__init__(space)
        self.answer, self.proposed, self.believed = answer, [], []

    def suggest(self, number, observations, running, rng):
        self.proposed.append((tuple(observations), self.believed[-1:]))
        return self.space.random(number)

    def beliefs(self, observations):
        self.believed.append(tuple(observations))
        if self.answer is not None:
            return self.answer()
        values = {each.number: each.values[-1][0] for each in observations if each.is_running and each.values}
        expected = {number: PredictedValue(value, value - 1, value + 2) for number, value in values.items()}
        return Beliefs(expected, {"a.size": 0.2, "quality": 0.7})


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


def test_predictions_are_shown_in_the_original_sign_and_shares_in_their_order():
    predictions = {
        0: PredictedValue(-0.5, -0.75, -0.25),
        1: PredictedValue(-0.5, -0.75, -0.25),  # it does not run
        2: PredictedValue(math.nan, -0.75, -0.25),
        3: PredictedValue(-0.5, -math.inf, -0.25),
        4: PredictedValue(-3e99, -4e99, -2e99),  # it violates constraints
        5: PredictedValue(0, 0, 1),
        -1: PredictedValue(0, 0, 1),  # of another study
    }
    beliefs = Beliefs(predictions, {"a": 0.25, "b": 0.5, "c": math.nan})
    running = {0, 2, 3, 4, 5}
    shown = beliefs_shown(beliefs, -1, running)
    assert shown.predictions == {0: PredictedValue(0.5, 0.25, 0.75), 5: PredictedValue(0.0, -1.0, 0.0)}
    assert "-0.0" not in str(shown.predictions[5].mean)
    assert list(shown.importances.items()) == [("b", 0.5), ("a", 0.25)]
    assert beliefs_shown(beliefs, 1, running).predictions[0] == predictions[0]
    assert beliefs_shown(Beliefs({}, {"a": 0.5, "b": 1.0}), 1, ()).importances == pytest.approx(
        {"a": 1 / 3, "b": 2 / 3}
    )
    nonsense = beliefs_shown(Beliefs({}, {"a": -3.0, "b": 7, 3: math.inf}), 1, ())
    assert list(nonsense.importances.items()) == [("b", 1.0), ("a", 0.0)]


def test_origins_are_counted_of_the_candidates_that_count():
    origins = ["model", "random", "model", "", "enqueued", "model", "model", "random"]
    statuses = ["running", "paused", "failed", "stopped", "completed", "refused", "duplicate", "out_of_memory"]
    made = [CandidateRecord(0, 0, [], status, origin=each) for each, status in zip(origins, statuses, strict=True)]
    made.append(CandidateRecord(0, 0, [], "completed", origin="", inherited=3))  # a child of PBT
    assert origin_counts(made) == {"random": 1, "modelled": 2, "enqueued": 1, "unknown": 1}
    for each in made:
        each.origin = ""
    assert origin_counts(made) == {}


@pytest.mark.parametrize(("goal", "low", "high"), [("max val_miou", -1, 2), ("min val_miou", -2, 1)])
def test_the_table_shows_what_is_expected_of_the_candidates_that_run(tmp_path, goal, low, high):
    study, snapshots = prepared(tmp_path, objectives=(goal,)), []
    terminal = Terminal("s", 9, beliefs=PacedBeliefs(study.beliefs, clock=lambda: 100.0 * len(snapshots)))

    def watch(event, state):
        terminal.watch(event, state)
        if event.kind == "report":
            snapshots.append(terminal.snapshot(state))
            (running,), value = snapshots[-1].running, event.data["row"]["val_miou"]
            assert running.predicted == snapshots[-1].promising.predicted
            expected = [value, value + low, value + high]
            assert [running.predicted.mean, running.predicted.low, running.predicted.high] == pytest.approx(expected)

    study.watchers = [watch]
    study.run()
    assert snapshots[-1].importances == {"quality": 0.7, "size": 0.2}
    assert snapshots[-1].origins == {"modelled": 9}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(lambda: 1 // 0, "ZeroDivisionError at test_search_beliefs.py"), (lambda: 3, "AttributeError")],
)
def test_a_sampler_that_cannot_say_what_it_believes_ends_nothing_and_is_named_once(tmp_path, caplog, answer, reason):
    study = prepared(tmp_path, lambda space: Watching(space, answer))
    study.watchers = [lambda *_: study.beliefs()]
    study.run()
    found = [each for each in caplog.messages if "search.sampler" in each]
    assert len(found) == 1
    assert reason in found[0]
    assert "Nothing else depends on that. Correct its method beliefs." in found[0]
    assert study.record(with_beliefs=True).beliefs == Beliefs()


def test_a_sampler_is_asked_if_something_has_changed_and_for_at_most_a_fiftieth_of_the_time():
    now, asked = [0.0], []

    def ask(seconds=1.0):
        asked.append(now[0])
        now[0] += seconds
        return Beliefs({len(asked): PredictedValue(0, 0, 0)})

    paced = PacedBeliefs(ask, clock=lambda: now[0])
    assert paced.present() == Beliefs()
    for _ in range(2000):  # an event every tenth of a second
        now[0] += 0.1
        paced.is_outdated = True
        assert list(paced.present().predictions) == [len(asked)]
    assert asked == pytest.approx([0.1, 51.1, 102.1, 153.1], abs=0.2)
    now[0] += 1000.0
    paced.present()
    asked.clear()
    now[0] += 1000.0
    paced.present()
    assert asked == []  # nothing has changed
    paced = PacedBeliefs(lambda: ask(0.01), clock=lambda: now[0])
    for _ in range(250):
        paced.is_outdated = True
        paced.present()
        now[0] += 0.1
    assert len(asked) == 12  # in 25 seconds, and 2.11 between two


def test_origins_are_in_all_that_is_written(tmp_path, caplog):
    caplog.set_level("INFO", "espalier")
    study = prepared(tmp_path)
    study.watchers = [log_draws]
    study.run()
    result = StudyResult(study.record(with_beliefs=True))
    assert {each["origin"] for each in result.candidates} == {"model"}
    assert "Candidate 0 (modelled): quality=0.31" in caplog.messages
    assert json.loads((study.folder / "best/result.json").read_text())["origin"] == "model"
    result.to_csv(tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text().splitlines()[1].startswith("0,stopped,,model,0,")
    assert result.predictions == []  # nothing may be continued
    assert result.importances == {"quality": 0.7, "a.size": 0.2}
