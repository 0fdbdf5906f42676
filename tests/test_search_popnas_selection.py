"""Model selection after a progressive search: shapes in a range of weights, longer trainings, kills, and reports."""

import csv
import json
import re
from collections import defaultdict

import pytest

from config.loading.load import apply_changes, load_config
from models.popnas.segmenter import CellNetSegmenter
from search.cli.export import export_csv
from search.cli.test_run import shrunk
from search.strategies.popnas.selection import SHAPE, ModelSelection, SelectionOptions
from search.study.journal import Event
from search.study.settings import build_study_parts
from search.study.study import build_strategy
from search.worker.estimating import costs_of_shapes
from tests.support.pages import PAGES
from tests.support.people import people_loader
from tests.support.simulated_study import Killed, Simulation, World, results, weights_of
from utils.architecture.cells.network import MacroOptions
from utils.errors import ConfigError

SELECTION = {"top": 2, "params": [20_000, 60_000], "epochs": 6}
SEARCHED = {"motifs": 2, "normal_cells": 1, "filters": 8}  # 3 cells: 24,000 weights in the simulation
OPERATORS = ["identity", "3x3 conv", "3x3 maxpool"]


def study_config(selection=SELECTION, args=None, **search):
    given = {"blocks": 2, "lookbacks": 1, "operators": OPERATORS, "max_children": 3, "max_exploration": 0}
    strategy = {"type": "POPNAS", "args": {**given, **(args or {}), "selection": selection}}
    return {
        "name": "s",
        "arch": {"type": "CellNet", "args": {**SEARCHED}},
        "trainer": {"epochs": 3},
        "search": {"objectives": ["max val_miou", "min val_loss"], "strategy": strategy, "seed": 1} | search,
    }


def simulation(folder, selection=SELECTION, world=None, *, workers=1, seed=0, args=None, **search):
    config = study_config(selection, args, **search)
    return Simulation(folder, lambda: build_study_parts(config), world or World(), workers, seed)


def selected(simulated):
    return [each for event in simulated.events if event.kind == "selected" for each in event.data["networks"]]


def records_of(study):
    return [each.record for each in study.state.candidates.values() if each.stage == "selection"]


def best_cells(study, count):
    records = [each.record for each in study.state.candidates.values() if each.stage == "search"]
    return sorted(records, key=lambda each: (-each.objectives["val_miou"], each.index))[:count]


def test_the_best_cells_are_trained_in_the_widest_networks_of_the_range(tmp_path):
    simulated = simulation(tmp_path)
    study = simulated.run()
    found = selected(simulated)
    assert [each["of"] for each in found if each["is_searched"]] == [each.index for each in best_cells(study, 2)]
    by_cell = defaultdict(list)
    for each in found:
        by_cell[each["cell"]].append(each)
    widths = [7, 8, 12, 14, 16]  # 0.85, 1, 1.5, 1.75 and 2 times 8
    for shapes in by_cell.values():
        first, *others = shapes
        assert first["shape"] == SEARCHED
        assert first["is_searched"]
        for motifs, normal_cells in [(m, n) for m in (2, 3) for n in (1, 2, 3)]:
            shape = {"motifs": motifs, "normal_cells": normal_cells}
            fitting = [width for width in widths if 20_000 <= weights_of({**shape, "filters": width}) <= 60_000]
            taken = [each["shape"]["filters"] for each in others if shape.items() <= each["shape"].items()]
            wanted = fitting[-1:]
            assert taken == [width for width in wanted if {**shape, "filters": width} != SEARCHED]


