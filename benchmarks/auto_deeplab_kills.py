"""Kill a search by supernets over all of its stages, its workers too, and compare it with one that was left in peace.

    OMP_NUM_THREADS=1 python benchmarks/auto_deeplab_kills.py [--kills 12 5 8 5] [--folder saved/auto_deeplab_kills]

Two supernets of a few photos of this repository are trained, decoded, and their networks trained and tested. The
search, its worker and both get SIGKILL in turn, at random moments of each stage: the training of supernets, the
decoding, the retraining and the test; one that is aimed at the short decoding may come right after it. Then
`--resume auto` continues. Genotypes, results, tests and every tensor of every checkpoint must be those of the other
search. Interrupted itself, it continues in its folder.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.search_kill_and_resume import ROOT
from benchmarks.staged_kills import Stages, compare, work_of
from search.study.journal import Event

NUM_SUPERNETS, RETRAIN_EPOCHS = 2, 6


def config_of(folder: Path) -> Path:
    """Write the config of a small search, and return its file."""
    common = {"resize": [48, 32], "batch_size": 4, "n_workers": 0}
    loaders: dict[str, Any] = {
        f"{split}_loader": {
            "args": {"pairs_file": str(ROOT / f"data/people/{split}_pairs.txt"), "samples": samples, **common}
        }
        for split, samples in (("train", 24), ("valid", 8), ("test", 24))
    }
    training = {"save_every_steps": 2, "tensorboard": False, "precision": "fp32"}
    supernet = {
        "arch": {"args": {"layers": 3, "blocks": 2, "filter_multiplier": 2}},
        "trainer": {"epochs": 6, "args": {"architecture_from_epoch": 2}},
        **{f"{split}_loader": {"args": {"resize": [32, 24]}} for split in ("train", "valid")},
    }
    config = {
        "$extends": str(ROOT / "config/search/auto_deeplab_people.json"),
        "name": "kills",
        "arch": {"args": {"filter_multiplier": 4, "stem_channels": [8, 8, 16], "aspp_channels": 16}},
        **loaders,
        "trainer": training,
        "search": {
            "num_samples": NUM_SUPERNETS,
            "strategy": {"args": {"supernet": supernet}},
            "executor": {"type": "processes", "args": {"workers": 1, "threads": 1}},
            "retrain": {"top": NUM_SUPERNETS, "epochs": RETRAIN_EPOCHS, "seeds": 1},
        },
    }
    file = folder / "kills.json"
    file.write_text(json.dumps(config, indent=2))
    return file


def stage_after(work: list[Event]) -> str:
    """Return the stage of a study after its first events."""
    last = work[-1] if work else None
    if last is None or (last.stage == "search" and last.kind not in ("done", "ended")):
        return "supernet"
    if last.kind == "ended" and last.stage == "search":
        return "decoding" if last.candidate == NUM_SUPERNETS - 1 else "supernet"
    if last.stage in ("search", "decode"):
        return "decoding"
    return "test" if last.kind == "report" and last.data["epoch"] == RETRAIN_EPOCHS else "retraining"


STAGES = Stages(stage_after, {"supernet": None, "decoding": 0.02, "retraining": None, "test": 0.3})


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = ", ".join(STAGES.seconds)
    parser.add_argument("--kills", type=int, nargs=4, default=[12, 5, 8, 5], help=f"in the stages {stages}")
    parser.add_argument("--folder", type=Path, default=Path("saved/auto_deeplab_kills"))
    arguments = parser.parse_args()
    began = time.monotonic()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    studies, found = compare(str(config_of(folder)), folder, STAGES, arguments.kills)
    genotypes = sum(event.kind == "decoded" for event in work_of(Path(studies[0].folder)))
    print(f"{genotypes} genotypes: {'identical' if not found else 'differs in ' + ', '.join(found)}")
    print(f"{time.monotonic() - began:.0f} s")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
