"""A study from the first draw to the winner, on workers without a network."""

import json
import math
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from config.checking.sections import Budget, RetrainOptions
from search.cli.listing import best_text, winner_commands
from search.cli.live import Terminal
from search.executors.processes import Processes
from search.executors.serial import Serial
from search.results.leaderboard import leaderboard, winner_of
from search.results.record import parse_constraints, parse_objectives
from search.samplers.base import Sampler
from search.schedulers.asha import ASHA
from search.schedulers.halving import RandomSearch, SuccessiveHalving
from search.space.drawn import Drawn
from search.strategies.multi_fidelity import MultiFidelity
from search.study import study as study_module
from search.study.best import read_front
from search.study.commands import send_command
from search.study.folders import create_study_folder, find_studies, run_folder
from search.study.journal import JOURNAL, Journal, read_events
from search.study.settings import StudyParts
from search.study.study import Study, read
from tests.support.search_worker import WORKER, value_at
from tests.support.without_times import without_times
from utils.errors import ConfigError, Interrupted, SearchError

EPOCHS = 9
CONFIG = {"name": "sample", "trainer": {"epochs": EPOCHS}, "search": {}}


class Space:
    """Candidate i has the i-th quality and fate of the lists, from the beginning again where they end."""

    has_markers, study_seed = True, 0

    def __init__(self, qualities, fates=("good",), distinct=float("inf")):
        self.qualities, self.fates, self._distinct = qualities, fates, distinct

    def random(self, number):
        return Drawn((("number", number),))

    def nearest(self, drawn):
        return drawn

    def read(self, choices):
        return Drawn.from_json(choices)

    def config(self, drawn):
        ((_, number),) = drawn.choices
        quality = self.qualities[number % len(self.qualities)]
        config = {"name": "sample", "seed": 0, "trainer": {"epochs": EPOCHS}, "quality": quality}
        return config | {"fate": self.fates[number % len(self.fates)], "size": int(100 * quality)}

    def seed(self, number):
        return number

    def key(self, drawn):
        return str(self.config(drawn)["quality"] if self._distinct < float("inf") else drawn.choices)

    def label(self, drawn):
        return [("quality", self.config(drawn)["quality"])]

    def distinct(self):
        return self._distinct


QUALITIES = [0.31, 0.72, 0.55, 0.9, 0.12, 0.64, 0.41, 0.83, 0.27]


def parts_of(scheduler, space=None, *, objectives=("max val_miou",), **options):
    return StudyParts(CONFIG, space or Space(QUALITIES), scheduler, parse_objectives(objectives), **options)


def studied(tmp_path, parts, executor=None, watchers=()):
    parts = replace(parts, executor=executor or Serial())
    study = Study(create_study_folder(str(tmp_path), "sample", CONFIG), parts, worker=WORKER, watchers=watchers)
    return study, study.run()


def halving(num_samples=9):
    return SuccessiveHalving(num_samples, EPOCHS, grace_period=1, reduction_factor=3)


def test_halving_trains_nine_three_and_one(tmp_path):
    _, record = studied(tmp_path, parts_of(halving()))
    assert [candidate.epochs for candidate in record.candidates] == [1, 3, 1, 9, 1, 1, 1, 3, 1]
    assert record.candidates[3].status == "completed"
    assert {each.status for each in record.candidates if each.index != 3} == {"stopped"}
    assert [(rung.epochs, len(rung.values)) for rung in record.rungs][:2] == [(1, 9), (3, 3)]
    assert record.is_done


def test_a_failed_candidate_after_a_fact_as_first_objective_ends_nothing(tmp_path):
    def parts():
        space = Space(QUALITIES, ("good", "diverges", "good"))
        return parts_of(halving(), space, objectives=("min params", "max val_miou"), limits={})

    study, record = studied(tmp_path, parts())
    assert record.is_done
    failed = {each.index for each in record.candidates if each.status == "failed"}
    values = record.rungs[1].values
    assert {number for number, value in values.items() if math.isnan(value)} == failed & values.keys() != set()
    scores = {each.index: max(row["val_miou"] for row in each.reports[:3]) for each in record.candidates}
    assert all(value == scores[number] for number, value in values.items() if number not in failed)
    again = Study(study.folder, parts(), worker="")
    again.restore()
    assert again.record().rungs[1].values.keys() == values.keys()


def test_winner_is_left_as_a_config_with_its_weights(tmp_path):
    study, _ = studied(tmp_path, parts_of(halving(), retrain=RetrainOptions(top=2, seeds=2, epochs=5)))
    best = study.folder / "best"
    config = json.loads((best / "config.json").read_text())
    assert (config["quality"], config["trainer"]["epochs"]) == (0.9, 5)
    result = json.loads((best / "result.json").read_text())
    assert result["candidate"] == 3
    assert [run["test"] for run in result["retrained"]] == [{"test_miou": 0.5}] * 2
    record = study.record()
    assert [(run.candidate, run.rank) for run in record.retrained] == [(3, 1), (3, 1), (7, 2), (7, 2)]


