"""Batches on their way to a GPU, which is not here: its streams are recorded, and its memory is the processor's."""

import dataclasses

import numpy as np
import pytest
import torch
from test_trainer import StopAt
from torch import nn

from base import BaseDataLoader
from base.loading.packing import CompactBatch
from data_loader.classification.loader import ImageClassificationDataLoader
from data_loader.common.options import ImageOptions
from data_loader.images.batches import compact_images, completed_images, normalized_batch, stacked
from data_loader.images.preprocessing import Preprocessing
from data_loader.segmentation.loader import SegmentationDataLoader
from models.losses import CrossEntropyLoss
from models.metrics.confusion import MeanIoU
from tests.support.checkpoints import same
from tests.support.groups import from_flat
from tests.support.loader_cases import class_folders, pairs_list
from tests.support.tiny import Blobs
from tests.support.waits import Waits
from trainer.checkpoints.resume import Start, restore
from trainer.checkpoints.saving import Checkpoints, stop_at_next_step
from trainer.optim.uncompiled import without_compiler
from trainer.runtime.devices import ON_CPU, RunPrecision
from trainer.steps import BatchMover
from trainer.trainer import Trainer, TrainingPlan
from utils.checkpoint_file import LAST, read_checkpoint
from utils.errors import Interrupted


@dataclasses.dataclass(frozen=True)
class Elsewhere(RunPrecision):
    """A GPU whose memory is the processor's."""

    def place(self, tensor):
        return ON_CPU.place(tensor).clone()


