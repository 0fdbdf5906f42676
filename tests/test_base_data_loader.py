"""The law of the loader: batches follow from seed, epoch and index, whoever loads them and wherever one goes on."""

import logging
import os
import pickle
import random
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset
from torch.utils.data._utils import signal_handling

import base.base_data_loader as loader_module
from base.base_data_loader import BaseDataLoader
from utils.errors import ConfigError, DataError


class RandomTransforms(Dataset):
    """Draws from every global generator, as a data set of torchvision with random transforms does."""

    def __len__(self):
        return 11

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()])


class Keyed(Dataset):
    """Draws from the generator it is handed."""

    def __init__(self, count=11):
        self.count = count

    def __len__(self):
        return self.count

    def sample(self, index, generator):
        return torch.tensor([index, generator.random()]), torch.tensor(index)

    def without_target(self, sample):
        return sample[0], torch.tensor(-100)


class Failing(Keyed):
    """Complains of one of its samples."""

    def sample(self, index, generator):
        if index == 4:
            raise DataError("photo 4 is no image.")
        return super().sample(index, generator)


class Buggy(Keyed):
    def sample(self, index, generator):
        raise RuntimeError("a programmer's mistake")


def batches(loader):
    collected = list(loader)
    loader.close()
    return collected


def indices(loader):
    return [batch[1].tolist() for batch in loader]


def flat(lists):
    return [value for values in lists for value in values]


@pytest.mark.parametrize("dataset", [RandomTransforms(), Keyed()], ids=["global", "keyed"])
def test_batches_do_not_depend_on_the_number_of_workers(dataset):
    runs = []
    for n_workers in (0, 1, 2):
        loader = BaseDataLoader(dataset, 4, n_workers=n_workers, seed=5)
        batches_of_two_epochs = [*loader, *loader]
        loader.close()
        runs.append([batch[0] if isinstance(batch, list) else batch for batch in batches_of_two_epochs])
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(runs[0], run, strict=True))


def test_epochs_and_seeds_differ_and_repeat():
    loader = BaseDataLoader(Keyed(), 4, seed=1)
    first, second = indices(loader), indices(loader)
    assert first != second
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(11))
    assert indices(BaseDataLoader(Keyed(), 4, seed=1)) == first
    assert indices(BaseDataLoader(Keyed(), 4, seed=2)) != first


def test_draws_differ_between_epochs_and_samples():
    loader = BaseDataLoader(Keyed(), 11, shuffle=False, is_training=True)
    draws = torch.stack([batch[0][:, 1] for batch in [*loader, *loader]])
    assert len(draws.unique()) == 22


@pytest.mark.parametrize("n_workers", [0, 2])
def test_the_global_generators_are_left_alone(n_workers):
    loader = BaseDataLoader(RandomTransforms(), 4, n_workers=n_workers)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    batches(loader)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_epoch_goes_on_at_any_batch(n_workers):
    loader = BaseDataLoader(RandomTransforms(), 3, n_workers=n_workers, seed=9)
    straight = [list(loader) for _ in range(3)]
    for epoch, start in ((2, 0), (1, 2), (0, 3), (1, 4)):
        loader.set_position(epoch, start)
        resumed = list(loader)
        assert len(resumed) == 4 - start
        assert all(torch.equal(*pair) for pair in zip(resumed, straight[epoch][start:], strict=True))
    loader.set_position(0, 2)
    list(loader)
    assert torch.equal(next(iter(loader)), straight[1][0])
    loader.close()


def test_an_iteration_broken_off_does_not_disturb_the_next():
    loader = BaseDataLoader(RandomTransforms(), 2, n_workers=2)
    straight = [list(loader) for _ in range(2)]
    loader.set_position(0)
    for batch in loader:
        assert torch.equal(batch, straight[0][0])
        break
    assert all(torch.equal(*pair) for pair in zip(list(loader), straight[1], strict=True))
    loader.close()


def test_a_position_beyond_the_epoch_is_refused():
    with pytest.raises(ConfigError, match="Cannot start at batch 4 of epoch 0: an epoch has 3 batches"):
        BaseDataLoader(Keyed(), 4).set_position(0, 4)


def test_evaluation_sees_the_same_in_every_pass():
    loader = BaseDataLoader(RandomTransforms(), 4, shuffle=False)
    first, second = list(loader), list(loader)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert torch.cat(first)[:, 0].tolist() == list(range(11))


