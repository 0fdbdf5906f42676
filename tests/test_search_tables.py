"""A table instead of trainings: files, columns, and whole studies in simulated time."""

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest

import search
from benchmarks.simulator import simulate
from config.loading.load import load_config
from search.__main__ import main
from search.samplers.auto import AutoSampler
from search.samplers.evolution import EvolutionSampler
from search.samplers.random import RandomSampler
from search.samplers.sobol import SobolSampler
from search.schedulers.asha import ASHA
from search.schedulers.halving import Hyperband, RandomSearch
from search.study.driver import Recorder
from search.study.journal import JOURNAL, read_events
from search.study.settings import build_study_parts
from search.study.study import Study
from search.tables.assembling import Training, assemble
from search.tables.reading import read_table
from search.tables.table import ResultTable
from utils.errors import ConfigError, DataError, EspalierError, Interrupted, SearchError

SIX = """\
optimizer.args.lr,arch.args.width,val_accuracy_1,val_accuracy_2,epoch_seconds
0.1,8,0.61,0.70,3.5
0.1,16,0.66,nan,5
0.01,8,0.55,0.72,3.5
0.01,16,0.60,0.78,5
0.001,8,0.40,0.51,3.5
0.001,16,0.42,,5
"""


def written(path, text):
    path.write_text(text)
    return str(path)


def config_of(file, epochs=2, *, columns=None, workers=1, repeats="mean", **changes):
    args = {"file": str(file), "workers": workers, "repeats": repeats} | ({"columns": columns} if columns else {})
    options = {"num_samples": 6, "objectives": ["max val_accuracy"], "executor": {"type": "table", "args": args}}
    return {"name": "t", "trainer": {"epochs": epochs, "tensorboard": False}, "search": options | changes}


# Files.


def test_a_row_per_training_with_a_column_per_epoch(tmp_path):
    table = read_table(written(tmp_path / "six.csv", SIX))
    assert table.settings == {"optimizer.args.lr": [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], "arch.args.width": [8, 16] * 3}
    assert table.run(3).results["val_accuracy"] == [0.60, 0.78]
    assert table.run(5).results["val_accuracy"] == [0.42]  # ended by itself
    assert math.isnan(table.run(1).results["val_accuracy"][1])
    assert table.run(3).seconds == [5.0, 5.0]
    assert table.places[3] == "line 5"


def test_a_row_per_epoch_with_cumulative_seconds(tmp_path):
    text = "run;epoch;lr;val_loss;time\na;0;0.1;9;0\na;1;0.1;3;2\na;2;0.1;2;5\nb;1;0.2;4;1\n\nb;3;0.2;1;7\n"
    columns = {"settings": {"optimizer.args.lr": "lr"}, "cumulative_seconds": "time", "training": "run"}
    table = read_table(written(tmp_path / "x.csv", text), columns)
    assert table.run(0).results == {"val_loss": [3.0, 2.0]}
    assert table.run(0).seconds == [2.0, 3.0]
    assert table.run(1).results == {"val_loss": [4.0, 4.0, 1.0]}  # the missing epoch has the value before it
    assert table.run(1).seconds == [1.0, 3.0, 3.0]


def test_columns_by_pattern_list_facts_and_one_value_for_all_epochs(tmp_path):
    text = "lr,acc@2,acc@10,acc@1,size,cost\n0.1,2,10,1,100,7\n0.2,3,11,2,200,8\n"
    columns = {
        "settings": {"optimizer.args.lr": "lr"},
        "results": {"val_accuracy": "acc@*", "cost": "cost"},
        "facts": {"params": "size"},
    }
    run = read_table(written(tmp_path / "x.csv", text), columns).run(1)
    assert run.results == {"val_accuracy": [2.0, 3.0, 11.0], "cost": [8.0, 8.0, 8.0]}
    assert run.facts == {"params": 200.0}


def test_trainings_of_one_configuration_are_its_repeats(tmp_path):
    text = "arch.k,seed,val_loss\n1,0,2.0\n2,0,5.0\n1,1,4.0\n1,2,nan\n"
    file = written(tmp_path / "x.csv", text)
    table = read_table(file)
    assert (table.settings, len(table)) == ({"arch.k": [1, 2]}, 2)
    assert table.run(0).results["val_loss"] == [3.0]
    drawn = read_table(file, repeats="draw")
    assert {drawn.run(0, seed).results["val_loss"][0] for seed in range(6)} == {2.0, 4.0}


