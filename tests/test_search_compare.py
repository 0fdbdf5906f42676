"""`python -m search compare`: runs are read, grouped, compared by seed, and written as a page and as CSV."""

import base64
import csv
import json
import re

import cv2
import numpy as np
import pytest

from search.__main__ import main
from search.cli.compare import compare_parser, run_compare
from search.comparison.groups import choose_metric, compared_config, group_runs
from search.comparison.notes import notes_of
from search.comparison.pictures import sample_pictures, score_rows
from search.comparison.runs import read_run, training_seconds
from search.comparison.studies import runs_of_study
from search.results.record import CandidateRecord, Objective, StudyRecord
from tests.support.run_samples import KEYS, make_run
from tests.support.study_samples import sample_study
from utils.errors import ConfigError, SearchError
from utils.runs.stored_tests import stored_results

CHAPTERS = ["results", "differences", "columns", "curves", "classes", "predictions"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two configs with two seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, one, other in ((0, 0.5, 0.6), (1, 0.52, 0.58)):
        make_run(folder / "a" / f"{seed}", one, seed, facts={"labelled_megapixels": 1.5})
        make_run(folder / "b" / f"{seed}", other, seed, lr=0.1, facts={"labelled_megapixels": 3.0}, scores=(0.5, 0.7))
    return folder


def read_all(folder):
    return [read_run(path.parent) for path in sorted(folder.rglob("config.json"))]


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def figures_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)[1])


def test_a_run_is_read_from_its_files(tmp_path):
    run = read_run(make_run(tmp_path / "run", 0.5, 3, facts={"labelled_megapixels": 1.5}))
    assert (run.name, run.seed, run.best_epoch, run.is_finished) == ("people", 3, 2, True)
    assert run.monitor == Objective("val_miou", 1)
    assert run.facts == {"labelled_megapixels": 1.5, "params": 100, "flops": 2000, "seconds": 5.0, "epochs": 2}
    assert run.results["val_miou"] == pytest.approx(0.6)
    assert run.results["test_miou"] == 0.5
    assert run.results["test_iou_person"] == pytest.approx(0.45)
    assert "class_counts" not in json.dumps(run.config)


def test_a_run_of_an_earlier_version_and_an_unfinished_one_are_read(tmp_path):
    folder = make_run(tmp_path / "run", 0.5, is_tested=False, is_finished=False)
    (folder / "environment.json").unlink()
    (folder / "info.log").unlink()
    run = read_run(folder)
    assert (run.best_epoch, run.is_finished, run.tests) == (2, False, {})
    assert run.results["val_miou"] == pytest.approx(0.6)
    assert run.facts == {"epochs": 2}


def test_an_epoch_that_was_trained_again_counts_once(tmp_path):
    line = "Epoch  {}/12  loss 1.0  val_miou 0.5 (best)  {} s, 88 samples/s, data 1%\n"
    log = tmp_path / "info.log"
    log.write_text(line.format(1, "2.0") + line.format(2, "3.5") + line.format(2, "4.0"))
    assert training_seconds(log) == 6.0
    assert training_seconds(tmp_path / "none.log") is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", "{", "result.json: cannot be read"),
        ("metrics.csv", "epoch,val_miou\n1,much\n", "metrics.csv: cannot be read"),
        ("predictions/test/results.json", '{"format_version": 1}', 'has no "metrics"'),
        ("result.json", '{"best": 3}', "files hold something else"),
        ("config.json", '{"seed": [1]}', "files hold something else"),
        ("predictions/test/results.json", '{"metrics": {}}', "files hold something else"),
        ("predictions/test/results.json", '{"metrics": {}, "per_class": {"a": 1}}', "files hold something else"),
        (
            "predictions/test/results.json",
            '{"metrics": {}, "per_class": {}, "shown": [1]}',
            "files hold something else",
        ),
        ("predictions/test/results.json", '{"metrics": {}, "per_class": {}, "facts": 5}', "files hold something else"),
    ],
)
def test_a_damaged_file_is_named_with_its_repair(tmp_path, name, content, message):
    folder = make_run(tmp_path / "run", 0.5)
    (folder / name).write_text(content)
    with pytest.raises(SearchError, match=rf"{message}.*Put back a copy, or leave the run out"):
        read_run(folder)


def test_records_of_a_later_version_are_left_out(tmp_path):
    folder = make_run(tmp_path / "run", 0.5)
    file = stored_results(folder, "test")
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 99}))
    assert read_run(folder).tests == {}