def test_a_loader_in_fixed_order_may_be_told_to_train():
    loader = BaseDataLoader(RandomTransforms(), 5, shuffle=False)
    assert not loader.is_training
    loader.is_training = True
    first, second = list(loader), list(loader)
    assert [len(batch) for batch in first] == [5, 5]
    assert torch.equal(first[0][:, 0], second[0][:, 0])
    assert not torch.equal(first[0][:, 1:], second[0][:, 1:])


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ({"batch_size": 4}, [4, 4, 3]),
        ({"batch_size": 4, "drop_last": True}, [4, 4]),
        ({"batch_size": 5}, [5, 5]),  # the eleventh sample alone has no variance for batch norm
        ({"batch_size": 5, "is_training": False}, [5, 5, 1]),
        ({"batch_size": 1}, [1] * 11),
        ({"batch_size": 20}, [11]),
        ({"batch_size": 20, "indices": [3]}, [1]),
    ],
)
def test_the_last_batch(arguments, sizes):
    loader = BaseDataLoader(Keyed(), **arguments)
    assert [len(batch[1]) for batch in loader] == sizes
    assert len(loader) == len(sizes)
    assert loader.batch_size == arguments["batch_size"]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("count", [11, 12, 13, 14])
def test_processes_share_each_batch_without_changing_it(world_size, count):
    alone = indices(BaseDataLoader(Keyed(count), 4, seed=3))
    ranks = []
    for rank in range(world_size):
        loader = BaseDataLoader(Keyed(count), 4, seed=3)
        loader.shard(rank, world_size)
        assert len(loader) == len(alone)
        ranks.append(indices(loader))
    assert {len(rank) for rank in ranks} == {len(alone)}
    for number, whole in enumerate(alone):
        assert [index for rank in ranks for index in rank[number] if index != -100] == whole


def test_a_process_without_a_share_gets_its_first_sample_without_a_target():
    loader = BaseDataLoader(Keyed(14), 4, seed=3)
    whole = indices(loader)
    assert len(whole[-1]) == 2
    loader.set_position(0)
    loader.shard(0, 3)
    (images, targets) = list(loader)[-1]
    assert targets.tolist() == [-100]
    assert int(images[0, 0]) == whole[0][0]


def test_a_data_set_without_stand_ins_skips_a_batch_too_small_for_all():
    dataset = TensorDataset(torch.arange(14))
    loader = BaseDataLoader(dataset, 4, seed=3)
    assert len(loader) == 4
    loader.shard(1, 3)
    assert len(loader) == 3
    assert [len(batch[0]) for batch in loader] == [1, 1, 1]
    loader = BaseDataLoader(dataset, 4, seed=3)
    loader.shard(1, 2)  # the last batch of two has a sample for each
    assert [len(batch[0]) for batch in loader] == [2, 2, 2, 1]


@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_evaluation_has_each_sample_on_exactly_one_process(batch_size):
    seen = []
    for rank in range(3):
        loader = BaseDataLoader(Keyed(), batch_size, shuffle=False)
        loader.shard(rank, 3)
        seen += flat(indices(loader))
    assert sorted(seen) == list(range(11))


def test_processes_must_each_get_a_part():
    with pytest.raises(ConfigError, match=r"batch_size 2 cannot be divided among 3 processes.* Set it to 3 or more"):
        BaseDataLoader(Keyed(), 2).shard(0, 3)
    with pytest.raises(ConfigError, match="Process 3 of 3: the rank must be 0 to 2"):
        BaseDataLoader(Keyed(), 6).shard(3, 3)


@pytest.mark.parametrize(("split", "held_out"), [(0.2, 2), (3, 3), (0.5, 6)])
def test_a_split_parts_the_samples_once_and_for_all(split, held_out):
    loader = BaseDataLoader(Keyed(), 4, validation_split=split, seed=2)
    validation = loader.split_validation()
    training = loader.keys.indices.tolist()
    kept_out = flat(indices(validation))
    assert len(kept_out) == validation.num_samples == held_out
    assert kept_out == sorted(kept_out)
    assert sorted(training + kept_out) == list(range(11))
    assert not validation.is_training
    again = BaseDataLoader(Keyed(), 3, validation_split=split, seed=2).split_validation()
    assert flat(indices(again)) == kept_out


