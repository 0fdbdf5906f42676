"""What the report and the exported files show of a progressive search."""

import csv
import json
import re

import numpy as np
import pytest

from search.cli.export import export_predictions
from search.report import write_report
from search.report.contents import collect
from search.report.sections import section_figures
from search.results.record import CandidateRecord, parse_objectives
from search.samplers.base import Observation
from search.space.drawn import Drawn
from search.strategies.popnas.estimates import FullResults, Trained
from search.strategies.popnas.generation import ChosenCell, Generation
from search.strategies.popnas.plots import front_plots, prediction_plots, results_plots, use_plots
from search.strategies.popnas.predicted import Predictions
from search.strategies.popnas.sections import best_cell, cost_sections, generation_sections
from tests.support.study_samples import sample_study
from tests.test_search_popnas import simulation

GOALS = parse_objectives(["max val_accuracy", "min training_time"])
CELLS = ["[]", "[(-1, '3x3 conv', -1, '3x3 conv')]", "[(-1, 'identity', -1, 'identity')]"]


def record(number, accuracy, seconds):
    found = CandidateRecord(number, 0, [], "completed")
    found.objectives = {"val_accuracy": accuracy, "training_time": seconds}
    return found


RECORDS = {0: record(0, 0.3, 2.0), 1: record(1, 0.8, 6.0), 2: record(2, 0.5, 3.0)}
RESULTS = FullResults([Trained(number, "", each.objectives, 1) for number, each in RECORDS.items()])


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    found = simulation(folder).run().record()
    found.folder = str(folder)
    return found


def figures_of(path):
    text = path.read_text(encoding="utf-8")
    found = json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)[1])
    assert set(found) == set(re.findall(r'data-figure="([^"]+)"', text))
    return found


def test_the_page_has_the_plots_and_the_picture(studied, tmp_path):
    write_report(studied, tmp_path / "report.html")
    figures = figures_of(tmp_path / "report.html")
    titles = [each["title"] for each in studied.sections]
    place = titles.index("Fronts of the generations")
    names = [layer["name"] for layer in figures[f"section{place}_0"]["layers"]]
    assert names[:2] == ["predicted", ""], "all predictions, and lines from those chosen to their results"
    assert {"chosen: front", "trained"} <= set(names)
    assert "block 0" in (tmp_path / "report.html").read_text()


