"""The quality of predictors of cells over NAS-Bench-201: `python benchmarks/popnas_predictors.py cifar10.npz`.

Held-out generations: cells grow node by node, and of each generation some are drawn by chance and trained; how do
the predictions of all cells of the next one agree with the table? Rank correlation of the score for the graph
network, the Gaussian process over subtrees ("features"), the choice between both, and a trivial predictor; of the time
for the one in use.

Searches (`--searches N`): the score alone, 100 trainings: the empty cell, the five of one node, 14 of two nodes, then
those of three nodes in rounds of ten, by each kind of acquisition. Mean validation accuracy of the best cell.

Seconds (`--seconds`): 118,183 cells of five blocks from 685 trainings, of the processor, with one thread.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from search.schedulers.ranking import spearman
from search.strategies.popnas.estimates import EXPANSION, HISTORY
from search.worker.predictors.task import fit_and_estimate
from utils.architecture.cells.cell import Cell
from utils.architecture.cells.expansion import Expansion
from utils.architecture.cells.grammar import Grammar
from utils.architecture.cells.nasbench201 import Nasbench201Nodes

OPERATORS = (
    "identity", "3x3 dconv", "5x5 dconv", "7x7 dconv", "1x3-3x1 conv", "1x5-5x1 conv", "1x7-7x1 conv", "1x1 conv",
    "3x3 conv", "5x5 conv", "2x2 maxpool", "2x2 avgpool",
)  # fmt: skip
SCORE, SECONDS = "val_accuracy", "training_time"
Results = Mapping[str, Mapping[str, float]]


def read_table(path: Path, seed: int | None = None) -> Results:
    """Return score and seconds of each of the 15,625 cells: of one of their trainings each, or the mean of three."""
    with np.load(path) as file:
        scores = np.nanmean(file["val_acc_200ep"], axis=1)
        if seed is not None:
            chosen = np.random.default_rng(seed).integers(3, size=len(scores))
            single = file["val_acc_200ep"][np.arange(len(scores)), chosen]
            scores = np.where(np.isnan(single), scores, single)
        rows = zip(file["arch"].tolist(), scores.tolist(), file["train_time_s_200ep"].tolist(), strict=True)
        return {cell: {SCORE: score, SECONDS: seconds} for cell, score, seconds in rows}


def ask(
    cells: Sequence[str], results: Results, expansion: Expansion, goals: Sequence[str], **settings: Any
) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
    """Return the predictions of an expansion from trainings of some cells."""
    with tempfile.TemporaryDirectory() as folder:
        columns = {name: [results[cell][name] for cell in cells] for name in (SCORE, SECONDS)}
        (Path(folder) / HISTORY).write_text(json.dumps({"cells": list(cells), "results": columns}))
        expansion.save(Path(folder) / EXPANSION)
        details = fit_and_estimate({"folder": folder, "objectives": list(goals), "seed": 0, **settings})
        with np.load(details["file"]) as file:
            return {name: file[name] for name in file.files}, details


def held_out_generations(results: Results, repeats: int) -> None:
    """Print rank correlations of the predictions of the next generation."""
    grammar = Nasbench201Nodes()
    for drawn in ((5, 14), (5, 44), (5, 125)):
        found: dict[str, list[float]] = {}
        for seed in range(repeats):
            rng, cells = np.random.default_rng(seed), [grammar.empty]
            for count in drawn:
                texts = grammar.expand(cells, cells).texts()
                cells += [texts[place] for place in rng.permutation(len(texts))[:count]]
            expansion = grammar.expand(grammar.expand(cells[: 1 + drawn[0]]).texts(), cells)
            truth = [results[cell] for cell in expansion.texts()]
            scores, seconds = (np.array([each[name] for each in truth]) for name in (SCORE, SECONDS))
            for predictor in ("graph", "features", "auto", "trivial"):
                arrays, _ = ask(cells, results, expansion, [f"max {SCORE}"], predictor=predictor)
                found.setdefault(predictor, []).append(spearman(arrays[f"mean.{SCORE}"], scores))
            arrays, _ = ask(cells, results, expansion, [f"min {SECONDS}"])
            found.setdefault("time", []).append(spearman(arrays[f"mean.{SECONDS}"], seconds))
        said = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in found.items())
        print(f"{1 + sum(drawn)} trainings of up to two nodes, {len(expansion)} cells of three: {said}", flush=True)


def search(path: Path, seed: int, predictor: str, acquisition: str, trainings: int = 100) -> float:
    """Return the mean score of the best cell that a search by the score alone trains, each cell once."""
    grammar, rng = Nasbench201Nodes(), np.random.default_rng(seed)
    results, means = read_table(path, seed), read_table(path)
    cells = [grammar.empty]
    cells += grammar.expand(cells, cells).texts()
    level = cells[1:]
    for count in (14, *[10] * 8):
        if count == 14:
            expansion = grammar.expand(level, cells)
        else:
            expansion = grammar.expand(grammar.expand(level).texts(), cells)
        settings = {"predictor": predictor, "acquisition": acquisition, "seed": int(rng.integers(1 << 30))}
        arrays, _ = ask(cells, results, expansion, [f"max {SCORE}"], **settings)
        best = np.argsort(-arrays[f"acquired.{SCORE}"], kind="stable")[: min(count, trainings - len(cells))]
        cells += expansion.texts(best)
    return max(means[cell][SCORE] for cell in cells)


def seconds_of_a_generation() -> None:
    """Print how long a large expansion takes."""
    grammar, rng = Grammar(OPERATORS), np.random.default_rng(0)
    cells = ["[]", *(str(each) for each in grammar.one_block_cells())]
    for blocks in (2, 3, 4):
        parents = [each for each in cells if len(Cell.parse(each)) == blocks - 1][:40]
        grown = grammar.expand(parents, cells)
        cells += grown.texts(np.sort(rng.permutation(len(grown))[:128]))
    expansion = grammar.expand([each for each in cells if len(Cell.parse(each)) == 4][:45], cells)
    worth = dict(zip(OPERATORS, rng.random(len(OPERATORS)).tolist(), strict=True))
    sums = {each: sum(worth[name] for block in Cell.parse(each).blocks for name in block.operators) for each in cells}
    results = {each: {SCORE: float(np.tanh(total / 5)), SECONDS: 1 + total} for each, total in sums.items()}
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    ask(cells, results, expansion, [f"max {SCORE}", f"min {SECONDS}"])
    grown_by = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    spent = time.process_time() - began
    print(f"{len(expansion)} cells from {len(cells)} trainings: {spent:.1f} s, {grown_by:.0f} MB", flush=True)


def main() -> None:
    """Run the measurements of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="cifar10.npz of NAS-Bench-201")
    parser.add_argument("--repeats", type=int, default=5, help="of held-out generations; 0: none")
    parser.add_argument("--searches", type=int, default=0, help="of each kind")
    parser.add_argument("--predictor", default="features", help="of the searches")
    parser.add_argument("--acquisitions", nargs="+", default=["mean", "ei", "ucb"], help="of the searches")
    parser.add_argument("--seconds", action="store_true", help="of a large expansion")
    arguments = parser.parse_args()
    results = read_table(arguments.table)
    if arguments.seconds:
        seconds_of_a_generation()
    if arguments.repeats:
        held_out_generations(results, arguments.repeats)
    for acquisition in arguments.acquisitions if arguments.searches else ():
        found = [search(arguments.table, seed, arguments.predictor, acquisition) for seed in range(arguments.searches)]
        said = f"mean {np.mean(found):.3f}, median {np.median(found):.3f}, least {min(found):.3f}"
        print(f"{len(found)} searches, {arguments.predictor}, {acquisition}: {said}", flush=True)


if __name__ == "__main__":
    main()