def test_a_mean_holds_the_last_value_of_a_repeat_that_ended_early():
    values = np.array([[[0.5, 0.3, 0.2], [0.9, 0.4, np.inf], [np.nan, 0.5, np.nan]]])
    table = ResultTable.of({"val_loss": values}, lengths=np.array([[2, 3, 3]]))
    assert table.mean().results["val_loss"][0, :, 0].tolist() == pytest.approx([1.0 / 3, 0.65, 0.7])


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_training_that_failed_fails_in_the_table_too(epochs):
    def training(place, epochs, has_failed=False):
        curve = dict.fromkeys(range(1, epochs + 1), 0.5)
        return Training(place, {"lr": place}, {"val_loss": curve}, has_failed=has_failed)

    table = assemble([training("a", 2), training("b", epochs, has_failed=True)], "x.csv")
    assert table.run(0).results["val_loss"] == [0.5, 0.5]
    losses = table.run(1).results["val_loss"]
    assert len(losses) == 2
    assert np.isnan(losses).tolist() == [False, True]


def test_settings_are_numbers_json_or_text(tmp_path):
    text = 'a.x,a.y,a.z,a.w,val_loss\n1.0,0.5,"[1, 2]",true,1\n2.0,1.0,relu,,1\n'
    table = read_table(written(tmp_path / "x.csv", text))
    assert table.settings == {"a.x": [1, 2], "a.y": [0.5, 1.0], "a.z": [[1, 2], "relu"], "a.w": [True, None]}


def arrays(**changes):
    made = {
        "hp": np.array([[0.1, 8], [0.01, 8], [0.001, 16]]),
        "hp_names": np.array(["lr", "width"]),
        "valid": np.array([[9.0, 3, 2], [9, 4, 1], [9, np.nan, np.nan]], dtype=np.float32),
    }
    return made | changes


def saved(tmp_path, **content):
    np.savez(tmp_path / "x.npz", **content)
    return str(tmp_path / "x.npz")


VALID = {"results": {"val_loss": "valid"}, "first_epoch": 0, "settings": {"optimizer.args.lr": "lr"}}


def test_arrays_with_names_of_settings_and_a_value_before_training(tmp_path):
    table = read_table(saved(tmp_path, **arrays()), VALID)
    assert table.settings == {"optimizer.args.lr": [0.1, 0.01, 0.001], "width": [8, 8, 16]}
    assert table.run(1).results == {"val_loss": [4.0, 1.0]}
    assert table.run(1).seconds == [1.0, 1.0]


def test_arrays_of_several_tables_with_cumulative_seconds(tmp_path):
    content = {
        "tasks": np.array(["p", "q"]),
        "arch.k": np.array([1, 2, 3]),
        "val_accuracy": np.arange(12.0).reshape(2, 3, 2),
        "cumulative_seconds": np.array([[[1, 2], [2, 5], [1, 4]]] * 2),
    }
    file = saved(tmp_path, **content)
    table = read_table(file, {"select": {"tasks": "q"}})
    assert table.run(1).results == {"val_accuracy": [8.0, 9.0]}
    assert table.run(1).seconds == [2.0, 3.0]
    with pytest.raises(ConfigError, match=r'columns.select.tasks: .*unknown value "r".* Known: p, q'):
        read_table(file, {"select": {"tasks": "r"}})
    with pytest.raises(DataError, match=r"val_accuracy: the shape \(2, 3, 2\), and the settings have 3 rows.*select"):
        read_table(file)


