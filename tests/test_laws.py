"""Accumulation, processes, the batches of a validation and resuming change nothing, whatever is combined.

Each pair of a loss, group of metrics, norm, schedule and number of processes occurs; benchmarks/laws.py tries them all.
"""

import copy
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from models import SECTIONS
from tests.support.laws import GRID, LOSSES, METRICS, Cell, broken_laws, covering_cells
from tests.support.slow import slow_unless
from trainer.runtime.norms import repair_instance_norms

ROOT = Path(__file__).resolve().parent.parent
CELLS = covering_cells()
ALONE = [cell for cell in CELLS if cell.processes == 1]
QUICK = ALONE[::3]


def names_in(spec: object) -> set[str]:
    """The names of classes in sections of a config."""
    if isinstance(spec, list | tuple):
        return {name for each in spec for name in names_in(each)}
    return {spec["type"]} if isinstance(spec, dict) else {str(spec)}


def test_every_registered_loss_and_metric_and_every_pair_is_in_the_grid() -> None:
    assert names_in(list(LOSSES.values())) >= set(SECTIONS["loss"].entries) - {"WeightedLoss"}  # that of a list
    assert names_in(list(METRICS.values())) == set(SECTIONS["metrics"].entries)
    for first, second in itertools.combinations(range(len(GRID)), 2):
        pairs = {(cell[first], cell[second]) for cell in CELLS}
        assert pairs == set(itertools.product(GRID[first], GRID[second]))


@pytest.mark.parametrize("cell", slow_unless(QUICK.__contains__, ALONE), ids=str)
def test_the_laws_hold(cell: Cell) -> None:
    assert broken_laws(cell) == []


@pytest.mark.slow
def test_the_laws_hold_in_two_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.support.laws", str(tmp_path / "broken.json")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "broken.json").read_text())
    assert len(results) == sum(cell.processes == 2 for cell in CELLS)
    assert [(cell, broken) for cell, broken in results if broken] == []


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(4), nn.InstanceNorm2d(4, affine=True), nn.InstanceNorm3d(4)])
def test_an_instance_norm_of_one_sample_has_the_right_gradient_in_channels_last(norm: nn.Module, samples: int) -> None:
    # torch's own is wrong by more than its size: the rows of the gradient are taken for its channels.
    is_flat = isinstance(norm, nn.InstanceNorm2d)
    shape = (samples, 4, 6, 8) if is_flat else (samples, 4, 2, 6, 8)
    memory_format = torch.channels_last if is_flat else torch.channels_last_3d
    repair_instance_norms(norm)
    generator = torch.Generator().manual_seed(0)
    inputs, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
    found = inputs.to(memory_format=memory_format).requires_grad_()
    norm(found).backward(gradient.to(memory_format=memory_format))
    expected = inputs.double().requires_grad_()
    copy.deepcopy(norm).double()(expected).backward(gradient.double())
    torch.testing.assert_close(found.grad, expected.grad.float(), rtol=1e-4, atol=1e-5)