def test_a_study_that_is_done_trains_more_of_the_best_again(tmp_path):
    study, first = studied(tmp_path, parts_of(halving(), retrain=RetrainOptions(top=1, epochs=5)))

    def gone_on(**retrain):
        parts = parts_of(halving(), retrain=RetrainOptions(epochs=5, **retrain))
        return Study(study.folder, parts, worker=WORKER).run()

    record = gone_on(top=2, seeds=2)
    assert [(run.candidate, run.seed) for run in record.retrained] == [(3, 4), (3, 5), (7, 8), (7, 9)]
    assert {(run.status, len(run.reports)) for run in record.retrained} == {("completed", 5)}
    assert record.is_done
    assert [each.reports for each in record.candidates] == [each.reports for each in first.candidates]
    result = json.loads((study.folder / "best" / "result.json").read_text())
    assert [run["seed"] for run in result["retrained"]] == [4, 5]
    sessions = len(record.sessions)
    assert len(gone_on(top=2, seeds=2).sessions) == sessions  # nothing left to do


def retrained_study(folder, **retrain):
    """Return a study with these options of the retraining."""
    options = RetrainOptions(**retrain) if retrain else None
    config = {**CONFIG, "search": {"retrain": retrain} if retrain else {}}
    return Study(folder, replace(parts_of(halving(), retrain=options), config=config), worker=WORKER)


def retrained_with(folder, **retrain):
    """Continue a study with other options of the retraining; return the record, and what `best/` has."""
    record = retrained_study(folder, **retrain).run()
    assert read(folder, retrained_study(folder, **retrain).parts) == record
    best = json.loads((folder / "best" / "config.json").read_text())
    return record, best["trainer"]["epochs"], (folder / "best" / "model.onnx").exists()


def test_other_epochs_of_the_retraining_are_obeyed_by_a_study_that_is_done(tmp_path):
    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    for epochs, num_jobs in ((5, 1), (7, 2), (5, 2)):
        record, best, _ = retrained_with(folder, epochs=epochs)
        assert [(run.candidate, len(run.reports)) for run in record.retrained] == [(3, epochs)]
        assert best == epochs
        assert sum(event.name == "retrain.job" for event in read_events(folder / JOURNAL)) == num_jobs
    record, best, _ = retrained_with(folder)
    assert (record.retrained, best) == ([], EPOCHS), "the winner remains as the search trained it"
    sessions = len(record.sessions)
    assert len(retrained_with(folder)[0].sessions) == sessions, "nothing was left to do"


def test_an_interrupted_retraining_with_other_epochs_begins_anew(tmp_path):
    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    killed_at(
        Journal,
        "append",
        lambda name, *_: name == "retrain.ended",
        lambda: retrained_with(folder, epochs=5),
    )
    record, best, _ = retrained_with(folder, epochs=7)
    assert [(run.status, len(run.reports)) for run in record.retrained] == [("completed", 7)]
    assert best == 7


def test_a_network_is_exported_once_that_is_wanted_and_is_gone_if_it_is_not(tmp_path):
    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    for onnx in (False, True, False, True):
        record, _, is_exported = retrained_with(folder, epochs=5, onnx=onnx)
        assert is_exported is onnx
        assert [(run.status, bool(run.onnx)) for run in record.retrained] == [("completed", onnx)]
    names = [event.name for event in read_events(folder / JOURNAL) if event.stage == "retrain"]
    assert names == ["retrain.job", *["retrain.report"] * 5, "retrain.ended", "retrain.ended"], "it is trained once"


def test_a_retraining_whose_folder_is_gone_is_not_trained_again_for_an_export(tmp_path, caplog):
    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    before, _, _ = retrained_with(folder, epochs=5)
    (run,) = before.retrained
    shutil.rmtree(folder / run.folder)
    (folder / "best" / "model_best.pth").write_text("the only weights")
    record, _, is_exported = retrained_with(folder, epochs=5, onnx=True)
    assert (record.is_done, is_exported, (folder / run.folder).exists()) == (True, False, False)
    (known,) = record.retrained
    assert known == replace(run, onnx={"reason": "the checkpoint is gone"}, spans=known.spans)
    assert "candidate3_seed0: its network is not exported: the checkpoint is gone" in caplog.text
    assert (folder / "best" / "model_best.pth").read_text() == "the only weights"


