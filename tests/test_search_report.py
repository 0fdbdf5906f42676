"""The report: what is in the file, and that nothing in it can load, run or break anything."""

import html.parser
import json
import re
from dataclasses import replace

import pytest

from search.comparison.studies import runs_of_studies, study_names
from search.report import write_comparison, write_report
from search.report.axes import (
    categories_axis,
    drawn_axis,
    linear_ticks,
    log_ticks,
    numbers_axis,
    positions,
    results_axis,
)
from search.report.compare import space_differences
from search.report.contents import (
    collect,
    compact_json,
    drawn_rows,
    hours,
    importance_rows,
    number,
    table_paths,
    value_text,
)
from search.report.effects import contour, parallel_axis, slices
from search.report.figures import timeline
from search.results.importance import short_names
from search.results.record import CandidateRecord, Objective, Span, StudyRecord
from search.samplers.base import Beliefs, PredictedValue
from tests.support.study_samples import fixed_study, sample_study

VOID = {"meta", "link", "img", "br"}
# The smallest PNG: one grey pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000 3a7e9b55 0000000a49444154789c6360000000020001 48afa471"
    "0000000049454e44ae426082".replace(" ", "")
)


class Reader(html.parser.HTMLParser):
    """Collects sections, data and addresses, and checks that every element is closed in its order."""

    def __init__(self):
        super().__init__()
        self.open, self.sections, self.addresses, self.text = [], [], [], []

    def handle_starttag(self, name, attributes):
        given = dict(attributes)
        if name == "section" and "id" in given:
            self.sections.append(given["id"])
        self.addresses += [given[key] for key in ("src", "href") if key in given]
        assert not any(key.startswith("on") for key in given), f"{name} runs something"
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def written(study, tmp_path, **options):
    write_report(study, tmp_path / "report.html", **options)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return text, reader


def figures_of(text):
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)[1])


def test_everything_is_in_one_file(tmp_path):
    folder = tmp_path / "study"
    (folder / "best" / "pictures").mkdir(parents=True)
    study = sample_study(60, objectives=("max val_miou", "min params"), folder=folder)
    (folder / "best" / "config.json").write_text(json.dumps(study.config | {"optimizer": {"type": "SGD"}}))
    for number_ in range(3):
        (folder / "best" / "pictures" / f"{number_}.png").write_bytes(PIXEL)
    text, reader = written(study, tmp_path, images=2)
    expected = (
        "winner retrained images leaderboard progress curves rungs front parallel importance slices contour timeline "
        "failures costs json"
    )
    assert reader.sections == expected.split()
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)
    assert sum(address.startswith("data:image/webp") for address in reader.addresses) == 2
    assert any("1 more are in" in piece for piece in reader.text)
    several = {
        "progress-epochs",
        "progress-time",
        "curves",
        "rungs",
        "front0",
        "volume",
        "parallel",
        "contour",
        "timeline",
    }
    assert set(figures_of(text)) == several | {f"slice{place}" for place in range(7)}
    assert set(figures_of(text)) - {"parallel"} == set(re.findall(r'data-figure="([^"]+)"', text))


@pytest.mark.parametrize("is_done", [True, False])
def test_a_page_says_which_candidate_best_has_if_that_is_not_the_winner(tmp_path, is_done):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "result.json").write_text('{"candidate": 2}')
    study = replace(fixed_study((0.5, 0.7, 0.6)), folder=str(tmp_path), is_done=is_done)
    said = "".join(written(study, tmp_path)[1].text)
    assert "nothing was trained" not in said
    if is_done:
        place = tmp_path / "candidates" / "00001"
        assert (
            "best has candidate 2, the winner by the options or rules of the session that wrote it. The files of "
            in said
        )
        assert f"candidate 1 are in {place}." in said
    else:
        assert "best still has candidate 2, the winner before." in said


def test_names_and_reasons_are_text(tmp_path):
    study = sample_study(60)
    study.name = '<img src=x onerror="alert(1)">'
    study.candidates[0].drawn[3] = ("optimizer", "</script><script>alert(2)</script>")
    _, reader = written(study, tmp_path)
    said = "".join(reader.text)
    assert study.name in said
    assert "</script><script>alert(1)</script>" in said  # a reason of the sample
    assert not any(address == "x" for address in reader.addresses)