def test_runs_that_differ_only_in_their_seed_are_one_group(pair):
    groups = group_runs(read_all(pair))
    assert [group.name for group in groups] == ["people: lr 0.01", "people: lr 0.1"]
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1], [0, 1]]
    first, second = (group.spread("test_miou") for group in groups)
    assert first.mean == pytest.approx(0.51)
    assert first.deviation == pytest.approx(0.02 / 2**0.5)
    difference = second.minus(first)
    assert dict(difference.values) == pytest.approx({0: 0.1, 1: 0.06})
    assert difference.interval() == pytest.approx((0.08 - 12.706205 * 0.02, 0.08 + 12.706205 * 0.02))


def test_what_changes_no_result_is_no_difference():
    one = {"seed": 1, "name": "x", "trainer": {"epochs": 2, "save_dir": "a"}, "data_loader": {"args": {"n_workers": 1}}}
    other = {"seed": 2, "trainer": {"epochs": 2, "verbosity": 0}, "data_loader": {"args": {"n_workers": 4}}}
    assert compared_config(one) == compared_config(other) == {"trainer": {"epochs": 2}, "data_loader": {"args": {}}}
    assert compared_config({"valid_loader": {"args": {"batch_size": 4}}}) == {"valid_loader": {"args": {}}}
    assert compared_config({"model_loader": {"args": {"seed": 3}}}) == {"model_loader": {"args": {"seed": 3}}}


def test_the_metric_is_that_of_the_monitor_on_test_data(pair, tmp_path):
    groups = group_runs(read_all(pair))
    assert str(choose_metric(groups, None)) == "max test_miou"
    assert str(choose_metric(groups, "val_miou")) == "max val_miou"
    assert str(choose_metric(groups, "loss")) == "min test_loss"
    with pytest.raises(ConfigError, match=r'--metric "iou": no run has a result of this name. They have .*val_miou'):
        choose_metric(groups, "iou")
    make_run(tmp_path / "only", 0.5, is_tested=False)
    assert str(choose_metric(group_runs(read_all(tmp_path)), None)) == "max val_miou"


def test_scores_are_compared_sample_by_sample(pair):
    rows = score_rows(group_runs(read_all(pair)), "test")
    assert [row.label for row in rows[:3]] == [
        "people: lr 0.01, seed 0", "people: lr 0.01, seed 1", "people: lr 0.1, seed 0",
    ]  # fmt: skip
    assert rows[0].difference is None
    last = rows[-1]  # 0.5 and 0.7 instead of 0.4 and 0.8
    assert (last.mean, last.difference) == pytest.approx((0.6, 0.0))
    assert last.interval == pytest.approx((-1.2706205, 1.2706205))  # of Student's t, times 0.1414 / sqrt(2)
    assert (last.better, last.pairs) == (0.5, 2)


def decoded(address):
    content = base64.b64decode(address.removeprefix("data:image/webp;base64,"))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_pictures_are_sorted_by_score_and_show_the_errors(pair):
    first, second = sample_pictures(group_runs(read_all(pair)), "test", 5)
    assert (first.name, second.name) == ("a.jpg", "b.jpg")
    assert [each.score for each in first.predictions] == [0.5, 0.5, 0.4, 0.4]
    assert first.size == (8, 6)
    errors = decoded(first.predictions[0].errors)[..., 3] > 0
    assert errors.sum() == 3  # one row of the truth is missed, and what does not count is no error
    assert errors[2, 2:5].all()
    assert (decoded(first.truth)[0, :, 3] == 0).all()
    assert len(sample_pictures(group_runs(read_all(pair)), "test", 1)) == 1


def test_a_missing_or_damaged_picture_is_left_out(tmp_path):
    folder = make_run(tmp_path / "run", 0.5)
    (folder / "predictions" / "test" / f"{KEYS[0]}_image.jpg").unlink()
    (folder / "predictions" / "test" / f"{KEYS[1]}_prediction.png").write_bytes(b"")
    (left,) = sample_pictures(group_runs([read_run(folder)]), "test", 5)
    assert (left.name, left.predictions[0].mask) == ("b.jpg", "")


def test_notes_say_what_limits_the_comparison(tmp_path):
    make_run(tmp_path / "a run", 0.5, 0, is_tested=False)
    make_run(tmp_path / "b", 0.6, 1, lr=0.1)
    other = make_run(tmp_path / "c", 0.6, 1, lr=0.2, is_finished=False)
    file = stored_results(other, "test")
    file.write_text(file.read_text().replace('"digest": "abc"', '"digest": "other"'))
    notes = notes_in(tmp_path)
    assert "1 of 3 trainings are not finished" in notes
    assert f"python test.py --resume '{tmp_path / 'a run'}'" in notes
    assert "The test data of people: lr 0.2 are other samples or classes than those of people: lr 0.1" in notes
    assert "No config has results of several seeds" in notes


def notes_in(folder, split="test", metric="test_miou"):
    return "\n".join(notes_of(group_runs(read_all(folder)), split, Objective(metric, 1)))