@pytest.mark.parametrize(("options", "shown"), [({"epochs": 7}, "_7_epochs"), ({"epochs": 5, "top": 1}, "")])
def test_an_interrupted_retraining_that_is_not_continued_is_not_shown_as_running(tmp_path, options, shown):
    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    second = options.get("top") is not None  # the second of the best was interrupted, and now only the first counts
    killed_at(
        Journal,
        "append",
        lambda name, candidate=None: name == "retrain.ended" and candidate == (7 if second else 3),
        lambda: retrained_with(folder, epochs=5, top=2 if second else 1),
    )
    running = set()
    study = retrained_study(folder, **options)
    terminal = Terminal("sample", 9, retrained=study.strategy.retrained)
    study.watchers = [lambda _event, state: running.update(each.candidate for each in terminal.snapshot(state).running)]
    record = study.run()
    assert running == ({f"again candidate3_seed0{shown}"} if shown else set())
    assert [(each.candidate, each.status) for each in record.retrained] == [(3, "completed")]


def test_a_study_of_an_earlier_version_that_is_done_obeys_other_options(tmp_path):
    retrain = {"epochs": 5}
    folder = create_study_folder(str(tmp_path), "sample", {**CONFIG, "search": {"retrain": retrain}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_module, "session_options", lambda _config: None)
        sessions = len(retrained_with(folder, **retrain)[0].sessions)
    assert len(retrained_with(folder, **retrain)[0].sessions) == sessions, "nothing was left to do"
    record, best, _ = retrained_with(folder)
    assert (record.retrained, best) == ([], EPOCHS)


@pytest.mark.parametrize("top", [0, 1])
def test_a_study_whose_candidates_all_failed_obeys_the_commands_that_wait(tmp_path, top):
    def run(folder):
        parts = parts_of(RandomSearch(2, EPOCHS), Space(QUALITIES, ("diverges",) * 2 + ("good",)))
        return Study(folder, replace(parts, retrain=RetrainOptions(top=top, epochs=5)), worker=WORKER).run()

    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    for _ in range(2):
        with pytest.raises(SearchError, match="none of 2 candidates could be trained"):
            run(folder)
    send_command(folder, "add", num_samples=1)
    record = run(folder)
    assert (record.is_done, winner_of(record).index, len(record.retrained)) == (True, 2, top)


def test_one_that_overtakes_the_best_is_trained_again_too(tmp_path):
    short = Budget(epochs=15)
    retrain = RetrainOptions(top=1, epochs=5)
    study, first = studied(tmp_path, parts_of(RandomSearch(9, EPOCHS), budget=short, retrain=retrain))
    assert [run.candidate for run in first.retrained] == [1]
    parts = parts_of(RandomSearch(9, EPOCHS), retrain=retrain)
    record = Study(study.folder, parts, worker=WORKER).run()
    assert [(run.candidate, run.rank) for run in record.retrained] == [(1, 3), (3, 1)]


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_come_to_the_same_as_this_process(tmp_path, workers):
    _, alone = studied(tmp_path, parts_of(halving()))
    _, record = studied(tmp_path, parts_of(halving()), Processes(workers))
    for candidate in (*alone.candidates, *record.candidates):
        candidate.folder = None
    assert list(map(without_times, record.candidates)) == list(map(without_times, alone.candidates))
    assert record.rungs == alone.rungs


def test_whatever_a_candidate_does_costs_it_alone(tmp_path):
    fates = ("good", "refused", "good", "diverges", "out_of_memory", "good", "dies", "ends early")
    space = Space([0.1 + 0.01 * index for index in range(40)], fates)
    parts = parts_of(RandomSearch(12, EPOCHS), space, limits={"max_params": 8})
    _, record = studied(tmp_path, parts, Processes(2))
    by_status = {status: [] for status in ("completed", "refused", "failed", "out_of_memory")}
    for candidate in record.candidates:
        by_status[candidate.status].append(candidate.index)
        assert (
            fates[candidate.index % 8]
            in {
                "completed": ("good", "ends early"),
                "refused": ("refused",),
                "failed": ("diverges", "dies"),
                "out_of_memory": ("out_of_memory",),
            }[candidate.status]
        )
    assert len(by_status["completed"]) + len(by_status["failed"]) == 12
    reasons = {record.candidates[index].reason for index in by_status["failed"]}
    assert any("not finite" in reason for reason in reasons)
    assert any("exit code 9" in reason and "3 times" in reason for reason in reasons)


def test_a_worker_that_hangs_is_ended(tmp_path):
    parts = parts_of(RandomSearch(3, EPOCHS), Space(QUALITIES, ("good", "hangs", "good")), max_epoch_time=5)
    _, record = studied(tmp_path, parts, Processes(1))
    assert [candidate.status for candidate in record.candidates] == ["completed", "failed", "completed"]


def test_a_candidate_of_this_process_that_reports_too_late_fails(tmp_path, monkeypatch):
    seconds = [0.0]
    clock = SimpleNamespace(monotonic=lambda: seconds[0], sleep=lambda more: seconds.__setitem__(0, seconds[0] + more))
    for module in ("search.study.driver", "tests.support.search_worker"):
        monkeypatch.setattr(f"{module}.time", clock)
    parts = parts_of(RandomSearch(3, EPOCHS), Space(QUALITIES, ("good", "hangs", "good")), max_epoch_time=5)
    _, record = studied(tmp_path, parts, Serial())
    assert [candidate.status for candidate in record.candidates] == ["completed", "failed", "completed"]
    assert record.candidates[1].reason == "it reported nothing for 5 s and was ended"
    assert record.candidates[1].epochs == 1


def test_equal_draws_are_trained_once_and_a_small_space_ends(tmp_path):
    space = Space([0.5, 0.6, 0.5, 0.7], distinct=3)
    _, record = studied(tmp_path, parts_of(RandomSearch(20, EPOCHS), space))
    assert [candidate.status for candidate in record.candidates] == [
        "completed",
        "completed",
        "duplicate",
        "completed",
        "duplicate",
    ]
    assert record.candidates[2].reason == "the same as 0"


def test_a_space_of_which_hardly_anything_is_left_ends_the_search(tmp_path):
    space = Space([0.5, 0.6], distinct=3)  # the third one is never met
    study, record = studied(tmp_path, parts_of(RandomSearch(5, EPOCHS), space))
    assert [each.status for each in record.candidates] == ["completed"] * 2 + ["duplicate"] * 1000
    assert record.is_done
    (event,) = [each for each in read_events(study.folder / JOURNAL) if each.kind == "exhausted"]
    assert event.data["reason"] == "1000 draws in a row were equal to earlier ones"
    assert read(study.folder, parts_of(RandomSearch(5, EPOCHS), space)) == record


class FaultySampler(Sampler):
    def suggest(self, number, observations, running, rng):
        if number == 1:
            return {"number": 1} if self.space.qualities else self.space.qualities[0]
        return self.space.random(number)


@pytest.mark.parametrize(
    ("qualities", "reason"),
    [
        ([], "IndexError at test_search_study.py:.*list index out of range"),
        (QUALITIES, "TypeError.*it proposes a dict, not choices"),
    ],
)
def test_a_fault_of_a_sampler_is_named_and_nothing_is_lost(tmp_path, qualities, reason):
    space = Space(QUALITIES)
    parts = parts_of(RandomSearch(3, EPOCHS), space, sampler=FaultySampler(Space(qualities)))
    parts.sampler.space.random = space.random
    with pytest.raises(SearchError, match=f"search.sampler: FaultySampler cannot propose number 1: {reason}"):
        studied(tmp_path, parts)
    (folder,) = find_studies(tmp_path)
    record = Study(folder, parts_of(RandomSearch(3, EPOCHS), space), worker=WORKER).run()
    assert [each.status for each in record.candidates] == ["completed"] * 3


def test_facts_are_objectives_too(tmp_path):
    parts = parts_of(halving(), objectives=("max val_miou", "min params"), limits={})
    _, record = studied(tmp_path, parts)
    assert record.candidates[0].objectives.keys() == {"val_miou", "params"}
    assert record.candidates[0].objectives["params"] == 31


@pytest.mark.parametrize("scheduler", [halving(), ASHA(20, EPOCHS, grace_period=1, mode="promote")])
def test_every_candidate_of_the_front_keeps_its_checkpoint_and_is_stored(tmp_path, scheduler):
    study, record = studied(tmp_path, parts_of(scheduler, objectives=("max val_miou", "min params"), limits={}))
    front = [row.candidate.index for row in leaderboard(record) if row.is_on_front]
    left = [int(path.parent.name) for path in (study.folder / "candidates").glob("*/*.pth")]
    assert len(front) > 2
    assert sorted(left) == sorted(front)
    assert [each.candidate for each in read_front(study.folder)] == front
    for each in read_front(study.folder):
        config = json.loads((each.path / "config.json").read_text())
        assert config["size"] == record.candidates[each.candidate].facts["params"]


def test_constraints_decide_what_is_promoted_and_what_wins(tmp_path):
    constraints = parse_constraints(["params <= 60", "val_miou >= 0.1"])
    parts = parts_of(halving(), limits={}, constraints=constraints)
    study, record = studied(tmp_path, parts)
    kept = {candidate.index: candidate for candidate in record.candidates if not candidate.violation}
    assert kept
    assert all(candidate.facts["params"] <= 60 for candidate in kept.values())
    winner = json.loads((study.folder / "best/result.json").read_text())
    assert winner["candidate"] == 2  # quality 0.55, the best of those with 60 parameters at most
    assert (winner["constraints"], winner["violation"]) == (["params <= 60", "val_miou >= 0.1"], 0)
    assert 2 in record.rungs[0].promoted


def test_a_sampler_gets_values_of_violated_constraints_below_all_others(tmp_path):
    seen = {}

    class Watching(Sampler):
        def suggest(self, number, observations, running, rng):
            seen.update({each.number: each for each in observations})
            return self.space.random(number)

    constraints, space = parse_constraints(["params <= 60"]), Space(QUALITIES)
    parts = parts_of(RandomSearch(9, EPOCHS), space, limits={}, constraints=constraints, sampler=Watching(space))
    _, record = studied(tmp_path, parts)
    for number, each in seen.items():
        candidate = record.candidates[number]
        raw = [(row["val_miou"],) for row in candidate.reports[: len(each.values)]]
        violation = max(0, candidate.facts["params"] - 60)
        penalised = [value < -1e90 for (value,) in each.values]
        assert penalised == [violation > 0] * len(each.values)
        assert violation or list(each.values) == raw
    assert len({each.values[0] for each in seen.values() if each.values[0][0] < -1e90}) > 1  # by how much


def test_a_study_in_which_nothing_keeps_the_constraints_says_so(tmp_path):
    parts = parts_of(halving(), limits={}, constraints=parse_constraints(["params <= 10"]))
    _, record = studied(tmp_path, parts)
    assert "No candidate keeps params <= 10. This one violates them least: by 20 % of the bounds." in best_text(record)
    assert leaderboard(record)[0].candidate.index == 4
    assert all(math.isnan(value) for rung in record.rungs for value in rung.values.values())


def test_a_spent_budget_ends_the_search_and_a_larger_one_goes_on(tmp_path):
    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    first = Study(folder, parts_of(RandomSearch(9, EPOCHS), budget=Budget(epochs=20)), worker=WORKER).run()
    assert sum(candidate.epochs for candidate in first.candidates) == 20
    assert first.is_done
    second = Study(folder, parts_of(RandomSearch(9, EPOCHS)), worker=WORKER).run()
    assert [candidate.epochs for candidate in second.candidates] == [EPOCHS] * 9
    straight = studied(tmp_path, parts_of(RandomSearch(9, EPOCHS)))[1]
    assert [c.objectives for c in second.candidates] == [c.objectives for c in straight.candidates]


def killed_at(patched, method, does_die, run):
    """Run until the process dies instead of a call with certain arguments."""
    original = getattr(patched, method)

    def dying(*args, **options):
        if does_die(*args[1:]):
            raise KeyboardInterrupt
        return original(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patched, method, dying)
        with pytest.raises(KeyboardInterrupt):
            run()


@pytest.mark.parametrize("moment", ["the search ends", "the winner is written"])
def test_a_study_that_is_continued_and_killed_is_not_done_and_says_what_best_has(tmp_path, moment):
    study, first = studied(tmp_path, parts_of(RandomSearch(9, EPOCHS), budget=Budget(epochs=20)))
    assert (first.is_done, winner_of(first).index) == (True, 1)
    parts = partial(parts_of, budget=Budget(epochs=90))
    is_end = moment == "the search ends"
    place = (
        (Journal, "append", lambda name, *_: name == "search.done")
        if is_end
        else (study_module, "write_best", lambda *_: True)
    )
    killed_at(*place, Study(study.folder, parts(RandomSearch(9, EPOCHS)), worker=WORKER).run)
    record = read(study.folder, parts(RandomSearch(9, EPOCHS)))
    assert (record.is_done, winner_of(record).index) == (False, 3)
    assert winner_commands(record) == []
    assert "best still has candidate 1, the winner before." in best_text(record)
    record = Study(study.folder, parts(RandomSearch(9, EPOCHS)), worker=WORKER).run()
    assert record.is_done
    assert json.loads((study.folder / "best" / "result.json").read_text())["candidate"] == 3
    assert winner_commands(record)


def test_a_candidate_that_was_drawn_and_has_no_job_yet_is_not_at_its_end(tmp_path):
    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    session = Study(folder, parts_of(halving()), worker=WORKER).run
    killed_at(Journal, "append", lambda name, candidate=None: (name, candidate) == ("search.job", 4), session)
    assert Study(folder, parts_of(halving()), worker=WORKER).run().is_done
    left = sorted(path.parent.name for path in (folder / "candidates").glob("*/*.pth"))
    assert left == ["00003"]


def test_checkpoints_that_cannot_be_promoted_are_deleted(tmp_path):
    study, record = studied(tmp_path, parts_of(halving()))
    left = sorted(path.parent.name for path in (study.folder / "candidates").glob("*/*.pth"))
    assert left == ["00003"]
    assert record.bytes_deleted > 0


def test_a_disk_budget_keeps_what_fits(tmp_path):
    study, record = studied(tmp_path, parts_of(halving(), budget=Budget(disk_mb=1)))
    assert len(list((study.folder / "candidates").glob("*/*.pth"))) == 9
    assert record.bytes_deleted == 0


def test_a_study_is_read_from_its_journal(tmp_path):
    study, record = studied(tmp_path, parts_of(ASHA(9, EPOCHS, grace_period=1, mode="promote")))
    assert read(study.folder, parts_of(ASHA(9, EPOCHS, grace_period=1, mode="promote"))) == record


def test_another_scheduler_cannot_go_on(tmp_path):
    study, _ = studied(tmp_path, parts_of(halving()))
    with pytest.raises(SearchError, match=r"The journal says .*undo the change"):
        Study(study.folder, parts_of(RandomSearch(9, EPOCHS)), worker=WORKER).run()


def test_nothing_that_can_be_trained_is_an_error(tmp_path):
    parts = parts_of(RandomSearch(3, EPOCHS), Space(QUALITIES, ("diverges",)))
    with pytest.raises(SearchError, match=r"none of 3 candidates could be trained; the last reason: the loss"):
        studied(tmp_path, parts)


def test_an_objective_without_a_number_is_named(tmp_path):
    parts = parts_of(RandomSearch(3, EPOCHS), Space(QUALITIES, ("undefined",)))
    with pytest.raises(SearchError, match=r"no candidate has a finite value of val_miou, by which the best one is"):
        studied(tmp_path, parts)


def test_limits_that_nothing_keeps_end_the_search(tmp_path):
    parts = parts_of(RandomSearch(3, EPOCHS), Space(QUALITIES, ("refused",)), limits={"max_params": 8})
    with pytest.raises(SearchError, match=r"1000 draws in a row did not count.*Loosen search.limits"):
        studied(tmp_path, parts)


def test_an_objective_that_is_no_result_is_named_before_anything_is_trained(tmp_path):
    with pytest.raises(SearchError, match=r'"max val_mious" is not among the results.*val_miou'):
        studied(tmp_path, parts_of(halving(), objectives=("max val_mious",)))
    (journal,) = tmp_path.rglob(JOURNAL)
    assert "report" not in [event.kind for event in read_events(journal)]


def test_every_decision_stands_in_the_journal(tmp_path):
    study, _ = studied(tmp_path, parts_of(halving()))
    reports = [event for event in read_events(study.folder / JOURNAL) if event.kind == "report"]
    assert len(reports) == 6 * 1 + 2 * 3 + 9
    first = next(event for event in reports if event.candidate == 3)
    assert first.data["row"]["val_miou"] == value_at(0.9, 1)
    assert first.data["rung"] == 1


def test_a_candidate_that_fails_after_its_last_report_is_a_result(tmp_path):
    fates = ("good", "good", "good", "fails at the end", "good", "good", "good", "out of memory at the end", "good")
    for workers in (Serial(), Processes(2)):
        study, record = studied(tmp_path, parts_of(halving(), Space(QUALITIES, fates)), workers)
        assert [record.candidates[index].status for index in (3, 7)] == ["failed", "failed"]
        assert record.candidates[3].reason == "no space left on the device"
        assert record.candidates[7].reason == "out of memory: no more to be had"
        assert json.loads((study.folder / "best" / "result.json").read_text())["candidate"] == 1
        assert read(study.folder, parts_of(halving(), Space(QUALITIES, fates))).candidates[3].status == "failed"


def test_a_study_grows_and_its_first_candidates_remain(tmp_path):
    study, first = studied(tmp_path, parts_of(RandomSearch(3, EPOCHS)))
    record = Study(study.folder, parts_of(RandomSearch(3, EPOCHS)), worker=WORKER, num_samples=5).run()
    assert len(record.candidates) == 5
    assert record.candidates[:3] == first.candidates
    assert record.is_done
    assert read(study.folder, parts_of(RandomSearch(3, EPOCHS))) == record


def test_a_study_that_cannot_grow_says_so_and_loses_nothing(tmp_path):
    study, first = studied(tmp_path, parts_of(halving(9)))
    with pytest.raises(ConfigError, match=r"search\.num_samples 12: must stay 9"):
        Study(study.folder, parts_of(halving(9)), worker=WORKER, num_samples=12).run()
    assert read(study.folder, parts_of(halving(9))) == first


def test_commands_in_the_folder_are_obeyed(tmp_path):
    study, _ = studied(tmp_path, parts_of(RandomSearch(3, EPOCHS)))
    send_command(study.folder, "add", num_samples=2)
    send_command(study.folder, "enqueue", choices=[["number", 7]])
    send_command(study.folder, "stop", candidate=1)
    record = Study(study.folder, parts_of(RandomSearch(3, EPOCHS)), worker=WORKER).run()
    assert [each.objectives["val_miou"] for each in record.candidates[3:]] == [
        max(value_at(quality, epoch) for epoch in range(1, EPOCHS + 1)) for quality in (0.83, 0.9)
    ]
    assert not list((study.folder / "commands").iterdir())
    refused = [event.data["refusal"] for event in read_events(study.folder / JOURNAL) if event.name == "study.command"]
    assert refused[:2] == ["", ""]
    assert "candidate 1 is completed" in refused[2]


def test_a_candidate_that_is_stopped_counts_with_the_values_that_it_has(tmp_path):
    folder = create_study_folder(str(tmp_path), "sample", CONFIG)

    def stop_the_second(event, _state):
        if event.kind == "job" and event.candidate == 1:
            send_command(folder, "stop", candidate=1)

    record = Study(folder, parts_of(RandomSearch(3, EPOCHS)), worker=WORKER, watchers=[stop_the_second]).run()
    assert (record.candidates[1].status, record.candidates[1].epochs) == ("stopped", 1)
    assert [record.candidates[index].status for index in (0, 2)] == ["completed", "completed"]
    assert read(folder, parts_of(RandomSearch(3, EPOCHS))) == record


def send_at(folder, epoch, *names):
    """A watcher that sends commands for the whole study when candidate 0 has trained some epochs."""

    def watch(event, _state):
        if event.kind == "report" and event.candidate == 0 and event.data["epoch"] == epoch:
            for name in names:
                send_command(folder, name, candidate=None)

    return watch


def test_a_search_in_this_process_stops_after_the_epoch(tmp_path):
    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    study = Study(folder, parts_of(RandomSearch(2, EPOCHS)), worker=WORKER, watchers=[send_at(folder, 2, "stop")])
    with pytest.raises(Interrupted):
        study.run()
    before = read(folder, parts_of(RandomSearch(2, EPOCHS)))
    assert [each.epochs for each in before.candidates] == [3], "the command is seen at the next report"
    record = Study(folder, parts_of(RandomSearch(2, EPOCHS)), worker=WORKER).run()
    assert [each.epochs for each in record.candidates] == [EPOCHS, EPOCHS]


def test_a_search_in_this_process_is_paused_and_resumed(tmp_path):
    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    paused = send_at(folder, 2, "pause")
    seen = []

    def resume(event, state):
        if event.name == "study.command" and event.data["command"] == "pause":
            seen.append(state.candidates[0].record.epochs)
            send_command(folder, "resume", candidate=None)

    parts = parts_of(RandomSearch(1, EPOCHS))
    record = Study(folder, parts, worker=WORKER, watchers=[paused, resume]).run()
    assert seen == [2]
    assert [each.epochs for each in record.candidates] == [EPOCHS]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"name": "add", "data": {}}',
        '{"name": "add", "data": {"num_samples": "3"}}',
        '{"name": "add", "data": {"num_samples": true}}',
        '{"name": "enqueue", "data": {"choices": 5}}',
        '{"name": "stop", "data": {"candidate": [1]}}',
        '{"name": ["stop"], "data": {}}',
        '{"name": "dance", "data": {"candidate": 1}}',
        '{"name": "stop"}',
        "[]",
    ],
)
def test_a_file_that_is_no_command_is_set_aside(tmp_path, content, caplog):
    study, before = studied(tmp_path, parts_of(RandomSearch(2, EPOCHS)))
    queue = study.folder / "commands"
    queue.mkdir()
    (queue / "0001.json").write_text(content)
    record = Study(study.folder, parts_of(RandomSearch(2, EPOCHS)), worker=WORKER).run()
    assert record.candidates == before.candidates
    assert [path.name for path in queue.iterdir()] == ["0001.unreadable"]
    assert "is no command" in caplog.text