def test_the_policy_forbids_the_network(tmp_path):
    text, _ = written(sample_study(20), tmp_path)
    assert "default-src 'none'" in text[:2000]


def test_a_study_that_has_just_begun(tmp_path):
    study = StudyRecord("begun", "saved/begun", {}, "ASHA", ["max val_miou"], 9)
    study.candidates.append(CandidateRecord(0, 1, [("lr", 0.1)], "running"))
    _, reader = written(study, tmp_path)
    assert "No candidate has results yet." in "".join(reader.text)


def test_repeats_of_a_file_without_markers(tmp_path):
    text, reader = written(fixed_study(), tmp_path)
    assert "repeats" in reader.sections
    assert "parallel" not in reader.sections
    assert "0.6000 ± 0.1000 (3)" in text


def test_facts_alone_as_objectives_have_no_curves(tmp_path):
    _, reader = written(sample_study(30, objectives=("min params",)), tmp_path)
    assert "curves" not in reader.sections


def test_curves_are_grouped_by_the_rung_reached(tmp_path):
    text, _ = written(sample_study(60), tmp_path)
    names = [layer["name"].rpartition(" (")[0] for layer in figures_of(text)["curves"]["layers"]]
    assert names == ["stopped at rung 3", "stopped at rung 9", "trained to its end", "failed"]


def test_results_that_are_not_finite_are_gaps(tmp_path):
    study = sample_study(30)
    study.candidates[1].reports[0]["val_miou"] = float("nan")
    text, _ = written(study, tmp_path)
    assert "NaN" not in json.dumps(figures_of(text))


def test_a_large_study_draws_the_best_and_some_of_the_rest():
    rows = collect(sample_study(1200, rungs=(1, 2))).rows
    drawn = [row.rank for row in drawn_rows(rows)]
    assert len(drawn) == len(set(drawn)) == 300
    assert drawn[:220] == list(range(1, 221))
    assert drawn[-1] > len(rows) * 0.95


def test_axes_of_numbers_and_categories():
    axis, places = drawn_axis("lr", [0.001, 0.1, None, 0.01, 0.002])
    assert axis["log"]
    assert [label for _, label in axis["ticks"]] == ["0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1"]
    assert places == [0.001, 0.1, None, 0.01, 0.002]
    axis, places = drawn_axis("op", ["C", True, None, "C", [1, 2]])
    assert (axis["labels"], places) == (["C", "[1, 2]", "true"], [0, 2, None, 0, 1])
    axis, _ = drawn_axis("batch", [16, 8, 32])
    assert axis["ticks"] == [[8, "8"], [16, "16"], [32, "32"]]
    axis, places = drawn_axis("batch", [16, 8, 32.0, None], has_levels=True)
    assert (axis["labels"], places) == (["8", "16", "32.0"], [1, 0, 2, None])
    assert "labels" not in drawn_axis("lr", [place / 10 for place in range(9)], has_levels=True)[0]
    assert not drawn_axis("uniform", [0.01, 0.6, 0.5, 0.8, 1.0])[0]["log"]  # most are not small


def test_places_on_an_axis_are_those_worked_out_by_hand():
    axis = numbers_axis("lr", [0.001, 0.1], is_log=True, margin=0.0)
    assert positions(axis, [0.001, 0.01, None, 0.1]) == [0.0, 0.5, None, 1.0]
    assert positions(numbers_axis("x", [2, 6], margin=0.0), [3]) == [0.25]
    assert positions(categories_axis("op", ["a", "b"]), [0, 1]) == [0.25, 0.75]
    axis = parallel_axis("op", "arch.op", ["b", None, "a"])
    assert (axis["places"], axis["values"], axis["labels"]) == ([0.75, None, 0.25], [1, None, 0], ["a", "b"])


def test_ticks_are_round_numbers():
    assert linear_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert linear_ticks(-37, 1855) == [0, 500, 1000, 1500]
    assert linear_ticks(0.4004, 0.4016) == [0.4004, 0.4006, 0.4008, 0.401, 0.4012, 0.4014, 0.4016]
    assert log_ticks(0.5, 300) == [0.5, 1, 2, 5, 10, 20, 50, 100, 200]
    assert log_ticks(1e-6, 1.0) == [1e-06, 1e-05, 0.0001, 0.001, 0.01, 0.1, 1]