def test_architectures_in_a_text_with_several_seeds(tmp_path):
    content = {
        "arch": np.array(["|conv~0|+|skip~0|none~1|", "|none~0|+|conv~0|none~1|"]),
        "acc": np.array([[90.0, 92.0, np.nan], [80.0, np.nan, np.nan]]),
        "hours": np.array([2.0, 1.0]),
    }
    columns = {
        "settings": {"arch.args.edges": "arch"},
        "split": {"arch": "([a-z]+)~"},
        "results": {"val_accuracy": "acc", "hours": "hours"},
        "seeds": ["acc"],
        "cumulative_seconds": "hours",
    }
    file = saved(tmp_path, **content)
    table = read_table(file, columns)
    assert table.settings["arch.args.edges.1"] == ["skip", "conv"]
    assert table.run(0).results == {"val_accuracy": [91.0], "hours": [2.0]}
    drawn = read_table(file, columns, repeats="draw")
    assert {drawn.run(0, seed).results["val_accuracy"][0] for seed in range(5)} == {90.0, 92.0}
    assert {drawn.run(1, seed).results["val_accuracy"][0] for seed in range(5)} == {80.0}
    assert drawn.run(0).seconds == [2.0]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", None, "has no rows below its head"),
        ("a.b,val_loss\n", None, "has no rows below its head"),
        ("a.b,val_loss\n1\n", None, r"x.csv: line 2: 1 cells, and the head has 2 names"),
        ("a.b,a.b,val_loss\n1,1,1\n", None, 'two columns are called "a.b"'),
        ("a.b,val_loss\n1,high\n", None, r'x.csv: line 2: val_loss: "high" is no number'),
        ("a.b,val_loss\nnan,1\n", None, r"x.csv: line 2: a.b: nan is no setting"),
        ("lr,val_loss\n1,1\n", None, r"columns.settings: missing, and no column .* \(its columns are lr, val_loss\)"),
        ("a.b,acc\n1,1\n", None, r"columns.results: missing, and no column .* called like a result"),
        ("a.b,val_loss\n1,1\n", {"settings": {"a": "c"}}, r'columns.settings.a: .*unknown column "c".* Known: a.b'),
        ("a.b,val_loss\n1,1\n", {"resluts": {}}, r'columns.resluts: unknown key "resluts". Did you mean "results"'),
        ("a.b,val_loss\n1,1\n", {"facts": {"size": "a.b"}}, 'unknown fact "size"'),
        ("a.b,val_loss\n1,1\n", {"split": {"a.b": "("}}, "is no regular expression"),
        ("a.b,epoch,val_loss\n1,2,1\n", None, "val_loss: has no value before epoch 2"),
        ("a.b,epoch,val_loss\n1,1,1\n1,1,1\n", None, "epoch 1 of the training of line 2 is there already"),
        (
            "a.b,epoch,val_loss\n1,1,1\n1,1000000000,1\n",
            None,
            'line 3: epoch: "1000000000": a table has at most 100000 epochs. Number them',
        ),
        ("a.b,epoch,val_loss\n1,x,1\n", None, '"x" is no'),
        ("id,a.b,epoch,val_loss\n7,1,1,1\n7,2,2,1\n", None, "line 3: id 7 has other settings than in line 2"),
        ("a.b,val_loss,epoch_seconds\n1,1,-1\n", None, "epoch_seconds: -1 seconds: must be 0 or more"),
        ("a.b,val_loss\n1,\n", None, "no training has a result"),
    ],
)
def test_a_faulty_csv_file_is_explained_in_one_line(tmp_path, text, columns, message):
    with pytest.raises(EspalierError, match=message) as raised:
        read_table(written(tmp_path / "x.csv", text), columns)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (b"PK\x03\x04 damaged", None, "is no .npz file, or a damaged one"),
        (b"", None, "is no .npz file, or a damaged one"),
        (b"a,b\n1,2\n", None, "is no .npz file, or a damaged one"),
        ({"a.b": np.array([{}]), "val_loss": np.ones(1)}, None, '"a.b" holds Python objects, which are not unpickled'),
        (arrays(), None, r"columns.results: missing.*\(its arrays are hp, hp_names, valid\)"),
        (arrays(valid=np.ones((2, 3))), VALID, r"valid: the shape \(2, 3\), and the settings have 3 rows"),
        (arrays(valid=np.array([["a"] * 3] * 3)), VALID, "only numbers are results"),
        (arrays(valid=np.ones((3, 0))), VALID, r"valid: the shape \(3, 0\)"),
        ({"a.b": np.array(["2026-01-01"], "M8[D]"), "val_loss": np.ones(1)}, None, "columns.settings: missing"),
        ({"a.b": np.arange(2), "a.c": np.arange(3), "val_loss": np.ones(2)}, None, "settings of different lengths"),
        ({"val_loss": np.ones(2)}, None, "columns.settings: missing"),
        (arrays(cumulative_seconds=np.array([[0, 2, 1]] * 3)), VALID, "row 0: -1 s for epoch 2: must be 0 or more"),
    ],
)
def test_a_faulty_npz_file_is_explained_in_one_line(tmp_path, content, columns, message):
    if isinstance(content, bytes):
        (tmp_path / "x.npz").write_bytes(content)
    else:
        np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(EspalierError, match=message) as raised:
        read_table(tmp_path / "x.npz", columns)
    assert "\n" not in str(raised.value)


