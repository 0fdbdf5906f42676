"""Weights & Biases and MLflow, offline and into the run's folder, with the same entry after a resume."""

import copy
import json
import re
from types import SimpleNamespace

import pytest
from test_train import changed, small  # noqa: F401 (a fixture)

from build import registry
from config import load_config, validate
from logger import trackers
from logger.callbacks import MetricsFile
from logger.trackers import make_trackers, require_packages
from logger.trackers.mlflow_tracker import MlflowTracker
from logger.trackers.tracker import Tracker
from logger.trackers.wandb_tracker import WandbTracker
from tests.support.tiny import tiny_trainer
from train import check_config, for_dev_run, train
from utils.errors import ConfigError

CONFIG = {"name": "points", "arch": {"type": "TinyNet", "args": {"widths": [8, 2]}}}


class Notebook(Tracker):
    """A service that keeps what it is told."""

    def __init__(self):
        super().__init__(CONFIG)
        self.told = []

    def open(self, trainer, run_id):
        self.told.append(("open", run_id))
        return run_id or f"id of {trainer.run_folder.name}"

    def write(self, row):
        self.told.append(("epoch", row["epoch"]))

    def close(self):
        self.told.append(("close", self.run_id))


def run(folder, *callbacks, epochs, state=None):
    """Train to an epoch, from a state where one is given; the trainer."""
    folder.mkdir(exist_ok=True)
    trainer = tiny_trainer(callbacks, epochs=epochs)
    trainer.run_folder = folder
    if state is not None:
        restore(trainer, state)
    trainer.fit()
    return trainer


def saved(trainer):
    return copy.deepcopy({**trainer.state_dict(), "weights": trainer.model.state_dict()})


def restore(trainer, state):
    trainer.model.load_state_dict(state["weights"])
    trainer.load_state_dict(state)


def test_an_entry_goes_on_in_its_folder_and_begins_anew_in_another(tmp_path):
    first, second, third = Notebook(), Notebook(), Notebook()
    state = saved(run(tmp_path / "one", first, epochs=2))
    assert first.told == [("open", None), ("epoch", 1), ("epoch", 2), ("close", "id of one")]
    run(tmp_path / "one", second, epochs=3, state=state)
    assert second.told == [("open", "id of one"), ("epoch", 3), ("close", "id of one")]
    run(tmp_path / "two", third, epochs=3, state=state)
    assert third.told == [("open", None), ("epoch", 1), ("epoch", 2), ("epoch", 3), ("close", "id of two")]


def test_only_the_main_process_of_a_run_with_a_folder_writes(tmp_path):
    notebook = Notebook()
    tiny_trainer([notebook], epochs=1).fit()
    other = tiny_trainer([notebook], epochs=1)
    other.run_folder, other.is_main_process = tmp_path, False
    other.fit()
    assert notebook.told == []
    assert notebook.state_dict() == {}


def test_wandb_writes_offline_and_keeps_its_id(tmp_path):
    folder = tmp_path / "run"
    state = saved(run(folder, WandbTracker(CONFIG, mode="offline"), epochs=1))
    run_id = state["callbacks"]["WandbTracker"]["run_id"]
    assert re.fullmatch("[0-9a-f]{16}", run_id)
    assert run(folder, WandbTracker(CONFIG, mode="offline"), epochs=2, state=state).state_dict()["callbacks"] == {
        "WandbTracker": {"run_id": run_id, "folder": "run"}
    }
    files = list(folder.glob(f"wandb/offline-run-*-{run_id}*/run-{run_id}.wandb"))
    assert files
    assert any(b"val_accuracy" in file.read_bytes() for file in files)


def test_wandb_says_why_it_did_not_start(tmp_path):
    message = r"visualization.wandb: Weights & Biases did not start \(.*\). Online it needs .* or remove it"
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "run", WandbTracker(CONFIG, project="a/b", mode="offline"), epochs=1)


def mlflow_runs(folder):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(folder / "mlruns").as_uri())
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return [
        (each, [(value.step, value.value) for value in client.get_metric_history(each.info.run_id, "val_accuracy")])
        for each in runs
    ]


def test_mlflow_writes_into_the_folder_and_goes_on_where_it_stopped(tmp_path):
    folder = tmp_path / "run"
    trainer = run(folder, MlflowTracker(CONFIG), epochs=2)
    early = saved(run(tmp_path / "early", epochs=1))
    # Killed after the second epoch was handed over, and before its checkpoint was written.
    early["callbacks"] = trainer.state_dict()["callbacks"]
    resumed = run(folder, MlflowTracker(CONFIG), epochs=3, state=early)
    ((entry, values),) = mlflow_runs(folder)
    assert values == [(row["step"], row["val_accuracy"]) for row in resumed.history]
    assert len(values) == 3
    assert entry.info.run_id == trainer.state_dict()["callbacks"]["MlflowTracker"]["run_id"]
    assert (entry.info.status, entry.info.run_name) == ("FINISHED", "run")
    assert entry.data.params == {"name": "points", "arch.type": "TinyNet", "arch.args.widths": "[8, 2]"}


