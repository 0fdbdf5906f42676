"""Grid studies: which candidates there are, how they are run after any kill, and which statistics follow."""

import csv
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from config import load_config
from config.loading.load import apply_changes
from search.cli.export import export_csv
from search.cli.listing import best_text
from search.cli.test_run import shrunk
from search.executors.processes import Processes
from search.report import write_report
from search.results.grid import best_condition, grid_sections, grid_winner, spreads
from search.results.leaderboard import winner_of
from search.results.record import CandidateRecord, Objective, parse_objectives
from search.results.spread import Spread, student_interval
from search.study.folders import create_study_folder, differences
from search.study.journal import JOURNAL, read_events
from search.study.settings import build_study_parts, num_samples_of, with_num_samples
from search.study.study import Study, read
from search.worker.launch import checked_parts
from tests.support.search_worker import WORKER, value_at
from tests.support.without_times import without_times
from utils.errors import ConfigError, SearchError

SHIPPED = sorted((Path(__file__).resolve().parents[1] / "config/studies").glob("*.json"))
EPOCHS = 3
MIOU = Objective("val_miou", 1)


def config_of(conditions=None, *, seeds=2, folds=None, **search):
    grid = {"conditions": conditions or {"narrow": {}, "wide": {"quality": 0.7, "test": 0.6}}, "seeds": seeds}
    if folds is not None:
        grid["folds"] = folds
    return {
        "name": "sample",
        "seed": 5,
        "quality": 0.5,
        "luck": 0.01,
        "size": 1,
        "train_loader": {"type": "Some", "args": {"validation_split": 0.2}},
        "valid_loader": "Other",
        "trainer": {"epochs": EPOCHS, "monitor": "max val_miou"},
        "search": {"study": grid, **search},
    }


def begun(tmp_path, config, name="study"):
    return create_study_folder(str(tmp_path), name, config)


def run(folder, config, *, num_samples=None, watchers=(), **changes):
    parts = replace(build_study_parts(config), **changes)
    return Study(folder, parts, worker=WORKER, num_samples=num_samples, watchers=watchers).run()


def studied(tmp_path, config, **changes):
    return run(begun(tmp_path, config), config, **changes)


def places_of(record):
    return [tuple(dict(each.drawn).values()) for each in record.candidates]


def plain(record):
    """A study without the times of this machine."""
    return list(map(without_times, record.candidates)), record.sections


def test_candidates_are_numbered_seed_by_seed_and_trained_in_full(tmp_path):
    record = studied(tmp_path, config_of())
    assert places_of(record) == [("narrow", 5), ("wide", 5), ("narrow", 6), ("wide", 6)]
    assert [each.seed for each in record.candidates] == [5, 5, 6, 6]
    assert [each.status for each in record.candidates] == ["completed"] * 4
    assert [each.epochs for each in record.candidates] == [EPOCHS] * 4
    assert record.candidates[2].objectives["val_miou"] == max(value_at(0.5 + 0.06, epoch) for epoch in (1, 2, 3))
    assert record.is_done


def test_each_candidate_is_tested_once_with_its_end(tmp_path):
    config = config_of()
    folder = begun(tmp_path, config)
    record = run(folder, config)
    assert [each.test for each in record.candidates] == [{"test_miou": value} for value in (0.5, 0.6, 0.5, 0.6)]
    ends = [event for event in read_events(folder / JOURNAL) if "test" in event.data]
    assert [(event.name, event.candidate) for event in ends] == [("grid.ended", number) for number in range(4)]


def test_best_holds_the_best_run_of_the_best_condition(tmp_path):
    config = config_of() | {"luck": -0.01}
    folder = begun(tmp_path, config)
    record = run(folder, config)
    assert winner_of(record).index == 1  # wide, seed 5: with a negative luck the first seed is the better one
    stored = json.loads((folder / "best/config.json").read_text())
    assert (stored["quality"], stored["seed"]) == (0.7, 5)
    assert "search" not in stored
    assert json.loads((folder / "best/result.json").read_text())["drawn"] == {"condition": "wide", "seed": 5}