def test_each_network_is_trained_longer_by_a_config_of_its_own(tmp_path):
    changes = {"arch.args.drop_path": 0.2, "trainer.ema": 0.9}
    simulated = simulation(tmp_path, {**SELECTION, "changes": changes})
    study = simulated.run()
    records = records_of(study)
    assert {record.status for record in records} == {"completed"}
    assert {record.epochs for record in records} == {6}
    for record, each in zip(records, selected(simulated), strict=True):
        config = study.strategy.config_of(record.index)
        assert config["arch"]["args"] == {**each["shape"], "cell": each["cell"], "drop_path": 0.2}
        assert config["trainer"] == {"epochs": 6, "ema": 0.9}
        assert config["seed"] == record.seed
        assert dict(record.drawn)["arch.args.filters"] == each["shape"]["filters"]
        assert record.notes == {"cell": each["cell"], "chosen for": "selection", "weights": each["params"]}
    assert {each.record.epochs for each in study.state.candidates.values() if each.stage == "search"} == {3}


def test_the_best_network_of_the_selection_is_trained_again_and_wins(tmp_path):
    for seed in range(4):
        simulated = simulation(tmp_path / str(seed), seed=seed, retrain={"top": 2, "epochs": 2})
        study = simulated.run()
        ranked = sorted(records_of(study), key=lambda each: (-each.objectives["val_miou"], each.index))
        assert [each.candidate for each in study.state.retrained.values()] == [each.index for each in ranked[:2]]
        assert study.strategy.winner() in [each.index for each in ranked[:2]]


def test_without_a_range_each_cell_is_trained_in_its_searched_shape(tmp_path):
    class Forbidden(World):
        def shapes(self, payload):
            raise AssertionError

    simulated = simulation(tmp_path, {"top": 3}, Forbidden())
    study = simulated.run()
    assert [each["shape"] for each in selected(simulated)] == [SEARCHED] * 3
    assert {record.epochs for record in records_of(study)} == {3}


@pytest.mark.parametrize("constraints", [[], ["val_loss <= 0.3"], ["val_loss <= -1"]])
def test_only_cells_of_the_front_if_that_is_asked_for(tmp_path, constraints):
    simulated = simulation(tmp_path, {"top": 100, "on_front": True}, constraints=constraints)
    study = simulated.run()
    records = [each.record for each in study.state.candidates.values() if each.stage == "search"]
    least = min(each.violation for each in records)
    assert (least == 0) == (constraints != ["val_loss <= -1"])
    rows = {
        each.index: (each.objectives["val_miou"], -each.objectives["val_loss"])
        for each in records
        if each.violation == least
    }
    dominated = {
        number
        for number, one in rows.items()
        if any(other != one and other[0] >= one[0] and other[1] >= one[1] for other in rows.values())
    }
    assert {each["of"] for each in selected(simulated)} == rows.keys() - dominated


def test_a_range_that_no_shape_has_is_told(tmp_path, caplog):
    simulated = simulation(tmp_path, {**SELECTION, "params": [1, 2]})
    simulated.run()
    assert "Selection: no further shape of the best cells has 1 to 2 weights" in caplog.text


@pytest.mark.parametrize(
    ("bound", "most"), [("params <= 36000", 36_000), ("flops <= 80000", 40_000), ("params >= 30000", 60_000)]
)
def test_further_shapes_keep_the_constraints_of_the_study(tmp_path, bound, most):
    class KnowsFlops(World):
        def shapes(self, payload):
            outcome = super().shapes(payload)
            return {**outcome, "costs": [{**each, "flops": 2 * each["params"]} for each in outcome["costs"]]}

    simulated = simulation(tmp_path, world=KnowsFlops(), constraints=[bound])
    simulated.run()
    further = [each["params"] for each in selected(simulated) if not each["is_searched"]]
    assert further
    assert max(further) <= most
    if ">=" in bound:
        assert min(further) >= 30_000


def test_a_range_of_weights_beyond_the_constraint_is_refused():
    parts = build_study_parts(study_config(constraints=["params <= 19999"]))
    message = r"selection.params: \[20000, 60000\], and search.constraints has \"params <= 19999\": no further shape"
    with pytest.raises(ConfigError, match=message):
        build_strategy(parts).find_faults(parts.space, lambda _: None)


def test_a_selection_that_breaks_the_constraints_is_said(tmp_path, caplog):
    study = simulation(tmp_path, constraints=["val_loss <= -1"]).run()
    said = "no network keeps search.constraints (val_loss <= -1); the best is the one that misses them least."
    assert said in caplog.text
    assert said in next(each["text"] for each in study.record().sections if each["title"] == "Model selection")


