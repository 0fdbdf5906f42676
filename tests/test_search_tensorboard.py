"""TensorBoard's own readers find curves and HParams."""

import math
import subprocess
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from search.cli.tensorboard import TensorBoardRuns

DRAWN = [("optimizer.args.lr", 0.1), ("augment", True), ("op", "C"), ("blocks", [["C", 1]])]


def loaded(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def plugin_data(events, tag):
    return events.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content


def test_a_run_per_candidate(tmp_path):
    runs = TensorBoardRuns(tmp_path, ["val_miou"])
    runs.begin(3, DRAWN)
    runs.report(3, 1, {"epoch": 1, "val_miou": 0.5, "loss": math.nan})
    runs.report(3, 2, {"epoch": 2, "val_miou": 0.75, "loss": 1.0})
    runs.finish(3)
    events = loaded(tmp_path / "00003")
    assert [(each.step, each.value) for each in events.Scalars("val_miou")] == [(1, 0.5), (2, 0.75)]
    assert "epoch" not in events.Tags()["scalars"]


def test_hparams_know_what_was_drawn(tmp_path):
    runs = TensorBoardRuns(tmp_path, ["val_miou"])
    runs.begin(0, DRAWN)
    runs.finish(0, failed=True)
    events = loaded(tmp_path / "00000")
    start = metadata.parse_session_start_info_plugin_data(plugin_data(events, "session_start_info"))
    assert start.hparams["optimizer.args.lr"].number_value == 0.1
    assert start.hparams["augment"].bool_value is True
    assert start.hparams["op"].string_value == "C"
    assert start.hparams["blocks"].string_value == '[["C", 1]]'
    end = metadata.parse_session_end_info_plugin_data(plugin_data(events, "session_end_info"))
    assert end.status == 2  # STATUS_FAILURE
    experiment = metadata.parse_experiment_plugin_data(plugin_data(loaded(tmp_path), "experiment"))
    assert {each.name for each in experiment.hparam_infos} == {path for path, _ in DRAWN}
    assert [each.name.tag for each in experiment.metric_infos] == ["val_miou"]


def test_a_new_session_adds_to_what_is_there(tmp_path):
    for epoch in (1, 2):
        runs = TensorBoardRuns(tmp_path, ["val_miou"])
        runs._session = f"{epoch}.host.1"  # sessions of one second and process differ in nothing else
        runs.report(0, epoch, {"epoch": epoch, "val_miou": 0.1 * epoch})
    assert [each.step for each in loaded(tmp_path / "00000").Scalars("val_miou")] == [1, 2]


def test_torch_is_not_needed(tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parent.parent)!r})
from pathlib import Path
from search.cli.tensorboard import TensorBoardRuns
runs = TensorBoardRuns(Path({str(tmp_path)!r}), ["val_miou"])
runs.begin(0, [("lr", 0.1)])
runs.report(0, 1, {{"epoch": 1, "val_miou": 0.5}})
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
