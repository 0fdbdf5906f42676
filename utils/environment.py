"""Where and with what a run was made, for `environment.json`. Names of machines and people are left out."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

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
    """Versions, devices, the commit of the code and the command, as plain data."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": _versions(),
        "devices": _devices(),
        "cpu": {
            "name": _cpu_name(),
            "available": _available_cpus(),
            "torch_threads": torch.get_num_threads(),
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        },
        "git": _own_code(),
        "command": list(sys.argv),
    }


# What is cached does not change while a process runs; the commit is the one that its code was read from.
@cache
def _versions() -> dict[str, str]:
    return {name: version for name in PACKAGES if (version := _version(name)) is not None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cuda": cuda, "cuda_version": torch.version.cuda, "mps": torch.backends.mps.is_available()}


def _available_cpus() -> int:
    """CPUs that this process may use, which containers and `taskset` make fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@cache
def _own_code() -> dict[str, Any] | None:
    return _git_state(REPOSITORY)


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, and whether tracked files were changed since; None without git or a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return None
    return {"commit": commit, "is_dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
