"""Auto-DeepLab against random genotypes at equal time, and whether its supernet knows which genotypes are good.

    python benchmarks/auto_deeplab_against_random.py --save-dir saved/auto_deeplab_against_random
    python benchmarks/auto_deeplab_against_random.py --save-dir saved/auto_deeplab_against_random --ranks

For each seed one supernet of `config/search/auto_deeplab_camvid.json` is trained, and its genotype in full. Then
random genotypes of the same layers and blocks are trained by ASHA for the time that the supernet took, and the best
by validation in full, in the same way. Both networks are tested once. Time is the processor time of one worker
(`benchmarks/processor_time.py`), so that nothing else on the machine decides. With `--ranks`, random genotypes are
trained alone for a few epochs, and scored by the weights of the first seed's supernet, whose norm statistics are
measured anew for each: the table ends with the rank correlation. What was interrupted is continued by the same
command. It needs CamVid in `data/camvid`.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from scipy import stats
from torch import nn

from benchmarks.pbt_against_random import ROOT, run
from build import build_loader, build_metrics
from models.auto_deeplab.supernet import AutoDeepLabSupernet
from search.cli.study_commands import read_study
from search.results.leaderboard import leaderboard
from search.study.folders import find_studies
from search.study.journal import JOURNAL, read_events
from test import EvaluationParts, build_evaluation
from trainer.evaluation import MetricSet, evaluate
from utils.architecture.decoding import encode
from utils.architecture.genotype import Genotype, cell_edges, input_names
from utils.architecture.reading import read_genotype
from utils.architecture.space import random_genotype
from utils.checkpoint_file import read_checkpoint
from utils.plugins import load_plugins

CONFIG = ROOT / "config/search/auto_deeplab_camvid.json"
PLUGIN = "benchmarks/processor_time.py"
EXECUTOR = {"type": "processor_time.ProcessorTime", "args": {"workers": 1, "threads": 1}}
NUM_GENOTYPES = 1000  # to draw from: more than any study trains
NORM_BATCHES = 20
_SURE = 50.0  # a logit beside which the others have no weight


def write_genotypes(folder: Path, layers: int, blocks: int, count: int, seed: int) -> list[str]:
    """Write random genotypes as JSON files, and return these."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(count):
        file = folder / f"{number}.json"
        file.write_text(json.dumps(random_genotype(1_000_000 * seed + number, layers, blocks).to_json()))
        files.append(str(file))
    return files


def complete_study(place: Path, changes: dict[str, Any], overrides: list[str]) -> Path:
    """Run a study of the config with these changes to its end, and return its folder."""
    place.mkdir(parents=True, exist_ok=True)
    file = place / "study.json"
    file.write_text(json.dumps({"$extends": str(CONFIG), **changes}, indent=2))
    command = ["-m", "search", "-c", str(file), "--plugin", PLUGIN, f"trainer.save_dir={place}", *overrides]
    run([*command, "--resume", "auto"])
    return find_studies(place)[0]


def supernet_study(place: Path, seed: int, overrides: list[str]) -> Path:
    """Train a supernet and the network that it finds."""
    return complete_study(place, {"search": {"seed": seed, "executor": EXECUTOR}}, overrides)


def random_study(place: Path, search: dict[str, Any], files: list[str], epochs: int, overrides: list[str]) -> Path:
    """Train random genotypes as a search says that replaces the one by supernets."""
    changes = {
        "arch": {"args": {"genotype": {"$choice": files}}},
        "trainer": {"epochs": epochs},
        "search": {"strategy": None, "sampler": "random", "executor": EXECUTOR, **search},
    }
    return complete_study(place, changes, overrides)


def search_seconds(study: Path) -> float:
    """Return the duration of the search of a study, without that of training its winner."""
    events = list(read_events(study / JOURNAL))
    return max(event.seconds for event in events if event.stage == "search") - events[0].seconds


class Found:
    """The network that a study found.

    Attributes:
        genotype: Its genotype.
        valid: Its validation score.
        tested: Its test score.
        candidates: Number of candidates of its study.
    """

    def __init__(self, folder: Path) -> None:
        record = read_study(folder)
        (trained,) = record.retrained
        config = json.loads((folder / "best" / "config.json").read_text())
        self.genotype = read_genotype(config["arch"]["args"]["genotype"])
        self.valid = max(row["val_miou"] for row in trained.reports)
        self.tested = trained.test["test_miou"]
        self.candidates = len(record.candidates)


def found_table(pairs: dict[int, tuple[Found, Found, float]]) -> str:
    """Return a row per seed, and the mean difference with its 95 % interval."""
    lines = [
        "| seed | minutes of the search | Auto-DeepLab: val, test mIoU | strides | random (candidates): val, test | "
        "strides | difference on test |",
        "|---|---|---|---|---|---|---|",
    ]
    differences = []
    for seed, (ours, random, seconds) in pairs.items():
        differences.append(ours.tested - random.tested)
        paths = [" ".join(map(str, each.genotype.strides)) for each in (ours, random)]
        lines.append(
            f"| {seed} | {seconds / 60:.1f} | {ours.valid:.4f}, {ours.tested:.4f} | {paths[0]} | ({random.candidates}) "
            f"{random.valid:.4f}, {random.tested:.4f} | {paths[1]} | {differences[-1]:+.4f} |"
        )
    if len(differences) > 1:
        count = len(differences)
        half = stats.t.ppf(0.975, count - 1) * statistics.stdev(differences) / math.sqrt(count)
        lines.append(f"\nmean difference on test data {statistics.fmean(differences):+.4f} ± {half:.4f} (95 %)")
    return "\n".join(lines)