def test_the_split_is_taken_from_the_samples_without_augmentation_where_given():
    plain = TensorDataset(torch.arange(11) * 10)
    loader = BaseDataLoader(Keyed(), 4, validation_split=3, validation_dataset=plain)
    loader.num_classes = 7
    validation = loader.split_validation()
    assert validation.num_classes == 7
    assert all(value % 10 == 0 for (batch,) in validation for value in batch.tolist())


def test_without_a_split_there_is_no_validation():
    for nothing in (0, 0.0):
        assert BaseDataLoader(Keyed(), 4, validation_split=nothing).split_validation() is None


@pytest.mark.parametrize("split", [1.0, -0.1, 11, 12, -1, 0.01, 0.99, True])
def test_a_wrong_split_is_refused_with_the_rule(split):
    with pytest.raises(
        ConfigError, match=r"must be a ratio between 0 and 1 .* or a whole number of samples from 1 to 10"
    ):
        BaseDataLoader(Keyed(), 4, validation_split=split)


def test_chosen_samples_are_those_of_training_and_evaluation():
    loader = BaseDataLoader(Keyed(), 5, indices=range(5))
    assert sorted(flat(indices(loader))) == flat(indices(loader.evaluation_loader())) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_error_of_the_user_arrives_as_itself(n_workers):
    loader = BaseDataLoader(Failing(), 2, shuffle=False, n_workers=n_workers)
    iterator = iter(loader)
    assert next(iterator)[1].tolist() == [0, 1]
    assert next(iterator)[1].tolist() == [2, 3]
    with pytest.raises(DataError, match=r"^photo 4 is no image\.$"):
        next(iterator)
    loader.close()


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_mistake_of_a_programmer_keeps_its_traceback(n_workers):
    loader = BaseDataLoader(Buggy(), 2, n_workers=n_workers)
    with pytest.raises(RuntimeError, match="a programmer's mistake"):
        next(iter(loader))
    loader.close()


def test_no_error_is_raised_in_the_middle_of_other_work_when_a_worker_dies(monkeypatch):
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    batches(BaseDataLoader(Keyed(), 4, n_workers=1))
    assert signal.getsignal(signal.SIGCHLD) is before


def test_workers_leave_signals_to_the_main_process():
    loader = BaseDataLoader(Keyed(40), 2, n_workers=1)
    iterator = iter(loader)
    next(iterator)
    worker = loader._iterator._workers[0]
    for number in (signal.SIGINT, signal.SIGUSR1):
        os.kill(worker.pid, number)
    if hasattr(signal, "sigwaitinfo"):  # sent by a process other than the parent, as a batch system does
        sender = os.fork()
        if sender == 0:
            os.kill(worker.pid, signal.SIGTERM)
            os._exit(0)
        os.waitpid(sender, 0)
    assert len(list(iterator)) == 19
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
    loader.close()


def test_more_workers_than_processors_are_not_started(monkeypatch, caplog):
    monkeypatch.setattr(loader_module, "available_processors", lambda: 1)
    with caplog.at_level(logging.WARNING):
        loader = BaseDataLoader(Keyed(), 4, n_workers=24)
    assert loader.num_workers == 1
    assert "n_workers 24: this process may use 1 processor(s), as many start." in caplog.text


def test_pinned_memory_without_a_gpu_does_nothing_and_warns_of_nothing():
    loader = BaseDataLoader(Keyed(), 4, pin_memory=True)
    assert loader.pin_memory is torch.cuda.is_available()
    assert len(list(loader)) == 3


def test_what_workers_get_can_be_pickled():
    loader = BaseDataLoader(Keyed(), 4)
    again = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn, loader.worker_init_fn)))
    key = next(iter(loader.keys))[0]
    assert torch.equal(again[0][key][0], loader.dataset[key][0])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ConfigError, "Wrong batch_size 0: it must be 1 or more"),
        ({"batch_size": 4, "n_workers": -1}, ConfigError, "Wrong n_workers -1"),
        ({"batch_size": 12, "drop_last": True}, ConfigError, "drop_last leaves no batch: 11 samples are fewer than"),
        (
            {"batch_size": 4, "drop_last": True, "shuffle": False},
            ConfigError,
            "evaluation, which must see every sample",
        ),
        ({"batch_size": 4, "indices": []}, DataError, "The data set is empty"),
        ({"batch_size": 4, "dataset": Stream()}, ConfigError, "Stream cannot be read in any order"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        BaseDataLoader(**{"dataset": Keyed(), **arguments})
