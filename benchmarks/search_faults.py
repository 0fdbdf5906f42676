"""A search most of whose candidates cannot be trained: a third illegal, a sixth diverging, a sixth out of memory.

    python benchmarks/search_faults.py --samples 24

Two workers with an address space of `--megabytes` train real candidates on the images of this repository. The search
must end by itself with its full number of candidates and say what became of the others.
"""

import argparse
import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.cli.study_commands import read_study
from search.study.folders import find_studies

ROOT = Path(__file__).resolve().parents[1]


def unet(channels: list[int], backbone: str = "plain") -> dict[str, Any]:
    """A U-Net."""
    return {"type": "UNet", "args": {"backbone": backbone, "channels": channels}}


RATE = {"$loguniform": [0.001, 0.005]}
NETWORKS = [
    *[unet([8, 16, width]) for width in (16, 24, 32, 40)],
    unet([8, 16, 4096]),  # more parameters than allowed
    unet([8, 16, 32], backbone="no_such_trunk"),
]
SIZE, HUGE = [192, 128], [1536, 1024]  # the latter takes more memory than a worker may have


def space(arguments: argparse.Namespace, save_dir: str) -> dict[str, Any]:
    """The config with its markers."""
    return {
        "$extends": str(ROOT / "config/people/quickstart.json"),
        "name": "faults",
        "arch": {"$choice": NETWORKS},
        "optimizer": {"args": {"lr": {"$choice": [*[RATE] * 5, 1e30]}}},
        "lr_scheduler": None,
        "train_loader": {"args": {"resize": {"$choice": [*[SIZE] * 5, HUGE]}}},
        "trainer": {"epochs": 2, "save_dir": save_dir, "tensorboard": False},
        "search": {
            "num_samples": arguments.samples,
            "sampler": "random",
            "limits": {"max_params": 3_000_000},
            "executor": {
                "type": "processes",
                "args": {"workers": 2, "memory_limit_mb": arguments.megabytes},
            },
            "retrain": {"top": 0},
        },
    }


def main() -> None:
    """Search and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--megabytes", type=int, default=6000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "faults.json"
        file.write_text(json.dumps(space(arguments, f"{folder}/saved")))
        code = subprocess.run([sys.executable, "-m", "search", "-c", str(file)], cwd=ROOT, check=False).returncode
        study = read_study(find_studies(Path(folder) / "saved/faults")[0])
        subprocess.run([sys.executable, "-m", "search", "list", study.folder], cwd=ROOT, check=True)
    print(f"\nexit code {code}; {len(study.candidates)} candidates drawn")
    for status, count in collections.Counter(candidate.status for candidate in study.candidates).most_common():
        reasons = {candidate.reason for candidate in study.candidates if candidate.status == status}
        print(f"{count:4} {status}  {next(iter(reasons))}")


if __name__ == "__main__":
    main()
