"""Two processes on the processor (gloo) reach the results of one, and evaluate the state that they save."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from base import BaseDataLoader
from tests.support.tiny import Blobs, tiny_trainer
from trainer.checkpoints.saving import pack
from trainer.runtime.devices import World
from utils.checkpoint_file import evaluated_weights

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


@pytest.mark.slow
def test_two_processes_reach_the_metrics_of_one(config, tmp_path):
    train = [str(ROOT / "train.py"), "-c", str(config)]
    one = history_of([sys.executable, *train, "name=one"], tmp_path, "one")
    spread = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    two = history_of([sys.executable, *spread, *train, "name=two"], tmp_path, "two")
    assert len(one) == len(two) == 2
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_norm_statistics_are_evaluated_as_they_are_saved(config, tmp_path):
    spread = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    train = [str(ROOT / "train.py"), "-c", str(config), "arch.args.norm=batch", "trainer.epochs=1"]
    (row,) = history_of([*spread, *train], tmp_path, "spread")
    (folder,) = (tmp_path / "saved/spread").iterdir()
    evaluate = ["test.py", "--resume", str(folder), "--split", "valid", "--json", str(tmp_path / "result.json")]
    subprocess.run([sys.executable, *evaluate], cwd=ROOT, check=True, capture_output=True)
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    names = ("loss", "miou", "accuracy")
    assert {name: metrics[name] for name in names} == pytest.approx(
        {name: row[f"val_{name}"] for name in names}, rel=1e-5
    )


def train_in_two(rank, folder, options):
    """Train the tiny task, whose network has batch norm, in one of two processes; save what was evaluated."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    world = World(rank, 2)
    for name, plan in options.items():
        trainer = tiny_trainer(world=world, epochs=2, **plan)
        trainer.model = DistributedDataParallel(trainer.model)
        trainer.train_loader = BaseDataLoader(Blobs(24), 4, seed=3, is_training=True)  # two samples for each at least
        for loader in (trainer.train_loader, trainer.valid_loader):
            loader.shard(rank, 2)
        history = trainer.fit().history
        content = pack(trainer, {"name": "tiny"})
        if world.is_main:
            torch.save({"history": history, "content": content}, f"{folder}/{name}.pt")
        del trainer
    dist.destroy_process_group()


def test_every_kind_of_weights_is_evaluated_with_the_saved_statistics(tmp_path):
    options = {"plain": {}, "averaged": {"ema_decay": 0.5}, "accumulated": {"accumulate": 2}}
    torch.multiprocessing.spawn(train_in_two, (str(tmp_path), options), nprocs=2)
    for name in options:
        saved = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        alone = tiny_trainer()
        alone.model.load_state_dict(evaluated_weights(saved["content"]))
        found = {f"val_{key}": value for key, value in alone.validate_epoch().items()}
        last = saved["history"][-1]
        assert found == pytest.approx({key: last[key] for key in found}, rel=1e-6), name
