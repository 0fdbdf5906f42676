"""Loader workers that die, hang, or have no shared memory; signals while a batch is awaited."""

import os
import signal
import threading
import time
from dataclasses import dataclass

import pytest
import torch

from base import BaseDataLoader, Callback
from base.loading import workers
from tests.support.tiny import Blobs, tiny_trainer
from trainer.checkpoints.saving import Checkpoints, stop_at_next_step
from utils.checkpoint_file import LAST, read_checkpoint
from utils.errors import DataError, Interrupted, LoaderFailed


@dataclass
class Failing(Blobs):
    """Points whose loading fails from one sample on; `fault` is called in the place that loads."""

    fault: object
    size: int = 22
    first: int = 8

    def __post_init__(self):
        super().__init__(self.size)

    def sample(self, index, generator):
        if index >= self.first:
            self.fault()
        return super().sample(index, generator)


def kill(number):
    return lambda: os.kill(os.getpid(), number)


def hang():
    while True:  # in short steps: a signal may reach another thread, and then interrupts no call of this one
        time.sleep(0.01)


def loader_of(fault, **options):
    return BaseDataLoader(Failing(fault), 4, shuffle=False, is_training=True, **{"n_workers": 1, **options})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(workers, "_SECONDS_TO_END", 0.05)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (kill(signal.SIGKILL), r"was killed \(SIGKILL\), mostly .* memory ran out.* Use fewer n_workers \(it is 1"),
        (kill(signal.SIGBUS), r"bus error \(SIGBUS\): shared memory \(.* MB free\) is too small.* --shm-size=8g"),
        (lambda: os._exit(7), r"died \(exit code 7\): .* Set n_workers to 0"),
    ],
)
def test_the_death_of_a_worker_is_named_with_cause_and_repair(fault, message, capfd):
    loader = loader_of(fault)
    with pytest.raises(LoaderFailed, match=message):
        list(loader)
    assert loader._iterator is None


def test_a_worker_that_hangs_is_named_after_the_timeout_and_killed():
    loader = loader_of(hang)
    loader.loader_timeout = 0.05
    batches = iter(loader)
    worker = loader._iterator._workers[0]
    os.kill(worker.pid, signal.SIGSTOP)  # it obeys nothing else any more
    with pytest.raises(LoaderFailed, match=r"sent no batch for 0\.05 seconds \(trainer\.loader_timeout is 0\.05\)"):
        list(batches)
    assert worker.exitcode == -signal.SIGKILL


def test_without_a_timeout_a_slow_worker_is_awaited(monkeypatch, caplog):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(workers, "REMARK_AFTER", 0.04)
    awaited = threading.Event()
    loader = loader_of(lambda: awaited.wait(0.15), n_workers=1)
    assert loader.loader_timeout is None
    assert len(list(loader)) == 6
    assert "No loader worker has sent a batch for 0.04 seconds; still waiting." in caplog.messages


def test_a_worker_that_is_busy_with_an_iteration_that_was_broken_off_is_awaited(monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.02)
    awaited = threading.Event()
    loader = loader_of(lambda: awaited.wait(0.1))
    first = next(iter(loader))  # the worker is ahead, at samples that take long
    loader.set_position(0)
    assert torch.equal(next(iter(loader))[0], first[0])
    loader.close()


def test_an_idle_worker_that_does_not_answer_is_named_after_the_timeout():
    loader = loader_of(lambda: None)
    list(loader)
    worker = loader._iterator._workers[0]
    os.kill(worker.pid, signal.SIGSTOP)
    loader.loader_timeout = 0.05  # also for workers that run
    with pytest.raises(LoaderFailed, match=r"sent no batch for 0\.05 seconds"):
        iter(loader)
    assert worker.exitcode == -signal.SIGKILL
    loader.loader_timeout = None
    assert len(list(loader)) == 6  # of a new worker
    loader.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)", "--shm-size"),
        ("unable to open shared memory object </torch_1>: Too many open files (24)", "ulimit -n 65536"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_an_error_and_never_lost(monkeypatch, text, message):
    def refuse(tensor):
        raise RuntimeError(text)

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)  # a worker is forked, and so has it as well
    loader = loader_of(lambda: None, collate_fn=lambda samples: {"points": [point for point, _ in samples]})
    loader.loader_timeout = 5.0
    with pytest.raises(LoaderFailed, match=message):
        list(loader)


