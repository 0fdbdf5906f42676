"""Batches of loader workers in memory that is used again, and the number of workers of "auto"."""

import gc

import numpy as np
import pytest
import torch

import base.base_data_loader as loader_module
import base.loading.worker_count as count_module
from base import BaseDataLoader
from base.loading.packing import BATCHES_PER_WORKER, PackedBatch, PackingCollate, SendBuffers
from base.loading.worker_count import processors_to_share, workers_that_pay
from utils.environment import SHARE_OF_PROCESSORS, available_processors
from utils.errors import ConfigError


class Ids:
    """Arrays (h,) uint8 whose length grows with the index, so that later batches need more room than the first."""

    def __init__(self, growth=0):
        self.growth = growth
        self.is_prepared = False

    def __len__(self):
        return 40

    def prepare(self, indices):
        self.is_prepared = True

    def is_in_memory(self, indices):
        assert self.is_prepared
        return True

    def sample(self, index, generator):
        return np.full(8 + self.growth * index, index, np.uint8), index


class Together(PackingCollate):
    """Packs arrays and indices; a batch is a list of tensors and one of indices."""

    def pack(self, samples):
        return PackedBatch([array for array, _ in samples], [index for _, index in samples])

    def unpack(self, batch, empty=torch.empty):
        return [torch.from_numpy(array.astype(np.int64)) for array in batch.arrays], batch.details


def plain(batches):
    return [([array.tolist() for array in arrays], indices) for arrays, indices in batches]


@pytest.mark.parametrize("growth", [0, 90])
def test_batches_in_buffers_or_too_large_for_them_are_those_of_this_process(growth):
    expected = plain(BaseDataLoader(Ids(growth), 4, collate_fn=Together()))
    loader = BaseDataLoader(Ids(growth), 4, collate_fn=Together(), n_workers=2)
    batches = list(loader)  # all at once: later batches must not overwrite earlier ones
    assert plain(batches) == expected
    size = loader._buffers.size
    assert (max(sum(array.nbytes // 8 for array in arrays) for arrays, _ in batches) > size) == (growth > 0)
    loader.close()


def test_buffers_are_free_again_after_an_iteration_that_was_broken_off():
    loader = BaseDataLoader(Ids(), 4, collate_fn=Together(), n_workers=1)
    for _ in range(3):
        loader.set_position(0)
        next(iter(loader))
    loader.set_position(0)
    assert plain(loader) == plain(BaseDataLoader(Ids(), 4, collate_fn=Together()))
    assert sum(loader._buffers._taken) <= BATCHES_PER_WORKER
    loader.close()


def test_a_worker_takes_its_own_buffers_until_none_is_free():
    buffers = SendBuffers(workers=2, num_bytes=5000)
    assert buffers.take(0, 9000) is None  # larger than a buffer
    assert [buffers.take(1, 5000) for _ in range(4)] == [3, 4, 5, None]
    buffers.free(4)
    assert buffers.take(1, 10) == 4
    assert buffers.take(0, 10) == 0
    buffers.free_all()
    assert buffers.take(1, 10) == 3


@pytest.mark.parametrize(
    ("is_in_memory", "processors", "feeds_accelerator", "expected"),
    [
        (False, 1, True, 0),
        (True, 2, False, 0),
        (True, 64, False, 0),
        (True, 2, True, 0),
        (True, 6, True, 3),
        (False, 2, False, 2),
        (False, 64, True, 8),
    ],
)
def test_the_number_that_pays(is_in_memory, processors, feeds_accelerator, expected):
    arguments = {"is_in_memory": is_in_memory, "feeds_accelerator": feeds_accelerator}
    assert workers_that_pay(processors=processors, **arguments) == expected


def test_processors_are_shared_with_other_processes_and_limited_by_threads(monkeypatch):
    monkeypatch.setattr(count_module, "available_processors", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert processors_to_share(feeds_accelerator=False) == 3
    assert processors_to_share(feeds_accelerator=True) == 8
    with monkeypatch.context() as in_search:
        in_search.setattr("base.loading.worker_count.available_processors", available_processors)
        in_search.setattr("os.sched_getaffinity", lambda _: range(8))
        in_search.setenv(SHARE_OF_PROCESSORS, "4")
        assert processors_to_share(feeds_accelerator=True) == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert processors_to_share(feeds_accelerator=False) == processors_to_share(feeds_accelerator=True) == 2


def test_a_loader_next_to_a_gpu_has_workers_also_for_samples_in_memory(monkeypatch):
    monkeypatch.setattr(loader_module, "processors_to_share", lambda **_: 4)
    loader = BaseDataLoader(Ids(), 4, n_workers="auto")
    loader.feeds_accelerator = True
    loader.prepare()
    assert loader.num_workers == 2
    assert loader.evaluation_loader().feeds_accelerator


def test_auto_is_decided_when_it_is_known_where_the_samples_are(monkeypatch):
    monkeypatch.setattr(loader_module, "processors_to_share", lambda **_: 2)
    loader = BaseDataLoader(Ids(), 4, n_workers="auto")
    assert (loader.num_workers, loader.n_workers) == (0, "auto")
    loader.prepare()
    assert loader.num_workers == 0
    monkeypatch.setattr(Ids, "is_in_memory", lambda self, indices: False)
    loader = BaseDataLoader(Ids(), 4, collate_fn=Together(), n_workers="auto", validation_split=8)
    assert len(list(loader)) == 8
    assert loader.num_workers == 2
    held_out = loader.split_validation()
    assert held_out.n_workers == "auto"
    loader.close()


def test_a_worker_does_not_look_for_garbage_among_what_it_shares():
    class Frozen(Ids):
        def sample(self, index, generator):
            return np.zeros(1, np.uint8), gc.get_freeze_count() if index == 0 else 0

    loader = BaseDataLoader(Frozen(), 1, collate_fn=Together(), n_workers=1, shuffle=False, is_training=True)
    assert next(iter(loader))[1][0] > 1000
    loader.close()


def test_a_wrong_number_of_workers_names_auto():
    with pytest.raises(ConfigError, match='Wrong n_workers "many": it must be a number, or "auto"'):
        BaseDataLoader(Ids(), 4, n_workers="many")