def test_a_strategy_chooses_the_winner(tmp_path, monkeypatch):
    parts = parts_of(RandomSearch(4, EPOCHS), retrain=RetrainOptions(top=2))
    study, record = studied(tmp_path / "first", parts)
    assert record.winner == winner_of(replace(record, winner=None)).index == 3
    monkeypatch.setattr(MultiFidelity, "winner", lambda _: 1)
    study, record = studied(tmp_path / "second", parts_of(RandomSearch(4, EPOCHS)))
    assert (record.winner, winner_of(record).index) == (1, 1)
    assert json.loads((study.folder / "best/result.json").read_text())["candidate"] == 1
    assert "candidate 1 of 4" in best_text(read(study.folder, parts_of(RandomSearch(4, EPOCHS))))


def test_a_study_that_has_lost_its_journal_is_found_and_refused(tmp_path):
    study, _ = studied(tmp_path, parts_of(RandomSearch(2, EPOCHS)))
    (study.folder / JOURNAL).unlink()
    assert find_studies(tmp_path) == [study.folder]
    with pytest.raises(SearchError, match=r"journal\.sqlite is missing"):
        Study(study.folder, parts_of(RandomSearch(2, EPOCHS)), worker=WORKER).run()


class TimedSpace(Space):
    """Candidates whose latency turns out to be another one if nothing runs next to it; at first 4.5 of the first."""

    def config(self, drawn):
        ((_, number),) = drawn.choices
        return super().config(drawn) | {"quiet_ms": [6.0, 5.0, 5.6, 8.0][number]}