GPU = Elsewhere(torch.device("cuda", 0))


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the streams of a GPU, in order."""
    found = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            found.append(f"{self.name} waits for {other.name}")

        def __enter__(self):
            found.append(f"on {self.name}")

        def __exit__(self, *_):
            found.append("on computing")

    class Event:
        count = 0

        def record(self, stream):
            Event.count += 1
            self.name = f"{stream.name} {Event.count}"

        def synchronize(self):
            found.append(f"process waits for {self.name}")

    computing, copying = Stream("computing"), Stream("copying")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: copying)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda tensor, stream: found.append(f"{tensor.dtype} kept for {stream.name}")
    )
    return found


MOVED = [
    "on copying",
    "on computing",
    "computing waits for copying",
    "torch.float32 kept for computing",
    "torch.int64 kept for computing",
]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    return {**pairs_list(tmp_path_factory.mktemp("pairs")), "batch_size": 2, "seed": 4}


def load(arguments, **changes):
    return from_flat(SegmentationDataLoader, **{**arguments, **changes})


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("in_channels", "order"), [(3, "RGB"), (3, "BGR"), (1, "GRAY"), (4, "RGB")])
def test_images_of_8_bits_are_normalised_as_in_the_loader_to_the_last_bit(normalize, in_channels, order):
    preprocessing = Preprocessing(ImageOptions(in_channels=in_channels, color_channel=order, normalize=normalize))
    levels = np.arange(256, dtype=np.uint8).repeat(in_channels).reshape(16, 16, in_channels)
    images = [levels, levels[::-1, ::-1]]
    expected = normalized_batch(preprocessing, images, torch.empty)
    completed_images(preprocessing, compact_images(preprocessing, images, torch.empty))  # then its numbers are there
    with Waits() as waits:
        found = completed_images(preprocessing, compact_images(preprocessing, images, torch.empty))
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
    assert waits.found == ["torch.Tensor.numpy"]  # of the batch in page-locked memory


def test_other_types_are_completed_by_the_loader():
    assert stacked([np.zeros(2, np.uint8), np.zeros(2, np.uint16)], torch.empty) is None


def test_a_batch_is_copied_while_the_gpu_computes_and_used_when_it_is_there(arguments, calls):
    mover = BatchMover(GPU)
    loader = load(arguments)
    inputs, target = next(iter(loader))
    loader.set_position(0)
    moved = next(iter(mover.batches(loader)))
    assert calls == MOVED
    assert torch.equal(moved[0], inputs)
    assert torch.equal(moved[1], target)
    calls.clear()
    assert torch.equal(mover.move((inputs, target, "more"))[0], inputs)  # of a loader of another kind
    assert calls == MOVED


def test_an_evaluation_is_at_most_two_batches_ahead_of_the_gpu(arguments, calls):
    batches = BatchMover(GPU).evaluated(load(arguments, is_training=False, batch_size=1))
    assert len(batches) == 7
    shown = [(batch, calls.copy(), calls.clear())[:2] for batch in batches]
    waits = [[call for call in before if call.startswith("process")] for _, before in shown]
    assert waits == [[], [], *([f"process waits for computing {number}"] for number in range(1, 6))]
    assert shown[0][0][2][0].name.endswith("0.png")


def test_on_a_processor_batches_are_those_of_the_loader(arguments):
    loader = load(arguments)
    assert BatchMover(ON_CPU).batches(loader) is BatchMover(ON_CPU).evaluated(loader) is loader


def test_a_plugin_that_makes_batches_of_its_own_yields_them(calls):
    class Shifted(BaseDataLoader):
        def __iter__(self):
            for inputs, target in super().__iter__():
                yield inputs + 100, target

    loader = Shifted(Blobs(), 4, is_training=True)
    assert all((inputs > 50).all() for inputs, _ in BatchMover(GPU).batches(loader))


def test_mixed_batches_are_made_by_the_loader(tmp_path):
    arguments = {**class_folders(tmp_path), "batch_size": 4, "mixup": 0.5}
    loaders = [from_flat(ImageClassificationDataLoader, **arguments, is_training=value) for value in (True, False)]
    kinds = [isinstance(next(loader.compact_batches()), CompactBatch) for loader in loaders]
    assert kinds == [False, True]


def test_memory_is_page_locked_next_to_a_gpu_unless_the_config_says_otherwise(arguments, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = {}
    for asked in (None, True, False):
        loader = load(arguments, pin_memory=asked, validation_split=2)
        before = loader.pin_memory
        loader.feeds_accelerator = True
        found[asked] = before, loader.pin_memory, loader.split_validation().pin_memory
    assert found == {None: (False, True, True), True: (True, True, True), False: (False, False, False)}


def train(folder, arguments, *callbacks, precision=None, state=None, **plan):
    torch.manual_seed(0)
    model = nn.Conv2d(3, 2, 3, padding=1)
    trainer = Trainer(
        model,
        without_compiler(torch.optim.AdamW)(model.parameters(), lr=0.01),
        criterion=CrossEntropyLoss(ignore_index=255),
        train_loader=load(arguments),
        valid_loader=load(arguments, is_training=False),
        metrics=[MeanIoU(2, ignore_index=255)],
        plan=TrainingPlan(epochs=3, monitor="max val_miou", **plan),
        callbacks=[*callbacks, Checkpoints(folder, {"name": "moved"})],
    )
    if precision is not None:
        trainer.mover = BatchMover(precision)
    if state is not None:
        restore(trainer, Start({}, state=state))
    with stop_at_next_step(trainer):
        trainer.fit()


@pytest.mark.parametrize("plan", [{}, {"accumulate": 2}, {"len_epoch": 4}])
def test_a_run_whose_batches_are_moved_ends_in_the_same_bytes_also_if_it_is_resumed(tmp_path, arguments, calls, plan):
    (tmp_path / "cut").mkdir()
    train(tmp_path, arguments, **plan)
    assert not calls
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", arguments, StopAt(5), precision=GPU, **plan)
    state = read_checkpoint(tmp_path / "cut" / LAST)
    train(tmp_path / "cut", arguments, precision=GPU, state=state, **plan)
    assert calls.count("on copying") > 4
    assert same(read_checkpoint(tmp_path / "cut" / LAST), read_checkpoint(tmp_path / LAST))
