"""Two processes under torchrun on the processor (gloo) come to what one process comes to."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def config(tmp_path):
    """11 training and 5 validation samples: neither divides by two processes. Group norm knows no batch."""
    loader = {"num_classes": 2, "resize": [32, 24], "batch_size": 4}
    people = ROOT / "data/people"
    train = {"pairs_file": str(people / "train_pairs.txt"), "samples": 11, "flip_hor": 0.5}
    valid = {"pairs_file": str(people / "valid_pairs.txt"), "samples": 5, "is_training": False, "shuffle": False}
    content = {
        "name": "spread",
        "n_gpu": 0,
        "arch": {"type": "UNet", "args": {"channels": [8, 16], "norm": "group"}},
        "train_loader": {"type": "SegmentationDataLoader", "args": {**loader, **train}},
        "valid_loader": {"type": "SegmentationDataLoader", "args": {**loader, **valid}},
        "optimizer": {"type": "SGD", "args": {"lr": 0.05}},
        "loss": "ce_loss",
        "metrics": ["miou", "accuracy"],
        "trainer": {"epochs": 2, "save_dir": str(tmp_path / "saved"), "monitor": "min val_loss", "precision": "fp32"},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    return path


def history_of(command, tmp_path, name):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "saved" / name).iterdir()
    rows = (folder / "metrics.csv").read_text().splitlines()
    return [dict(zip(rows[0].split(","), map(float, row.split(",")), strict=True)) for row in rows[1:]]


def test_two_processes_reach_the_metrics_of_one(config, tmp_path):
    train = [str(ROOT / "train.py"), "-c", str(config)]
    one = history_of([sys.executable, *train, "name=one"], tmp_path, "one")
    spread = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    two = history_of([sys.executable, *spread, *train, "name=two"], tmp_path, "two")
    assert len(one) == len(two) == 2
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)


def test_averaged_norm_statistics_are_judged_as_they_are_saved(config, tmp_path):
    spread = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    train = [str(ROOT / "train.py"), "-c", str(config), "arch.args.norm=batch", "trainer.ema=0.5", "trainer.epochs=1"]
    (row,) = history_of([*spread, *train], tmp_path, "spread")
    (folder,) = (tmp_path / "saved/spread").iterdir()
    judge = ["test.py", "--resume", str(folder), "--split", "valid", "--json", str(tmp_path / "result.json")]
    subprocess.run([sys.executable, *judge], cwd=ROOT, check=True, capture_output=True)
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert {f"val_{name}": metrics[name] for name in ("loss", "miou")} == pytest.approx(
        {name: row[name] for name in ("val_loss", "val_miou")}, rel=1e-5
    )
