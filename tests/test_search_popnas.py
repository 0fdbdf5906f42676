"""A progressive search: its generations, schedulers within them, kills, failures, commands, and files."""

import csv
import json
from collections import Counter
from dataclasses import astuple, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.popnas.model import CellNet
from search.cli.control import control_parser, run_control
from search.cli.export import export_csv
from search.cli.test_run import shrunk
from search.results.record import parse_objectives
from search.samplers.base import Observation
from search.schedulers.base import Decision, Ending, Job, Need
from search.schedulers.generations import Generations
from search.schedulers.halving import RandomSearch
from search.space.drawn import Drawn
from search.strategies.multi_fidelity import candidate_folder
from search.strategies.popnas.estimates import Trained, as_if_complete
from search.strategies.popnas.generation import ChosenCell, Generation, audit_of, unaudited
from search.strategies.popnas.options import OPERATORS as OPERATORS_OF_IMAGES
from search.strategies.popnas.options import SERIES_OPERATORS
from search.study.folders import create_study_folder
from search.study.settings import build_study_parts, num_samples_of, with_num_samples
from search.study.study import Study, build_strategy
from search.worker import callbacks, estimating
from tests.support.simulated_study import Simulation, World, results
from utils import plugins
from utils.architecture.cells.cell import Block, Cell
from utils.architecture.cells.grammar import Grammar
from utils.architecture.cells.nasbench201 import write_architecture
from utils.architecture.cells.network import MacroOptions
from utils.errors import ConfigError, SearchError

OPERATORS = ["identity", "3x3 conv", "3x3 maxpool"]
ARGS = {"blocks": 3, "lookbacks": 1, "operators": OPERATORS, "max_children": 4, "max_exploration": 2}
OBJECTIVES = ["max val_miou", "min val_loss"]


def study_config(args=None, **search):
    strategy = {"type": "POPNAS", "args": {**ARGS, **(args or {})}}
    given = {"objectives": OBJECTIVES, "strategy": strategy, "seed": 1}
    return {
        "name": "s",
        "arch": {"type": "CellNet", "args": {"motifs": 2, "normal_cells": 1, "filters": 8}},
        "trainer": {"epochs": 3},
        "search": given | search,
    }


def simulation(folder, world=None, *, workers=1, args=None, seed=0, **search):
    config = study_config(args, **search)
    return Simulation(folder, lambda: build_study_parts(config), world or World(), workers, seed)


class TrainsTheEmptyCell(World):
    """A world in which nothing happens to the first candidate."""

    def fate(self, run, epochs):
        fate, epoch = super().fate(run, epochs)
        return None if run == candidate_folder(0) else fate, epoch


def generations(simulated, *, of_audit=False):
    found = [Generation.from_json(each.data) for each in simulated.events if each.kind == "generation"]
    return [each for each in found if each.is_audit == of_audit]


def cells_of(simulated):
    return [each.data["cell"] for each in simulated.events if each.kind == "drawn"]


def test_cells_grow_from_the_empty_one_block_by_block(tmp_path):
    simulated = simulation(tmp_path)
    study = simulated.run()
    empty, first, second, third = generations(simulated)
    assert [each.cell for each in empty.cells] == ["[]"]
    assert len(first.cells) == 6, "3 operations on one input: (9 + 3) / 2"
    assert {len(Cell.parse(each.cell)) for each in second.cells} == {2}
    assert {len(Cell.parse(each.cell)) for each in third.cells} == {3}
    assert Counter(each.reason for each in second.cells)["front"] <= 4
    assert Counter(each.reason for each in second.cells)["exploration"] <= 2
    assert {each.reason for each in third.cells} == {"front"}, "what is rare is not sought at the end"
    drawn = cells_of(simulated)
    assert len(set(drawn)) == len(drawn) == len(study.state.candidates)
    grown = {each.cell for each in second.cells}
    for each in third.cells:
        cell = Cell.parse(each.cell)
        assert {str(without(cell, place).canonical()) for place in cell.unused_blocks} & grown


def without(cell, place):
    """A cell without one of its blocks, which no other reads."""

    def moved(number):
        return number - (number > place)

    left = [block for number, block in enumerate(cell.blocks) if number != place]
    return Cell(tuple(Block(moved(a), one, moved(b), other) for a, one, b, other in map(astuple, left)))