@contextmanager
def computing_alone(model: AutoDeepLabSupernet, genotype: Genotype) -> Iterator[None]:
    """Let a supernet compute the network of a genotype alone: its operations, the nodes of its path and its last head.

    One-hot parameters are not enough. A node beside the path reads maps of the path two layers back, the path reads its
    maps two layers later, and the heads add up all strides. So these nodes and heads give zeros. What remains different
    from the decoded network: a node of the path whose maps two layers back have another stride reads none.
    """
    alpha, beta = (torch.from_numpy(each).float() for each in encode(genotype))
    with torch.no_grad():
        model.alpha.copy_(alpha)
        model.beta.copy_(beta)
        if model.edges is not None:
            names = input_names(genotype.num_blocks)
            chosen = [names[place] in dict(genotype.blocks[block]) for block, place in cell_edges(genotype.num_blocks)]
            model.edges.copy_(_SURE * torch.tensor(chosen).float())
    path = {f"{layer}_{level}" for layer, level in enumerate(genotype.levels)}
    silent = [cell for name, cell in model.cells.items() if name not in path]
    silent += [head for level, head in enumerate(model.heads) if level != genotype.levels[-1]]
    hooks = [each.register_forward_hook(lambda *call: torch.zeros_like(call[-1])) for each in silent]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def supernet_score(parts: EvaluationParts, genotype: Genotype) -> float:
    """Return the validation score of a genotype in a trained supernet, see `computing_alone`."""
    model = parts.model
    assert isinstance(model, AutoDeepLabSupernet)
    with computing_alone(model, genotype):
        measure_norms_anew(model, parts.config)
        metrics = evaluate(
            model,
            parts.loader,
            criterion=parts.criterion,
            metrics=MetricSet(build_metrics(parts.config, parts.spec)),
            precision=parts.precision,
            ignore_index=parts.spec.ignore_index,
        )
    return metrics["miou"]


def measure_norms_anew(model: nn.Module, config: dict[str, Any]) -> None:
    """Replace the statistics of batch norms by the means over a few batches of training data."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    loader = build_loader(config, "train", as_evaluation=True)
    assert loader is not None
    model.train()
    with torch.no_grad():
        for number, (inputs, *_) in enumerate(loader):
            if number == NORM_BATCHES:
                break
            model(inputs)
    model.eval()


def ranks_table(supernet: Path, trained: Path) -> str:
    """Return the supernet's score and that of a training alone for each genotype, and their rank correlation."""
    run_folder = next((supernet / "candidates").iterdir())
    config = json.loads((run_folder / "config.json").read_text())
    weights = read_checkpoint(run_folder / "checkpoint-last.pth")["state_dict"]
    parts = build_evaluation(config, weights, "valid", devices="cpu")
    lines = ["| strides | in the supernet | trained alone |", "|---|---|---|"]
    rows = []
    for row in leaderboard(read_study(trained)):
        genotype = read_genotype(row.candidate.drawn[0][1])
        rows.append((supernet_score(parts, genotype), row.candidate.objectives["val_miou"]))
        lines.append(f"| {' '.join(map(str, genotype.strides))} | {rows[-1][0]:.4f} | {rows[-1][1]:.4f} |")
    correlation, chance = stats.spearmanr([each[0] for each in rows], [each[1] for each in rows])
    lines.append(f"\nrank correlation {correlation:+.2f} over {len(rows)} genotypes (p = {chance:.2f})")
    return "\n".join(lines)


def main() -> None:
    """Run the studies that are missing, and print the table of the complete ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12, help="of a candidate of random search")
    parser.add_argument("--ranks", action="store_true", help="the rank correlation instead of the comparison")
    parser.add_argument("--genotypes", type=int, default=10, help="for the rank correlation")
    parser.add_argument("overrides", nargs="*", help="for both sides")
    arguments = parser.parse_args()
    load_plugins([str(ROOT / PLUGIN)])
    place = arguments.save_dir.resolve()
    supernet = json.loads(CONFIG.read_text())["search"]["strategy"]["args"]["supernet"]["arch"]["args"]
    size = (supernet["layers"], supernet["blocks"])
    pairs: dict[int, tuple[Found, Found, float]] = {}
    for seed in arguments.seeds[:1] if arguments.ranks else arguments.seeds:
        searched = supernet_study(place / f"supernet_{seed}", seed, arguments.overrides)
        if arguments.ranks:
            files = write_genotypes(place / "ranked", *size, arguments.genotypes, 1000)
            alone = {
                "scheduler": "RandomSearch",
                "sampler": "grid",
                "num_samples": arguments.genotypes,
                "retrain": None,
            }
            trained = random_study(place / "ranks", alone, files, arguments.epochs, arguments.overrides)
            print(ranks_table(searched, trained))
            break
        seconds = search_seconds(searched)
        budget = {"max_time": seconds / 60}
        search: dict[str, Any] = {"scheduler": "ASHA", "num_samples": NUM_GENOTYPES, "seed": seed, "budget": budget}
        files = write_genotypes(place / f"genotypes_{seed}", *size, NUM_GENOTYPES, seed)
        drawn = random_study(place / f"random_{seed}", search, files, arguments.epochs, arguments.overrides)
        pairs[seed] = (Found(searched), Found(drawn), seconds)
        print(found_table(pairs), "\n", flush=True)


if __name__ == "__main__":
    main()
