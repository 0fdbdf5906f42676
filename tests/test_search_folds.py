"""Candidates that are trained in folds: their results are means, and nothing of them is lost by a kill."""

import copy
import json
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from config import load_plugins
from search.results.record import without_measured
from search.schedulers.base import Decision
from search.space.grid_space import with_fold
from search.strategies.base import StudyContext
from search.strategies.multi_fidelity import MultiFidelity
from search.study.folders import checkpoints_of
from search.study.journal import Event
from search.study.settings import build_study_parts
from search.study.state import StudyState
from search.study.study import build_strategy
from search.worker.folds import _FoldReports, _mean_report
from search.worker.launch import checked_parts, open_study
from search.worker.runner import run_task
from tests.support.people import people_config
from tests.support.simulated_study import Simulation, World
from tests.test_candidates import assert_same
from trainer.checkpoints.resume import weights_of
from utils.checkpoint_file import LAST, read_checkpoint
from utils.errors import ConfigError, SearchError

EPOCHS = 3
PLUGIN = """
from base.base_data_loader import BaseDataLoader


class PlainLoader(BaseDataLoader):
    def __init__(self, validation_split: float = 0.0, batch_size: int = 4) -> None:
        super().__init__([], batch_size, validation_split=validation_split)
"""


def config_of(tmp_path):
    config = people_config(tmp_path, EPOCHS)
    config["trainer"]["tensorboard"] = False
    return config