def test_a_candidate_is_the_config_with_its_cell(tmp_path):
    simulated = simulation(tmp_path, retrain={"top": 1, "epochs": 5})
    study = simulated.run()
    best = study.ranked()[0]
    config = study.strategy.config_of(best)
    assert config["arch"]["args"] == {
        "motifs": 2, "normal_cells": 1, "filters": 8, "cell": cells_of(simulated)[best]
    }  # fmt: skip
    assert "search" not in config
    (run,) = study.state.retrained.values()
    assert (run.candidate, run.max_epochs) == (best, 5)
    assert dict(study.state.candidates[best].record.drawn) == {"arch.args.cell": cells_of(simulated)[best]}


@pytest.mark.parametrize(
    "scheduler",
    [
        "RandomSearch",
        {"type": "ASHA", "args": {"grace_period": 1, "mode": "promote"}},
        {"type": "ASHA", "args": {"grace_period": 1, "mode": "stop"}},
        {"type": "SuccessiveHalving", "args": {"reduction_factor": 2}},
        "Hyperband",
    ],
)
@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_study_ends_as_one_that_was_left_in_peace(tmp_path, scheduler, workers):
    search = {"scheduler": scheduler, "retrain": {"top": 1, "epochs": 2}}
    whole = simulation(tmp_path / "whole", workers=workers, **search).run()
    killed = simulation(tmp_path / "killed", workers=workers, **search)
    study = killed.run(kills=range(1, 40, 3))
    assert study.record().is_done is False
    if workers == 1 or scheduler in ("RandomSearch", "Hyperband"):
        assert results(study) == results(whole)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_to_cells_the_study_comes_to_its_end(tmp_path, seed):
    fates = {"refused": 0.1, "out_of_memory": 0.1, "fails": 0.15, "hangs": 0.05, "diverges": 0.1, "finishes": 0.1}
    simulated = simulation(
        tmp_path,
        TrainsTheEmptyCell(fates, deaths=0.03),
        workers=2,
        seed=seed,
        scheduler={"type": "ASHA", "args": {"grace_period": 1}},
        limits={"max_params": 10**6},
    )
    simulated.commands, simulated.stops = 0.03, 0.01
    study = simulated.run(kills=[20, 15, 30, 11])
    assert study.strategy.is_done
    assert max(each.blocks for each in generations(simulated)) == 3


def test_if_all_cells_of_one_block_fail_nothing_grows(tmp_path):
    simulated = simulation(tmp_path, TrainsTheEmptyCell({"fails_first": 1.0}))
    simulated.run()
    assert [each.blocks for each in generations(simulated)] == [0, 1]


@pytest.mark.parametrize(("fate", "expected"), [("fails", [0]), ("diverges", [0, 1, 2, 3])])
def test_if_the_empty_cell_does_not_train_an_epoch_no_cell_follows(tmp_path, fate, expected):
    class Spoiled(World):
        def fate(self, run, epochs):
            return (fate, 1) if run == candidate_folder(0) else (None, 1)

    simulated = simulation(tmp_path, Spoiled())
    study = simulated.run()
    assert [each.blocks for each in generations(simulated)] == expected
    assert study.strategy.is_done


def test_a_prediction_that_fails_again_and_again_is_that_of_the_parents(tmp_path):
    class Unlucky(World):
        def estimate(self, payload):
            return {"status": "failed", "reason": "no memory for it"}

    simulated = simulation(tmp_path, Unlucky())
    simulated.run()
    second = generations(simulated)[2]
    assert {name: each["name"] for name, each in second.predictors.items()} == {
        "val_miou": "parents",
        "val_loss": "parents",
    }
    assert second.predictors["val_miou"]["reason"] == "no memory for it"