def test_a_lucky_run_does_not_make_its_condition_the_best():
    runs = [run_of("a", 0, 0.9), run_of("b", 0, 0.7), run_of("a", 1, 0.1), run_of("b", 1, 0.7)]
    assert best_condition(runs, ["a", "b"], MIOU) == "b"
    assert best_condition(runs, ["a", "b"], Objective("val_miou", -1)) == "a"


class Killed(BaseException):
    """The process is gone."""


def killed_at(number):
    events = 0

    def watch(_event, _state):
        nonlocal events
        events += 1
        if events == number:
            raise Killed

    return watch


@pytest.mark.parametrize("folds", [None, 2])
def test_a_study_killed_at_any_event_ends_as_one_left_in_peace(tmp_path, folds):
    config = config_of({"a": {}, "b": {"quality": 0.6, "fate": "diverges"}, "c": {"trainer.epochs": 2}}, folds=folds)
    quiet = begun(tmp_path, config, "quiet")
    expected = run(quiet, config)
    count = sum(1 for _ in read_events(quiet / JOURNAL))
    assert count > 30
    for number in range(1, count, 1 if folds is None else 3):
        folder = begun(tmp_path, config, f"killed{number}")
        with pytest.raises(Killed):
            run(folder, config, watchers=[killed_at(number)])
        record = run(folder, config)
        assert plain(record) == plain(expected)
        assert plain(read(folder, build_study_parts(config))) == plain(expected)


def test_a_study_killed_at_every_few_events_ends_as_one_left_in_peace(tmp_path):
    config = config_of(folds=2)
    expected = run(begun(tmp_path, config, "quiet"), config)
    folder = begun(tmp_path, config, "killed")
    kills = 0
    while True:
        try:
            record = run(folder, config, watchers=[killed_at(4)])
            break
        except Killed:
            kills += 1
    assert kills >= 10
    assert plain(record) == plain(expected)


def test_workers_that_die_are_replaced_and_a_candidate_that_kills_them_fails(tmp_path):
    config = config_of({"a": {}, "b": {"fate": "dies"}}, seeds=1)
    record = studied(tmp_path, config, executor=Processes(2))
    assert [each.status for each in record.candidates] == ["completed", "failed"]
    assert "3 times at the same epoch" in record.candidates[1].reason


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        ("diverges", "the loss is not finite"),
        ("out_of_memory", "out of memory: no more to be had"),
        ("refused", "refused: params 9 is more than max_params 8"),
        ("fails at the end", "no space left on the device"),
        ("out of memory at the end", "out of memory: no more to be had"),
    ],
)
def test_a_failure_is_a_result_and_nothing_takes_its_place(tmp_path, fate, reason):
    config = config_of({"a": {}, "b": {"fate": fate, "quality": 0.9}}, limits={"max_params": 8})
    record = studied(tmp_path, config)
    assert places_of(record) == [("a", 5), ("b", 5), ("a", 6), ("b", 6)]
    assert [each.status for each in record.candidates] == ["completed", "failed"] * 2
    assert [each.reason for each in record.candidates[1::2]] == [reason] * 2
    assert dict(winner_of(record).drawn)["condition"] == "a"
    table = record.sections[-1]["table"]
    assert table[1:] == [["b", 5, None, 1, "failed", reason], ["b", 6, None, 3, "failed", reason]]


def test_more_seeds_continue_the_study(tmp_path):
    config = config_of()
    folder = begun(tmp_path, config)
    first = run(folder, config)
    wanted = config_of(seeds=4)
    assert differences(config, wanted) == []
    assert (num_samples_of(config), num_samples_of(wanted)) == (4, 8)
    assert with_num_samples(wanted, 4) == config
    record = run(folder, config, num_samples=num_samples_of(wanted))
    assert places_of(record) == [(name, seed) for seed in (5, 6, 7, 8) for name in ("narrow", "wide")]
    assert plain(record)[0][:4] == plain(first)[0]
    assert plain(record) == plain(run(begun(tmp_path, wanted, "at once"), wanted))
    assert len(run(folder, config, num_samples=8).sessions) == 2  # nothing left to do