@pytest.mark.parametrize(
    ("limits", "winner", "stored"),
    [
        ({"objectives": ("min latency_ms",)}, 1, [1]),
        ({"objectives": ("min latency_ms", "max val_miou")}, 1, [0, 1]),
        ({"constraints": parse_constraints(["latency_ms <= 5.1"])}, 1, [1]),
    ],
)
def test_whoever_wins_by_the_latency_that_is_measured_again_has_weights(tmp_path, limits, winner, stored):
    space = TimedSpace([0.9, 0.83, 0.72, 0.12])
    study, record = studied(tmp_path, parts_of(RandomSearch(4, EPOCHS), space, limits={}, **limits))
    assert winner_of(record).index == record.winner == winner
    assert [int(path.parent.name) for path in sorted(study.folder.glob("candidates/*/*.pth"))] == stored
    assert record.bytes_deleted > 0
    again = Study(study.folder, parts_of(RandomSearch(4, EPOCHS), space, limits={}, **limits), worker=WORKER)
    assert again.run().candidates == record.candidates


def test_the_weights_of_the_best_of_equal_violation_remain(tmp_path):
    space = Space(QUALITIES)
    space.config = lambda drawn: Space.config(space, drawn) | {"size": 20}
    parts = parts_of(RandomSearch(3, EPOCHS), space, constraints=parse_constraints(["params <= 10"]), limits={})
    study, record = studied(tmp_path, parts)
    assert record.winner == 1
    assert [path.parent.name for path in study.folder.glob("candidates/*/*.pth")] == ["00001"]