def test_predictions_whose_comparison_failed_are_compared_with_those_that_follow(tmp_path):
    class FailsOnce(World):
        def estimate(self, payload):
            if payload["folder"].endswith("3_1"):
                return {"status": "failed", "reason": "no memory for it"}
            before = json.loads((Path(payload["folder"]) / "history.json").read_text())["before"]
            return {**super().estimate(payload), "audit": {"val_miou": {"cells": [each["cell"] for each in before]}}}

    simulated = simulation(tmp_path, FailsOnce())
    study = simulated.run()
    _, _, second, third = generations(simulated)
    (last,) = generations(simulated, of_audit=True)
    assert (second.audited, third.audited, last.audited) == ([], [], [(2, 1), (3, 1)])
    assert last.audit["val_miou"]["cells"] == [each.cell for each in [*second.cells, *third.cells]]
    known = study.strategy.strategies[0].generations
    assert [audit_of(place, known) for place in (2, 3)] == [last.audit, last.audit]


def test_an_audit_of_an_earlier_version_is_of_the_generation_before():
    cells = [ChosenCell("[]", "front", {"val_miou": 0.5})]
    audits = [{}, {"val_miou": {"cells": 1}}, {}, {"val_miou": {"cells": 2}}]
    known = [Generation(blocks, 1, cells, audit=audit) for blocks, audit in enumerate(audits)]
    assert [audit_of(place, known) for place in range(4)] == [audits[1], {}, audits[3], {}]
    assert unaudited(known) == known[3:]


def test_predictions_that_are_not_finite_or_too_few_are_not_used(tmp_path):
    class Wrong(World):
        def estimate(self, payload):
            outcome = super().estimate(payload)
            np.savez(outcome["file"], **{"mean.val_miou": np.full(payload["count"], np.nan)})
            return outcome

    simulated = simulation(tmp_path, Wrong())
    simulated.run()
    assert "no finite prediction" in generations(simulated)[2].predictors["val_miou"]["reason"]


def test_the_trivial_predictor_needs_no_worker(tmp_path):
    class Forbidden(World):
        def estimate(self, payload):
            raise AssertionError

    simulated = simulation(tmp_path, Forbidden(), args={"predictor": "trivial"})
    simulated.run()
    known = {each.data["cell"]: each.candidate for each in simulated.events if each.kind == "drawn"}
    assert len(known) > 7


def test_the_best_scores_next_to_the_front_may_be_trained_too(tmp_path):
    simulated = simulation(tmp_path, args={"max_best": 3, "max_exploration": 0})
    simulated.run()
    for each in generations(simulated)[2:]:
        best = [cell.estimates["val_miou"] for cell in each.cells if cell.reason == "score"]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        assert len({cell.cell for cell in each.cells}) == len(each.cells)


def test_pnas_mode_takes_the_best_predicted_scores(tmp_path):
    simulated = simulation(tmp_path, args={"pnas_mode": True}, objectives=["max val_miou"])
    simulated.run()
    for each in generations(simulated)[2:]:
        front = [cell.estimates["val_miou"] for cell in each.cells]
        assert {cell.reason for cell in each.cells} == {"front"}
        assert len(front) == 4
        assert front == sorted(front, reverse=True)


def test_with_a_number_of_cells_the_last_generation_continues_until_there_are_so_many(tmp_path):
    simulated = simulation(tmp_path, num_samples=25)
    study = simulated.run()
    assert len(study.state.candidates) == 25
    rounds = [(each.blocks, each.round) for each in generations(simulated)]
    assert rounds[:5] == [(0, 1), (1, 1), (2, 1), (3, 1), (3, 2)]


def test_fewer_cells_than_a_generation_has(tmp_path):
    simulated = simulation(tmp_path, num_samples=4)
    study = simulated.run()
    assert len(study.state.candidates) == 4
    assert [len(each.cells) for each in generations(simulated)] == [1, 3]


def faults_of(config):
    parts = build_study_parts(config)
    return build_strategy(parts).find_faults(parts.space, lambda _: None)


def test_a_number_of_cells_that_ends_among_those_of_one_block_is_refused_with_the_number_needed():
    message = r"search.num_samples: 6, and .* are 7 already: .* up to 1 \+ 6 \+ 6 \+ 4 = 17 cells. Write 17 or more, or"
    with pytest.raises(ConfigError, match=message):
        faults_of(study_config(num_samples=6))
    assert faults_of(study_config({"max_first": 3}, num_samples=6)) == []
    assert faults_of(study_config(num_samples=1)) == []  # a trial
    assert faults_of(study_config(num_samples=6, constraints=["params <= 5000"])) == []  # fewer may keep it


