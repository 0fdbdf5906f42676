"""The tasks of a progressive search that predict: they say that they are at work, and know costs before trainings."""

import json
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from search.strategies.popnas.estimates import EXPANSION
from search.study.settings import build_study_parts
from search.study.study import build_strategy
from search.worker import estimating
from search.worker.runner import run_task
from tests.support.simulated_study import World
from tests.test_search_popnas import cells_of, generations, simulation, study_config
from utils.architecture.cells.cell import Cell
from utils.architecture.cells.grammar import Grammar
from utils.architecture.cells.loading import load_expansion

OPERATORS = ("identity", "3x3 conv", "3x3 maxpool")


class ExactCosts(World):
    """Workers that know the parameters of each cell: 10 per convolution, one of five to other operations."""

    def estimate(self, payload):
        outcome = super().estimate(payload)
        folder = Path(payload["folder"])
        texts = load_expansion(folder / EXPANSION).texts()
        np.savez(folder / "costs.npz", params=np.array([params_of(each) for each in texts], dtype=float))
        return {**outcome, "costs": str(folder / "costs.npz")}


def params_of(text):
    return sum(10 if name == "3x3 conv" else 1 for block in Cell.parse(text).blocks for name in block.operators)


@pytest.mark.parametrize("bound", [{"limits": {"max_params": 11}}, {"constraints": ["params <= 11"]}])
@pytest.mark.parametrize("most", [None, 3])
def test_cells_of_one_block_that_break_a_limit_are_never_drawn(tmp_path, bound, most):
    simulated = simulation(tmp_path, ExactCosts(), args={"blocks": 1, "max_first": most}, **bound)
    study = simulated.run()
    first = generations(simulated)[1]
    assert first.num_expanded == 6
    assert len(first.cells) == (5 if most is None else 3), "all but two convolutions; others take the place of refused"
    assert all(params_of(each) <= 11 for each in cells_of(simulated))
    assert {each.reason for each in first.cells} == {"first"}
    assert len(study.state.candidates) == 1 + len(first.cells)


def test_without_a_bound_the_first_cells_need_no_worker(tmp_path):
    class Forbidden(World):
        def estimate(self, payload):
            raise AssertionError

    simulation(tmp_path, Forbidden(), args={"blocks": 1}, objectives=["max val_miou", "min params"]).run()


def test_first_cells_whose_costs_cannot_be_found_are_all_drawn(tmp_path):
    class Unlucky(World):
        def estimate(self, payload):
            return {"status": "failed", "reason": "no memory for it"}

    simulated = simulation(tmp_path, Unlucky(), args={"blocks": 1}, limits={"max_params": 11})
    simulated.run()
    assert len(generations(simulated)[1].cells) == 6


def test_costs_that_were_found_before_the_predictors_failed_are_kept(tmp_path):
    class Unlucky(ExactCosts):
        def estimate(self, payload):
            super().estimate(payload)
            return {"status": "failed", "reason": "no memory for it"}

    goals = {"objectives": ["max val_miou", "min params"], "constraints": ["params <= 22"]}
    simulated = simulation(tmp_path, Unlucky(), limits={}, **goals)
    simulated.run()
    second = generations(simulated)[2]
    assert {name: each["name"] for name, each in second.predictors.items()} == {
        "val_miou": "parents",
        "params": "exact",
    }
    assert second.predicted == ["val_miou"]
    assert all(each.estimates["params"] == params_of(each.cell) <= 22 for each in second.cells)


def test_a_worker_writes_costs_before_it_predicts(tmp_path, monkeypatch):
    task = request(tmp_path)
    monkeypatch.setattr(estimating, "build_training_step", lambda *_: None)
    monkeypatch.setattr(estimating, "costs_of_networks", lambda *_: {"params": np.arange(task["count"], dtype=float)})
    (tmp_path / "history.json").write_text("damaged")
    assert run_task({**task, "facts": ["params"]}, lambda _: "continue")["status"] == "failed"
    assert len(np.load(tmp_path / "costs.npz")["params"]) == task["count"]


def test_costs_that_had_to_be_predicted_are_compared_after_the_last_generation(tmp_path):
    asked = []

    class NoPlan(World):
        def estimate(self, payload):
            asked.append((payload["count"] > 0, payload["facts"]))
            return super().estimate(payload)

    goals = {"objectives": ["max val_miou", "min params"], "limits": {}}
    simulation(tmp_path / "predicted", NoPlan(), **goals).run()
    assert asked[-1] == (False, [])
    assert asked[0] == (True, ["params"])


