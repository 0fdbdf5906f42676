"""What every loader of the registry keeps to: batches the same for any workers and from any place on, samples once."""

import pytest
import torch

from base.base_data_loader import BaseDataLoader
from base.loading.packing import CompactBatch
from data_loader import SECTIONS
from tests.support.groups import from_flat
from tests.support.loader_cases import CASES
from utils.errors import ConfigError
from utils.registry import import_attribute

ENTRIES = SECTIONS["data_loader"].entries


@pytest.fixture(scope="module", params=sorted(ENTRIES))
def make(request, tmp_path_factory):
    """(arguments) -> a small loader of the class; its files are written once."""
    name = request.param
    assert name in CASES, f"add a case for {name} to tests/support/loader_cases.py"
    arguments = CASES[name](tmp_path_factory.mktemp("data"))
    loader_class = import_attribute(ENTRIES[name])

    def made(**changes):
        return from_flat(loader_class, **{**arguments, "batch_size": 3, "seed": 4, **changes})

    return made


def batches(loader, epochs=1):
    collected = [batch for _ in range(epochs) for batch in loader]
    loader.close()
    return collected


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def test_every_loader_is_covered(record_property):
    assert len(ENTRIES) >= 6
    assert set(ENTRIES) == set(CASES)
    record_property("covered", f"loaders: {len(ENTRIES)}, each with 0 to 3 workers")


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_batches_are_the_same_for_any_number_of_workers_and_epochs_differ(make, monkeypatch):
    monkeypatch.setattr("base.base_data_loader.available_processors", lambda: 4)
    runs = [batches(make(n_workers=count), epochs=2) for count in range(4)]
    assert all(same(runs[0], run) for run in runs[1:])
    half = len(runs[0]) // 2
    assert not same(runs[0][:half], runs[0][half:])


@pytest.mark.parametrize("is_training", [True, False])
def test_a_batch_that_an_accelerator_completes_is_the_same_to_the_last_bit(make, is_training):
    shown = batches(make(is_training=is_training))
    for n_workers in (0, 1):
        loader = make(is_training=is_training, n_workers=n_workers)
        compact = list(loader.compact_batches())  # all at once: later batches must not overwrite earlier ones
        loader.close()
        is_of_8_bits = type(loader).__name__ not in ("TimeSeriesDataLoader", "ArraySegmentationDataLoader")
        assert {isinstance(batch, CompactBatch) for batch in compact} == {is_of_8_bits}
        if is_of_8_bits:
            assert {batch.tensors[0].dtype for batch in compact} == {torch.uint8}
            compact = [batch.complete(*batch.tensors) for batch in compact]
        assert same(shown, compact)
        for one, other in zip(shown, compact, strict=True):
            assert [each.stride() for each in one[:2]] == [each.stride() for each in other[:2]]
            assert (
                [sample.name for sample in one[2]] == [sample.name for sample in other[2]] if one[2:] else not other[2:]
            )


def test_an_epoch_goes_on_at_any_batch(make):
    straight = batches(make(), epochs=2)
    half = len(straight) // 2
    for batch in range(half):
        resumed = make(n_workers=batch % 2)
        resumed.set_position(1, batch)
        assert same(batches(resumed), straight[half + batch :])


def test_shapes_and_types(make):
    loader = make(validation_split=2)
    assert isinstance(loader, BaseDataLoader)
    images, targets = next(iter(loader))
    assert images.dtype == torch.float32
    assert targets.dtype == torch.int64
    assert images.shape[:2] == (3, loader.in_channels)
    assert targets.shape in (images.shape[:1], (images.shape[0], *images.shape[2:]))
    assert torch.isfinite(images).all()
    assert len(loader.class_names) == loader.num_classes >= 2


def test_labels_are_classes_or_ignored_in_training_and_evaluation(make):
    for is_training in (True, False):
        loader = make(is_training=is_training)
        allowed = set(range(loader.num_classes)) | {loader.ignore_index}
        for _, targets, *_ in loader:
            assert set(targets.unique().tolist()) <= allowed


def test_evaluation_sees_each_sample_once_and_every_pass_the_same(make):
    loader = make(is_training=False, n_workers=1)
    first, second = list(loader), list(loader)
    loader.close()
    assert same(first, second)
    assert sum(len(batch[0]) for batch in first) == loader.num_samples
    sources = [source for batch in first for source in batch[2]] if len(first[0]) > 2 else []
    if sources:
        assert [source.index for source in sources] == list(range(loader.num_samples))
        assert len({source.name for source in sources}) == loader.num_samples


def test_held_out_samples_follow_from_the_seed_of_the_split_if_there_is_one(make):
    def held_out(**seeds):
        loader = make(validation_split=3, **seeds)
        samples = loader.split_validation().keys.indices.tolist()
        assert not set(samples) & set(loader.keys.indices.tolist())
        return samples, loader.learned

    of_runs = [held_out(seed=seed) for seed in range(5)]
    assert len({tuple(samples) for samples, _ in of_runs}) > 1
    assert of_runs == [held_out(seed=seed, split_seed=None) for seed in range(5)]
    assert all(held_out(seed=seed, split_seed=3) == of_runs[3] for seed in range(5))


def test_a_subset_is_drawn_by_its_seed_from_what_is_not_held_out_the_smaller_in_the_larger(make):
    def drawn(**arguments):
        return make(**arguments).keys.indices.tolist()

    few, more = (drawn(subset=count, validation_split=2, seed=1) for count in (3, 5))
    assert len(few) == 3
    assert len(more) == 5
    assert set(few) < set(more)
    held_out = make(subset=3, validation_split=2, seed=1).split_validation().keys.indices.tolist()
    assert held_out == make(validation_split=2, seed=1).split_validation().keys.indices.tolist()
    assert set(held_out).isdisjoint(more)
    assert len({tuple(drawn(subset=3, seed=seed)) for seed in range(5)}) > 1
    assert len({tuple(drawn(subset=3, subset_seed=1, seed=seed)) for seed in range(5)}) == 1
    whole = drawn()
    assert drawn(subset=1.0) == whole
    assert len(drawn(subset=0.5)) == round(len(whole) / 2)
    for wrong in (0, -1, 1.5, 10_000, True):
        with pytest.raises(ConfigError, match=f"Wrong subset {wrong} of {len(whole)} samples: it must be a fraction"):
            make(subset=wrong)


def test_a_subset_of_folds_leaves_the_fold_that_is_held_out_whole(make):
    folds = {"fold": 1, "of": 3, "seed": 4}
    whole, some = make(folds=folds), make(folds=folds, subset=2)
    assert some.split_validation().keys.indices.tolist() == whole.split_validation().keys.indices.tolist()
    assert len(some.keys.indices) == 2
    assert set(some.keys.indices) < set(whole.keys.indices)


def test_held_out_samples_are_not_trained_on(make):
    loader = make(validation_split=2)
    held_out = loader.split_validation()
    assert set(loader.keys.indices).isdisjoint(held_out.keys.indices)
    assert len(loader.keys.indices) + len(held_out.keys.indices) >= 7
    assert (held_out.num_classes, held_out.ignore_index) == (loader.num_classes, loader.ignore_index)
    assert not held_out.is_training