@pytest.mark.parametrize(
    ("asked", "said"), [(13, "no cells of 3 blocks are trained"), (16, "some cells of 3 blocks are left out"), (17, "")]
)
def test_a_number_of_cells_that_cuts_generations_is_said(caplog, asked, said):
    assert faults_of(study_config(num_samples=asked)) == []
    assert said in caplog.text
    assert ("Write 17 or more" in caplog.text) == bool(said)


def test_a_study_that_was_begun_with_too_few_cells_continues(tmp_path):
    parts = replace(build_study_parts(study_config(num_samples=6)), is_new=False)
    assert build_strategy(parts).find_faults(parts.space, lambda _: None) == []
    simulated = simulation(tmp_path, num_samples=4)
    simulated.run()
    alone = {cell.blocks[0].operators for cell in map(Cell.parse, cells_of(simulated)[1:])}
    assert alone == {(each, each) for each in OPERATORS}, "the cells are no slice of a list"


def test_a_study_with_a_number_of_cells_grows(tmp_path):
    simulated = simulation(tmp_path, num_samples=9)
    simulated.run()
    study = Study(tmp_path, simulated.build_parts(), worker="")
    simulated.restore(study)
    study.strategy.grow(12)
    assert study.strategy.num_samples == 12
    other = simulation(tmp_path / "other")
    other.run()
    study = Study(tmp_path, other.build_parts(), worker="")
    other.restore(study)
    with pytest.raises(SearchError, match=r"num_samples 99: .* was begun without a number of cells. Start a new"):
        study.strategy.grow(99)


def test_a_study_without_a_number_of_cells_is_resumed_without_one():
    config = study_config()
    assert "num_samples" not in with_num_samples(config, num_samples_of(config))["search"]
    assert with_num_samples(config, 7)["search"]["num_samples"] == 7


def test_rounds_choose_from_the_same_parents_what_was_not_trained(tmp_path):
    simulated = simulation(tmp_path, args={"blocks": 2, "rounds": 3})
    simulated.run()
    last = [each for each in generations(simulated) if each.blocks == 2]
    assert [each.round for each in last] == [1, 2, 3]
    chosen = [cell.cell for each in last for cell in each.cells]
    assert len(set(chosen)) == len(chosen)
    assert last[1].num_expanded == last[0].num_expanded - len(last[0].cells)


@pytest.mark.parametrize("predictor", ["auto", "trivial"])
@pytest.mark.parametrize(
    ("args", "search", "sizes"),
    [
        ({"rounds": 3, "max_children": 2}, {}, [1, 2, 2, 2]),
        ({"max_children": 2}, {"num_samples": 6}, [1, 2, 2, 1]),
        ({"max_children": 8}, {"num_samples": 20}, [1, 2, 4, 0]),  # there are six of one block
    ],
)
def test_cells_of_one_block_are_chosen_again_and_again_too(tmp_path, args, search, sizes, predictor):
    class Audits(World):
        def estimate(self, payload):
            return {**super().estimate(payload), "audit": {"val_miou": {"count": payload["count"]}}}

    simulated = simulation(
        tmp_path, Audits(), args={"blocks": 1, "max_first": 2, "predictor": predictor, **args}, **search
    )
    simulated.run()
    assert [len(each.cells) for each in generations(simulated)] == sizes
    last = [each.audit for each in generations(simulated, of_audit=True)]
    assert last == ([{"val_miou": {"count": 0}}] if predictor == "auto" else []), "after the last generation, once"
    assert len(set(cells_of(simulated))) == sum(sizes)


def test_scores_of_cells_that_were_stopped_are_estimated_and_their_costs_are_not():
    goals = parse_objectives(["min val_loss", "min training_time"])
    curves = {number: [0.9, 0.9 - 0.1 * number] for number in range(6)} | {6: [0.5], 7: [0.95]}  # two were stopped
    seen = [Observation(number, Drawn(), tuple((-value, -1.0) for value in curve)) for number, curve in curves.items()]
    trained = [
        Trained(number, "[]", {"val_loss": min(curve), "training_time": 1.0}, len(curve))
        for number, curve in curves.items()
    ]
    found = {each.candidate: each.results for each in as_if_complete(trained, seen, goals, (1, 2))}
    assert [found[number]["val_loss"] for number in range(6)] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert found[6]["val_loss"] == found[7]["val_loss"], "of equal early results nothing follows"
    assert 0.4 < found[6]["val_loss"] < 0.9
    assert {each["training_time"] for each in found.values()} == {1.0}
    whole = trained[:6]
    assert as_if_complete(whole, seen, goals, (1, 2)) == whole


