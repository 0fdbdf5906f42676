"""A task that takes several GPUs is trained by as many processes; here, without GPUs, on the processor."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from search.executors import EXECUTORS
from search.executors.base import EpochReported, Task, TaskFinished
from search.worker.ranks import Ranks, outcome_of_all
from search.worker.runner import run_task
from tests.test_candidates import assert_same
from tests.test_search_worker import Search, config  # noqa: F401 (a fixture)
from utils.checkpoint_file import BEST, LAST, read_checkpoint
from utils.errors import Interrupted
from utils.registry import import_attribute

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.xdist_group("ray")
WORKER = "search.worker.runner:worker"
PLUGIN = """
import os, signal
from trainer.trainer import Trainer

class Dies(Trainer):
    def validate_epoch(self):
        if self.epoch == 1 and not self.is_main_process:
            {fate}
        return super().validate_epoch()
"""


@pytest.fixture(scope="module")
def ranks():
    """Two processes for all tests of this module, as a worker retains them."""
    with closing(Ranks()) as made:
        yield made


def task_of(config, folder, **more):  # noqa: F811
    task = {"kind": "train", "config": config, "folder": str(folder), "reported": 0, "resources": {"gpus": 2}}
    return task | {"threads": 2, "logs": str(folder.parent)} | more


@pytest.mark.slow
def test_two_processes_end_as_train_py_under_torchrun(config, tmp_path, ranks):  # noqa: F811
    config["trainer"] |= {"epochs": 2, "tensorboard": False, "pictures": 0, "verbosity": 0}
    config["arch"]["args"]["norm"] = "batch"
    search = Search()
    outcome = run_task(task_of(config, tmp_path / "run"), search, ranks=ranks)
    assert (outcome["status"], outcome["is_finished"]) == ("ended", True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    spread = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *spread, "train.py", "-c", str(tmp_path / "config.json"), "name=torchrun"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    (expected,) = (tmp_path / "torchrun").iterdir()
    assert (tmp_path / "run/metrics.csv").read_text() == (expected / "metrics.csv").read_text()
    one, other = (read_checkpoint(folder / LAST) for folder in (tmp_path / "run", expected))
    for each in (one, other):
        del each["config"], each["callbacks"]  # names and places of the runs
    assert_same(one, other)
    assert [row["epoch"] for row in search.rows] == [1, 2]  # reported once


def test_all_processes_obey_a_decision_at_the_same_epoch(config, tmp_path, ranks):  # noqa: F811
    run_task(task_of(config, tmp_path / "whole"), Search(), ranks=ranks)
    outcome = run_task(task_of(config, tmp_path / "run"), Search(epoch2="pause"), ranks=ranks)
    assert not outcome["is_finished"]
    assert read_checkpoint(tmp_path / "run" / LAST)["epoch"] == 2
    search = Search()
    assert run_task(task_of(config, tmp_path / "run", reported=2), search, ranks=ranks)["is_finished"]
    assert [row["epoch"] for row in search.rows] == [3, 4, 5, 6]
    for name in (BEST, LAST):
        assert_same(*(read_checkpoint(tmp_path / folder / name) for folder in ("run", "whole")))


@pytest.mark.slow
def test_a_task_of_two_processes_begins_with_the_state_of_another(config, tmp_path, ranks):  # noqa: F811
    run_task(task_of(config, tmp_path / "parent", objectives=["min val_loss"]), Search(epoch3="pause"), ranks=ranks)
    config["optimizer"]["args"]["lr"] = 0.0
    more = {"begins_from": str(tmp_path / "parent"), "reported": 3, "objectives": ["min val_loss"]}
    outcome = run_task(task_of(config, tmp_path / "child", **more), Search(epoch4="pause"), ranks=ranks)
    assert outcome["status"] == "ended", outcome
    before, after = (read_checkpoint(tmp_path / folder / LAST) for folder in ("parent", "child"))
    assert after["epoch"] == 4
    assert_same(after["state_dict"], before["state_dict"])


@pytest.mark.slow
def test_a_signal_saves_and_ends_all(config, tmp_path, ranks):  # noqa: F811
    def stop(message):
        if message.get("epoch") == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return "continue"

    outcome = run_task(task_of(config, tmp_path / "run"), stop, ranks=ranks)
    assert outcome == {"status": "interrupted", "signal": signal.SIGTERM}
    reported = read_checkpoint(tmp_path / "run" / LAST)["epoch"]
    assert reported >= 2
    search = Search()
    assert run_task(task_of(config, tmp_path / "run", reported=reported), search, ranks=ranks)["is_finished"]
    run_task(task_of(config, tmp_path / "whole"), Search(), ranks=ranks)
    assert_same(*(read_checkpoint(tmp_path / folder / LAST) for folder in ("run", "whole")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "process 1 of 2 is lost: its worker was ended by SIGKILL"),
        ("raise ValueError('of one')", "process 1 of 2: ValueError at PLUGIN:8: of one"),
    ],
    ids=["killed", "raised"],
)
def test_one_process_that_fails_fails_the_task(config, tmp_path, ranks, fate, reason):  # noqa: F811
    plugin = tmp_path / f"fails_{abs(hash(fate))}.py"
    plugin.write_text(PLUGIN.format(fate=fate))
    config["trainer"]["type"] = f"{plugin.stem}.Dies"
    search = Search()
    outcome = run_task(task_of(config, tmp_path / "run", plugins=[str(plugin)]), search, ranks=ranks)
    assert outcome["status"] == "failed"
    assert outcome["reason"].startswith(reason.replace("PLUGIN", plugin.name))
    assert len(search.rows) == 1
    assert read_checkpoint(tmp_path / "run" / LAST)["epoch"] == 1


def test_the_first_failure_is_the_cause():
    connection = {"status": "failed", "reason": "RuntimeError: Connection closed by peer", "at": 7.5}
    memory = {"status": "out_of_memory", "reason": "no more", "at": 7.1, "fresh_worker": True}
    outcome = outcome_of_all({0: connection, 1: memory}, {}, 2)
    assert outcome == {"status": "out_of_memory", "reason": "process 1 of 2: no more", "fresh_worker": True}
    ended = {"status": "ended", "is_finished": True}
    assert outcome_of_all({0: ended, 1: ended}, {}, 2) == ended
    with pytest.raises(Interrupted):
        outcome_of_all({0: ended, 1: {"status": "interrupted", "signal": 15}}, {}, 2)


# serial calls the function itself, table none.
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*EXECUTORS.entries} - {"serial", "table"}))
def test_executors_train_with_two_processes(config, tmp_path, name):  # noqa: F811
    config["trainer"]["epochs"] = 1
    executor = import_attribute(EXECUTORS.entries[name])()
    logs = tmp_path / "logs"
    logs.mkdir()
    executor.open(WORKER, logs)
    received = []

    def handle(message):
        received.append(message)
        return "continue" if isinstance(message, EpochReported) else ""

    payload = {"config": config, "folder": str(tmp_path / "run"), "reported": 0}
    executor.start(Task("1", "train", payload, resources={"gpus": 2}))
    while not isinstance(received[-1] if received else None, TaskFinished):
        executor.wait(handle, 1.0)
    executor.close()
    assert received[-1].outcome["status"] == "ended", received[-1]
    loop = read_checkpoint(tmp_path / "run" / LAST)["loop"]
    assert len(loop["loss_sums"]) == 2  # a row for each process
    assert list(logs.rglob("worker-0-processes/worker-1.log"))  # the output of the second one