@pytest.fixture
def config(tmp_path):
    return config_of(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A candidate that was left in peace: its run folder, the search that it reported to, and its outcome."""
    folder, search = tmp_path_factory.mktemp("whole"), Search()
    return folder, search, work(config_of(folder), folder, search)


class Search:
    """Receives reports, decides by the epoch, and may be killed at the n-th message."""

    def __init__(self, decisions=(), dies_at=None, halts_at=None):
        self.decisions, self.dies_at, self.halts_at = dict(decisions), dies_at, halts_at
        self.rows, self.signs, self.num_messages = [], 0, 0

    def __call__(self, message):
        self.num_messages += 1
        if self.num_messages == self.dies_at:
            raise KeyboardInterrupt
        if "is_at_work" in message:
            self.signs += 1
            return "pause" if self.signs == self.halts_at else "continue"
        if "epoch" not in message:
            return "continue"
        self.rows.append(message["row"])
        return self.decisions.get(message["epoch"], "continue")


def work(config, folder, search, *, ends=(EPOCHS,), reported=0, of=2, **more):
    task = {"kind": "train", "config": config, "folder": str(folder), "reported": reported}
    return run_task(task | {"folds": {"of": of, "seed": 5, "ends": list(ends)}} | more, search)


def plain(rows):
    return [without_measured(row) for row in rows]


def epochs_of(folder):
    return [read_checkpoint(path / LAST)["epoch"] for path in (folder, folder / "fold1")]


def test_the_results_are_the_means_over_the_folds(config, tmp_path, whole):
    folder, search, outcome = whole
    assert (outcome["status"], outcome["is_finished"]) == ("ended", True)
    assert outcome["bytes"] == sum(path.stat().st_size for path in folder.rglob("*.pth"))
    alone = []
    for number in range(2):
        single = Search()
        task = {"kind": "train", "config": with_fold(config, number, 2, 5), "folder": str(tmp_path / f"f{number}")}
        run_task(task | {"reported": 0}, single)
        alone.append(single.rows)
    assert [row["epoch"] for row in search.rows] == [1, 2, 3]
    for epoch, row in enumerate(search.rows):
        for name in ("loss", "val_loss", "val_miou", "lr"):
            assert row[name] == statistics.fmean(rows[epoch][name] for rows in alone)
    assert alone[0] != alone[1]


@pytest.mark.parametrize("dies_at", [2, 5, 6, 9])
def test_a_killed_candidate_ends_in_the_same_bytes(config, tmp_path, whole, dies_at):
    folder, left, _ = whole
    killed, again = Search(dies_at=dies_at), Search()
    with pytest.raises(KeyboardInterrupt):
        work(config, tmp_path / "killed", killed)
    assert work(config, tmp_path / "killed", again, reported=len(killed.rows))["is_finished"]
    assert plain([*killed.rows, *again.rows]) == plain(left.rows)
    for name in (LAST, f"fold1/{LAST}"):
        first, second = (read_checkpoint(path / name) for path in (folder, tmp_path / "killed"))
        assert_same(second["state_dict"], first["state_dict"])


def test_folds_are_trained_to_the_next_comparison_only(config, tmp_path, whole):
    search = Search({2: "stop"})
    assert not work(config, tmp_path / "run", search, ends=[2, 3])["is_finished"]
    assert [row["epoch"] for row in search.rows] == [1, 2]
    assert epochs_of(tmp_path / "run") == [2, 2]
    later = Search()  # it was paused and is promoted
    assert work(config, tmp_path / "run", later, ends=[3], reported=2)["is_finished"]
    assert plain([*search.rows, *later.rows]) == plain(whole[1].rows)


def test_a_search_that_pauses_gets_its_worker_back_after_the_epoch(config, tmp_path, whole):
    search, later = Search(halts_at=4), Search()
    outcome = work(config, tmp_path / "run", search)
    assert (outcome["status"], outcome["is_finished"], search.rows) == ("ended", False, [])
    assert epochs_of(tmp_path / "run") == [3, 1]
    assert work(config, tmp_path / "run", later)["is_finished"]
    assert plain(later.rows) == plain(whole[1].rows)


def test_a_decision_whose_job_was_killed_is_only_trained_to_its_epoch(config, tmp_path):
    search = Search()
    outcome = work(config, tmp_path / "run", search, reported=2, until=2)
    assert (outcome["status"], outcome["is_finished"], search.rows) == ("ended", False, [])
    assert epochs_of(tmp_path / "run") == [2, 2]


def test_a_candidate_ends_where_a_fold_stops_early(config, tmp_path):
    config["trainer"] |= {"early_stop": 1, "monitor": "max val_miou"}
    config["optimizer"]["args"]["lr"] = 1e-9  # no epoch is better than the first
    search = Search()
    assert work(config, tmp_path / "run", search)["is_finished"]
    assert len(search.rows) == 2
    again = Search()
    assert work(config, tmp_path / "run", again, reported=len(search.rows))["is_finished"]
    assert again.rows == []


def test_a_fold_that_cannot_be_trained_fails_its_candidate(config, tmp_path):
    outcome = work(config, tmp_path / "run", Search(), of=9)
    assert outcome["status"] == "failed"
    assert "8 samples cannot make 9 folds" in outcome["reason"]


# ---- a study


def searched(config, **search):
    new = copy.deepcopy(config)
    new["optimizer"]["args"]["lr"] = {"$choice": [0.05, 0.01, 0.002]}
    given = {"num_samples": 3, "folds": 2, "retrain": {"top": 1, "epochs": 1}, "sampler": "random"}
    new["search"] = {key: value for key, value in (given | search).items() if value is not None}
    return new


def test_a_study_trains_the_best_again_with_all_data(config):
    objectives = ["max val_miou", "min val_loss"]
    scheduler = {"type": "ASHA", "args": {"grace_period": 1, "reduction_factor": 2}}
    study = open_study(searched(config, objectives=objectives, scheduler=scheduler))
    record = study.run()
    (run,) = record.retrained
    weights = torch.load(study.folder / "best/model_best.pth", weights_only=True)
    assert "folds" not in json.dumps(weights["config"]["train_loader"])
    assert_same(weights_of(weights), weights_of(read_checkpoint(study.folder / run.folder / "model_best.pth")))
    assert not (study.folder / "best/0/model_best.pth").exists(), "no fold has the weights of a mean"
    trained = [each for each in record.candidates if each.folder]
    stored = {each.index for each in trained if any(checkpoints_of(study.folder / each.folder))}
    assert len(stored) < 3
    assert record.bytes_deleted > 0
    seeds = {
        json.loads((study.folder / each.folder / "config.json").read_text())["data_loader"]["args"]["folds"]["seed"]
        for each in trained
    }
    assert len(seeds) == 1, "all candidates have the same folds"


def test_jobs_say_where_folds_may_end(tmp_path):
    scheduler = {"type": "ASHA", "args": {"grace_period": 1, "reduction_factor": 3, "mode": "stop"}}
    search = {"folds": 3, "retrain": {"top": 1}, "scheduler": scheduler, "num_samples": 2}
    config = {"name": "s", "trainer": {"epochs": 9, "monitor": "max val_miou"}, "x": {"$uniform": [0, 1]}}
    study = Simulation(tmp_path, lambda: build_study_parts(config | {"search": search}), World()).run()
    parts = study.strategy.strategies[0].parts
    assert parts.folds_of(0, 9)["folds"] == {"of": 3, "seed": parts.space.study_seed, "ends": [1, 3, 9]}
    assert parts.folds_of(3, 9)["folds"]["ends"] == [9]


def test_a_user_who_pauses_a_candidate_waits_for_the_epoch_of_a_fold(config):
    strategy = strategy_in_session(searched(config))
    task = type("Task", (), {"candidate": 1})
    assert strategy.reported(task, {"is_at_work": True}) is Decision.CONTINUE
    strategy._paused.add(1)
    assert strategy.reported(task, {"is_at_work": True}) is Decision.PAUSE


def strategy_in_session(config, began=None):
    """Return the strategy of a study whose session began at a time, by default now."""
    parts = build_study_parts(config)
    strategy, state = build_strategy(parts).strategies[0], StudyState(parts.objectives, parts.max_epochs)
    strategy.bind(StudyContext(lambda *args, **data: None, state, list, list, Path()))
    state.apply(Event("study.begin", None, {}, time.time() if began is None else began))
    return strategy


def test_a_budget_of_minutes_ends_in_the_middle_of_the_folds(config):
    task = type("Task", (), {"candidate": 0})
    for minutes, decision in ((None, Decision.CONTINUE), (11, Decision.CONTINUE), (10, Decision.PAUSE)):
        strategy = strategy_in_session(searched(config, budget={"max_time": minutes}), time.time() - 600)
        assert strategy.spent_budget == "", "no event has said so"
        assert strategy.reported(task, {"is_at_work": True}) is decision
        assert strategy.spent_budget == ("10 minutes are over" if decision is Decision.PAUSE else "")


def test_a_study_in_folds_stops_with_its_budget_of_minutes(config, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr("search.strategies.budget.time", SimpleNamespace(time=lambda: time.time() + seconds[0]))
    signs, reported = [], MultiFidelity.reported

    def late(strategy, task, message):
        signs.extend([True] if "is_at_work" in message else [])
        seconds[0] = 60.0 * bool(signs)  # in the first fold
        return reported(strategy, task, message)

    monkeypatch.setattr(MultiFidelity, "reported", late)
    config["trainer"]["epochs"] = 1
    study = open_study(searched(config, budget={"max_time": 0.9}))
    with pytest.raises(
        SearchError, match=r"no candidate has a result, and 0\.9 minutes are over\..*Raise search\.budget"
    ):
        study.run()
    assert len(signs) == 1
    assert not (study.folder / "candidates/00000/fold1").exists()


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"retrain": None}, r"search\.folds: 2, and a candidate is then so many networks.*\"retrain\": \{\"top\": 1\}"),
        ({"retrain": {"top": 0}}, r"search\.folds: 2, and a candidate is then so many networks"),
        ({"folds": 1}, r"search\.folds: 1 must be an integer >= 2"),
    ],
)
def test_folds_that_make_no_sense_are_refused(config, search, message):
    with pytest.raises(ConfigError, match=message):
        build_study_parts(searched(config, **search))


def test_loaders_without_folds_are_refused_before_the_first_training(config, tmp_path):
    (tmp_path / "plain_loader_plugin.py").write_text(PLUGIN)
    load_plugins([str(tmp_path / "plain_loader_plugin.py")])
    config = searched(config)
    config["data_loader"] = {"type": "plain_loader_plugin.PlainLoader", "args": {"validation_split": 0.5}}
    del config["train_loader"], config["valid_loader"]
    with pytest.raises(ConfigError, match=r"search\.folds: 2: data_loader\.args\.folds: "):
        checked_parts(config)


def test_strategies_that_cannot_train_in_folds_say_so(config):
    parts = build_study_parts(searched(config))
    with pytest.raises(ConfigError, match="PBT cannot train a candidate in folds"):
        build_strategy(replace(parts, strategy={"type": "PBT", "args": {"interval": 1}}, retrain=None))


def test_seconds_of_an_epoch_are_those_that_are_known():
    reports = [_FoldReports(Search(), 1, number == 0) for number in range(3)]
    for report, seconds in zip(reports, (math.nan, 2.0, 3.0), strict=True):
        report({"epoch": 1, "row": {"val_miou": seconds}, "seconds": seconds})
    assert _mean_report(1, reports)["seconds"] == 5.0
    assert math.isnan(_mean_report(1, reports[:1])["seconds"])