def test_a_study_grows_by_whole_seeds(tmp_path):
    config = config_of(folds=2)
    study = Study(begun(tmp_path, config), build_study_parts(config), worker=WORKER)
    with pytest.raises(ConfigError, match=r"9 trainings: a seed of this grid study has 4, .* Add 4 or a multiple"):
        study.strategy.grow(9)


def test_other_conditions_are_another_study():
    other = config_of({"narrow": {}, "wide": {"quality": 0.8, "test": 0.6}}, seeds=3)
    assert differences(config_of(), other) == ["search.study.conditions.wide.quality (0.7 there, 0.8 here)"]


def test_a_budget_ends_a_study_and_a_larger_one_continues_it(tmp_path):
    config = config_of()
    folder = begun(tmp_path, config)
    first = run(folder, config | {"search": {**config["search"], "budget": {"epochs": 2 * EPOCHS}}})
    assert [each.epochs for each in first.candidates] == [EPOCHS, EPOCHS]
    assert plain(run(folder, config)) == plain(run(begun(tmp_path, config, "at once"), config))


def test_folds_share_their_partition_and_are_pooled(tmp_path):
    config = config_of(folds=3, seeds=1)
    config["train_loader"]["args"]["validation_split"] = 0.5
    space = build_study_parts(config).space
    drawn = [space.random(number) for number in range(6)]
    assert [space.label(each) for each in drawn][3] == [("condition", "wide"), ("seed", 5), ("fold", 0)]
    loaders = [space.config(each)["data_loader"]["args"] for each in drawn]
    assert loaders == [{"folds": {"fold": fold, "of": 3}} for fold in (0, 1, 2, 0, 1, 2)]
    assert not any({"train_loader", "valid_loader"} & set(space.config(each)) for each in drawn)
    record = studied(tmp_path, config)
    worst = [min(each.objectives["val_miou"] for each in record.candidates[first : first + 3]) for first in (0, 3)]
    assert [each.pooled.get("val_miou") for each in record.candidates] == [None, None, worst[0], None, None, worst[1]]
    rows = {row[1]: row for row in record.sections[0]["table"][1:]}
    assert [rows["narrow"][3], rows["wide"][3]] == worst
    assert "val_miou from the counts of all folds together" in record.sections[0]["text"]
    assert "test_miou as the mean over the folds" in record.sections[1]["text"]


def test_a_seed_with_a_failed_fold_is_not_pooled(tmp_path):
    config = config_of({"a": {}, "b": {"fate": "diverges"}}, folds=2)
    record = studied(tmp_path, config)
    assert [bool(each.pooled) for each in record.candidates] == [False, True, False, False] * 2
    assert [row[2] for row in record.sections[0]["table"][1:]] == [2, 0]


def run_of(condition, seed, value, fold=None, *, test=None, status="completed", loss=None):
    row = {"epoch": 1, "val_miou": value, **({} if loss is None else {"val_loss": loss})}
    drawn = [("condition", condition), ("seed", seed), *([] if fold is None else [("fold", fold)])]
    return CandidateRecord(
        0, seed, drawn, status, reports=[row], objectives={"val_miou": value}, best_epoch=1, test=test or {}
    )


def test_means_deviations_and_paired_differences_are_those_of_the_hand():
    values = {"a": (0.5, 0.6, 0.7), "b": (0.6, 0.65, 0.85)}
    runs = [run_of(name, seed, value) for name, each in values.items() for seed, value in enumerate(each)]
    head, first, second = grid_sections(runs, ["a", "b"], MIOU)[0]["table"]
    assert head[:8] == ["result", "condition", "seeds", "mean", "deviation", "difference", "its deviation", "pairs"]
    assert first[:3] == ["val_miou", "a", 3]
    assert first[3:5] == pytest.approx([0.6, 0.1])
    assert first[5:] == [None] * 5
    # Differences 0.1, 0.05, 0.15.
    assert second[3:8] == pytest.approx([0.7, statistics.stdev(values["b"]), 0.1, 0.05, 3])
    low, high = second[8:]
    half = 4.302653 * 0.05 / math.sqrt(3)  # the quantile of Student's t with two degrees of freedom
    assert (low, high) == pytest.approx((0.1 - half, 0.1 + half))


