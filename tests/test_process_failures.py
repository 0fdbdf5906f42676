"""Processes of one run of which one fails: the others end, too, with its reason."""

import os
import socket
import threading

import pytest
import torch

from trainer.runtime import failures
from trainer.runtime.devices import joined_world
from utils.errors import DataError, EspalierError, Interrupted, TrainingError

SECONDS_TO_END = 30


def outcome_of_two(monkeypatch, tmp_path, *works, patience=10.0):
    """Run one function (world -> None) in each of two processes, forked from this one; return code and text of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(failures, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(failures, "_SECONDS_TO_LEAVE", patience)
    children = []
    for rank, work in enumerate(works):
        child = os.fork()
        if child == 0:
            code = 99
            try:
                threading.Timer(SECONDS_TO_END, os._exit, (98,)).start()
                torch.set_num_threads(1)
                known = {"RANK": rank, "WORLD_SIZE": len(works), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in known.items()})
                with joined_world() as world:
                    work(world)
                code = 0
            except EspalierError as error:
                code = error.exit_code
                (tmp_path / str(rank)).write_text(f"{type(error).__name__}: {error}")
            except BaseException as error:
                (tmp_path / str(rank)).write_text(f"{type(error).__name__}: {error}")
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    texts = [(tmp_path / str(rank)).read_text() if (tmp_path / str(rank)).exists() else "" for rank in range(2)]
    return codes, texts


def add_up(world):
    world.sum(torch.ones(1))


def refuse(world):
    raise DataError("photo 7 is damaged.")


def test_a_collective_call_ends_with_the_reason_of_the_process_that_failed(monkeypatch, tmp_path):
    codes, texts = outcome_of_two(monkeypatch, tmp_path, add_up, refuse)
    assert codes == [TrainingError.exit_code, DataError.exit_code]
    assert texts[0] == (
        "TrainingError: Process 1 has ended with an error, and the others end with it: photo 7 is damaged."
    )
    assert texts[1] == "DataError: photo 7 is damaged."


def test_a_process_that_answers_to_nothing_is_ended(monkeypatch, tmp_path):
    def hang(world):
        threading.Event().wait()

    codes, texts = outcome_of_two(monkeypatch, tmp_path, hang, refuse, patience=0.1)
    assert codes == [DataError.exit_code, DataError.exit_code]
    assert texts[0] == ""


@pytest.mark.parametrize("work", [add_up, None])
def test_processes_that_end_together_end_by_themselves(monkeypatch, tmp_path, work):
    def stop(world):
        raise Interrupted(15)

    codes, _ = outcome_of_two(monkeypatch, tmp_path, work or stop, work or stop)
    assert codes == ([0, 0] if work else [143, 143])


def test_processes_that_do_not_find_each_other_are_an_error(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    message = r"do not find each other .* Start them with torchrun, or unset both"
    with pytest.raises(TrainingError, match=message), joined_world():
        pass
