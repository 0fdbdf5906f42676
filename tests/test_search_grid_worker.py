"""Grid studies with real trainings: folds that are pooled, and conditions that are searches."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

import search
from search.comparison.runs import read_run
from search.comparison.studies import runs_of_study
from search.results.leaderboard import winner_of
from search.study.driver import Driver
from search.study.folders import find_studies
from test import test as evaluate_checkpoint
from tests.support.people import people_loader
from trainer.checkpoints.resume import weights_of
from utils.checkpoint_file import BEST, read_saved
from utils.errors import ConfigError


@pytest.fixture
def config(tmp_path):
    return {
        "name": "small",
        "n_gpu": 0,
        "arch": {"type": "UNet", "args": {"channels": [4, 8], "norm": "group"}},
        "train_loader": people_loader("train", 9),
        "valid_loader": people_loader("valid", 4, is_training=False),
        "optimizer": {"type": "SGD", "args": {"lr": 0.05}},
        "loss": "ce_loss",
        "metrics": ["miou", "accuracy"],
        "trainer": {
            "epochs": 2,
            "save_dir": str(tmp_path),
            "monitor": "max val_miou",
            "precision": "fp32",
            "tensorboard": False,
        },
    }


def test_pooled_results_are_those_of_the_summed_counts(config):
    config["search"] = {"study": {"conditions": {"plain": {}}, "folds": 3}}
    config["train_loader"]["args"]["sparse"] = {"density": 1}
    record = search.run(config).record
    assert [each.status for each in record.candidates] == ["completed"] * 3
    assert [each.facts["labelled_images"] for each in record.candidates] == [6] * 3
    assert all(0 < each.facts["labelled_megapixels"] < 6 for each in record.candidates)
    matrices = []
    for each in record.candidates:
        content = read_saved(Path(record.folder) / each.folder)[1]
        outcome = evaluate_checkpoint(content["config"], weights_of(content), split="valid")
        assert outcome["samples"] == 3
        assert outcome["metrics"]["miou"] == pytest.approx(each.objectives["val_miou"])
        matrices.append(np.array(outcome["confusion"]))
    matrix = sum(matrices)
    hits = matrix.diagonal()
    expected = (hits / (matrix.sum(0) + matrix.sum(1) - hits)).mean()
    assert record.candidates[2].pooled == pytest.approx(
        {"val_miou": expected, "val_accuracy": hits.sum() / matrix.sum()}
    )
    assert [each.test for each in record.candidates] == [{}] * 3  # there is no test data


def test_more_seeds_on_resume_auto_continue_the_study(config, caplog):
    config["trainer"]["epochs"] = 1
    config["search"] = {"study": {"conditions": {"plain": {}}, "seeds": 1}}
    first = search.run(config)
    config["search"]["study"]["seeds"] = 2
    with caplog.at_level("INFO", "espalier"):
        more = search.run(config, resume="auto")
    assert more.folder == first.folder
    assert "The study grows from 1 to 2 candidates." in caplog.messages
    assert [each["seed"] for each in more.candidates] == [0, 1]
    config["search"]["study"]["seeds"] = 1
    with caplog.at_level("WARNING", "espalier"):
        assert search.run(config, resume="auto").folder == first.folder  # as it was begun: it is done, and remains so
    config["search"]["study"]["conditions"]["more"] = {}
    assert search.run(config, resume="auto").folder != first.folder
    assert "it differs in search.study.conditions.more (only here)" in caplog.text


def searches(config):
    config = copy.deepcopy(config)
    config["optimizer"]["args"]["lr"] = {"$loguniform": [0.01, 0.1]}
    config["test_loader"] = people_loader("test", 4, is_training=False)
    halving = {"type": "SuccessiveHalving", "args": {"grace_period": 1, "reduction_factor": 2}}
    config["search"] = {
        "study": {"conditions": {"random": {}, "halving": {"search.scheduler": halving}}},
        "num_samples": 2,
        "retrain": {"top": 1, "seeds": 2},
    }
    return config


@pytest.mark.slow
def test_a_condition_with_markers_is_a_search(config, tmp_path):
    record = search.run(searches(config)).record
    assert [each.status for each in record.candidates] == ["completed", "completed"]
    rows = [each.reports[0] for each in record.candidates]
    assert [row["candidates"] for row in rows] == [2, 2]
    assert [row["candidate_epochs"] for row in rows] == [4, 3]
    (study,) = find_studies(tmp_path / "small")
    assert study == Path(record.folder)
    for each in record.candidates:
        folder = study / each.folder
        (inner,) = find_studies(folder / "small")
        found = search.load(inner).record
        winner = winner_of(found)
        assert winner.objectives == each.objectives
        tests = [run.test["test_miou"] for run in found.retrained]
        assert each.test["test_miou"] == pytest.approx(sum(tests) / 2)
        stored = [read_run(inner / run.folder).tests["test"].content for run in found.retrained]
        assert [content["metrics"]["miou"] for content in stored] == tests
        assert all(len(content["shown"]) == content["samples"] == 4 for content in stored)
    runs = runs_of_study(record, "study")
    assert [run.condition for run in runs] == ["random", "halving"]
    assert all(0.01 <= run.config["optimizer"]["args"]["lr"] <= 0.1 for run in runs)
    best = json.loads((study / "best/config.json").read_text())
    assert 0.01 <= best["optimizer"]["args"]["lr"] <= 0.1
    assert "search" not in best
    texts = [section["text"] for section in record.sections]
    assert ["The result of a search is that of its winner" in text for text in texts] == [True, False]
    source = study / winner_of(record).folder
    assert (study / "best" / BEST).read_bytes() == (source / BEST).read_bytes()


@pytest.mark.slow
def test_a_killed_search_is_continued(config, tmp_path, monkeypatch):
    expected = search.run(searches({**config, "name": "quiet"})).record

    class Killed(BaseException):
        pass

    reports = 0
    handle = Driver._handle

    def dies(self, message):
        nonlocal reports
        reports += type(message).__name__ == "EpochReported" and "epoch" in message.message
        if reports == 6:
            raise Killed
        return handle(self, message)

    monkeypatch.setattr(Driver, "_handle", dies)
    with pytest.raises(Killed):
        search.run(searches(config))
    monkeypatch.undo()
    record = search.run(searches(config), resume="auto").record
    assert len(find_studies(tmp_path / "small")) == 1
    assert len(record.sessions) == 2
    assert [each.objectives for each in record.candidates] == [each.objectives for each in expected.candidates]
    assert [each.test for each in record.candidates] == [each.test for each in expected.candidates]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search.study.folds": 2}, "conditions.random: a search, as it has markers, and folds are for trainings"),
        (
            {"search.seed": 3},
            "search.seed: 3, and search.study trains each of its conditions in full, with the seeds from",
        ),
        ({"search.resources": {"gpus": 2}}, "search.resources"),
        (
            {"search.study.conditions": {"a": {"search.scheduler": "ASHAA"}}},
            'search.study.conditions.a: search.scheduler.type: unknown class "ASHAA"',
        ),
        (
            {"search.study.conditions": {"a": {}, "b": {"optimizer.args.lr": 1, "search.num_samples": 3}}},
            "search.study.conditions.b: search: changed, and a condition without markers is no search",
        ),
    ],
)
def test_faults_of_searches_are_found_before_the_start(config, changes, message):
    config = searches(config)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = config
        for key in parents:
            place = place[key]
        place[last] = value
    with pytest.raises(ConfigError) as error:
        search.run(config)
    assert message in str(error.value)
