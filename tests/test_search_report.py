"""The report: what is in the file, and that nothing in it can load, run or break anything."""

import html.parser
import json
import re

import pytest

from search.report import page, write_report
from search.report.contents import collect, compact_json, drawn_rows, hours, number, short_names, value_text
from search.report.figures import make_axis
from search.results.record import CandidateRecord, StudyRecord
from tests.support.study_samples import fixed_study, sample_study
from utils.errors import SearchError

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
        if name == "section":
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
    expected = "winner retrained images leaderboard curves rungs front parallel importance failures costs json"
    assert reader.sections == expected.split()
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)
    assert sum(address.startswith("data:image/png") for address in reader.addresses) == 2
    assert any("1 more are in" in piece for piece in reader.text)
    assert set(figures_of(text)) == {"curves", "rungs", "front0", "parallel", "importance"}


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
    names = [trace["name"].rpartition(" (")[0] for trace in figures_of(text)["curves"]["traces"]]
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


def test_plotly_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(SearchError, match="pip install plotly"):
        write_report(sample_study(5), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_axes_of_numbers_and_categories():
    axis = make_axis("lr", "optimizer.args.lr", [0.001, 0.1, None, 0.01])
    assert axis["places"] == [0.0, 1.0, None, 0.5]
    assert make_axis("op", "op", ["C", "H", "C"])["places"] == [0.0, 1.0, 0.0]
    assert make_axis("augment", "augment", [True, None])["texts"] == ["true", "not drawn"]


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
    assert "</script><b>&" in axis["texts"]
    assert "\\u003c/script\\u003e\\u003cb\\u003e\\u0026" in text


def test_numbers_are_sorted_by_value_and_nothing_is_a_dash(tmp_path):
    study = fixed_study((0.51239, 0.6))
    study.candidates[0].best_epoch = None
    text, _ = written(study, tmp_path)
    assert '<td class="number" data-value="0.51239">0.5124</td>' in text
    assert '<td class="none">\N{EN DASH}</td>' in text


def test_values_as_people_read_them():
    values = (None, "", "SGD", True, [1, "x"], 0.73125, 12, 1234, 0.0001)
    dash = "\N{EN DASH}"
    assert [value_text(value) for value in values] == [
        dash, dash, "SGD", "true", '[1, "x"]', "0.7312", "12", "1,234", "0.0001"
    ]  # fmt: skip
    assert [hours(seconds) for seconds in (42, 720, 12_240, 432_000)] == ["42 s", "12 min", "3.4 h", "120 h"]
