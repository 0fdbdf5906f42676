"""The software and hardware of a run, for `environment.json`. Names of machines and people are left out."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from utils.hardware import available_processors

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "albumentations",
    "pydantic",
    "tensorboard",
    "timm",
    "segmentation-models-pytorch",
)
GIT_SECONDS = 10
REPOSITORY = Path(__file__).resolve().parents[1]


def capture() -> dict[str, Any]:
    """Return versions, devices, the commit of the code and the command as plain data."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": _versions(),
        "devices": {
            "cuda": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
            "cuda_version": torch.version.cuda,
            "mps": torch.backends.mps.is_available(),
        },
        "cpu": {
            "name": _cpu_name(),
            "available": available_processors(),
            "torch_threads": torch.get_num_threads(),
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        },
        "git": git_state(REPOSITORY),
        "command": list(sys.argv),
    }


# Cached: none of this changes during a process, and the commit is the one from which its code was loaded.
@cache
def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@cache
def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of a repository, and whether tracked files have changed since; None without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True).stdout.strip()

    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "is_dirty": bool(changes)}
