"""Packages that a command does not need are not loaded: each would take longer than the command itself."""

import json
import subprocess
import sys
from pathlib import Path

from test_inference import PHOTOS, people_config, save_untrained

ROOT = Path(__file__).parents[1]
# torchvision and the optimizers load torch._dynamo, which takes as long as torch; FlopCounterMode loads Triton.
UNUSED = ["torchvision", "albumentations", "tensorboard", "matplotlib", "scipy", "pandas", "timm", "search.study"]


def loaded_by(command, arguments, packages):
    """Return the packages that a command loads, in addition to those of torch itself."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import torch
before = set(sys.modules)
import {command}
{command}.main({command}.parser().parse_args({list(map(str, arguments))!r}))
print("loaded:", *(name for name in {packages!r} if name in sys.modules and name not in before))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("loaded:")[2].split()


def test_inference_of_a_photo_loads_no_more_than_it_needs(tmp_path):
    checkpoint = save_untrained(tmp_path / "model_best.pth", people_config())
    arguments = ["--resume", checkpoint, "--source", PHOTOS[0], "--output", tmp_path / "mask.png", "-d", "cpu"]
    assert loaded_by("inference", arguments, [*UNUSED, "torch._dynamo", "torch.utils.flop_counter", "av"]) == []
    assert (tmp_path / "mask.png").exists()


def test_a_training_loads_no_more_than_it_needs(tmp_path):
    config = people_config(samples=2, batch_size=2)
    config["train_loader"] = config["valid_loader"]
    config["optimizer"] = {"type": "AdamW", "args": {"lr": 0.1}}
    config["loss"], config["metrics"] = "ce_loss", ["miou"]
    config["trainer"] = {"epochs": 1, "tensorboard": False, "save_dir": str(tmp_path)}
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    assert loaded_by("train", ["-c", tmp_path / "tiny.json"], [*UNUSED, "torch._dynamo"]) == []