def test_a_bound_that_no_cell_keeps_ends_the_search_and_says_so(tmp_path, caplog):
    simulated = simulation(tmp_path, ExactCosts(), limits={"max_params": 1})
    study = simulated.run()
    assert len(study.state.candidates) == 1
    assert "No cell of one block keeps search.limits" in caplog.text


@pytest.mark.parametrize("kills", [[5], [6, 1, 1, 3], [7, 2, 4]])
def test_a_killed_study_with_a_bound_has_the_same_cells(tmp_path, kills):
    search = {"limits": {"max_params": 11}}
    whole, killed = (simulation(tmp_path / name, ExactCosts(), **search) for name in ("whole", "killed"))
    whole.run()
    killed.run(kills=kills)
    assert cells_of(killed) == cells_of(whole)


def request(folder, cells=24):
    grammar = Grammar(OPERATORS, lookbacks=2, blocks=2)
    first = grammar.expand([grammar.empty]).texts()[:cells]
    scores = [0.5 + 0.01 * number for number in range(len(first))]
    content = {"cells": first, "results": {"val_miou": scores}, "before": []}
    (folder / "history.json").write_text(json.dumps(content))
    expansion = grammar.expand(first[:4])
    expansion.save(folder / "expansion.npz")
    return {
        "kind": "estimate", "folder": str(folder), "objectives": ["max val_miou"], "seed": 3, "members": 3,
        "epochs": 12, "config": {}, "facts": [], "count": len(expansion),
    }  # fmt: skip


def test_after_the_last_generation_its_predictions_are_compared_and_no_costs_are_computed(tmp_path):
    task = request(tmp_path)
    grammar = Grammar(OPERATORS, lookbacks=2, blocks=2)
    grammar.expand([]).save(tmp_path / "expansion.npz")
    file = tmp_path / "history.json"
    history = json.loads(file.read_text())
    known = dict(zip(history["cells"], history["results"]["val_miou"], strict=True))
    before = [
        {"cell": cell, "reason": "front", "estimates": {"val_miou": value - 0.1}} for cell, value in known.items()
    ]
    file.write_text(json.dumps(history | {"before": before[-6:]}))
    task |= {"count": 0, "objectives": ["max val_miou", "min params"], "facts": ["params"]}
    answers = run_task(task, lambda _: "continue")
    assert (answers["status"], answers["predictors"], "costs" in answers) == ("ended", {}, False)
    audit = answers["audit"]["val_miou"]
    assert (audit["cells"], audit["rank_correlation"]) == (6, pytest.approx(1.0))
    assert audit["error"] == pytest.approx(0.1)
    assert {"parents", "operations"} <= audit["by"].keys()


def test_a_prediction_says_every_second_that_it_is_at_work(tmp_path, monkeypatch):
    told, clock = [], count()
    monkeypatch.setattr(estimating, "monotonic", lambda: 0.5 * next(clock))
    answers = run_task(request(tmp_path), lambda message: told.append(message) or "continue")
    assert answers["status"] == "ended"
    assert len(told) >= 6, "every second time that it is asked, at each of 12 epochs"
    assert all(each == {"is_at_work": True} for each in told)


def test_a_prediction_ends_if_its_search_pauses(tmp_path, monkeypatch):
    clock = count()
    monkeypatch.setattr(estimating, "monotonic", lambda: next(clock))
    assert run_task(request(tmp_path), lambda _: "pause") == {"status": "interrupted"}
    assert not (tmp_path / "estimates.npz").exists()


def test_a_prediction_that_hangs_is_ended_as_a_training_is(tmp_path):
    class Hangs(World):
        def estimate(self, payload):
            return None

    simulated = simulation(tmp_path, Hangs())
    simulated.run()
    assert "it reported nothing for 5 s" in generations(simulated)[2].predictors["val_miou"]["reason"]


def test_the_description_says_which_number_it_names():
    strategy = build_strategy(build_study_parts(study_config(num_samples=30)))
    assert strategy.describe(strategy.strategies[0].parts.space).endswith("until 30 are trained in all.")