@pytest.mark.parametrize(("count", "quantile"), [(2, 12.706205), (3, 4.302653), (5, 2.776445), (8, 2.364624)])
def test_the_interval_of_a_mean_is_students_t(count, quantile):
    values = [math.sin(seed) for seed in range(count)]
    half = quantile * statistics.stdev(values) / math.sqrt(count)
    mean = statistics.fmean(values)
    assert Spread(dict(enumerate(values))).interval() == pytest.approx((mean - half, mean + half))


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_an_interval_holds_the_mean_as_often_as_it_says(count):
    samples = np.random.default_rng(count).normal(size=(1500, count))
    covered = [low < 0 < high for low, high in map(student_interval, samples.tolist())]
    assert statistics.fmean(covered) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("values", [[], [0.3], [0.3, 0.3], [0.7 - 0.6, 0.8 - 0.7], [0.0, 1e-17], [0.0, 0.0, 0.0]])
def test_equal_values_have_no_interval_without_width(values):
    assert student_interval(values) is None


def test_equal_differences_are_no_certainty():
    runs = [run_of(name, seed, value + 0.1 * seed) for name, value in (("a", 0.5), ("b", 0.6)) for seed in (0, 1)]
    section = grid_sections(runs, ["a", "b"], MIOU)[0]
    assert section["table"][2][5:] == [pytest.approx(0.1), pytest.approx(0, abs=1e-12), 2, None, None]
    assert "equal values have none" in section["text"]


def test_with_one_seed_there_is_no_interval_and_it_is_said():
    (section,) = grid_sections([run_of("a", 0, 0.5), run_of("b", 0, 0.7)], ["a", "b"], MIOU)
    assert section["table"][2][4:] == [None, pytest.approx(0.2), None, 1, None, None]
    assert "One seed: there is no deviation and no interval" in section["text"]
    several = [run_of("a", seed, 0.5) for seed in range(2)]
    assert "Intervals are Student's t" in grid_sections(several, ["a"], MIOU)[0]["text"]


def test_only_equal_seeds_are_paired():
    runs = [run_of("a", 0, 0.5), run_of("b", 0, 0.6), run_of("a", 1, 0.5, status="failed"), run_of("b", 1, 0.9)]
    found = spreads(runs, "val_")["val_miou"]
    assert {name: each.values for name, each in found.items()} == {"a": {0: 0.5}, "b": {0: 0.6, 1: 0.9}}
    assert found["b"].minus(found["a"]).values == pytest.approx({0: 0.1})
    assert best_condition(runs, ["a", "b"], MIOU) == "b"


def test_a_condition_of_which_seeds_failed_does_not_win():
    runs = [run_of("a", 0, 0.5), run_of("b", 0, 0.9), run_of("a", 1, 0.5), run_of("b", 1, 0.9, status="failed")]
    assert best_condition(runs, ["a", "b"], MIOU) == "a"


def test_validation_and_test_results_are_never_mixed():
    runs = [run_of("a", 0, 0.5, test={"test_miou": 0.4, "val_miou": 0.1}), run_of("b", 0, 0.6, test={"test_miou": 0.3})]
    runs[0].reports[0]["test_miou"] = 0.99
    assert set(spreads(runs, "val_")) == {"val_miou"}
    assert {name: each.values for name, each in spreads(runs, "test_")["test_miou"].items()} == {
        "a": {0: 0.4},
        "b": {0: 0.3},
    }
    assert spreads(runs, "val_")["val_miou"]["a"].values == {0: 0.5}


def test_results_are_those_of_the_best_epoch():
    each = run_of("a", 0, 0.5, loss=0.3)
    each.reports.append({"epoch": 2, "val_miou": 0.4, "val_loss": 0.1})
    assert spreads([each], "val_")["val_loss"]["a"].values == {0: 0.3}