def test_a_seed_without_a_result_is_no_seed_of_its_config(tmp_path):
    make_run(tmp_path / "a0", 0.5, 0)
    make_run(tmp_path / "a1", 0.5, 1)
    make_run(tmp_path / "b0", 0.6, 0, lr=0.1)
    make_run(tmp_path / "b1", 0.6, 1, lr=0.1, is_tested=False, is_finished=False, epochs=0)
    notes = notes_in(tmp_path)
    assert "There is no test_miou of people: lr 0.1, seed 1. Differences are of the seeds that both have" in notes
    make_run(tmp_path / "b2", 0.6, 1, lr=0.1)
    assert "There is no test_miou" not in notes_in(tmp_path)


def held_out(folder, digest):
    """Store a test on the validation data, whose samples have this hash."""
    file, other = (stored_results(folder, split) for split in ("test", "valid"))
    other.parent.mkdir(parents=True)
    other.write_text(file.read_text().replace('"digest": "abc"', f'"digest": "{digest}"'))


def test_samples_that_follow_from_the_seed_are_no_other_data(tmp_path):
    for name, lr in (("a", 0.01), ("b", 0.1)):
        for seed in (0, 1):
            held_out(make_run(tmp_path / f"{name}{seed}", 0.5, seed, lr=lr), f"of seed {seed}")
    assert "other samples" not in notes_in(tmp_path, "valid")
    held_out(make_run(tmp_path / "c", 0.5, 1, lr=0.2), "else")
    expected = "The valid data of people: lr 0.2 are other samples or classes than those of people: lr 0.01: their"
    assert expected in notes_in(tmp_path, "valid")


def test_the_page_and_the_csv_are_written(pair, tmp_path, capsys):
    page, table = tmp_path / "compare.html", tmp_path / "runs.csv"
    assert main(["compare", str(pair), "--output", str(page), "--csv", str(table)]) == 0
    shown = capsys.readouterr().out
    assert "people: lr 0.1   0.5900 ± 0.0141 (2 seeds)  +0.0800 (-0.1741 to +0.3341)" in shown
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)"', text) == CHAPTERS
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    found = figures_of(page)
    titles = [found[name]["x"]["title"] for name in sorted(found) if name.startswith("column")]
    assert titles == ["labelled megapixels", "lr"]  # the others are equal
    items = found["column0"]["layers"][0]["items"]
    half = 12.706205 * 0.01
    assert items == [[0, [1.5, 1.5], pytest.approx([0.51 - half, 0.51 + half], abs=1e-3)], [0, [1.5], [0.51]]]
    assert [layer["name"] for layer in found["curves0"]["layers"]] == ["people: lr 0.01", "people: lr 0.1"]
    rows = read_csv(table)
    assert [row["config.optimizer.args.lr"] for row in rows] == ["0.01", "0.01", "0.1", "0.1"]
    assert rows[0]["test_miou"] == "0.5"
    results = [name for name in rows[0] if name.startswith(("test_", "val_"))]
    assert (results[0], results[-1]) == ("test_miou", "val_iou_person")
    assert rows[0]["labelled_megapixels"] == "1.5"
    assert len(read_csv(tmp_path / "runs_reports.csv")) == 8


def test_names_are_text_on_the_page(tmp_path):
    make_run(tmp_path / "runs" / "x", 0.5, name="</style><script>alert(1)</script>")
    assert main(["compare", str(tmp_path / "runs"), "--output", str(tmp_path / "out.html")]) == 0
    assert "<script>alert" not in (tmp_path / "out.html").read_text()


def test_folders_are_found_and_counted_once(pair, tmp_path, capsys):
    output = ["--output", str(tmp_path / "out.html")]
    assert main(["compare", str(pair / "b"), str(pair / "a" / ".." / "b" / "0"), *output]) == 0
    assert "2 seeds" in capsys.readouterr().out
    assert "<h1>2 runs, 1 config</h1>" in (tmp_path / "out.html").read_text()
    (tmp_path / "empty").mkdir()
    assert main(["compare", str(pair), str(tmp_path / "empty"), *output]) == 5
    assert "there is no run and no study in it or below it" in capsys.readouterr().err
    assert main(["compare", str(pair), *output, "--csv", str(pair / "a" / "0" / "metrics.csv")]) == 2
    assert "would write over a file that is not a table of compared runs" in capsys.readouterr().err


