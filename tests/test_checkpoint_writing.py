"""Checkpoints are written while the training continues: what is copied, what a kill in between leaves."""

import errno
import hashlib
import io
import os
import threading

import numpy as np
import pytest
import torch

from tests.support.checkpoints import same, write_checkpoint
from tests.support.tiny import tiny_trainer
from trainer.checkpoints import saving
from trainer.checkpoints.resume import Start, restore
from trainer.checkpoints.saving import Checkpoints, not_finite
from trainer.checkpoints.snapshot import TensorSnapshot
from utils import checkpoint_file
from utils.checkpoint_file import BEST, LAST, read_checkpoint
from utils.errors import CheckpointError
from utils.files import copy_atomically
from utils.writing.hashed_file import HashedFile


def content_of_all_kinds():
    weight = torch.arange(40_000.0).reshape(2, 4, 50, 100)
    return {
        "format_version": 1,
        "state_dict": {
            "channels last": weight.to(memory_format=torch.channels_last),
            "tied": weight[0],
            "also tied": weight[1, 2:],
            "half": weight.to(torch.bfloat16),
            "empty": torch.zeros(0, 3),
            "number": torch.tensor(7),
        },
        "loop": {"counts": [torch.ones(3, dtype=torch.int64), [torch.zeros(2), None]], "epoch": 3},
        "config": {"name": "x"},
    }


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def test_a_snapshot_is_saved_as_the_same_bytes_and_does_not_change_with_its_source():
    snapshot, expected = TensorSnapshot(), saved(content_of_all_kinds())
    for _ in range(2):  # the second copy is in the memory of the first
        content = content_of_all_kinds()
        copy = snapshot.take(content)
        content["state_dict"]["tied"].zero_()
        content["loop"]["counts"][0].zero_()
        assert saved(copy) == expected


def test_tensors_of_one_array_may_see_parts_of_different_lengths():
    array = np.arange(10.0)
    for lengths in ((10, 4), (4, 10)):
        content = {str(length): torch.from_numpy(array[:length]) for length in lengths}
        copy = TensorSnapshot().take(content)
        assert {name: tensor.tolist() for name, tensor in copy.items()} == {
            str(length): array[:length].tolist() for length in lengths
        }


def test_a_checkpoint_is_an_archive_of_torch_with_the_checksum_of_its_bytes_as_comment(tmp_path):
    content = content_of_all_kinds() | {"large": torch.arange(300_000)}
    write_checkpoint(tmp_path / "a.pth", content)
    written, archive = (tmp_path / "a.pth").read_bytes(), saved(content)
    comment = written[len(archive) :]
    assert written[: len(archive) - 2] == archive[:-2]  # all but the length of the comment
    assert comment == b"espalier-sha256:" + hashlib.sha256(written[: len(archive)]).hexdigest().encode()


def test_pieces_that_do_not_last_are_copied_or_written_at_once(tmp_path):
    lasting, passing, small = np.full(200_000, 1, np.uint8), bytearray(b"\2" * 200_000), bytearray(b"\3" * 100)
    with HashedFile(tmp_path / "file", {lasting.ctypes.data: len(lasting)}) as file:
        for piece in (small, memoryview(lasting), passing):
            file.write(piece)
        passing[:] = bytes(len(passing))
        file.write(small)
        small[:] = bytes(len(small))
        file.finish(lambda end: end[:-1] + b"\4", str.encode)
    expected = b"\3" * 100 + b"\1" * 200_000 + b"\2" * 200_000 + b"\3" * 99 + b"\4"
    digest = hashlib.sha256(expected).hexdigest().encode()
    assert (tmp_path / "file").read_bytes() == expected + digest


def test_an_error_of_the_disk_in_a_thread_is_raised_at_the_end(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_checkpoint(tmp_path / "a.pth", content_of_all_kinds())
    before = (tmp_path / "a.pth").read_bytes()
    monkeypatch.setattr(HashedFile, "_append", lambda self, pieces: full(0))
    with pytest.raises(CheckpointError, match=r"a\.pth: not written \(the disk is full\)"):
        write_checkpoint(tmp_path / "a.pth", {**content_of_all_kinds(), "format_version": 2})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        copy_atomically(tmp_path / "a.pth", tmp_path / "b.pth")
    assert (tmp_path / "a.pth").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.pth"]


def test_weights_that_are_not_finite_are_named():
    tensors = {name: torch.ones(9) for name in ("good", "nan", "inf", "-inf")}
    for name in ("nan", "inf", "-inf"):
        tensors[name][4] = float(name)
    assert not_finite(tensors | {"count": torch.tensor(2), "empty": torch.ones(0)}) == ["nan", "inf", "-inf"]


def test_a_step_after_a_save_changes_nothing_in_the_file(tmp_path, monkeypatch):
    trainer, checkpoints = tiny_trainer([]), Checkpoints(tmp_path, {"name": "tiny"}, save_every_steps=1)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    changed = threading.Event()

    def write_late(content, paths):
        assert changed.wait(60)
        checkpoint_file.write_checkpoint(content, paths)

    monkeypatch.setattr(saving, "write_checkpoint", write_late)
    checkpoints.on_step_end(trainer, None)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.fill_(9.0)
    changed.set()
    checkpoints.on_close(trainer)
    written = read_checkpoint(tmp_path / LAST)["state_dict"]
    assert all(torch.equal(written[name], tensor) for name, tensor in before.items())


def improving_trainer(folder):
    """A trainer whose best epoch is the last one."""
    trainer = tiny_trainer([Checkpoints(folder, {"name": "tiny"}, save_period=1)], monitor="max epoch")
    trainer.result_names = lambda: ["epoch"]
    return trainer


@pytest.mark.parametrize("killed_before", ["the copies", "the second copy"])
def test_a_run_that_was_killed_between_its_files_writes_the_others_when_it_is_resumed(tmp_path, killed_before):
    improving_trainer(tmp_path).fit()
    numbered = tmp_path / "checkpoint-epoch3.pth"
    complete = {name: read_checkpoint(tmp_path / name) for name in (BEST, numbered.name)}
    numbered.unlink()
    if killed_before == "the copies":
        (tmp_path / BEST).write_bytes((tmp_path / "checkpoint-epoch2.pth").read_bytes())
    resumed = improving_trainer(tmp_path)
    restore(resumed, Start({}, state=read_checkpoint(tmp_path / LAST)))
    resumed.fit()
    for name, content in complete.items():
        assert same(read_checkpoint(tmp_path / name), content)