def test_the_latency_of_the_front_is_measured_again(tmp_path):
    parts = parts_of(RandomSearch(4, EPOCHS), objectives=("max val_miou", "min latency_ms"), limits={})
    study, record = studied(tmp_path, parts)
    measured = [event.candidate for event in read_events(study.folder / JOURNAL) if event.name == "measure.measured"]
    assert set(measured) >= {row.candidate.index for row in leaderboard(record) if row.is_on_front}
    assert all(record.candidates[index].objectives["latency_ms"] == 5.0 for index in measured)
    assert (
        read(study.folder, parts_of(RandomSearch(4, EPOCHS), objectives=("max val_miou", "min latency_ms"))) == record
    )


def test_a_space_that_is_out_of_memory_ends_the_search_soon(tmp_path):
    space = Space([0.1 + 0.01 * index for index in range(60)], ("out_of_memory",))
    with pytest.raises(SearchError, match=r"30 candidates in a row ran out of memory.*max_memory_mb"):
        studied(tmp_path, parts_of(RandomSearch(50, EPOCHS), space))


def test_runs_may_lie_elsewhere_than_the_journal(tmp_path):
    parts = parts_of(halving(), retrain=RetrainOptions(top=1), run_dir=str(tmp_path / "share"))
    study, record = studied(tmp_path / "disk", parts)
    share = tmp_path / "share" / "sample" / study.folder.name
    assert (share / "candidates" / "00003" / "history.pth").is_file()
    assert (share / "retrained" / "candidate3_seed0" / "history.pth").is_file()
    assert not (share / JOURNAL).exists()
    assert record.bytes_deleted > 0
    assert not list((share / "candidates" / "00001").glob("*.pth"))
    folder = run_folder(study.folder, "candidates/00003")
    assert folder == (share / "candidates" / "00003").resolve()