def test_without_results_of_folds_the_mean_over_them_counts():
    runs = [run_of("a", 0, value, fold, loss=value) for fold, value in enumerate((0.5, 0.7))]
    runs[1].pooled = {"val_miou": 0.61}
    found = spreads(runs, "val_")
    assert found["val_miou"]["a"].values == {0: 0.61}
    assert found["val_loss"]["a"].values == {0: pytest.approx(0.6)}
    assert spreads(runs[1:], "val_") == {}  # a fold is missing


def test_results_are_printed_exported_and_reported(tmp_path):
    record = studied(tmp_path, config_of(folds=2))
    text = best_text(record)
    assert "Conditions, validation data" in text
    assert "Conditions, test data" in text
    assert 'The condition "wide" has the best mean of val_miou over its seeds' in text
    export_csv(record, tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["condition"], row["seed"], row["fold"]) for row in rows] == [
        (name, str(seed), str(fold)) for seed in (5, 6) for name in ("narrow", "wide") for fold in (0, 1)
    ]
    assert {row["test_miou"] for row in rows if row["condition"] == "wide"} == {"0.6"}
    write_report(record, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Conditions, validation data" in page
    assert "Intervals are Student" in page


def test_a_condition_with_a_strategy_of_its_own_is_a_search():
    config = config_of()
    supernet = {"arch": "Supernet", "trainer": {"type": "BilevelTrainer"}}
    strategy = {"type": "AutoDeepLab", "args": {"supernet": supernet}}
    config["search"]["study"] = {"conditions": {"a": {}, "b": {"search": {"strategy": strategy}}}, "seeds": 2}
    space = build_study_parts(config).space
    assert list(space.searches) == ["b"]
    assert space.config(space.random(1))["search"]["strategy"] == strategy
    config["search"]["study"]["folds"] = 2
    with pytest.raises(ConfigError, match=r"conditions.b: a search, as it has search.strategy, and folds are"):
        build_study_parts(config)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"num_samples": 3}, "search.num_samples: 3, and search.study trains each of its conditions in full"),
        ({"scheduler": "ASHA"}, "search.scheduler"),
        ({"retrain": {"top": 1}}, "search.retrain"),
        ({"budget": {"disk_mb": 10}}, "search.budget.disk_mb: 10: a grid study retains the best checkpoint"),
        ({"objectives": ["max val_miou", "min params"]}, "search.objectives"),
        ({"objectives": ["min params"]}, 'search.objectives: ["min params"]: a grid study compares its conditions'),
        ({"study": {"conditions": {}}}, "search.study.conditions"),
        ({"study": {"conditions": {"a": {}}, "folds": 1}}, "search.study.folds: 1 must be"),
        (
            {"study": {"conditions": {"a": {}}, "seed": 1}},
            'search.study.seed: unknown key "seed". Did you mean "seeds"',
        ),
        ({"study": {"seeds": 1}}, "search.study.conditions: missing"),
        ({"study": {"conditions": {"": {}}}}, 'search.study.conditions: "" names a condition'),
        (
            {"study": {"conditions": {"a": {"seed": 6}}}},
            "search.study.conditions.a: seed 6: all conditions have the same",
        ),
        ({"study": {"conditions": {"a": {"trainer.epochs": 0}}}}, "search.study.conditions.a: trainer.epochs: 0 must"),
        (
            {"study": {"conditions": {"a": {"name.x": 0}}}},
            'search.study.conditions.a: override of name.x: name is "sample"',
        ),
        (
            {"study": {"conditions": {"a": {"search.seed": 0}}}},
            "search.study.conditions.a: search: changed, and a condition without markers is no search",
        ),
    ],
)
def test_faults_of_a_grid(search, message):
    config = config_of()
    config["search"] |= search
    with pytest.raises((ConfigError, SearchError)) as error:
        build_study_parts(config)
    assert message in str(error.value)


def test_every_condition_is_checked_before_the_start():
    space = build_study_parts(config_of({"a": {}, "b": {"quality": "x"}, "c": {"quality": "y"}})).space

    def check(config):
        if isinstance(config["quality"], str):
            raise ConfigError(f"quality: {config['quality']} is none.")

    with pytest.raises(ConfigError, match=r"(?s)conditions\.b: quality: x is none.*conditions\.c: quality: y is none"):
        space.find_faults(check)