@pytest.mark.parametrize("values", [[], [0.5], [0.0, 0.0], [float("nan"), float("inf")], [-1e308, 1e308, 3.0]])
def test_every_axis_has_a_range(values):
    for axis in (numbers_axis("x", values), results_axis(Objective("val_miou", 1), values)):
        assert axis["low"] < axis["high"] < 1e200
        assert axis["ticks"]


def test_an_axis_of_results_leaves_out_the_worst_hundredth():
    values = [0.5 + place / 1000 for place in range(300)]
    assert results_axis(Objective("val_miou", 1), [-1e6, *values])["low"] > 0.48
    assert results_axis(Objective("val_loss", -1), [1e6, *values])["high"] < 0.82
    assert results_axis(Objective("val_miou", 1), [0.1, 0.8, 0.9])["low"] < 0.1  # of a few none is left out


def test_short_names_are_unique_and_begin_with_a_name():
    assert short_names(["a.args.lr", "b.args.lr", "c.blocks.0.1", "c.blocks.0.2"]) == {
        "a.args.lr": "a.args.lr",
        "b.args.lr": "b.args.lr",
        "c.blocks.0.1": "blocks.0.1",
        "c.blocks.0.2": "blocks.0.2",
    }


def test_compact_json_is_the_same_json():
    value = {"a": {"b": [1, 2, {"c": "x" * 90}], "empty": {}}, "d": None}
    assert json.loads(compact_json(value)) == value
    assert '"empty": {}' in compact_json(value)


def test_numbers_as_people_read_them():
    assert [number(value) for value in (1204, 0.73123, 3.2e-5, 12345.6, float("nan"))] == [
        "1,204",
        "0.7312",
        "3.2e-05",
        "12,346",
        "\N{EN DASH}",
    ]


def test_data_in_a_script_does_not_end_it(tmp_path):
    study = sample_study(30)
    study.candidates[0].drawn[3] = ("optimizer", "</script><b>&")
    text, _ = written(study, tmp_path)
    (axis,) = (axis for axis in figures_of(text)["parallel"]["axes"] if axis["path"] == "optimizer")
    assert "</script><b>&" in axis["labels"]
    assert "\\u003c/script\\u003e\\u003cb\\u003e\\u0026" in text


def test_numbers_are_sorted_by_value_and_nothing_is_a_dash(tmp_path):
    study = fixed_study((0.51239, 0.6))
    study.candidates[0].best_epoch = None
    text, _ = written(study, tmp_path)
    assert '<td class="number" data-value="0.51239">0.5124</td>' in text
    assert '<td class="none">\N{EN DASH}</td>' in text


def test_values_as_people_read_them():
    values = (None, "", "SGD", True, [1, "x"], 0.73125, 12, 1234, 0.0035831)
    dash = "\N{EN DASH}"
    assert [value_text(value) for value in values] == [
        dash, dash, "SGD", "true", '[1, "x"]', "0.7312", "12", "1,234", "0.003583"
    ]  # fmt: skip
    assert [hours(seconds) for seconds in (42, 720, 12_240, 432_000)] == ["42 s", "12 min", "3.4 h", "120 h"]


def test_a_page_of_300_candidates_with_much_in_it_stays_small(tmp_path):
    cv2, np = pytest.importorskip("cv2"), pytest.importorskip("numpy")
    folder = tmp_path / "study"
    (folder / "best" / "pictures").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    for place in range(3):
        cv2.imwrite(str(folder / "best" / "pictures" / f"{place}.png"), noise)
    (folder / "best" / "pictures" / "broken.png").write_bytes(b"no image")
    study = sample_study(300, objectives=("min val_loss", "max val_miou", "min params"), folder=folder)
    for candidate in study.candidates:
        candidate.drawn += [
            (f"cells.{place}.operation", f"operation_{candidate.index % 7}" * 20) for place in range(80)
        ]
        candidate.reports += [dict(row) for row in candidate.reports * 6]
        for epoch, row in enumerate(candidate.reports, 1):
            row["epoch"] = epoch
    text, reader = written(study, tmp_path)
    assert len(text.encode()) < 2_000_000
    assert sum(address.startswith("data:image/webp") for address in reader.addresses) == 3
    assert any("1 more are in" in piece for piece in reader.text)
    assert any("Of 87 searched values it has the 24 most important" in piece for piece in reader.text)
    assert len(table_paths(collect(study))) == 24