@pytest.mark.parametrize("name", ["search/popnas_camvid", "search/popnas_fashion_mnist", "studies/tsc_archives"])
def test_the_last_trainings_of_the_shipped_searches_have_all_data_but_that_of_the_test(name):
    config = load_config(f"config/{name}.json")
    study = config["search"].get("study")
    trained = [apply_changes(config, each) for each in study["conditions"].values()] if study else [config]
    assert {each["search"]["retrain"]["train_on"] for each in trained} == {"train+valid"}
    for each, other in zip(trained[::2], trained[1::2], strict=False):  # the same for both conditions of a data set
        assert each["search"]["retrain"] == other["search"]["retrain"]
        assert each["train_loader"] == other["train_loader"]
        assert "strategy" in each["search"], "else there is one training, which validation data stops"


def test_if_the_weights_are_not_known_the_searched_shapes_are_trained(tmp_path):
    class Unlucky(World):
        def shapes(self, payload):
            return {"status": "failed", "reason": "no such data"}

    simulated = simulation(tmp_path, world=Unlucky())
    simulated.run()
    assert [each["shape"] for each in selected(simulated)] == [SEARCHED] * 2


@pytest.mark.parametrize("scheduler", ["RandomSearch", {"type": "ASHA", "args": {"grace_period": 1}}])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_selection_ends_as_one_that_was_left_in_peace(tmp_path, scheduler, workers):
    search = {"scheduler": scheduler, "retrain": {"top": 1, "epochs": 2}}
    whole = simulation(tmp_path / "whole", workers=workers, **search).run()
    killed = simulation(tmp_path / "killed", workers=workers, **search)
    first = next(place for place, each in enumerate(events_of_whole(tmp_path, search)) if each.kind == "selected")
    study = killed.run(kills=[first - 2, 1, 1, 2, 3, *range(1, 25, 4)])
    if workers == 1 or scheduler == "RandomSearch":
        assert results(study) == results(whole)


def events_of_whole(folder, search):
    simulated = simulation(folder / "again", **search)
    simulated.run()
    return simulated.events


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_to_networks_the_study_comes_to_its_end(tmp_path, seed):
    fates = {"refused": 0.1, "out_of_memory": 0.1, "fails": 0.15, "hangs": 0.05, "diverges": 0.1, "finishes": 0.1}
    simulated = simulation(
        tmp_path, world=World(fates, deaths=0.03), workers=2, seed=seed, limits={"max_params": 10**6}
    )
    simulated.commands, simulated.stops = 0.03, 0.01
    simulated.run(kills=[20, 15, 30, 11])


def test_more_cells_of_a_study_that_grows_are_selected_once(tmp_path):
    simulated = simulation(tmp_path, {"top": 3}, num_samples=9)
    simulated.run()
    before = selected(simulated)
    study = simulated.session()
    study.strategy.grow(14)
    simulated.events.append(Event("study.grown", None, {"num_samples": 14}, float(len(simulated.events))))
    study = simulated.run()
    after = selected(simulated)
    assert after[: len(before)] == before
    assert len({each["of"] for each in after}) == len(after), "none twice"
    assert {each.index for each in best_cells(study, 3)} <= {each["of"] for each in after}
    assert sum(each.stage == "search" for each in study.state.candidates.values()) == 14


def test_what_is_measured_after_a_selection_does_not_reopen_it(tmp_path):
    simulated = simulation(tmp_path, {"top": 1}, num_samples=9)
    simulated.run()
    study = simulated.session()
    other = next(
        each.record
        for each in study.state.candidates.values()
        if each.stage == "search" and each.record.index not in {shape["of"] for shape in selected(simulated)}
    )
    other.objectives["val_miou"] = 2.0  # as a new latency may change a violation, and so the order
    assert study.strategy.is_done
    study.strategy.apply(Event("study.grown", None, {"num_samples": 10}, 1.0))
    (selection,) = [each for each in study.strategy.strategies if isinstance(each, ModelSelection)]
    assert selection._wanted() == [other.index]