def test_a_grid_study_has_a_run_for_each_seed_of_a_condition():
    config = {"name": "grid", "search": {"study": {"conditions": {"plain": {}, "wide": {}}, "seeds": 2}}}
    study = StudyRecord("grid", "nowhere", config, "Grid", ["max val_miou"], 1)
    for index, (condition, seed, value) in enumerate(
        [("plain", 0, 0.5), ("plain", 1, 0.6), ("wide", 0, 0.7), ("wide", 1, 0.9)]
    ):
        drawn, row = [("condition", condition), ("seed", seed)], {"epoch": 1, "val_miou": value, "epoch_seconds": 2.0}
        study.candidates.append(
            CandidateRecord(
                index, seed, drawn, "completed", reports=[row], objectives={"val_miou": value}, best_epoch=1,
                test={"test_miou": value - 0.1}, facts={"params": 10.0, "labelled_megapixels": 1.5},
            )
        )  # fmt: skip
    groups = group_runs(runs_of_study(study, study.name))
    assert [group.name for group in groups] == ["plain", "wide"]
    assert dict(groups[1].spread("test_miou").minus(groups[0].spread("test_miou")).values) == pytest.approx(
        {0: 0.2, 1: 0.3}
    )
    assert groups[0].runs[0].facts == {"params": 10.0, "labelled_megapixels": 1.5, "seconds": 2.0, "epochs": 1}
    study.candidates[3].status, study.candidates[3].reason = "failed", "the loss is not finite"
    last = runs_of_study(study, study.name)[3]
    assert (last.results, last.is_finished, last.failure) == ({}, False, "the loss is not finite")
    notes = "\n".join(notes_of(group_runs(runs_of_study(study, study.name)), "test", Objective("test_miou", 1)))
    assert "1 of 4 trainings failed: wide, seed 1." in notes
    assert "not finished" not in notes
    assert "There is no test_miou of wide, seed 1." in notes


def test_a_seed_of_which_a_fold_is_missing_has_no_result():
    config = {"name": "grid", "search": {"study": {"conditions": {"plain": {}}, "seeds": 2}}}
    study = StudyRecord("grid", "nowhere", config, "Grid", ["max val_miou"], 1)
    for index, (seed, fold) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        value = 0.5 + 0.1 * fold
        row = {"epoch": 1, "val_miou": value, "epoch_seconds": 2.0}
        study.candidates.append(
            CandidateRecord(
                index, seed, [("condition", "plain"), ("seed", seed), ("fold", fold)],
                "completed" if index < 3 else "running", reports=[row], objectives={"val_miou": value}, best_epoch=1,
            )
        )  # fmt: skip
    whole, broken = runs_of_study(study, study.name)
    assert (whole.results, whole.is_finished, whole.facts["seconds"]) == (
        {"val_miou": pytest.approx(0.55)}, True, 4.0,
    )  # fmt: skip
    assert (broken.results, broken.is_finished) == ({}, False)
    (note,) = (each for each in notes_of(group_runs([whole]), "test", Objective("val_miou", 1)) if "folds" in each)
    assert note.startswith("Trained in folds: plain. Results and training time are of all folds; curves, predictions")


def test_another_study_has_the_retrainings_of_its_winner():
    study = sample_study(30)
    runs = runs_of_study(study, study.name)
    assert {run.condition for run in runs} == {"people_search"}
    assert len(runs) == len({run.seed for run in runs}) > 1
    assert all("test_miou" in run.results and "params" in run.facts for run in runs)


def test_missing_predictions_are_made_only_if_that_is_asked_for(tmp_path, capsys):
    make_run(tmp_path / "runs" / "x", 0.5, is_tested=False)
    arguments = ["compare", str(tmp_path / "runs"), "--output", str(tmp_path / "out.html")]
    assert main(arguments) == 0
    assert capsys.readouterr().err == ""
    assert main([*arguments, "--predict"]) == 0  # it has no checkpoint, which hinders no other run
    assert re.search(r"Not predicted: .*x: .*there is no such file", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("stored", "options", "expected"),
    [
        (["test"], [], {"b": "test"}),
        (["valid"], [], {"b": "valid"}),
        (["valid"], ["--split", "test"], {"a": "test", "b": "test"}),
        ([], [], {"a": "valid", "b": "valid"}),  # these configs have no test data
    ],
)
def test_predictions_are_made_of_the_data_that_are_shown(tmp_path, stored, options, expected):
    for name, lr in (("a", 0.01), ("b", 0.1)):
        folder = make_run(tmp_path / "runs" / name, 0.5, lr=lr)
        held_out(folder, "abc")
        for split in ("test", "valid"):
            if split not in stored or name == "b":
                stored_results(folder, split).unlink()
    made = {}

    def predict(folder, split):
        made[folder.name] = split

    page = tmp_path / "out.html"
    arguments = [str(tmp_path / "runs"), "--output", str(page), *options]
    run_compare(compare_parser().parse_args(arguments), predict)
    assert f"Add --predict --split {expected['b']}, or run" in page.read_text(encoding="utf-8")
    assert made == {}
    run_compare(compare_parser().parse_args([*arguments, "--predict"]), predict)
    assert made == expected