def test_neither_a_clock_that_is_set_back_nor_a_pause_changes_the_time_that_a_study_took(tmp_path, monkeypatch):
    clock = [1000.0]
    jumps = {20: -3600.0}

    def seconds():
        clock[0] += 1.0 + jumps.pop(len(told), 0.0)
        told.append(clock[0])
        return clock[0]

    told = []
    monkeypatch.setattr("search.study.journal.time.time", seconds)
    study, record = studied(tmp_path, parts_of(RandomSearch(3, EPOCHS)))
    assert not jumps
    assert 30 < study.state.seconds < 60  # about one per event
    assert all(begin <= end for begin, end in record.sessions)
    clock[0] += 86400.0
    again = Study(study.folder, parts_of(RandomSearch(3, EPOCHS)), worker=WORKER, num_samples=4)
    again.run()
    assert again.state.seconds < 200
    assert len(again.state.sessions) == 2


def test_files_in_the_place_of_folders_are_named(tmp_path):
    study, _ = studied(tmp_path, parts_of(RandomSearch(2, EPOCHS)))
    (study.folder / ".lock-process").unlink()
    (study.folder / ".lock-process").mkdir()  # it cannot be written, and is not needed
    (study.folder / "workers").rmdir()
    (study.folder / "workers").write_text("")
    with pytest.raises(SearchError, match=r"workers: cannot be created \(File exists\)"):
        Study(study.folder, parts_of(RandomSearch(3, EPOCHS)), worker=WORKER, num_samples=3).run()