def test_workers_that_cannot_be_started_are_an_error_with_the_limit(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(LoaderFailed, match=r"1 loader workers cannot be started \(Resource .* raise the limits"):
        list(loader_of(lambda: None))


def trained(folder, fault, **options):
    """Train in a folder with data whose third step fails; return what `fit` raised."""
    trainer = tiny_trainer([Checkpoints(folder, {"name": "tiny"})])
    trainer.train_loader = loader_of(fault, **options)
    trainer.train_loader.loader_timeout = 5.0
    trainer._steps = trainer._endless_steps()
    with stop_at_next_step(trainer), pytest.raises((Interrupted, LoaderFailed, DataError)) as caught:
        trainer.fit()
    return caught.value


def ask_main(number, pid):
    def fault():
        os.kill(pid, number)
        hang()

    return fault


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_signal_ends_the_wait_for_a_batch_that_never_comes(tmp_path, number, n_workers):
    error = trained(tmp_path, ask_main(number, os.getpid()), n_workers=n_workers)
    assert (type(error), error.exit_code) == (Interrupted, 128 + number)
    assert str(error).startswith(f"Interrupted by {number.name}; the state was saved.")
    assert read_checkpoint(tmp_path / LAST)["global_step"] <= 2


def test_a_signal_ends_the_wait_in_a_validation(tmp_path):
    trainer = tiny_trainer([Checkpoints(tmp_path, {"name": "tiny"})])
    trainer.valid_loader = loader_of(ask_main(signal.SIGTERM, os.getpid()))
    with stop_at_next_step(trainer), pytest.raises(Interrupted):
        trainer.fit()
    assert read_checkpoint(tmp_path / LAST)["global_step"] == 6
    assert not trainer.history


class AtSecondValidation(Callback):
    """Sends a signal to the idle worker of the validation, before the second one, and one to this process later."""

    def __init__(self, number, own=None):
        self.number, self.own = number, own

    def on_validation_start(self, trainer):
        if trainer.epoch == 1:
            os.kill(trainer.valid_loader._iterator._workers[0].pid, self.number)
            if self.own is not None:
                threading.Timer(0.1, os.kill, (os.getpid(), self.own)).start()


@pytest.mark.parametrize(
    ("signals", "expected"),
    [((signal.SIGKILL,), LoaderFailed), ((signal.SIGSTOP, signal.SIGTERM), Interrupted)],
)
def test_a_worker_that_ends_or_hangs_between_two_epochs_ends_the_run_with_its_state_saved(
    tmp_path, signals, expected, monkeypatch
):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.02)
    trainer = tiny_trainer([Checkpoints(tmp_path, {"name": "tiny"}), AtSecondValidation(*signals)])
    trainer.valid_loader = loader_of(lambda: None)
    with stop_at_next_step(trainer), pytest.raises(expected):
        trainer.fit()
    assert read_checkpoint(tmp_path / LAST)["global_step"] == 12
    assert len(trainer.history) == 1


def refuse_sample():
    raise DataError("photo 8 is damaged.")


@pytest.mark.parametrize("fault", [kill(signal.SIGKILL), refuse_sample])
def test_the_state_of_the_last_step_is_saved_if_the_loader_fails(tmp_path, fault, caplog):
    assert isinstance(trained(tmp_path, fault), LoaderFailed | DataError)
    step = read_checkpoint(tmp_path / LAST)["global_step"]
    assert step in (1, 2)
    assert f"The state of step {step} is saved: --resume auto continues with it." in caplog.messages


def test_with_nohup_a_closed_terminal_does_not_stop_a_run():
    trainer = tiny_trainer()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_at_next_step(trainer):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
