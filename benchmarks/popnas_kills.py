"""Kill a search of POPNAS over all of its stages, its workers too, and compare it with one that was left in peace.

    OMP_NUM_THREADS=1 python benchmarks/popnas_kills.py [--kills 10 4 6 6 4] [--folder saved/popnas_kills]
    OMP_NUM_THREADS=1 python benchmarks/popnas_kills.py --objective training_time

Cells are grown and trained on a few photos of this repository, the best ones in larger networks, and the winner is
trained and tested. The search, its worker and both get SIGKILL in turn, at random moments of each stage: the training
of cells, the prediction of a generation, the model selection, the retraining and the test. Then `--resume auto`
continues. With the parameters as second objective everything must be that of the other search: cells, generations with
their predictions, results, winner, and every tensor of every checkpoint. Measured times decide differently in each
search; then no epoch may be lost or repeated, and the journal must lead to the same decisions when it is replayed.
Interrupted itself, it continues in its folder.
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
from search.results.record import StudyRecord
from search.study.journal import Event

RETRAIN_EPOCHS = 4


def config_of(folder: Path, objective: str) -> Path:
    """Write the config of a small search, and return its file."""
    common = {"resize": [48, 32], "batch_size": 4, "n_workers": 0}
    loaders: dict[str, Any] = {
        f"{split}_loader": {
            "args": {"pairs_file": str(ROOT / f"data/people/{split}_pairs.txt"), "samples": samples, **common}
        }
        for split, samples in (("train", 16), ("valid", 8), ("test", 16))
    }
    selection = {"top": 2, "epochs": 3, "params": [1, 40000], "motifs": [2], "normal_cells": [0, 1], "filters": [4, 6]}
    arguments = {
        "blocks": 3,
        "lookbacks": 2,
        "operators": ["identity", "3x3 dconv", "1x1 conv", "3x3 maxpool"],
        "max_first": 8,
        "max_children": 4,
        "max_exploration": 1,
        "members": 2,
        "selection": selection,
    }
    config = {
        "$extends": str(ROOT / "config/people/quickstart.json"),
        "name": "kills",
        "arch": {"type": "CellNetSegmenter", "args": {"motifs": 2, "normal_cells": 0, "filters": 4}},
        **loaders,
        "trainer": {"epochs": 2, "save_every_steps": 2, "tensorboard": False, "precision": "fp32"},
        "search": {
            "objectives": ["max val_miou", f"min {objective}"],
            "strategy": {"type": "POPNAS", "args": arguments},
            "executor": {"type": "processes", "args": {"workers": 1, "threads": 1}},
            "retrain": {"top": 1, "epochs": RETRAIN_EPOCHS, "seeds": 1},
        },
    }
    file = folder / "kills.json"
    file.write_text(json.dumps(config, indent=2))
    return file


def stage_after(work: list[Event]) -> str:
    """Return the stage of a search after its first events."""
    last = work[-1] if work else None
    if last is None or (last.stage == "search" and last.kind != "done"):
        return "prediction" if is_generation_over(work) else "cells"
    if last.stage in ("search", "selection"):
        return "selection"
    return "test" if last.kind == "report" and last.data["epoch"] == RETRAIN_EPOCHS else "retraining"


def is_generation_over(work: list[Event]) -> bool:
    """Return whether all cells of the last generation of the first events have ended."""
    begins = [place for place, event in enumerate(work) if event.kind == "generation"]
    if not begins:
        return False
    ended = sum(event.kind == "ended" for event in work[begins[-1] :])
    return ended == len(work[begins[-1]].data["cells"])


CLOCKS = ("seconds of training", "of prediction")
STAGES = Stages(
    stage_after, {"cells": None, "prediction": 1.5, "selection": None, "retraining": None, "test": 0.3}, CLOCKS
)


def lost_or_repeated(study: StudyRecord) -> list[str]:
    """Return the trainings of a search whose epochs are not 1, 2, 3 and so on, and the cells that are trained twice."""
    found = []
    trainings: list[Any] = [*study.candidates, *study.retrained]
    for each in trainings:
        epochs = [row["epoch"] for row in each.reports]
        if epochs != list(range(1, len(epochs) + 1)):
            found.append(f"the epochs {epochs} of {each.folder}")
    networks = [tuple(map(str, each.drawn)) for each in study.candidates]
    found += [f"candidate {place} again" for place, each in enumerate(networks) if each in networks[:place]]
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = ", ".join(STAGES.seconds)
    parser.add_argument("--kills", type=int, nargs=5, default=[10, 4, 6, 6, 4], help=f"in the stages {stages}")
    parser.add_argument("--objective", choices=["params", "flops", "training_time"], default="params")
    parser.add_argument("--folder", type=Path, default=Path("saved/popnas_kills"))
    arguments = parser.parse_args()
    began = time.monotonic()
    folder = arguments.folder.resolve() / arguments.objective
    folder.mkdir(parents=True, exist_ok=True)
    config = str(config_of(folder, arguments.objective))
    studies, found = compare(config, folder, STAGES, arguments.kills)
    if arguments.objective == "training_time":
        found = [each for study in studies for each in lost_or_repeated(study)]
    generations = sum(event.kind == "generation" for event in work_of(Path(studies[0].folder)))
    print(f"{generations} generations, {len(studies[0].candidates)} candidates, winner {studies[0].winner}")
    print(f"{'no difference' if not found else 'faults: ' + ', '.join(found)}; {time.monotonic() - began:.0f} s")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