def test_a_network_of_the_selection_can_be_paused_and_given_up(tmp_path):
    simulated = simulation(tmp_path)
    selected_numbers = []

    def stop(event, state):
        if event.kind == "report" and event.stage == "selection" and not selected_numbers:
            selected_numbers.append(event.candidate)
            raise Killed

    study = simulated.run(watchers=[stop])
    (number,) = selected_numbers
    assert study.state.candidates[number].record.status == "completed"
    again = simulated.session()
    with pytest.raises(Exception, match="is completed"):
        again.strategy.obey("stop", {"candidate": number})


def test_report_and_table_name_the_networks(tmp_path):
    study = simulation(tmp_path, retrain={"top": 1}).run()
    record = study.record()
    section = next(each for each in record.sections if each["title"] == "Model selection")
    head, *rows = section["table"]
    assert head[:6] == ["candidate", "of candidate", "motifs", "normal_cells", "filters", "params"]
    scores = [row[head.index("val_miou")] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert len(rows) == len(records_of(study))
    assert "6 epochs" in section["text"]
    export_csv(record, tmp_path / "study.csv")
    with (tmp_path / "study.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line.get("chosen for") == "selection"]
    assert [(line["arch.args.motifs"], line["weights"]) for line in lines] == [
        (str(row[2]), str(row[5])) for row in by_number(rows)
    ]


def by_number(rows):
    return sorted(rows, key=lambda row: row[0])


def test_a_trial_run_selects_one_cell():
    strategy = shrunk(study_config(), "2,8,8,3")["search"]["strategy"]
    assert strategy["args"]["selection"] == {**SELECTION, "top": 1, "epochs": 2}


def test_a_check_says_how_many_networks_are_trained():
    parts = build_study_parts(study_config())
    assert "Then at most 14 networks of the best 2 cells, 6 epochs each." in build_strategy(parts).describe(parts.space)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"top": 0}, r"selection.top: 0 must be an integer >= 1"),
        ({"tops": 3}, r'selection.tops: unknown key "tops". Did you mean "top"'),
        ({"params": [5, 4]}, r"selection.params: \[5, 4\]: must be \[least, most\]"),
        ({"params": [0.5, 4]}, r"selection.params"),
        ({"motifs": [2]}, r"selection.motifs: \[2\], and no params says which shapes"),
        (
            {"changes": {"trainer.epochs": 4}},
            r"selection.changes: trainer.epochs: 4, and the search sets it. Write epochs",
        ),
        (
            {"changes": {"trainer": {"epochs": 4}}},
            r"selection.changes: trainer.epochs: 4, and the search sets it. Write epochs",
        ),
        (
            {"changes": {"arch.args.filters": 4}},
            r"selection.changes: arch.args.filters: 4, and the search sets it. Remove it",
        ),
        ({"changes": {"seed": 4}}, r"selection.changes: seed: 4, and the search sets it. Remove it"),
        ({"changes": {"search.num_samples": 4}}, r"selection.changes: search: .* and the search sets it. Remove it"),
        ({"changes": {"a..b": 4}}, r'"a..b": must be a JSON path'),
        ({"params": [1, 2], "normal_cells": [-1]}, r"selection.normal_cells: \[-1\]: each must be 0 or more"),
    ],
)
def test_faults_of_a_selection_have_their_place(selection, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_strategy(build_study_parts(study_config(selection)))
    assert str(caught.value).count("search.strategy") == 1  # not once more for the class that found it


def test_several_faults_of_one_argument_are_told_one_by_one():
    with pytest.raises(ConfigError, match="2 faults") as caught:
        build_strategy(build_study_parts(study_config({"top": 0, "epochs": 0})))
    assert [str(part).partition(":")[0] for part in caught.value.parts] == [
        f"search.strategy.args.selection.{name}" for name in ("top", "epochs")
    ]


def test_folds_are_compared_at_the_rungs_of_the_longer_training(tmp_path, monkeypatch):
    ends = defaultdict(set)
    make = ModelSelection._task_of

    def noted(self, job, state):
        task = make(self, job, state)
        ends[task.payload["config"]["trainer"]["epochs"]].update(task.payload["folds"]["ends"])
        return task

    monkeypatch.setattr(ModelSelection, "_task_of", noted)
    scheduler = {"type": "ASHA", "args": {"grace_period": 1, "mode": "stop"}}
    simulation(tmp_path, {"top": 2, "epochs": 9}, folds=2, scheduler=scheduler, retrain={"top": 1}).run()
    assert ends == {9: {1, 3, 9}}


def test_a_section_may_be_replaced_as_a_whole():
    changes = {"loss": "focal_loss", "lr_scheduler": None, "optimizer": {"args": {"lr": 1}}}
    strategy = build_strategy(build_study_parts(study_config({"changes": changes})))
    assert strategy.strategies[1].options.changes == changes
    build_strategy(build_study_parts(study_config({"changes": {"arch": "ConvNet"}})))  # its faults are found by a check


def test_a_range_may_be_written_with_an_exponent():
    (found,) = build_strategy(build_study_parts(study_config({"params": [2.5e6, 3.5e6]}))).strategies[0].followers()
    assert isinstance(found, ModelSelection)
    assert found.options.params == (2_500_000, 3_500_000)
    assert found.grid == {"motifs": [2, 3], "normal_cells": [1, 2, 3], "filters": [7, 8, 12, 14, 16]}


def test_every_key_is_documented_with_its_default():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^|]+)` \|", PAGES["popnas_selection.md"], re.M)
    fields = SelectionOptions.model_fields.items()
    assert dict(rows) == {name: json.dumps(field.default) for name, field in fields}


def test_changes_that_suit_no_network_are_found_before_the_search():
    config = study_config({"changes": {"arch.args.speed": 3}})
    parts = build_study_parts(config)

    def check(candidate):
        if "speed" in candidate["arch"]["args"]:
            raise ConfigError("arch.args.speed: unknown argument.")

    with pytest.raises(ConfigError, match=r"search.strategy.args.selection: arch.args.speed: unknown argument"):
        build_strategy(parts).find_faults(parts.space, check)


def test_weights_are_those_of_the_built_networks_and_equal_ones_are_found():
    args = {"motifs": 2, "normal_cells": 1, "filters": 4, "stem": "strided"}
    config = {
        "name": "s",
        "arch": {"type": "CellNetSegmenter", "args": {**args, "decoder": "unet"}},
        "train_loader": people_loader("train", 2, resize=[32, 32], batch_size=2),
        "optimizer": "Adam",
        "loss": "ce_loss",
        "trainer": {"epochs": 1},
    }
    cells = ["[(-1, '3x3 conv', -1, 'identity')]", "[(-2, '3x3 conv', -2, 'identity')]"]
    grid = {"motifs": [1, 2], "normal_cells": [0, 1, 2, 3, 4], "filters": [4, 6]}
    searched = {name: args[name] for name in SHAPE}
    costs = costs_of_shapes({"config": config, "cells": cells, "grid": grid, "searched": searched})["costs"]
    assert len(costs) == 2 * (2 * 5 * 2 - 2), "one motif without normal cells has no cell"
    shapes_of = {}
    for each in costs:
        shape = {name: each[name] for name in SHAPE}
        network = CellNetSegmenter(
            2, cell=cells[each["cell"]], decoder="unet", macro=MacroOptions(**shape, stem="strided")
        )
        assert each["params"] == sum(weight.numel() for weight in network.parameters())
        shapes_of.setdefault((each["cell"], each["network"]), []).append(
            [weight.shape for weight in network.parameters()]
        )
    assert all(shapes == found[0] for found in shapes_of.values() for shapes in found)
    assert max(map(len, shapes_of.values())) == 2, "a cell that reads -2 alone, every second of which is built"
    assert all(len(found) == 1 for (cell, _), found in shapes_of.items() if cell == 0)
