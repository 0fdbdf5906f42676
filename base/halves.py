"""Two halves of the training data, for trainings that learn the weights on one and the architecture on the other."""

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from base.base_data_loader import BaseDataLoader
from base.samples import IdentifiedSource
from utils.errors import ConfigError, DataError
from utils.seeding import derive_seed


def split_halves(loader: BaseDataLoader) -> tuple[BaseDataLoader, BaseDataLoader]:
    """Return loaders over two disjoint halves of the samples of a loader; of an odd number, the first has one more.

    The samples are ranked by a hash of the loader's seed and of their names and classes (of their index, if the data
    set does not tell them), so that a sample is in the same half whatever the order of the list and wherever the files
    lie. Both halves read one data set and share its decoded images: call `loader.prepare()` before, which decodes all.

    Raises:
        DataError: There are fewer than two samples.
        ConfigError: A half has no batch, because incomplete ones are left out.
    """
    count, batch_size = loader.num_samples, loader.keys.batch_size
    if count < 2:
        raise DataError(
            f"The training data has {count} sample, and is divided into two halves: one for the weights, one for the "
            "architecture. Add samples."
        )
    ranked = _ranked(loader)
    middle = -(-count // 2)
    # A loader that shuffles orders the other half by another seed: in equal orders, each sample of the one would meet
    # the same sample of the other in every epoch.
    seeds = (loader.keys.seed, derive_seed(loader.keys.seed, "second half"))
    parts = (np.sort(ranked[:middle]), np.sort(ranked[middle:]))
    first, second = (_restricted(loader, *each) for each in zip(parts, seeds, strict=True))
    if not len(first.keys) or not len(second.keys):
        raise ConfigError(
            f"train_loader.args.batch_size: {batch_size}: each half of the {count} training samples has {count // 2}, "
            "and incomplete batches are left out (drop_last, or several processes): there is no batch. Make it "
            f"smaller: {max(1, count // 2)} or less."
        )
    return first, second


def _ranked(loader: BaseDataLoader) -> NDArray[np.int64]:
    """Return the samples of a loader, as indices of its data set, in the order of their hashes."""
    dataset, indices = loader.dataset.dataset, loader.keys.indices.tolist()
    is_named = isinstance(dataset, IdentifiedSource)

    def rank(index: int) -> tuple[int, int]:
        name = dataset.sample_identity(index).encode(errors="surrogateescape").hex() if is_named else index
        return derive_seed(loader.seed, "half", name), index

    return np.array(sorted(indices, key=rank), dtype=np.int64)


def _restricted(loader: BaseDataLoader, indices: NDArray[np.int64], seed: int) -> BaseDataLoader:
    """Return a loader like another one, in training, over some of its samples; if it shuffles, by a seed of its own."""
    part = copy.copy(loader)  # so that a loader of a plug-in stays what it is
    part.keys = replace(loader.keys, indices=indices, seed=seed, is_training=True, position=(0, 0))
    # DataLoader forbids assigning these, and the iterator is that of the whole.
    part.__dict__["batch_sampler"] = part.keys
    part.__dict__["generator"] = torch.Generator().manual_seed(derive_seed(seed, "workers"))
    part.__dict__["_iterator"] = None
    part.__dict__["_held_out"] = np.empty(0, dtype=np.int64)
    return part