def test_mlflow_says_what_is_wrong_with_an_address(tmp_path):
    message = r"visualization.mlflow: nowhere://x cannot be used \(.*\). It must be a tracking server, a database"
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "run", MlflowTracker(CONFIG, tracking_uri="nowhere://x"), epochs=1)


SERVICES = {"wandb": {"project": "people", "mode": "offline"}, "mlflow": {"experiment": "people"}}


def test_the_json_names_them(small, monkeypatch):  # noqa: F811
    config = changed(small, visualization=SERVICES)
    validate(config, registry())
    made = make_trackers(config)
    assert [type(each).__name__ for each in made] == ["WandbTracker", "MlflowTracker"]
    assert (made[0].project, made[0].mode, made[1].experiment) == ("people", "offline", "people")
    assert make_trackers(small) == []
    bare = make_trackers(changed(small, visualization={"wandb": {}, "mlflow": {}}))
    assert [bare[0].project, bare[0].mode, bare[1].experiment] == ["small", "online", "small"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"wandb": {"projct": "x"}}, r'visualization\.wandb\.projct: unknown key "projct". Did you mean "project"'),
        ({"wandb": {"mode": "off"}}, r'visualization\.wandb\.mode: "off" must be one of "online", "offline"'),
        ({"mlflow": {"tracking_uri": 3}}, r"visualization\.mlflow\.tracking_uri: 3 must be a string"),
        ({"mlflow": "x"}, r'visualization\.mlflow: "x" must be an object'),
        ({"mlfow": {}}, r'visualization\.mlfow: unknown key "mlfow". Did you mean "mlflow"'),
    ],
)
def test_faults_are_found(small, section, message):  # noqa: F811
    with pytest.raises(ConfigError, match=message):
        check_config(changed(small, visualization=section))


@pytest.mark.parametrize(("key", "package"), [("wandb", "wandb"), ("mlflow", "mlflow-skinny")])
def test_a_missing_package_is_said_before_training(small, key, package, monkeypatch):  # noqa: F811
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == key else object())
    message = rf"visualization.{key}: the package {key} is not installed. Install it \(pip install {package}\), or"
    with pytest.raises(ConfigError, match=message):
        train(changed(small, visualization=SERVICES))
    require_packages(small)


def test_a_trial_goes_nowhere(small, tmp_path):  # noqa: F811
    config = changed(small, visualization={"wandb": {}, "mlflow": {"tracking_uri": "http://server"}})
    assert for_dev_run(config, str(tmp_path))["visualization"] == {
        "wandb": {"mode": "disabled"},
        "mlflow": {"tracking_uri": None},
    }


def test_a_file_may_hold_old_and_new_keys(small, tmp_path):  # noqa: F811
    mixed = changed(small, visualization={"tensorboardX": False, "mlflow": {}})
    (tmp_path / "mixed.json").write_text(json.dumps(mixed))
    loaded = load_config(str(tmp_path / "mixed.json"))
    assert loaded["visualization"] == {"mlflow": {}}
    assert loaded["trainer"]["tensorboard"] is False


def test_a_whole_run_with_both(small):  # noqa: F811
    services = {"wandb": {"mode": "disabled"}, "mlflow": {}}
    result = train(changed(small, visualization=services, trainer__epochs=1))
    ((entry, _),) = mlflow_runs(result.run_folder)
    assert entry.data.metrics["val_loss"] == result.history[0]["val_loss"]
    assert entry.data.params["arch.args.num_classes"] == "2"
    lines = (result.run_folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.history


def test_json_lines_are_exact_and_have_no_nan(tmp_path):
    rows = [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": float("nan"), "iou_ä": 1e-17}]
    trainer = SimpleNamespace(is_main_process=True, run_folder=tmp_path, history=rows)
    MetricsFile().on_fit_start(trainer)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"epoch": 1, "loss": 0.30000000000000004}\n{"epoch": 2, "loss": null, "iou_\\u00e4": 1e-17}\n'


def test_json_lines_are_cut_back_to_the_checkpoint(tmp_path):
    folder = tmp_path / "run"
    run(folder, MetricsFile(), epochs=3)
    whole = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(whole + b'{"torn')
    state = saved(run(tmp_path / "early", epochs=1))
    resumed = tiny_trainer([MetricsFile()], epochs=3)
    resumed.run_folder = folder
    restore(resumed, state)
    resumed.notify("on_fit_start")
    assert (folder / "metrics.jsonl").read_bytes() == whole.splitlines(keepends=True)[0]
    resumed.fit()
    assert (folder / "metrics.jsonl").read_bytes() == whole
