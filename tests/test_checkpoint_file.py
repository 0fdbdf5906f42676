"""Checkpoints are whole or refused: damage of every kind, code in pickles, full disks."""

import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support.checkpoints import write_checkpoint
from tests.support.tiny import tiny_trainer
from trainer.checkpoints.resume import load_matching_weights, weights_of
from trainer.checkpoints.saving import Checkpoints
from trainer.runtime.devices import AGREE_EVERY_STEPS
from utils.checkpoint_file import newest_good, read_checkpoint
from utils.errors import CheckpointError

ROOT = Path(__file__).resolve().parent.parent
CONTENT = {
    "format_version": 1,
    "state_dict": {"weight": torch.arange(500.0)},
    "config": {"name": "x", "list": [1, None]},
}


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_what_is_written_is_read_and_other_tools_open_it_too(tmp_path):
    path = tmp_path / "a.pth"
    write_checkpoint(path, CONTENT)
    assert torch.equal(read_checkpoint(path)["state_dict"]["weight"], CONTENT["state_dict"]["weight"])
    assert torch.load(path, weights_only=True)["config"] == CONTENT["config"]
    assert zipfile.ZipFile(path).testzip() is None
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def damaged_files(whole, chance):
    """200 ways to spoil a checkpoint, each with a name."""
    for _ in range(90):
        spoiled = bytearray(whole)
        spoiled[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        yield "flipped bit", bytes(spoiled)
    for _ in range(60):
        yield "cut", whole[: chance.randrange(1, len(whole))]
    for _ in range(30):
        at = chance.randrange(len(whole) - 100)
        yield "zeroed block", whole[:at] + bytes(64) + whole[at + 64 :] if any(whole[at : at + 64]) else whole[:at]
    yield "empty", b""
    yield "text", b"not a checkpoint\n" * 50
    yield "a list", pickle.dumps([1, 2, 3] * 100)
    yield "code", pickle.dumps({"state_dict": RunsCode(), "padding": "x" * 200})
    for length in (1, 22, 79, 80, 200, 5000):
        yield "noise", chance.randbytes(length)
    for extra in range(10):
        yield "longer", whole + bytes(extra + 1)


def test_two_hundred_damaged_files_are_each_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good, path = tmp_path / "good.pth", tmp_path / "damaged.pth"
    write_checkpoint(good, CONTENT)
    kinds = Counter()
    for kind, content in damaged_files(good.read_bytes(), random.Random(7)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"damaged\.pth: ") as caught:
            read_checkpoint(path)
        kinds[kind, str(caught.value).partition(": ")[2]] += 1
    assert kinds.total() == 200
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [[torch.zeros(3)] * 30, torch.zeros(300), "text" * 100])
def test_archives_of_other_things_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="a checkpoint is a dictionary"):
        read_checkpoint(tmp_path / "other.pth")


def test_an_archive_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": RunsCode()}, "evil.pth")
    with pytest.raises(CheckpointError, match="other than tensors and plain data"):
        read_checkpoint("evil.pth")
    assert not Path("pwned").exists()


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_checkpoint(tmp_path / "none.pth")


def trained(folder):
    tiny_trainer([Checkpoints(folder, {"name": "tiny"}, save_period=1)]).fit()
    return folder


def test_the_newest_good_checkpoint_is_used_and_each_damaged_one_named(tmp_path, caplog):
    folder = trained(tmp_path)
    assert newest_good(folder)[0].name == "checkpoint-last.pth"
    for name in ("checkpoint-last.pth", "checkpoint-epoch3.pth"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-1000])
    (folder / "model_best.pth").unlink()
    path, content = newest_good(folder)
    assert (path.name, content["epoch"]) == ("checkpoint-epoch2.pth", 2)
    assert "checkpoint-last.pth" in caplog.text
    assert "checkpoint-epoch3.pth" in caplog.text
    for path in folder.glob("*.pth"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"checkpoint-last.pth: is 0 bytes long.*No other checkpoint"):
        newest_good(folder)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (
            99,
            r"new\.pth: has format_version 99, and this version of Espalier reads up to 1\. A newer one has written it",
        ),
        ("1", "has the format_version '1', which is no number from 1"),
        (0, "has the format_version 0, which is no number from 1"),
        (None, "has the format_version None"),
    ],
)
def test_a_format_of_later_versions_is_refused(tmp_path, version, message):
    write_checkpoint(tmp_path / "new.pth", {**CONTENT, "format_version": version})
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "new.pth")


def test_weights_of_others_in_a_run_folder_are_passed_over(tmp_path, caplog):
    folder = trained(tmp_path)
    torch.save({"conv1.weight": torch.ones(2)}, folder / "resnet18.pth")
    torch.save({"global_step": "many"}, folder / "zz.pth")
    (folder / "checkpoint-last.pth").write_bytes(b"")
    (folder / "model_best.pth").unlink()
    assert newest_good(folder)[0].name == "checkpoint-epoch3.pth"
    for name in ("resnet18.pth", "zz.pth"):
        assert f"{folder / name}: is no checkpoint of a run, and is passed over." in caplog.messages


