"""What went wrong in the program that introduced POPNAS must not go wrong here.

Where the others of its known faults are tested: both operations of a block count for exploration, and equal estimates
do not remove each other (test_popnas_front); statistics and classes of series are those of the training data
(test_data_series); a network of the model selection has a config of its own (test_search_popnas_selection); a final
training has no best epoch (test_train_on_all_data); every operator fits every change of size (test_popnas_operations);
ignored classes (test_metrics); a cell that reads only two back says that half of the network is left
(test_popnas_networks); the front is stored with the winner (test_search_study); folds (test_search_folds).
"""

import json

import cv2
import numpy as np
import pytest
import torch

from data_loader.classification.loader import ImageClassificationDataLoader
from search.schedulers.ranking import spearman
from search.study.settings import build_study_parts
from search.worker.predictors.learners.graphs import graphs_of_blocks
from search.worker.predictors.learners.network import EnsembleOptions, GraphEnsemble
from search.worker.predictors.task import fit_and_estimate
from search.worker.runner import run_task
from tests.support.groups import from_flat
from tests.support.simulated_study import Simulation, World
from tests.test_search_folds import config_of
from tests.test_search_popnas import cells_of, simulation, study_config
from utils.architecture.cells.cell import Cell
from utils.architecture.cells.front import pareto_front
from utils.architecture.cells.grammar import Grammar

SECONDS = {"identity": 0.0, "3x3 conv": 3.0, "3x3 maxpool": 0.5}
MILLISECONDS = {"identity": 2.0, "3x3 conv": 0.1, "3x3 maxpool": 5.0}


@pytest.mark.parametrize("kill", range(1, 20, 2))
def test_a_search_killed_at_any_event_of_the_first_cells_has_the_same_cells(tmp_path, kill):
    whole, killed = (simulation(tmp_path / name, args={"blocks": 2}) for name in ("whole", "killed"))
    whole.run()
    killed.run(kills=[kill])
    assert cells_of(killed) == cells_of(whole)


def test_each_cost_is_predicted_from_its_own_measurements(tmp_path):
    grammar = Grammar(tuple(SECONDS), lookbacks=1, blocks=3)
    first = grammar.expand([grammar.empty]).texts()
    history = ["[]", *first, *grammar.expand(first).texts()[:25]]
    expansion = grammar.expand(history[-5:])

    def total(values, texts):
        operators = ([name for block in Cell.parse(text).blocks for name in block.operators] for text in texts)
        return [1.0 + sum(map(values.get, each)) for each in operators]

    costs = {"training_time": SECONDS, "latency_ms": MILLISECONDS}
    results = {name: total(values, history) for name, values in costs.items()}
    (tmp_path / "history.json").write_text(json.dumps({"cells": history, "results": results, "before": []}))
    expansion.save(tmp_path / "expansion.npz")
    goals = [f"min {name}" for name in costs]
    answer = fit_and_estimate({"folder": str(tmp_path), "objectives": goals, "seed": 0})
    with np.load(answer["file"]) as file:
        for name, values in costs.items():
            assert spearman(file[f"mean.{name}"], np.array(total(values, expansion.texts()))) > 0.9


def test_a_front_of_many_predictions_is_found_without_comparing_all_pairs():
    count = 200_000
    chance = np.random.default_rng(0)
    values = chance.normal(size=(count, 2))
    keys = np.arange(count, dtype=np.uint64)
    front = pareto_front(values, 128, keys)
    assert 5 < len(front) < 40
    assert front[0] == values[:, 0].argmax()
    assert (np.diff(values[front, 1]) > 0).all(), "what is worse in the first is better in the second"


def test_a_window_of_an_image_is_not_turned(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        down = np.linspace(0, 250, 40, dtype=np.uint8)[:, None, None]
        assert cv2.imwrite(str(tmp_path / name / "0.png"), np.broadcast_to(down, (40, 80, 3)).copy())
    loader = from_flat(
        ImageClassificationDataLoader, str(tmp_path), resize=[16, 24], crop_range=[0.5, 0.5], normalize=False
    )
    images = next(iter(loader))[0]
    assert images.shape[1:] == (3, 16, 24)
    inner = images[:, 0, 3:-3, 3:-3]  # without padding
    assert inner.std(dim=2).max() < 0.02
    assert inner.std(dim=1).min() > 0.05


def test_missing_test_data_is_no_silence(tmp_path):
    config = config_of(tmp_path)
    config["trainer"]["epochs"] = 1
    config["test_loader"] = {**config["valid_loader"], "args": {**config["valid_loader"]["args"]}}
    config["test_loader"]["args"]["pairs_file"] = str(tmp_path / "nothing.txt")
    task = {"kind": "retrain", "config": config, "folder": str(tmp_path / "run"), "reported": 0}
    outcome = run_task(task, lambda _: "continue")
    assert outcome["status"] == "failed"
    assert "nothing.txt" in outcome["reason"]


def test_the_seed_of_each_training_follows_from_that_of_the_study(tmp_path):
    def seeds(name, workers=1, **search):
        config = study_config(**search)
        simulated = Simulation(tmp_path / name, lambda: build_study_parts(config), World(), workers)
        simulated.run()
        return [each.data["seed"] for each in simulated.events if each.kind == "drawn"]

    first = seeds("first")
    assert len(set(first)) == len(first)
    assert seeds("again", workers=3)[:7] == first[:7], "whatever runs next to it"
    assert not set(seeds("other", seed=2)) & set(first)


def chain(*operators):
    """Blocks of which each reads the one before it twice."""
    return [[place - 1, operator, place - 1, operator] for place, operator in enumerate(operators)]


def ensemble(values, blocks, epochs, **options):
    graphs = graphs_of_blocks(np.array(blocks), 1, 3)
    folds = np.arange(len(values)) % 3
    return GraphEnsemble(graphs, values, folds, EnsembleOptions(3, epochs, 8, **options), seed=0), graphs


def test_the_direction_of_the_edges_matters():
    chance = np.random.default_rng(0)
    blocks = [chain(*chance.integers(0, 3, 3)) for _ in range(12)]
    found, graphs = ensemble(chance.normal(size=12), blocks, 3)
    turned = type(graphs)(graphs.labels, graphs.edges.transpose(0, 2, 1).copy(), graphs.num_labels)
    assert not np.allclose(found.predict(graphs)[0], found.predict(turned)[0], atol=1e-4)


def test_predictors_stop_early_by_cells_that_they_have_not_seen():
    # Noise can be learned by heart, so that the training error falls to the last epoch, and not the other.
    epochs = []
    chance = np.random.default_rng(0)
    blocks = [chain(*chance.integers(0, 3, 4)) for _ in range(30)]
    torch.manual_seed(0)
    ensemble(chance.normal(size=30), blocks, 200, on_progress=lambda: epochs.append(1))
    assert 20 < len(epochs) < 100
