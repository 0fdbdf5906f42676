"""Trainings of the small supernet; as a program, its laws: two processes, and kills at the worst moments."""

import copy
import datetime
import itertools
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from base import BaseDataLoader
from config import load_plugins
from tests.support.laws import differences, outcome_of, trainer_of
from train import train
from trainer.bilevel.bilevel_trainer import BilevelTrainer
from trainer.runtime.devices import ALONE, joined_world
from utils.checkpoint_file import read_checkpoint

load_plugins([Path(__file__).with_name(f"{name}.py") for name in ("small_supernet", "law_net")])
KILL_AT = "KILL_AT_ARCHITECTURE_PASS"
EPOCHS, STEPS = 4, 3  # of six samples in the first half, two a batch; the architecture learns from the third epoch on


def bilevel_config(**changes: Any) -> dict[str, Any]:
    """A training of the small supernet on 11 images; a change is `section__name=value`, deeper with more `__`."""
    loader = {"type": "law_net.LawLoader", "args": {"classes": 3, "batch_size": 2}}
    config = {
        "name": "bilevel",
        "seed": 3,
        "n_gpu": 0,
        "arch": {"type": "small_supernet.SmallSupernet", "args": {}},
        "train_loader": copy.deepcopy(loader),
        "valid_loader": copy.deepcopy(loader),
        "optimizer": {"type": "SGD", "args": {"lr": 0.05, "momentum": 0.9}},
        "lr_scheduler": "poly",
        "loss": "ce_loss",
        "metrics": ["miou"],
        "trainer": {
            "type": "BilevelTrainer",
            "args": {"architecture_lr": 0.05},
            "epochs": EPOCHS,
            "monitor": "min val_loss",
            "precision": "fp32",
            "tensorboard": False,
        },
    }
    for path, value in changes.items():
        *parts, name = path.split("__")
        section: Any = config
        for part in parts:
            section = section.setdefault(part, {})
        section[name] = value
    return config


SUPERNET: dict[str, Any] = {"type": "AutoDeepLabSupernet", "args": {"layers": 3, "blocks": 1, "filter_multiplier": 2}}
SETTINGS = {
    "supernet": bilevel_config(
        arch=SUPERNET,
        trainer__save_every_steps=1,
        trainer__epochs=2,
        trainer__args={"architecture_lr": 0.05, "architecture_from_epoch": 1},
    ),
    "plain": bilevel_config(arch__args={"norm": "batch", "dropout": 0.3}, trainer__save_every_steps=1),
    "averaged": bilevel_config(
        arch__args={"norm": "batch", "dropout": 0.3},
        trainer__accumulate=2,
        trainer__ema=0.9,
        trainer__save_every_steps=1,
        trainer__args={"architecture_lr": 0.05, "entropy_weight": 0.1, "entropy_growth": "linear"},
        train_loader__args={"classes": 3, "batch_size": 1},
    ),
}


def bilevel_trainer(config: dict[str, Any], content: bytes = b"", **options: Any) -> BilevelTrainer:
    """Build the trainer of a config, perhaps in a saved state."""
    trainer = trainer_of(config, ALONE, content, **options)
    assert isinstance(trainer, BilevelTrainer)
    return trainer


def in_child(work: Any) -> int:
    """Run something in a fork of this process, and return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at_replacing(number: int) -> None:
    """End this process when it moves its n-th file into place."""
    replace, count = os.replace, itertools.count(1)

    def killing(source: Any, target: Any) -> None:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = killing


def run(config: dict[str, Any], folder: Path, *, at_pass: int = 0, at_replacing: int = 0) -> None:
    """Train, or continue, in a folder; be killed at a pass of the architecture, or while a file is written."""
    os.environ[KILL_AT] = str(at_pass)
    if at_replacing:
        kill_at_replacing(at_replacing)
    resume = str(folder) if any(folder.glob("*.pth")) else None
    train(copy.deepcopy(config) if resume is None else None, resume=resume, run_folder=folder)


# Between the two steps of the n-th architecture step of a process, and while its n-th file is moved into place.
KILLS: dict[str, list[dict[str, int]]] = {
    "supernet": [{"at_replacing": 8}],
    "plain": [{"at_pass": 1}, {"at_replacing": 9}, {"at_pass": 2}, {"at_replacing": 6}],
    "averaged": [{"at_pass": 3}, {"at_replacing": 7}],
}


def killed_and_resumed(config: dict[str, Any], kills: list[dict[str, int]], folder: Path) -> str:
    """Return what differs between a run and one that is killed many times; empty if nothing does."""
    whole, broken = folder / "whole", folder / "broken"
    run(config, whole)  # here, so that the children find everything loaded
    for options in kills:
        if in_child(lambda options=options: run(config, broken, **options)) != -signal.SIGKILL:
            return f"it was not killed by {options}"
    if in_child(lambda: run(config, broken)):
        return "it does not resume"
    files = ("architecture.json", "metrics.csv", "result.json")
    different = [name for name in files if (whole / name).read_bytes() != (broken / name).read_bytes()]
    states = [read_checkpoint(each / "checkpoint-last.pth") for each in (whole, broken)]
    different += [key for key in states[0] if not same_content(*(state[key] for state in states))]
    return ", ".join(each for each in different if each != "config")


def same_content(one: Any, other: Any) -> bool:
    """Whether two contents of checkpoints are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_content(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_content, one, other))
    return bool(one == other)


def differs_in_two_processes() -> list[str]:
    """Return what differs between one process and two, for several settings; a collective call after the fork."""
    found: list[str] = []
    options = {"architecture_lr": 0.05, "entropy_weight": 0.1, "architecture_from_epoch": 1}
    supernet = copy.deepcopy(SUPERNET)
    supernet["args"]["norm"] = "group"
    settings = {
        "plain": bilevel_config(trainer__args=options, arch__args={"norm": "group"}),
        "supernet": bilevel_config(trainer__args=options, arch=supernet, trainer__epochs=1),
        "averaged": bilevel_config(
            trainer__args=options, trainer__ema=0.9, trainer__clip_norm=0.5, trainer__accumulate=2
        ),
        "sampled": bilevel_config(trainer__args=options, arch__args={"samples_paths": True}),
    }
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        os.environ |= {"RANK": str(int(child == 0)), "WORLD_SIZE": "2"}
        limit = datetime.timedelta(seconds=60)
        dist.init_process_group("gloo", f"file://{folder}/store", rank=int(child == 0), world_size=2, timeout=limit)
        with joined_world() as world:
            for name, config in settings.items():
                two = outcome_of(trainer_of(config, world))
                if world.is_main and name != "sampled":
                    one = outcome_of(trainer_of(config, ALONE))
                    found += [f"{name}: {text}"] if (text := differences(two, one)) else []
        if child == 0:
            os._exit(0)
        if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            found.append(f"the second process ended with {code}")
    return found


def loader_of(samples: Any, **options: Any) -> BaseDataLoader:
    """A loader of training data over a data set."""
    return BaseDataLoader(samples, 2, is_training=True, **options)


if __name__ == "__main__":
    torch.set_num_threads(1)  # children of a process with several would wait for them
    results: dict[str, Any] = {}
    for setting, content in SETTINGS.items():
        path = Path(sys.argv[1]) / setting
        path.mkdir()
        results[f"killed, {setting}"] = killed_and_resumed(content, KILLS[setting], path)
    results["two processes"] = differs_in_two_processes()
    (Path(sys.argv[1]) / "broken.json").write_text(json.dumps(results))