def test_the_last_checkpoint_is_written_every_n_steps(tmp_path):
    trainer, checkpoints = tiny_trainer([]), Checkpoints(tmp_path, {"name": "tiny"}, save_every_steps=3)
    is_saved = []
    for trainer.global_step in range(1, 8):
        checkpoints.on_step_end(trainer, None)
        checkpoints.on_fit_end(trainer, None)  # waits for the disk
        is_saved.append((tmp_path / "checkpoint-last.pth").exists())
        (tmp_path / "checkpoint-last.pth").unlink(missing_ok=True)
    checkpoints.on_close(trainer)
    assert is_saved == [False, False, True, False, False, True, False]


def test_several_processes_write_an_old_checkpoint_at_a_step_at_which_they_agree(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.checkpoints.saving.monotonic", lambda: 1000.0)
    world = SimpleNamespace(is_main=True, size=2, largest=lambda number: number, gather=lambda value: [value])
    trainer = tiny_trainer([])
    checkpoints = Checkpoints(tmp_path, {"name": "tiny"}, save_every_minutes=1, world=world)
    checkpoints.on_fit_start(trainer)
    monkeypatch.setattr("trainer.checkpoints.saving.monotonic", lambda: 2000.0)  # longer ago than a minute
    saved = []
    monkeypatch.setattr(checkpoints, "_save", lambda trainer, names: saved.append(trainer.global_step))
    for trainer.global_step in range(1, 2 * AGREE_EVERY_STEPS + 1):
        checkpoints.on_step_end(trainer, None)
    assert saved == [AGREE_EVERY_STEPS, 2 * AGREE_EVERY_STEPS]


def test_the_last_checkpoint_is_written_when_it_is_old_enough(tmp_path, monkeypatch):
    seconds = iter(range(1000, 9000, 25))  # each look at the clock is 25 s after the one before
    monkeypatch.setattr("trainer.checkpoints.saving.monotonic", lambda: next(seconds))
    trainer, checkpoints = tiny_trainer([]), Checkpoints(tmp_path, {"name": "tiny"}, save_every_minutes=1)
    checkpoints.on_fit_start(trainer)
    is_saved = []
    for _ in range(6):
        checkpoints.on_step_end(trainer, None)
        checkpoints.on_fit_end(trainer, None)  # waits for the disk
        is_saved.append((tmp_path / "checkpoint-last.pth").exists())
        (tmp_path / "checkpoint-last.pth").unlink(missing_ok=True)
    checkpoints.on_close(trainer)
    assert is_saved == [False, False, True, False, False, True]


FILL_THE_DISK = """
import resource, signal, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from pathlib import Path
from tests.support.tiny import tiny_trainer
from base import Callback
from trainer.checkpoints.saving import Checkpoints
from utils.errors import CheckpointError
class Full(Callback):
    def on_epoch_end(self, trainer, metrics):
        if trainer.epoch == 2:
            checkpoints.on_fit_end(trainer, None)  # waits until the first epoch is on the disk
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
checkpoints = Checkpoints(Path({folder!r}), {{}})
try:
    tiny_trainer([Full(), checkpoints]).fit()
except CheckpointError as error:
    print(error)
"""


def test_a_full_disk_is_a_clear_error_and_the_earlier_checkpoints_stay_good(tmp_path):
    program = FILL_THE_DISK.format(root=str(ROOT), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "not written (the disk is full)" in done.stdout, done.stdout + done.stderr
    assert read_checkpoint(tmp_path / "checkpoint-last.pth")["epoch"] == 1
    assert not list(tmp_path.glob(".*")), "nothing half-written is left"


def test_too_little_disk_is_found_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    trainer = tiny_trainer([Checkpoints(tmp_path, {})])
    with pytest.raises(CheckpointError, match="0 MB are free\\. The checkpoints of this run need about"):
        trainer.fit()
    assert trainer.global_step == 0


def test_fine_tuning_loads_what_fits_and_lists_the_rest():
    trainer = tiny_trainer()
    state = {name: tensor + 1 for name, tensor in trainer.model.state_dict().items()}
    state["layers.4.weight"] = torch.zeros(9, 8)
    state["module.extra"] = state.pop("layers.4.bias")
    lines = load_matching_weights(trainer.model, weights_of({"state_dict": state}))
    assert lines == [
        "layers.4.bias: not in the checkpoint, keeps its first values",
        "layers.4.weight: (9, 8) does not fit the model's (2, 8), not loaded",
        "extra: not in the model, not loaded",
    ]
    assert torch.equal(trainer.model.state_dict()["layers.0.bias"], state["layers.0.bias"])
    with pytest.raises(CheckpointError, match="None of the checkpoint's 1 weights"):
        load_matching_weights(trainer.model, {"other": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="holds no weights"):
        weights_of({"epoch": 3})