def test_a_search_that_ended_is_not_continued_by_later_rules(tmp_path):
    args = {"blocks": 1, "max_first": 2}
    simulated = simulation(tmp_path, args=args)
    simulated.run()
    before = cells_of(simulated)
    simulated.build_parts = simulation(tmp_path / "more", args={**args, "rounds": 3}).build_parts
    simulated.run()
    assert cells_of(simulated) == before


def test_a_spent_budget_ends_it_and_a_larger_one_continues_it(tmp_path):
    simulated = simulation(tmp_path, budget={"epochs": 10})
    simulated.run()
    assert [each.blocks for each in generations(simulated)] == [0, 1]
    larger = study_config()
    simulated.build_parts = lambda: build_study_parts(larger)
    assert results(simulated.run()) == results(simulation(tmp_path / "whole").run())


@pytest.mark.parametrize(
    ("args", "search", "message"),
    [
        ({}, {"objectives": ["max val_miou"]}, r"a front needs a second objective. Add one, .*pnas_mode"),
        ({}, {"objectives": ["min params", "max val_miou"]}, r"the first one is the score"),
        ({}, {"sampler": "random"}, r"search.sampler: \"random\", and POPNAS chooses the cells itself. Remove it."),
        ({"operators": ["3x3 conf"]}, {}, r"search.strategy.args.operators.*3x3 conf.*3x3 conv"),
        ({"operators": ["identity", "identity"]}, {}, r"operators.1: \"identity\" is named twice"),
        ({"blocks": 0}, {}, r"search.strategy.args.blocks: 0 must be"),
        ({"max_childs": 3}, {}, r"search.strategy.args.max_childs: unknown argument .*Did you mean \"max_children\""),
        ({"grammar": "nasbench201"}, {}, r"search.strategy.args.blocks: 3, and the grammar"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(args, search, message):
    with pytest.raises(ConfigError, match=message):
        build_strategy(build_study_parts(study_config(args, **search)))


class SeriesLoader:
    dims = 1


class MaskLoader:
    task = "segmentation"


class UnknownLoader:
    pass


@pytest.mark.parametrize(
    ("arch", "loader", "dims"),
    [
        ({}, {"type": "TimeSeriesDataLoader", "args": {"path": "data/images"}}, 1),
        ({}, {"type": "ImageClassificationDataLoader", "args": {"folder": "data/Ucr/SeriesPictures"}}, 2),
        ({}, {"type": f"{__name__}.SeriesLoader"}, 1),
        ({}, f"{__name__}.MaskLoader", 2),
        ({}, f"{__name__}.UnknownLoader", None),
        ({"dims": 1}, f"{__name__}.UnknownLoader", 1),
    ],
)
def test_default_operators_are_those_of_the_data_and_not_of_its_path(monkeypatch, arch, loader, dims):
    monkeypatch.setitem(plugins.loaded, __name__.partition(".")[0], Path(__file__))
    config = study_config({"operators": None})
    config["arch"]["args"] |= arch
    config["train_loader"] = loader
    strategy = build_strategy(build_study_parts(config))
    assert strategy.strategies[0].cells.grammar.operators == (SERIES_OPERATORS if dims == 1 else OPERATORS_OF_IMAGES)
    if dims is None:
        with pytest.raises(ConfigError, match=r"operators: null, and .*UnknownLoader.* does not say whether"):
            faults_of(config)
    else:
        assert faults_of(config) == []


@pytest.mark.parametrize(
    ("loader", "operators"), [("my.SeriesLoader", SERIES_OPERATORS), ("my.Loader", OPERATORS_OF_IMAGES)]
)
def test_a_study_that_was_begun_with_operations_by_the_name_of_its_loader_retains_them(loader, operators):
    config = study_config({"operators": None}) | {"train_loader": {"type": loader, "args": {}}}
    strategy = build_strategy(replace(build_study_parts(config), is_new=False))
    assert strategy.strategies[0].cells.grammar.operators == operators


@pytest.mark.parametrize("strategy", ["POPNAS", {"type": "POPNAS"}, {"type": "POPNAS", "args": {}}])
def test_a_test_run_is_small_without_arguments_too(strategy):
    config = study_config(num_samples=400)
    config["search"]["strategy"] = strategy
    small = shrunk(config, "2,16,8,3")
    assert small["search"]["num_samples"] == 3
    assert faults_of(small) == []


def test_no_other_value_is_searched():
    config = study_config()
    config["arch"]["args"]["filters"] = {"$choice": [8, 16]}
    with pytest.raises(ConfigError, match=r"arch.args.filters: .*, and POPNAS searches the cell alone. Write a value."):
        build_strategy(build_study_parts(config))


def test_a_config_that_names_its_cell_is_refused():
    config = study_config()
    config["arch"]["args"]["cell"] = "[]"
    parts = build_study_parts(config)
    with pytest.raises(
        ConfigError, match=r"arch.args.cell: \"\[\]\", and the cell is what the search finds. Remove it."
    ):
        build_strategy(parts).find_faults(parts.space, lambda _: None)


def test_every_operation_is_checked_before_the_first_training():
    parts = build_study_parts(study_config())
    seen = []
    build_strategy(parts).find_faults(parts.space, seen.append)
    text = json.dumps(seen)
    assert all(each in text for each in OPERATORS)

    def refuse(config):
        raise ConfigError("arch.args.cell: no such thing")

    with pytest.raises(ConfigError, match=r"arch.args.cell: no such thing"):
        build_strategy(parts).find_faults(parts.space, refuse)


def test_a_test_run_has_a_cell_of_each_size(tmp_path):
    config = study_config({"blocks": 5, "max_children": 64})
    config["train_loader"] = {"type": "x", "args": {}}
    small = shrunk(config, "1,8,4,3")
    simulated = Simulation(tmp_path, lambda: build_study_parts(small), World())
    simulated.run()
    assert [len(each.cells) for each in generations(simulated)] == [1, 1, 1]


def test_the_report_has_numbers_predictions_and_uses(tmp_path):
    simulated = simulation(tmp_path)
    study = simulated.run()
    sections = {each["title"]: each for each in study.record().sections}
    assert list(sections) == [
        "The best cell",
        "Generations",
        "Predictors",
        "Fronts of the generations",
        "Predictions and results",
        "Use of operations and inputs",
        "Correlations",
    ]
    table = sections["Generations"]["table"]
    assert [row[0] for row in table[1:]] == ["0", "1", "2", "3"]
    assert sum(row[3] for row in table[1:]) == len(study.state.candidates)
    assert table[3][1] > table[3][2] > 0, "equivalent cells are merged"
    uses = {row[0]: row[1:] for row in sections["Use of operations and inputs"]["table"][1:]}
    assert uses["operation identity"][0] == 4, "with itself, twice, and with each of the others"


def test_no_own_cell_is_enqueued(tmp_path):
    simulated = simulation(tmp_path)
    study, stored = simulated.run(), create_study_folder(str(tmp_path / "stored"), "s", study_config())
    for refused in (
        lambda: study.strategy.obey("enqueue", {"choices": []}),
        lambda: study.strategy.require_command("enqueue"),
        lambda: run_control(control_parser("enqueue").parse_args([str(stored), 'arch.args.cell="[]"'])),
    ):
        with pytest.raises(SearchError, match=r"enqueue: POPNAS grows its cells itself. Train .* with train.py"):
            refused()
    study.strategy.require_command("stop")


@pytest.mark.parametrize(
    ("args", "most"),
    [
        ({"blocks": 5, "lookbacks": 2, "operators": [f"{k}x{k} conv" for k in range(1, 13)], "max_children": 128,
          "max_exploration": 16}, 861),
        ({"blocks": 1, "max_children": 4, "max_exploration": 2}, 1 + 6),
        ({"rounds": 2, "max_best": 1}, 1 + 6 + (4 + 1 + 2) + 2 * (4 + 1)),
        ({"pnas_mode": True}, 1 + 6 + 2 * 4),
        ({"blocks": 1, "max_first": 2, "rounds": 3, "max_best": 0}, 1 + 2 + 2 * 4),
    ],
)  # fmt: skip
def test_the_most_trainings_are_those_of_its_generations(args, most):
    assert build_strategy(build_study_parts(study_config(args))).num_samples == most


def test_exact_costs_are_used_with_trivial_predictors(tmp_path):
    asked = []

    class Exact(World):
        def estimate(self, payload):
            asked.append((payload["predictor"], *payload["facts"]))
            return {"status": "failed", "reason": "not here"}

    args = {"predictor": "trivial"}
    simulation(tmp_path / "with", Exact(), args=args, objectives=["max val_miou", "min params"]).run()
    assert set(asked) == {("trivial", "params")}


def grown(count=3, epochs=2):
    found = Generations(lambda number: RandomSearch(number, epochs), epochs)
    found.open(count)
    return found


def test_a_generation_is_compared_by_itself():
    found = grown(2)
    assert found.ask() == Need()
    assert [found.admit(number) for number in (0, 1)] == [Job(0, 0, 2), Job(1, 0, 2)]
    assert found.ask() is None
    for number in (0, 1):
        assert found.report(number, 1, (0.1,)).decision is Decision.CONTINUE
        assert found.report(number, 2, (0.1,)).decision is Decision.STOP
    assert found.is_done
    found.open(1)
    assert not found.is_done
    assert found.ask() == Need()
    assert found.admit(2) == Job(2, 0, 2)
    found.end(2, Ending.FAILED)
    assert found.is_done
    assert [rung.bracket for rung in found.rungs()] == [0, 1]


def test_before_the_first_generation_nothing_is_asked_for():
    found = Generations(lambda number: RandomSearch(number, 2), 2)
    assert found.ask() is None
    assert found.is_done
    assert found.fidelities() == (2,)
    with pytest.raises(ValueError, match="none is needed"):
        found.admit(0)
    with pytest.raises(ValueError, match="does not run"):
        found.report(0, 1, (0.0,))


def small_table(tmp_path):
    """A table of all 15,625 cells whose accuracy counts the convolutions, and whose time counts operations."""
    names = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    codes = np.array(list(product(range(5), repeat=6)))
    accuracy = 50 + 5 * np.isin(codes, (2, 3)).sum(axis=1) + (codes == 3).sum(axis=1)
    seconds = 10.0 + 3 * (codes > 1).sum(axis=1) + (codes == 3).sum(axis=1)
    path = tmp_path / "cells.npz"
    np.savez(
        path,
        arch=np.array([write_architecture([names[each] for each in code]) for code in codes]),
        val_accuracy=accuracy.astype(float)[:, None],
        training_time=seconds[:, None],
    )
    return path


@pytest.mark.parametrize(("grammar", "best"), [("nasbench201", 86.0), ("nasbench201_blocks", 74.0)])
def test_a_table_grows_by_a_grammar_of_its_own(tmp_path, grammar, best):
    columns = {
        "settings": {"arch.args.edges": "arch"},
        "split": {"arch": "([a-z0-9_]+)~"},
        "results": {"val_accuracy": "val_accuracy", "training_time": "training_time"},
    }
    args = {"grammar": grammar, "max_children": 6, "predictor": "trivial"}
    search = {
        "objectives": ["max val_accuracy", "min training_time"],
        "executor": {"type": "table", "args": {"file": str(small_table(tmp_path)), "columns": columns}},
        "num_samples": 40,
        "strategy": {"type": "POPNAS", "args": args},
    }
    config = {"name": "t", "trainer": {"epochs": 1}, "search": search}
    study = Study(create_study_folder(str(tmp_path), "t", config), build_study_parts(config), worker="")
    record = study.run()
    assert len([each for each in record.candidates if each.reports]) == 40
    rows = [each.drawn for each in record.candidates]
    assert [path for path, _ in rows[0]] == [f"arch.args.edges.{place}" for place in range(6)]
    assert 60 < max(each.objectives["val_accuracy"] for each in record.candidates if each.objectives) <= best


def test_a_grammar_of_a_table_needs_one():
    config = study_config()
    config["search"]["strategy"]["args"] = {"grammar": "nasbench201"}
    with pytest.raises(ConfigError, match=r"grammar: \"nasbench201\" is that of a table, and search.executor names"):
        build_strategy(build_study_parts(config))


class Clock:
    """A trainer as far as the time of its training needs one."""

    def __init__(self):
        self.model, self.epoch, self.history = torch.nn.Linear(1, 1), 0, []

    def train(self, timer, monkeypatch, seconds):
        """An epoch whose steps take these seconds of the processor."""
        now = [100.0]
        monkeypatch.setattr(callbacks, "process_time", lambda: now[0])
        timer.on_epoch_start(self)
        now[0] += seconds
        timer.on_validation_start(self)
        now[0] += 50.0  # of validation
        self.epoch += 1
        timer.on_epoch_end(self, {})


def test_the_training_time_is_the_median_of_the_training_steps(monkeypatch):
    timer, trainer = callbacks.TrainingTime(), Clock()
    for seconds in (9.0, 2.0, 3.0):
        trainer.train(timer, monkeypatch, seconds)
    assert [timer.typical(epochs) for epochs in (1, 2, 3)] == [9.0, 5.5, 3.0]
    resumed = callbacks.TrainingTime()
    resumed.load_state_dict(timer.state_dict())
    trainer.train(resumed, monkeypatch, 4.0)
    assert resumed.seconds == [9.0, 2.0, 3.0, 4.0]


def test_an_interrupted_epoch_has_the_time_of_both_parts(monkeypatch):
    timer, trainer, now = callbacks.TrainingTime(), Clock(), [0.0]
    monkeypatch.setattr(callbacks, "process_time", lambda: now[0])
    timer.on_epoch_start(trainer)
    now[0] = 5.0
    resumed = callbacks.TrainingTime()
    resumed.load_state_dict(timer.state_dict())
    trainer.train(resumed, monkeypatch, 2.0)
    assert resumed.seconds == [7.0]


def test_the_training_time_is_reported_and_never_decides_the_best_epoch(monkeypatch):
    messages, timer, trainer = [], callbacks.TrainingTime(), Clock()
    trainer.train(timer, monkeypatch, 3.0)
    reporter = callbacks.Reporter(lambda message: messages.append(message) or "continue", 0, None, timer)
    trainer.result_names = lambda: ["loss"]
    reporter.on_fit_start(trainer)
    reporter.on_epoch_end(trainer, {"epoch": 1, "loss": 0.5})
    assert messages[0] == {"names": ["loss", "training_time"]}
    assert messages[1]["row"] == {"epoch": 1, "loss": 0.5, "training_time": 3.0}
    best = callbacks.BestByObjective(["min loss", "min training_time"])
    best.on_epoch_end(trainer, {"epoch": 1, "loss": 0.5})
    assert trainer.improved


def test_costs_of_cells_are_those_of_their_networks(tmp_path):
    step = SimpleNamespace(
        placed_model=lambda: CellNet(num_classes=10, in_channels=1, cell="[]", macro=MacroOptions(2, 1, 8)),
        input_shape=(4, 1, 16, 16),
    )
    grammar = Grammar(tuple(OPERATORS), 2, 2)
    expansion = grammar.expand(grammar.expand([grammar.empty]).texts()[:3])
    found = estimating.costs_of_networks(step, expansion, None)
    for place in (0, 7, len(expansion) - 1):
        model = CellNet(num_classes=10, in_channels=1, cell=expansion.text(place), macro=MacroOptions(2, 1, 8))
        assert found["params"][place] == sum(weight.numel() for weight in model.parameters())
    assert set(found) == {"params", "flops"}


def test_predictions_are_exported(tmp_path):
    simulated = simulation(tmp_path)
    record = simulated.run().record()
    export_csv(record, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    predicted = [row for row in rows if row["predicted val_miou"]]
    assert len(predicted) == sum(each["origin"] == "model" for each in rows) > 0
    assert {row["blocks"] for row in rows} == {"0", "1", "2", "3"}
    assert {row["chosen for"] for row in rows} == {"empty", "first", "front"}