def test_an_array_without_a_name_is_no_table(tmp_path):
    with (tmp_path / "x.npz").open("wb") as stream:
        np.save(stream, np.arange(3))
    with pytest.raises(DataError, match="holds one array without a name"):
        read_table(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["missing.csv", "missing.npz"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: cannot be read"):
        read_table(tmp_path / name)


# Studies.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"retrain": {"top": 1}}, r"search.retrain: .*a table trains nothing"),
        ({"strategy": "PBT"}, r"search.strategy: PBT trains on from weights"),
        (
            {"strategy": {"type": "AutoDeepLab", "args": {"supernet": {"arch": "A", "trainer": {"type": "B"}}}}},
            r"search.strategy: AutoDeepLab trains supernets, and a table trains nothing",
        ),
        ({"objectives": ["max val_miou"]}, r'"max val_miou" is not among the results \(val_accuracy\)'),
        ({"objectives": ["max val_accuracy", "min params"]}, r"params is compared, and .*does not have it"),
        ({"limits": {"max_params": 5}}, r"params is compared"),
        ({"first": [{"arch.args.width": 9}]}, r"search.first.0.*cannot be drawn"),
    ],
)
def test_what_a_table_cannot_do_is_refused(tmp_path, changes, message):
    with pytest.raises(EspalierError, match=message):
        build_study_parts(config_of(written(tmp_path / "six.csv", SIX), **changes))


def test_the_config_needs_no_network_but_its_keys_are_known(tmp_path):
    config = config_of(written(tmp_path / "six.csv", SIX))
    assert build_study_parts(config).space.distinct() == 6
    with pytest.raises(ConfigError, match=r'optimiser: unknown key "optimiser"\. Did you mean "optimizer"'):
        build_study_parts(config | {"optimiser": "Adam"})
    with pytest.raises(ConfigError, match=r'trainer.epoch: unknown key "epoch"'):
        build_study_parts(config | {"trainer": {"epochs": 2, "epoch": 3}})
    with pytest.raises(ConfigError, match=r"trainer.epochs: 3: the table .* has 2 epochs"):
        build_study_parts(config | {"trainer": {"epochs": 3}})
    with pytest.raises(ConfigError, match=r"optimizer.args.lr: 0.1 in line 2 of the table cannot be drawn"):
        build_study_parts(config | {"optimizer": {"args": {"lr": {"$uniform": [0, 0.01]}}}})
    with pytest.raises(ConfigError, match="workers 0: must be at least 1"):
        build_study_parts(config_of(tmp_path / "six.csv", workers=0))


def random_table(tmp_path, num_rows=30, epochs=9):
    """Curves with ties in time, divergence and early ends."""
    rng = np.random.default_rng(3)
    values = rng.random((num_rows, 1)) + 0.1 * rng.random((num_rows, epochs)).cumsum(axis=1).round(1)
    lines = ["a.x,a.y,epoch,val_accuracy,epoch_seconds"]
    for row in range(num_rows):
        length = epochs if row % 7 else 4
        for epoch in range(1, length + 1):
            value = "nan" if row % 11 == 5 and epoch > 5 else values[row, epoch - 1]
            lines.append(f"{row / 8},{'pqr'[row % 3]},{epoch},{value},{1 + row % 2 / 3}")
    return written(tmp_path / "random.csv", "\n".join(lines))


def study_of(tmp_path, config, name="study"):
    folder = tmp_path / name
    if not folder.exists():
        from search.study.journal import create_journal

        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        create_journal(folder / JOURNAL)
    return Study(folder, build_study_parts(config), worker="")


def history(events):
    """Everything that was drawn, decided and reported, with its time; not the sessions."""
    return [(each.name, each.candidate, each.seconds, each.data) for each in events if each.stage != "study"]


