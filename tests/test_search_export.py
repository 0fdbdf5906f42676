"""CSV files read back, and a study opened with Optuna itself."""

import csv
from pathlib import Path

import pytest

from search.cli.export import distributions_of, export_csv, export_optuna, sqlite_path
from search.results.record import CandidateRecord, Span, StudyRecord
from tests.support.study_samples import fixed_study, sample_study
from utils.errors import SearchError

optuna = pytest.importorskip("optuna")


@pytest.fixture(autouse=True)
def quiet():
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(level)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_per_candidate_and_a_row_per_epoch(tmp_path):
    study = sample_study(24)
    study.candidates[0].drawn.append(("blocks", [["C", 1]]))
    reports = export_csv(study, tmp_path / "study.csv")
    rows = rows_of(tmp_path / "study.csv")
    assert [int(row["index"]) for row in rows] == list(range(24))
    first = study.candidates[0]
    assert float(rows[0]["optimizer.args.lr"]) == dict(first.drawn)["optimizer.args.lr"]
    assert rows[0]["blocks"] == '[["C", 1]]'
    assert rows[5]["reason"] == study.candidates[5].reason
    assert any(row["optimizer.args.momentum"] == "" for row in rows)
    epochs = rows_of(reports)
    assert reports.name == "study_reports.csv"
    assert len(epochs) == sum(each.epochs for each in study.candidates)
    assert float(epochs[0]["val_miou"]) == first.reports[0]["val_miou"]


def test_csv_of_an_empty_study(tmp_path):
    export_csv(StudyRecord("s", "saved/s", {}, "ASHA", ["max val_miou"], 9), tmp_path / "s.csv")
    assert rows_of(tmp_path / "s.csv") == []


def test_optuna_reads_the_study(tmp_path):
    study, url = sample_study(14), f"sqlite:///{tmp_path / 'x.db'}"
    assert export_optuna(study, url) == 14
    loaded = optuna.load_study(study_name="people_search", storage=url)
    best = max(
        (each for each in study.candidates if each.status == "completed"), key=lambda c: c.objectives["val_miou"]
    )
    assert (loaded.best_trial.number, loaded.best_value) == (best.index, best.objectives["val_miou"])
    for each, trial in zip(study.candidates, loaded.trials, strict=True):
        expected = {"completed": "COMPLETE", "stopped": "PRUNED"}.get(each.status, "FAIL")
        assert (trial.number, trial.state.name) == (each.index, expected)
        assert trial.params == dict(each.drawn)
        assert trial.intermediate_values == {row["epoch"]: row["val_miou"] for row in each.reports}
        assert trial.user_attrs["status"] == each.status
    with pytest.raises(SearchError, match='it has a study "people_search" already'):
        export_optuna(study, url)


def test_optuna_has_the_front_of_several_objectives(tmp_path):
    study, url = sample_study(14, objectives=("max val_miou", "min params")), f"sqlite:///{tmp_path / 'x.db'}"
    export_optuna(study, url)
    loaded = optuna.load_study(study_name="people_search", storage=url)
    assert [each.name for each in loaded.directions] == ["MAXIMIZE", "MINIMIZE"]
    values = {each.index: tuple(each.objectives.values()) for each in study.candidates if each.objectives}
    assert all(trial.values == list(values[trial.number]) for trial in loaded.best_trials)


def test_distributions_are_those_of_the_markers():
    found = distributions_of(sample_study(40))
    assert found["optimizer.args.lr"] == optuna.distributions.FloatDistribution(0.001, 1.0, log=True)
    assert found["optimizer.args.momentum"] == optuna.distributions.FloatDistribution(0.5, 0.99)
    assert found["arch.args.D_blocks.0.0.1"] == optuna.distributions.IntDistribution(1, 7)
    assert found["arch.args.base_channels"].choices == (8, 16, 24, 32)


def test_whole_numbers_on_a_logarithmic_scale_have_a_distribution():
    study = StudyRecord("s", "saved/s", {"width": {"$logrange": [8, 64]}}, "ASHA", ["max val_miou"], 9)
    study.candidates = [CandidateRecord(number, 0, [("width", number)], "running") for number in (8, 31, 64)]
    assert distributions_of(study) == {"width": optuna.distributions.IntDistribution(8, 64, log=True)}


def test_what_no_marker_explains_is_a_category():
    study = StudyRecord("s", "saved/s", {"a": {"$uniform": [0, 1]}}, "ASHA", ["max val_miou"], 9)
    study.candidates = [
        CandidateRecord(0, 0, [("a", 7.0), ("blocks", [1, 2])], "running"),
        CandidateRecord(1, 0, [("a", 0.5), ("blocks", "none")], "running"),
    ]
    found = distributions_of(study)
    assert found["a"].choices == (7.0, 0.5)
    assert found["blocks"].choices == ("[1, 2]", "none")


def test_a_storage_that_cannot_be_opened():
    with pytest.raises(SearchError, match="Write it as sqlite:///FILE"):
        export_optuna(sample_study(3), "nonsense://x")


def test_csv_has_the_times_of_candidates_and_epochs(tmp_path):
    study = fixed_study((0.5, 0.6))
    first = study.candidates[0]
    first.spans = [Span(0, 1_735_732_800.25, 1_735_732_803.0), Span(1, 1_735_732_900.0, 1_735_732_910.0)]
    first.reports[0]["seconds_at"] = 1_735_732_802.5
    reports = export_csv(study, tmp_path / "study.csv")
    rows, epochs = rows_of(tmp_path / "study.csv"), rows_of(reports)
    assert (rows[0]["begin"], rows[0]["end"]) == ("2025-01-01T12:00:00.250Z", "2025-01-01T12:01:50.000Z")
    assert (epochs[0]["begin"], epochs[0]["end"]) == ("2025-01-01T12:00:00.500Z", "2025-01-01T12:00:02.500Z")
    assert (rows[1]["begin"], epochs[1]["end"]) == ("", "")
    first.spans = []  # a journal of an early version
    assert (first.begin, first.end) == (1_735_732_800.5, 1_735_732_802.5)


def test_optuna_has_the_times_and_names_of_the_results(tmp_path):
    study, url = sample_study(14, objectives=("max val_miou", "min params")), f"sqlite:///{tmp_path / 'x.db'}"
    export_optuna(study, url)
    loaded = optuna.load_study(study_name="people_search", storage=url)
    assert loaded.metric_names == ["val_miou", "params"]
    begins = {each.index: each.begin for each in study.candidates if each.reports}
    assert len(set(begins.values())) > 4
    for trial in loaded.trials:
        if trial.number in begins:
            each = study.candidates[trial.number]
            assert trial.datetime_start.timestamp() == pytest.approx(each.begin, abs=1e-3)
            assert trial.datetime_complete.timestamp() == pytest.approx(each.end, abs=1e-3)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///a b.db", "a b.db"),
        ("sqlite:////tmp/x.db?timeout=5", "/tmp/x.db"),
        ("sqlite+pysqlite:///file:x.db?uri=true", "x.db"),
        ("sqlite:///:memory:", None),
        ("mysql://host/x", None),
        ("nonsense", None),
    ],
)
def test_the_file_of_a_storage(url, path):
    assert sqlite_path(url) == (Path(path) if path else None)
