"""Many trainings in one process: what they share, that they leave nothing behind, and that they go on exactly."""

import copy
import gc
import json
import logging
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_flatten

from base import Callback
from data_loader.common.image_cache import share_decoded
from search.worker.runner import release_memory
from train import train
from utils.checkpoint_file import read_checkpoint
from utils.environment import is_out_of_memory
from utils.errors import ConfigError, Diverged

ROOT = Path(__file__).resolve().parent.parent
PEOPLE = ROOT / "data/people"


class StopAt(Callback):
    """Ends the run after an epoch, as a search does that pauses a candidate."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, trainer, metrics):
        if trainer.epoch == self.epoch:
            trainer.request_stop("paused")


def assert_same(one, other):
    """Everything in two checkpoints, to the bit."""
    leaves, structure = tree_flatten(one)
    others, other_structure = tree_flatten(other)
    assert structure == other_structure
    for leaf, its_like in zip(leaves, others, strict=True):
        if isinstance(leaf, torch.Tensor):
            assert leaf.dtype == its_like.dtype
            assert torch.equal(leaf, its_like)
        else:
            assert leaf == its_like


@pytest.fixture
def small(tmp_path):
    loader = {"type": "SegmentationDataLoader", "args": {"num_classes": 2, "resize": [32, 24], "batch_size": 4}}
    train_args = {"pairs_file": str(PEOPLE / "train_pairs.txt"), "samples": 10, "flip_hor": 0.5}
    valid_args = {"pairs_file": str(PEOPLE / "valid_pairs.txt"), "samples": 4, "is_training": False}
    return {
        "name": "small",
        "arch": {"type": "UNet", "args": {"channels": [4, 8], "dropout": 0.2}},
        "train_loader": {**loader, "args": {**loader["args"], **train_args}},
        "valid_loader": {**loader, "args": {**loader["args"], **valid_args}},
        "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
        "loss": "ce_loss",
        "metrics": ["miou"],
        "trainer": {"epochs": 9, "save_dir": str(tmp_path), "verbosity": 0, "ema": 0.9, "monitor": "max val_miou"},
    }


SCHEDULES = {
    "per step": {"type": "OneCycleLR", "args": {"max_lr": 0.01}},
    "per epoch": {"type": "StepLR", "args": {"step_size": 2, "gamma": 0.7}, "warmup": 3},
}


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_promotion_by_1_3_9_epochs_ends_in_the_same_bytes_as_9_straight(small, tmp_path, schedule):
    config = {**small, "lr_scheduler": SCHEDULES[schedule]}
    straight, promoted = tmp_path / "straight", tmp_path / "promoted"
    train(config, run_folder=straight)
    train(config, [StopAt(1)], run_folder=promoted)
    for epoch in (3, 9):
        result = train(None, [StopAt(epoch)], resume=str(promoted))
        assert (result.epochs, result.run_folder) == (epoch, promoted)
    for name in ("metrics.csv", "metrics.jsonl", "config.json"):
        assert (promoted / name).read_bytes() == (straight / name).read_bytes(), name
    for name in ("checkpoint-last.pth", "model_best.pth"):
        assert_same(read_checkpoint(promoted / name), read_checkpoint(straight / name))


def test_a_named_folder_is_made_and_never_shared(small, tmp_path):
    folder = tmp_path / "study/candidate-0007"
    small["trainer"]["epochs"] = 1
    assert train(small, run_folder=folder).run_folder == folder
    with pytest.raises(ConfigError, match=r"candidate-0007 holds a run's checkpoints\. Two runs never share a folder"):
        train(small, run_folder=folder)


def test_a_run_that_died_before_its_first_checkpoint_begins_again_in_its_folder(small, tmp_path):
    small["trainer"]["epochs"] = 1
    for name in ("config.json", "environment.json"):
        (tmp_path / name).write_text('{"name": "of another config"}')
    train(small, run_folder=tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["name"] == "small"


@pytest.mark.slow
def test_thirty_trainings_leave_nothing_open(small, tmp_path):
    small["trainer"] |= {"epochs": 1, "len_epoch": 1, "tensorboard": True}

    def left_open():
        handlers = len(logging.getLogger().handlers)
        return len(os.listdir("/proc/self/fd")), threading.active_count(), handlers

    with share_decoded(64):
        train(small, run_folder=tmp_path / "first")  # what is loaded once stays
        before = left_open()
        for number in range(30):
            train({**small, "seed": number}, run_folder=tmp_path / f"{number}")
        assert left_open() == before


def test_rings_of_objects_go_when_memory_is_released():
    ring = StopAt(1)
    ring.itself, seen = ring, weakref.ref(ring)
    del ring
    release_memory()
    gc.unfreeze()
    assert seen() is None


def test_training_on_kept_data_is_the_same_training(small, tmp_path):
    small["trainer"]["epochs"] = 2
    train(small, run_folder=tmp_path / "alone")
    with share_decoded(64) as kept:
        for number in range(2):
            train(small, run_folder=tmp_path / f"{number}")
        assert kept.num_bytes > 0
    for number in range(2):
        one, other = (tmp_path / name / "checkpoint-last.pth" for name in ("alone", str(number)))
        assert_same(read_checkpoint(one), read_checkpoint(other))


def test_divergence_has_an_error_of_its_own(small):
    config = copy.deepcopy(small)
    config["optimizer"] = {"type": "SGD", "args": {"lr": 1e20}}
    config["trainer"] |= {"precision": "fp32", "ema": None}
    with pytest.raises(Diverged, match="not finite"):
        train(config)


LIMITED = """
import json, resource, sys
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
import models.unet, trainer.trainer, data_loader.segmentation
from train import train
from utils.checkpoint_file import read_checkpoint
from utils.errors import OutOfMemory
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + {megabytes} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    train(json.loads({config!r}))
except OutOfMemory as error:
    print("OutOfMemory:", error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("channels", [[64, 128], [4096, 8192]], ids=["while training", "while building"])
def test_memory_that_runs_out_is_told_apart(small, channels):
    small["train_loader"]["args"] |= {"resize": [512, 512], "batch_size": 10}
    small["arch"]["args"]["channels"] = channels
    small["trainer"]["tensorboard"] = False
    program = LIMITED.format(root=str(ROOT), config=json.dumps(small), megabytes=600)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("OutOfMemory: Memory ran out"), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (RuntimeError("Sizes of tensors must match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_memory_ran_out(error, is_memory):
    assert is_out_of_memory(error) == is_memory