def reports(events):
    return [
        (each.candidate, each.data["epoch"], each.seconds, each.data["decision"], each.data["row"]["val_accuracy"])
        for each in events
        if each.kind == "report"
    ]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    ("sampler", "made"),
    [
        ("random", lambda space, epochs: RandomSampler(space)),
        ("sobol", lambda space, epochs: SobolSampler(space)),
        (
            {"type": "evolution", "args": {"population_size": 6, "sample_size": 3}},
            lambda space, epochs: EvolutionSampler(space, 6, 3, fidelities=epochs),
        ),
        (None, AutoSampler),
    ],
    ids=["random", "sobol", "evolution", "default"],
)
@pytest.mark.parametrize(
    ("scheduler", "of"),
    [
        (
            {"type": "ASHA", "args": {"mode": "promote", "grace_period": 1}},
            lambda: ASHA(20, 9, mode="promote", grace_period=1),
        ),
        (
            {"type": "ASHA", "args": {"mode": "stop", "grace_period": 1}},
            lambda: ASHA(20, 9, mode="stop", grace_period=1),
        ),
        ("ASHA", lambda: ASHA(20, 9)),
        ("Hyperband", lambda: Hyperband(20, 9)),
        ("RandomSearch", lambda: RandomSearch(20, 9)),
    ],
    ids=["promote", "stop", "default", "Hyperband", "full"],
)
def test_a_study_of_a_table_is_what_the_simulator_says(tmp_path, *, scheduler, of, sampler, made, workers):
    file = random_table(tmp_path)
    options = {"sampler": sampler, "scheduler": scheduler, "num_samples": 20, "seed": 5}
    study = study_of(tmp_path, config_of(file, 9, workers=workers, **options))
    study.run()
    table = read_table(file)
    found = simulate(
        of(), table, sampler=made(study.parts.space, of().fidelities()), workers=workers, is_best_so_far=True
    )
    wanted = [
        (each.candidate, each.epoch, each.seconds, each.decision.value, each.value)
        for each in found.trace
        if each.decision is not None  # one that diverged reports no epoch
    ]
    assert reports(read_events(study.folder / JOURNAL)) == wanted
    assert found.candidate == study.record().winner or workers > 1
    assert study.state.seconds == pytest.approx(found.seconds)


class Killed(Exception):
    pass


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("mode", ["promote", "stop"])
def test_a_study_that_was_killed_anywhere_continues_to_the_same_journal(tmp_path, monkeypatch, mode, workers):
    options = {"scheduler": {"type": "ASHA", "args": {"mode": mode, "grace_period": 1}}, "num_samples": 14}
    config = config_of(random_table(tmp_path, 14), 9, workers=workers, **options)
    whole = study_of(tmp_path, config, "whole")
    whole.run()
    wanted = history(read_events(whole.folder / JOURNAL))
    record, every = Recorder.record, 9

    def killed(self, name, candidate=None, **data):
        event = record(self, name, candidate, **data)
        counts[0] += name != "study.begin"
        if counts[0] == every:
            raise Killed
        return event

    monkeypatch.setattr(Recorder, "record", killed)
    for _ in range(len(wanted)):
        counts = [0]
        try:
            study_of(tmp_path, config, "killed").run()
        except (Killed, SearchError):
            continue
        break
    assert history(read_events(tmp_path / "killed" / JOURNAL)) == wanted


@pytest.mark.parametrize("workers", [1, 3])
def test_a_study_that_was_interrupted_continues_to_the_same_journal(tmp_path, workers):
    options = {"scheduler": {"type": "ASHA", "args": {"mode": "promote", "grace_period": 1}}, "num_samples": 14}
    config = config_of(random_table(tmp_path, 14), 9, workers=workers, **options)
    whole = study_of(tmp_path, config, "whole")
    whole.run()
    stops = [5, 9, 17]  # numbers of reports

    def stop(event, state):
        if state.epochs in stops and event.kind == "report":
            stops.remove(state.epochs)
            signal.raise_signal(signal.SIGINT)

    for _ in list(stops):
        study = study_of(tmp_path, config, "stopped")
        study.watchers = [stop]
        with pytest.raises(Interrupted):
            study.run()
    study_of(tmp_path, config, "stopped").run()
    assert history(read_events(tmp_path / "stopped" / JOURNAL)) == history(read_events(whole.folder / JOURNAL))


