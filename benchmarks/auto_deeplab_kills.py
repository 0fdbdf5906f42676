"""Kill a search by supernets over all of its stages, its workers too, and compare it with one that was left in peace.

    OMP_NUM_THREADS=1 python benchmarks/auto_deeplab_kills.py [--kills 12 5 8 5] [--folder saved/auto_deeplab_kills]

Two supernets of a few photos of this repository are trained, decoded, and their networks trained and tested. The
search, its worker and both get SIGKILL in turn, at random moments of each stage: the training of supernets, the
decoding, the retraining and the test; one that is aimed at the short decoding may come right after it. Then
`--resume auto` continues. Genotypes, results, tests and every tensor of every checkpoint must be those of the other
search. Interrupted itself, it continues in its folder.
"""

import argparse
import hashlib
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.grid_kills import differing
from benchmarks.search_kill_and_resume import ROOT, WHO, kill, only_study, start
from search.study.folders import find_studies
from search.study.journal import JOURNAL, Event, read_events
from utils.checkpoint_file import read_checkpoint

STAGES = ("supernet", "decoding", "retraining", "test")
NUM_SUPERNETS, RETRAIN_EPOCHS = 2, 6
_SHORT_SECONDS = {"decoding": 0.02, "test": 0.3}  # that these take, about


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


def moments(quiet: list[Event], kills: Sequence[int]) -> list[tuple[int, float]]:
    """Return for each kill the number of events before it that are work, and the seconds that it comes later.

    Args:
        quiet: The work of the study that is left in peace.
        kills: Numbers of kills while supernets are trained, decoded, and their networks retrained and tested.
    """
    epochs = [event.data["seconds"] for event in quiet if event.kind == "report"]
    places: dict[str, list[int]] = {stage: [] for stage in STAGES}
    for number in range(1, len(quiet)):
        places[stage_after(quiet[:number])].append(number)
    found, chance = [], random.Random(0)
    for (stage, events), count in zip(places.items(), kills, strict=True):
        most_seconds = _SHORT_SECONDS.get(stage, 1.5 * sum(epochs) / len(epochs))
        found += [(chance.choice(events), chance.uniform(0, most_seconds)) for _ in range(count)]
    return sorted(found)


def work_of(study: Path) -> list[Event]:
    """Return the events of a journal that are no sign of a session or a loss."""
    return [event for event in read_events(study / JOURNAL) if event.stage != "study" and event.kind != "lost"]


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


def kill_over_all_stages(config: str, folder: Path, wanted: list[tuple[int, float]]) -> list[str]:
    """Run the search with a kill at each of these moments; return the stages that were killed."""
    folder.mkdir(parents=True, exist_ok=True)
    noted = folder / "kills.json"
    stages: list[str] = json.loads(noted.read_text()) if noted.exists() else []
    process = start(config, [], folder)
    while len(stages) < len(wanted):
        events, seconds = wanted[len(stages)]
        if not wait_for(process, folder, events, seconds):
            break
        who = WHO[len(stages) % len(WHO)]
        stages.append(stage_after(work_of(find_studies(folder)[0])))
        kill(process, who)
        noted.write_text(json.dumps(stages))
        if who != "worker":
            process.wait()
            process = start(config, [], folder)
    if process.wait() != 0:
        raise SystemExit(f"the search did not end well, see {folder / 'search.log'}")
    return stages


def num_work(folder: Path) -> int:
    """Return the number of events of `work_of` for the study below a folder, fast; 0 if there is none yet."""
    journal = next(folder.glob(f"*/*/{JOURNAL}"), None)
    if journal is None:
        return 0
    query = "SELECT count(*) FROM events WHERE name NOT LIKE 'study.%' AND name NOT LIKE '%.lost'"
    with closing(sqlite3.connect(journal, timeout=30)) as connection:
        return int(connection.execute(query).fetchone()[0])


def wait_for(process: "subprocess.Popen[bytes]", folder: Path, events: int, seconds: float) -> bool:
    """Wait until a journal has so many events, and some seconds more; return whether the process still runs."""
    while process.poll() is None and num_work(folder) < events:
        time.sleep(0.002)
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process.poll() is None


def tensors_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each tensor of each checkpoint below a study, by file and key."""
    found = {}
    for path in sorted(folder.rglob("*.pth")):
        for key, tensor in _tensors(read_checkpoint(path), ""):
            content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            found[f"{path.relative_to(folder)}{key}"] = hashlib.sha256(content).hexdigest()
    return found


def _tensors(value: Any, key: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield key, value
    elif isinstance(value, dict | list | tuple):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(each, f"{key} {name}")


def facts_of(folder: Path) -> dict[str, Any]:
    """Return the events of a journal on genotypes and results, without times."""
    found = {}
    for event in read_events(folder / JOURNAL):
        if event.kind in ("drawn", "decoded", "report", "ended", "done") and event.stage != "study":
            data = {name: value for name, value in event.data.items() if name not in ("seconds", "bytes")}
            data |= {"row": {k: v for k, v in data["row"].items() if "seconds" not in k}} if "row" in data else {}
            found[f"{event.name} {event.candidate} {data.get('run', '')} {data.get('epoch', '')}"] = data
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, nargs=4, default=[12, 5, 8, 5], help=f"in the stages {', '.join(STAGES)}")
    parser.add_argument("--folder", type=Path, default=Path("saved/auto_deeplab_kills"))
    arguments = parser.parse_args()
    began = time.monotonic()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    config, quiet, killed = str(config_of(folder)), folder / "quiet", folder / "killed"
    is_done = bool(find_studies(quiet)) and only_study(quiet).is_done
    if not is_done and start(config, [], quiet).wait() != 0:
        raise SystemExit("the search that is left in peace did not end well")
    studies = [only_study(quiet)]
    in_peace = Path(studies[0].folder)
    wanted = moments(work_of(in_peace), arguments.kills)
    stages = kill_over_all_stages(config, killed, wanted)
    studies.append(only_study(killed))
    resumed = Path(studies[1].folder)
    found = differing(*studies)
    for one, other in zip(studies[0].retrained, studies[1].retrained, strict=True):
        if (one.candidate, one.test) != (other.candidate, other.test) or not one.test:
            found.append(f"the test of candidate {one.candidate}")
    facts, tensors = facts_of(in_peace), tensors_of(in_peace)
    for before, after in ((facts, facts_of(resumed)), (tensors, tensors_of(resumed))):
        found += sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    genotypes = sum(name.startswith("decode.decoded") for name in facts)
    print(f"{len(stages)} kills, by stage {dict(Counter(stages))}; {len(studies[1].sessions)} sessions")
    print(f"{genotypes} genotypes, {len(studies[0].retrained)} tests, {len(tensors):,} tensors of checkpoints")
    print(f"{'identical' if not found else 'differs in ' + ', '.join(found)}; {time.monotonic() - began:.0f} s")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