def test_the_text_of_a_network_is_no_value_with_an_effect(studied, tmp_path):
    assert not collect(studied).has_effects
    write_report(studied, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert 'id="importance"' not in text
    assert 'id="leaderboard"' in text
    assert collect(sample_study(20)).has_effects


def test_results_by_generation_have_a_mean_and_a_best():
    generations = [
        Generation(0, 1, [ChosenCell(CELLS[0], "empty")], numbers=[0]),
        Generation(1, 1, [ChosenCell(each, "first") for each in CELLS[1:]], numbers=[1, 2]),
    ]
    accuracy, seconds = results_plots(generations, RECORDS, GOALS)
    assert accuracy["x"]["labels"] == ["0", "1"]
    assert accuracy["series"][1]["y"] == [0.3, pytest.approx(0.65)]
    assert accuracy["series"][2]["y"] == [0.3, 0.8]
    assert (seconds["series"][2]["name"], seconds["series"][2]["y"]) == ("least", [2.0, 3.0])


def predicted():
    estimates = [{"val_accuracy": 0.7, "training_time": 5.0}, {"val_accuracy": 0.4, "training_time": 4.0}]
    cells = [ChosenCell(cell, "front", each) for cell, each in zip(CELLS[1:], estimates, strict=True)]
    return Generation(2, 1, cells, numbers=[1, 2])


def test_predictions_stand_next_to_results():
    (accuracy, _) = prediction_plots([predicted()], RESULTS, GOALS)
    (series,) = accuracy["series"]
    assert (series["x"], series["y"], series["candidates"]) == ((0.7, 0.4), (0.8, 0.5), (1, 2))
    (front,) = front_plots([predicted()], RESULTS, GOALS, {})
    links, chosen, trained = front["series"]
    assert links["items"] == [[1, [5.0, 6.0], [0.7, 0.8]], [2, [4.0, 3.0], [0.4, 0.5]]]
    assert (chosen["name"], chosen["x"], trained["x"]) == ("chosen: front", [5.0, 4.0], (6.0, 3.0))
    assert front_plots([predicted()], RESULTS, GOALS[:1], {}) == []
    figure = section_figures([{"title": "", "plots": [front]}])["section0_0"]
    assert figure["x"]["low"] < 3
    assert figure["x"]["high"] > 6


def test_shares_of_operations_and_inputs_are_of_each_generation():
    generations = [
        Generation(1, 1, [ChosenCell(each, "first") for each in CELLS[1:]]),
        Generation(2, 1, [ChosenCell("[(-2, '3x3 conv', -1, 'identity')]", "front")]),
        Generation(3, 1, [ChosenCell("|nor_conv_1x1~0|", "front")]),
    ]
    operations, inputs = use_plots(generations)
    assert operations["x"]["labels"] == ["1", "2"], "a table has a notation of its own"
    shares = {each["name"]: each["y"] for each in (*operations["series"], *inputs["series"])}
    assert shares == {"3x3 conv": [0.5, 0.5], "identity": [0.5, 0.5], "-1": [1.0, 0.5], "-2": [0.0, 0.5]}


def test_costs_of_operations_and_correlations():
    cells = dict(enumerate(CELLS))
    (costs,) = cost_sections([1, 2, 0], RECORDS, cells, GOALS)
    assert costs["table"][1:] == [["3x3 conv", 4.0, 1.0], ["identity", 1.0, 0.25]]
    many = {number: record(number, number / 10, 9.0 - number) for number in range(6)}
    (found,) = cost_sections(list(many), many, {}, GOALS)
    assert found["table"] == [
        ["", "val_accuracy", "training_time"],
        ["val_accuracy", 1.0, -1.0],
        ["training_time", -1.0, 1.0],
    ]


def test_the_best_cell_is_drawn_if_it_has_blocks():
    (section,) = best_cell([1], dict(enumerate(CELLS)), {"arch": "CellNet"})
    assert "3x3 conv" in section["pictures"][0]
    assert list(best_cell([0], {0: "|none~0|"}, {})) == []
    assert list(best_cell([], {}, {})) == []


def test_all_predictions_are_exported(studied, tmp_path):
    target = export_predictions(studied, tmp_path / "x.csv")
    assert target == tmp_path / "x_predictions.csv"
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    expanded = studied.sections[1]["table"]
    assert len(rows) == sum(row[2] for row in expanded[3:]), "of the generations that were predicted"
    trained = {row["index"]: row for row in rows if row["index"]}
    for each in studied.candidates:
        if each.notes["blocks"] > 1:
            assert float(trained[str(each.index)]["predicted val_miou"]) == each.notes["predicted val_miou"]
    assert export_predictions(sample_study(3), tmp_path / "x.csv") is None


def test_the_audit_of_a_generation_stands_next_to_its_predictor():
    audit = {
        "val_accuracy": {
            "within_80": 0.5,
            "error_in_deviations": 1.7,
            "by": {
                "parents": {"rank_correlation": 0.2, "error": 0.1},
                "operations": {"rank_correlation": 0.3, "error": 0.1},
                "graph": {"rank_correlation": 0.9, "error": 0.1},
            },
            "switched_off": {"features": "worse than parents"},
        },
        "training_time": {"by": {"parents": {"rank_correlation": None, "error": 1.0}}},
    }
    following = Generation(3, 1, predicted().cells, audit=audit, numbers=[1, 2])
    found = list(generation_sections([predicted(), following], RECORDS, GOALS, RESULTS, {}))
    head, *rows = next(each for each in found if each["title"] == "Predictors")["table"]
    first = head.index("rank correlation of a trivial one")
    assert [[*row[first : first + 3], row[-1]] for row in rows] == [
        [0.3, 0.5, 1.7, "features: worse than parents"],
        [None, None, None, ""],
        [None, None, None, ""],
        [None, None, None, ""],
    ]
    assert head[-1] == "not used in the next"


def test_predictions_of_stopped_cells_are_compared_with_estimates_of_full_trainings():
    goals = parse_objectives(["max val_accuracy", "min params"])
    curves = {number: [0.1, 0.2 + 0.1 * number] for number in range(6)} | {6: [0.1]}
    seen = [Observation(number, Drawn(), tuple((each, -1.0) for each in curve)) for number, curve in curves.items()]
    trained = [
        Trained(number, CELLS[1], {"val_accuracy": max(curve), "params": 5.0}, len(curve))
        for number, curve in curves.items()
    ]
    results = FullResults.of(trained, seen, goals, (1, 2))
    estimated = results.by_candidate[6]["val_accuracy"]
    assert estimated > 0.1, "its result after one epoch"
    cells = [ChosenCell(CELLS[1], "front", {"val_accuracy": 0.2 + 0.1 * number, "params": 5.0}) for number in range(6)]
    cells.append(ChosenCell(CELLS[1], "front", {"val_accuracy": estimated, "params": 5.0}))
    chosen = Generation(2, 1, cells, predictors={"params": {"name": "exact"}}, numbers=list(range(7)))
    records = {number: record(number, max(curve), 1.0) for number, curve in curves.items()}
    found = list(generation_sections([chosen], records, goals, results, {}))
    head, *rows = next(each for each in found if each["title"] == "Predictors")["table"]
    row = dict(zip(head, *rows, strict=True))
    assert (row["objective"], row["cells"], row["stopped early"]) == ("val_accuracy", 7, 1), "params are not predicted"
    assert row["mean absolute error"] == pytest.approx(0.0)
    assert row["R²"] == pytest.approx(1.0)


def test_damaged_predictions_are_left_out(tmp_path):
    study = simulation(tmp_path).run()
    (tmp_path / "generations/2_1/estimates.npz").write_bytes(b"PK")
    (tmp_path / "generations/3_1/expansion.npz").unlink()
    fronts = next(each for each in study.record().sections if each["title"] == "Fronts of the generations")
    assert all(plot["series"][0]["name"] != "predicted" for plot in fronts["plots"])


def test_predictions_that_are_damaged_at_random_are_read_or_left_out(tmp_path):
    simulation(tmp_path).run()
    folder, chance = tmp_path / "generations/2_1", np.random.default_rng(0)
    content = (folder / "estimates.npz").read_bytes()
    for _ in range(300):
        damaged = bytearray(content[: chance.integers(1, len(content) + 1)])
        for place in chance.integers(0, len(damaged), 3):
            damaged[place] = chance.integers(0, 256)
        (folder / "estimates.npz").write_bytes(damaged)
        found = Predictions.read(folder)
        assert found is None or len({len(values) for values in found.columns.values()}) == 1