def test_changes_are_paths_or_objects_that_are_laid_over():
    config = {"arch": {"type": "A", "args": {"x": 1, "y": 2}}, "optimizer": "SGD", "valid_loader": {"type": "L"}}
    assert apply_changes(config, {"arch.args.x": 3})["arch"]["args"] == {"x": 3, "y": 2}
    assert apply_changes(config, {"arch": {"args": {"x": 3}}})["arch"]["args"] == {"x": 3, "y": 2}
    assert apply_changes(config, {"arch.args": {"x": 3}})["arch"]["args"] == {"x": 3}
    assert apply_changes(config, {"arch": {"type": "B", "args": {"z": 1}}})["arch"] == {"type": "B", "args": {"z": 1}}
    assert apply_changes(config, {"optimizer.args.lr": 1})["optimizer"] == {"type": "SGD", "args": {"lr": 1}}
    assert "valid_loader" not in apply_changes(config, {"valid_loader": None})
    assert config["arch"]["args"] == {"x": 1, "y": 2}
    with pytest.raises(ConfigError, match=r'"a\.\.b": must be a JSON path'):
        apply_changes(config, {"a..b": 1})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_study_is_good_in_every_condition_and_can_be_made_small(path, caplog):
    config = load_config(path)
    checked_parts(config)
    assert not [each.message for each in caplog.records if each.levelname == "WARNING"]
    small = build_study_parts(shrunk(config, "2,16,8,1"))
    assert small.scheduler.num_samples == small.space.candidates_per_seed
    check = small.space.config(small.space.random(small.space.candidates_per_seed - 1))
    assert (check["trainer"]["epochs"], check["train_loader"]["args"]["samples"]) == (2, 16)


def small_condition(changes, **sections):
    """Return the config of the only condition of a study that is made small."""
    small = shrunk(config_of({"a": changes}, seeds=9) | {"valid_loader": None, **sections}, "2,4,4,3")
    parts = build_study_parts(small)
    assert parts.scheduler.num_samples == 3
    return parts.space.configs["a"]


@pytest.mark.parametrize("changes", [{"trainer": {"epochs": 50}}, {"trainer.epochs": 50}])
def test_a_condition_of_a_small_study_has_no_more_epochs(changes):
    assert small_condition(changes)["trainer"]["epochs"] == 2


@pytest.mark.parametrize("changes", [{"train_loader": {"args": {"samples": 99}}}, {"train_loader.args.samples": 99}])
def test_a_condition_of_a_small_study_has_no_more_samples(changes):
    assert small_condition(changes)["train_loader"]["args"]["samples"] == 4


@pytest.mark.parametrize("base", [None, {"type": "StepLR", "args": {"step_size": 3}}])
def test_the_schedule_of_a_condition_of_a_small_study_is_short(base):
    schedule = {"type": "PolynomialLR", "args": {"total_iters": 40, "power": 0.5}, "warmup": 3, "interval": "epoch"}
    found = small_condition({"lr_scheduler": schedule}, lr_scheduler=base)["lr_scheduler"]
    expected = {"type": "PolynomialLR", "args": {"power": 0.5}, "warmup": 1, "interval": "step"}
    assert found == expected


def test_a_search_in_a_small_study_is_small():
    search = {"scheduler": {"type": "ASHA", "args": {"grace_period": 9}}, "num_samples": 100, "retrain": {"epochs": 60}}
    changes = {"quality": {"$uniform": [0, 1]}, "search": search}
    found = small_condition(changes)["search"]
    assert (found["scheduler"]["args"]["grace_period"], found["retrain"]["epochs"]) == (2, 2)
    assert found["num_samples"] == 3


def test_a_candidate_of_the_user_is_refused():
    with pytest.raises(ConfigError, match="a grid study trains its conditions and no other candidates"):
        build_study_parts(config_of()).space.find({"quality": 0.5})


def test_the_objectives_of_a_study_are_those_of_its_winner(tmp_path):
    record = studied(tmp_path, config_of(seeds=1))
    assert grid_winner(record) is winner_of(record)
    assert parse_objectives(record.objectives) == (MIOU,)