def with_nan(study):
    for place, candidate in enumerate(study.candidates):
        for row in candidate.reports[:: 1 + place % 3]:
            row["val_miou"] = float("nan")
        if place % 4 == 0 and candidate.reports:
            candidate.objectives["val_miou"] = float("nan")
    study.rungs[-1].values = dict.fromkeys(study.rungs[-1].values, float("nan"))


def with_huge_values(study):
    for candidate in study.candidates[::2]:
        for row in candidate.reports:
            row["val_miou"] = float("inf")
        candidate.objectives["val_miou"] = 1e300


def all_failed(study):
    for candidate in study.candidates:
        candidate.status = "failed"
    study.rungs, study.retrained = [], []


def without_times(study):
    study.sessions = []
    for candidate in study.candidates:
        candidate.spans = []
        for row in candidate.reports:
            row.pop("seconds_at", None)


def without_rungs(study):
    study.rungs = []


def of_one_candidate(study):
    study.candidates, study.rungs, study.retrained = study.candidates[:1], [], []


def of_equal_results(study):
    for candidate in study.candidates:
        for row in candidate.reports:
            row["val_miou"] = 0.5
        candidate.objectives = dict.fromkeys(candidate.objectives, 0.5)


KINDS = (with_nan, with_huge_values, all_failed, without_times, without_rungs, of_one_candidate, of_equal_results)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "objectives", [("max val_miou",), ("max val_miou", "min params"), ("min params", "max val_miou")]
)
def test_a_page_of_any_study(kind, objectives, tmp_path):
    study = sample_study(40, objectives=objectives)
    kind(study)
    text, _ = written(study, tmp_path)
    figures = figures_of(text)
    assert not re.search(r"NaN|Infinity", json.dumps(figures))
    for name, figure in figures.items():
        if name != "parallel":
            assert figure["layers"], name
            assert all(figure[key]["low"] < figure[key]["high"] for key in "xy")
            points = [layer for layer in figure["layers"] if layer["kind"] == "points"]
            assert all(len(layer["x"]) == len(layer["y"]) == len(layer["n"]) for layer in points)
    assert ("timeline" in figures) == (kind is not without_times)
    assert ("rungs" in figures) == (kind not in (without_rungs, of_one_candidate, all_failed))


def test_the_timeline_has_a_bar_for_each_job_and_the_busy_share():
    study = fixed_study((0.5, 0.6, 0.7))
    study.sessions = [(100.0, 110.0), (200.0, 210.0)]
    study.candidates[0].spans = [Span(0, 100.0, 110.0)]
    study.candidates[1].spans = [Span(3, 105.0, 110.0), Span(3, 200.0, 205.0)]
    study.candidates[2].status = "failed"
    study.candidates[2].spans = [Span(0, 200.0, 202.0)]
    figure = timeline(study)
    assert figure["x"]["title"] == "time of the search (s)"
    assert figure["y"]["labels"] == ["3: 50%", "0: 60%"]  # from the bottom
    assert figure["marks"] == [10]  # the pause of 90 seconds is left out
    bars = {layer["name"]: layer["items"] for layer in figure["layers"]}
    assert bars == {"trained to its end": [[1, 0, 10, 0], [0, 5, 10, 1], [0, 10, 15, 1]], "failed": [[1, 10, 12, 2]]}


def test_slices_leave_out_a_value_that_is_the_same_everywhere():
    study = sample_study(40)
    for candidate in study.candidates:
        candidate.drawn.append(("fixed", 3))
    figures = slices(collect(study))
    assert "fixed" not in [figure["x"]["title"] for figure in figures.values()]
    (figure,) = (each for each in figures.values() if each["x"]["title"] == "momentum")
    with_momentum = [row for row in collect(study).rows if "optimizer.args.momentum" in dict(row.candidate.drawn)]
    assert sum(len(layer["n"]) for layer in figure["layers"]) == len(with_momentum)