def test_a_trial_run_of_a_table_is_small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "six.csv", SIX)
    Path("six.json").write_text(json.dumps(config_of("six.csv")))
    assert main(["-c", "six.json", "--test-run", "1,2,3,4"]) == 0
    (folder,) = Path("saved/t_test_run").iterdir()
    assert [each.epochs for each in search.load(folder).record.candidates] == [1] * 4


def test_budgets_are_simulated_time_and_continue(tmp_path):
    options = {"num_samples": 30, "budget": {"max_time": 0.5}, "scheduler": "RandomSearch"}
    config = config_of(random_table(tmp_path), 9, **options)
    study_of(tmp_path, config).run()
    events = list(read_events(tmp_path / "study" / JOURNAL))
    assert 30 <= events[-1].seconds < 32
    config["search"]["budget"] = {"max_time": 1.0}
    study_of(tmp_path, config).run()
    seconds = [each.seconds for each in read_events(tmp_path / "study" / JOURNAL)][1:]
    assert seconds == sorted(seconds)
    assert 60 <= seconds[-1] < 62


def test_diverged_and_unlimited_rows_are_results_or_refused(tmp_path):
    text = "arch.k,params,val_accuracy\n1,10,0.5\n2,99,0.9\n3,20,nan\n"
    file = written(tmp_path / "x.csv", text)
    study = study_of(
        tmp_path, config_of(file, 1, limits={"max_params": 50}, objectives=["max val_accuracy", "min params"])
    )
    record = study.run()
    found = {dict(each.drawn)["arch.k"]: each for each in reversed(record.candidates)}  # not what is drawn again
    assert {each.status for each in record.candidates} >= {"completed", "failed", "refused"}
    assert found[2].reason == "params 99 is above search.limits.max_params 50"
    assert found[3].reason == "val_accuracy is not a number in epoch 1 of the table"
    assert found[1].objectives == {"val_accuracy": 0.5, "params": 10}


def test_the_command_searches_shows_exports_and_reads_its_own_export(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "six.csv", SIX)
    config = config_of("six.csv", workers=2)
    Path("six.json").write_text(json.dumps(config))
    assert main(["-c", "six.json", "--check"]) == 0
    assert "The space is good." in capsys.readouterr().out
    assert main(["-c", "six.json"]) == 0
    shown = capsys.readouterr().out
    assert "Its results are those of a table: nothing was trained." in shown
    assert "train.py" not in shown
    (folder,) = Path("saved/t").iterdir()
    best = json.loads((folder / "best/config.json").read_text())
    assert best["optimizer"] == {"args": {"lr": 0.01}}
    assert [path.name for path in sorted((folder / "best").iterdir())] == ["config.json", "result.json"]
    assert main(["report", str(folder)]) == main(["list", "saved"]) == 0
    assert main(["export", str(folder), "--csv", "out.csv"]) == 0
    table = read_table("out.csv")
    assert {tuple(map(str, row)) for row in zip(*table.settings.values(), strict=True)} == {
        (lr, width) for lr in ("0.1", "0.01", "0.001") for width in ("8", "16")
    }
    place = list(zip(*table.settings.values(), strict=True)).index((0.01, 16))
    assert table.run(place).results["val_accuracy"] == [0.60, 0.78]
    capsys.readouterr()
    assert main(["join", str(folder)]) == 5
    assert "simulated workers need no other processes" in capsys.readouterr().err


def test_another_table_is_another_study_but_more_workers_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("six.csv", "other.csv"):
        written(tmp_path / name, SIX)
    first = search.run(config_of("six.csv"))
    assert search.run(config_of("six.csv", workers=3), resume="auto").folder == first.folder
    assert search.run(config_of("other.csv"), resume="auto").folder != first.folder


def test_a_study_of_a_table_begins_with_the_results_of_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "six.csv", SIX)
    first = search.run(config_of("six.csv"))
    second = search.run(config_of("six.csv", warm_start=str(first.folder), seed=3))
    events = list(read_events(Path(second.folder) / JOURNAL))
    (taken,) = [each.data["observations"] for each in events if each.name == "study.warm_started"]
    assert len(taken) == 6


def test_the_example_config_of_a_file_is_loaded_without_a_network(tmp_path):
    written(tmp_path / "six.csv", SIX)
    (tmp_path / "six.json").write_text(json.dumps(config_of(tmp_path / "six.csv")))
    assert build_study_parts(load_config(tmp_path / "six.json")).space.distinct() == 6