def test_the_contour_is_the_mean_of_the_candidates_nearby():
    study = fixed_study([0.2, 0.4, 0.6, 0.8] * 8)
    for place, candidate in enumerate(study.candidates):
        candidate.drawn = [("op", "ab"[place % 4 // 2]), ("skip", ["no", "yes"][place % 2])]
    figure = contour(collect(study))
    assert (figure["x"]["labels"], figure["y"]["labels"]) == (["a", "b"], ["no", "yes"])
    # Means: a no 0.2, a yes 0.4, b no 0.6, b yes 0.8; six bands of their quantiles.
    assert figure["layers"][0]["rows"] == ["04", "25"]
    study.objectives = ["min val_miou"]
    assert contour(collect(study))["layers"][0]["rows"] == ["51", "30"]
    for candidate in study.candidates:
        candidate.drawn = candidate.drawn[:1]
    assert contour(collect(study)) is None


def with_beliefs(study, importances):
    """Two candidates of which more is expected, and all origins."""
    for place, candidate in enumerate(study.candidates):
        candidate.origin = "enqueued" if place == 0 else "random" if place < 9 else "model"
    first, second = [each for each in study.candidates if each.status == "stopped"][:2]
    first.status, second.status = "paused", "running"
    study.beliefs = Beliefs(
        {first.index: PredictedValue(0.5, 0.25, 0.625), second.index: PredictedValue(0.75, 0.7, 0.875)}, importances
    )
    return first, second


def test_predictions_have_a_chapter_the_best_first(tmp_path):
    study = sample_study(40)
    first, second = with_beliefs(study, {})
    text, reader = written(study, tmp_path)
    assert "predictions" in reader.sections
    figure = figures_of(text)["predictions"]
    assert figure["x"]["labels"] == [str(second.index), str(first.index)]
    layers = {layer["name"]: layer for layer in figure["layers"]}
    assert layers["interval of 80 %"]["items"] == [
        [second.index, [0, 0], [0.7, 0.875]],
        [first.index, [1, 1], [0.25, 0.625]],
    ]
    assert (layers["predicted"]["y"], layers["predicted"]["n"]) == ([0.75, 0.5], [second.index, first.index])
    assert layers["so far"]["y"] == pytest.approx([each.objectives["val_miou"] for each in (second, first)], abs=1e-4)
    best = max(each.objectives["val_miou"] for each in study.candidates if each.objectives and each.status != "failed")
    assert layers["best so far"]["items"][0][2] == pytest.approx([best, best], abs=1e-4)
    study.objectives = ["min val_miou"]
    assert figures_of(written(study, tmp_path)[0])["predictions"]["x"]["labels"] == [
        str(first.index),
        str(second.index),
    ]


def test_predictions_of_candidates_without_a_rank_are_shown(tmp_path):
    study = StudyRecord("begun", "saved/begun", {}, "ASHA", ["max val_miou", "min params"], 9)
    study.candidates = [CandidateRecord(number, 1, [("lr", 0.1)], "running", origin="model") for number in range(60)]
    study.beliefs = Beliefs({number: PredictedValue(number, number, number) for number in range(60)}, {"lr": 1.0})
    text, reader = written(study, tmp_path)
    figure = figures_of(text)["predictions"]
    assert (figure["x"]["labels"][0], len(figure["x"]["labels"])) == ("59", 40)
    assert [layer["name"] for layer in figure["layers"]] == ["interval of 80 %", "predicted"]
    assert "The 40 best of 60 are drawn." in "".join(reader.text)
    assert "100.0%" in text


def test_the_origin_of_each_candidate_is_said(tmp_path):
    study = sample_study(40)
    with_beliefs(study, {})
    text, _ = written(study, tmp_path)
    origins = [each.origin for each in study.candidates if each.status not in ("refused", "duplicate", "out_of_memory")]
    counts = [origins.count(each) for each in ("random", "model", "enqueued")]
    random, modelled, enqueued = counts
    assert f"The {sum(counts)} candidates by their origin: {random} random (drawn without a look at results)" in text
    assert f"{modelled} modelled (proposed because of results), {enqueued} enqueued (named by the user)." in text
    ranked = [each for each in collect(study).rows if each.candidate.origin == "model"]
    assert text.count("<td>modelled</td>") == len(ranked) + (collect(study).winner.origin == "model")
    layers = figures_of(text)["progress-epochs"]["layers"]
    assert layers[0]["name"] == "best so far"
    assert {layer["name"] for layer in layers[1:]} <= {"random", "modelled", "enqueued"}
    by_number = {each.index: each.origin for each in study.candidates}
    words = {"random": "random", "model": "modelled", "enqueued": "enqueued"}
    points = [(words[by_number[n]], layer["name"]) for layer in layers[1:] for n in layer["n"]]
    assert points
    assert all(expected == name for expected, name in points)


def test_a_study_of_an_earlier_version_says_nothing_of_origins(tmp_path):
    text, reader = written(sample_study(40), tmp_path)
    assert "predictions" not in reader.sections
    assert not re.search(r"origin|modelled|by the model|biased", "".join(reader.text))
    figure = figures_of(text)["progress-epochs"]
    assert ([layer["name"] for layer in figure["layers"]], figure["legend"]) == (["best so far", "improvements"], False)


def test_the_importance_of_the_model_is_next_to_that_of_the_candidates(tmp_path):
    study = sample_study(40)
    with_beliefs(study, {"optimizer.args.lr": 0.5, "trainer.unseen": 0.125})
    data = collect(study)
    rows = importance_rows(data)
    assert [row[0] for row in rows[:2]] == [("optimizer.args.lr",), ("trainer.unseen",)]
    assert [row[2] for row in rows[:3]] == [0.5, 0.125, None]
    assert rows[0][1] == next(each for each in data.importances if each.paths == ("optimizer.args.lr",))
    assert rows[1][1] is None
    assert [row[1] for row in rows[2:]] == [each for each in data.importances if each.paths != ("optimizer.args.lr",)]
    text, reader = written(study, tmp_path)
    assert "trainer.unseen" in reader.text
    said = "".join(reader.text)
    assert "together 62%" in said
    assert "so the shares among the candidates are biased" in said
    small = sample_study(12)
    with_beliefs(small, {"optimizer.args.lr": 0.5})
    text, _ = written(small, tmp_path)
    assert "Importance needs 20 candidates with results" in text
    assert "50.0%" in text
    assert "mean rank of the best" not in text


def test_sections_of_a_strategy_are_text(tmp_path):
    study = sample_study(20)
    study.sections = [
        {"title": "Genotype", "text": "normal: <b>skip</b>"},
        {"title": "<Cells>", "table": [["edge", "weight"], ["0 <i>", 0.5]]},
    ]
    _, reader = written(study, tmp_path)
    for text in ("Genotype", "normal: <b>skip</b>", "<Cells>", "0 <i>", "0.5000"):
        assert text in reader.text


def test_several_studies_side_by_side(tmp_path):
    first, second = sample_study(40, folder="saved/one"), sample_study(30, seed=1, folder="saved/two")
    second.config = {**second.config, "seed": "<b>"}
    none = StudyRecord("begun", "saved/begun", {}, "ASHA", ["max val_miou"], 9)
    studies = [first, second, none]
    write_comparison(runs_of_studies(studies), studies, tmp_path / "compare.html")
    text = (tmp_path / "compare.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.sections == ["results", "columns", "curves", "classes", "studies"]
    layers = figures_of(text)["progress-time"]["layers"]
    assert [layer["name"] for layer in layers] == ["people_search one", "people_search two"]
    assert [layer["color"] for layer in layers] == ["--series-0", "--series-1"]
    assert '"<b>"' in reader.text
    write_comparison([], [none, none], tmp_path / "none.html")
    assert "No study has results of val_miou yet." in (tmp_path / "none.html").read_text()


def test_names_of_compared_studies_differ():
    places = (("mine", "saved/x"), ("mine", "saved/y"), ("other", "saved/z"), ("other", "copy/z"), ("alone", "saved/z"))
    studies = [StudyRecord(name, folder, {}, "ASHA", ["max val_miou"], 9) for name, folder in places]
    assert study_names(studies) == ["mine x", "mine y", "other z 3", "other z 4", "alone"]


def test_differences_of_configs_have_their_paths():
    one = {"seed": 1, "arch": {"type": "UNet", "args": {}}, "lr": {"$uniform": [0, 1]}}
    two = {"seed": 1, "arch": {"type": "UNet", "args": {"depth": 3}}, "lr": 0.5}
    assert space_differences([one, two, {}]) == [
        ("seed", ["1", "1", None]),
        ("arch.type", ['"UNet"', '"UNet"', None]),
        ("arch.args", ["{}", None, None]),
        ("lr", ['{"$uniform": [0, 1]}', "0.5", None]),
        ("arch.args.depth", [None, "3", None]),
    ]
