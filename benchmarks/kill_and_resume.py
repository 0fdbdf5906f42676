"""Kill a training with SIGKILL again and again, resume it each time, and compare it with one left in peace.

    python benchmarks/kill_and_resume.py -c config/people/quickstart.json --kills 30 trainer.epochs=4

Half of the kills happen right after a random training step, the others a random moment later, which may be in the
middle of a step, of a validation or of writing a checkpoint. Each resume uses another number of workers. With several
processes any one of them is killed, and the others end as torchrun has them end. Passes if the weights, metrics.csv and
the history are the same bytes; exits with 1 if not.
"""

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from base import BaseTrainer, Callback
from base.callback import StepReport
from config import load_config
from train import train
from utils.checkpoint_file import read_checkpoint

WORKERS = (2, 0, 1, 3)


class KillAt(Callback):
    """Ends this process as `kill -9` does.

    Args:
        step: The global step after which to die.
        delay_seconds: How long after it.
    """

    def __init__(self, step: int, delay_seconds: float) -> None:
        self.step = step
        self.delay_seconds = delay_seconds

    def on_step_end(self, trainer: BaseTrainer, report: StepReport) -> None:
        """Die if it is time."""
        if trainer.global_step < self.step:
            return
        if self.delay_seconds:
            threading.Timer(self.delay_seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
            self.step = sys.maxsize
        else:
            os.kill(os.getpid(), signal.SIGKILL)


def with_workers(config: dict[str, Any], workers: int) -> dict[str, Any]:
    """The config with another number of workers in its training loader."""
    for section in ("train_loader", "data_loader"):
        if section in config:
            config[section]["args"]["n_workers"] = workers
    return config


def child(
    arguments: argparse.Namespace, save_dir: str, workers: int, kill: KillAt | None, environment: dict[str, str]
) -> None:
    """One process of the run: goes on where the last one died."""
    os.setpgrp()
    os.environ.update(environment)
    if not arguments.verbose:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    config = with_workers(load_config(arguments.config, arguments.overrides), workers)
    config["trainer"] |= {"save_dir": save_dir, "save_every_steps": arguments.save_every_steps}
    train(config, [kill] if kill else [], resume="auto", devices=arguments.devices)


def environments(processes: int) -> list[dict[str, str]]:
    """What torchrun tells each of its processes; nothing where there is one alone."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(processes)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def run_children(arguments: argparse.Namespace, save_dir: str, workers: int, kill: KillAt | None = None) -> int:
    """Run the processes to their end or the first death; the exit code of that one, else 0."""
    context = multiprocessing.get_context("spawn")
    doomed = kill.step % arguments.processes if kill else 0
    started = [
        context.Process(target=child, args=(arguments, save_dir, workers, kill if rank == doomed else None, each))
        for rank, each in enumerate(environments(arguments.processes))
    ]
    for process in started:
        process.start()
    code = 0
    # One list: without any sentinel, if the last process ended in between, the wait would have no end.
    while not code and (alive := [process.sentinel for process in started if process.is_alive()]):
        multiprocessing.connection.wait(alive)
        code = next((process.exitcode for process in started if process.exitcode), 0)
    for process in started:
        process.kill()
        process.join()
    return code


def outcome(save_dir: str) -> tuple[Path, dict[str, Any]]:
    """The one run below a folder and its last checkpoint."""
    (folder,) = [path.parent for path in Path(save_dir).glob("*/*/checkpoint-last.pth")]
    return folder, read_checkpoint(folder / "checkpoint-last.pth")


def differences(left: Path, right: Path) -> list[str]:
    """What two runs do not have in common."""
    found = []
    for name in ("checkpoint-last.pth", "model_best.pth"):
        one, other = read_checkpoint(left / name), read_checkpoint(right / name)
        for key in ("state_dict", "optimizer", "rng", "lr_scheduler", "monitor", "epoch", "global_step"):
            if fingerprint(one[key]) != fingerprint(other[key]):
                found.append(f"{name}: {key}")
        if json.dumps(one["history"]) != json.dumps(other["history"]):
            found.append(f"{name}: history")
    for name in ("metrics.csv", "metrics.jsonl"):
        if (left / name).read_bytes() != (right / name).read_bytes():
            found.append(name)
    return found


def fingerprint(value: Any) -> Any:
    """A value with its tensors as bytes."""
    if isinstance(value, dict):
        return {key: fingerprint(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fingerprint(item) for item in value]
    return value.numpy().tobytes() if hasattr(value, "numpy") else value


def main() -> int:
    """Run both and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", required=True)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--save-every-steps", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="as many as torchrun would begin")
    parser.add_argument("-d", "--devices")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as peaceful, tempfile.TemporaryDirectory() as killed:
        started = time.perf_counter()
        if run_children(arguments, peaceful, WORKERS[0]) != 0:
            print("The uninterrupted run failed; see it with --verbose.")
            return 1
        seconds = time.perf_counter() - started
        reference, state = outcome(peaceful)
        total = state["global_step"]
        print(f"Uninterrupted: {total} steps, {seconds:.0f} s")
        steps = sorted(chance.choices(range(1, total), k=arguments.kills))
        died = 0
        for number, step in enumerate(steps):
            kill = KillAt(step, chance.random() if number % 2 else 0.0)
            died += run_children(arguments, killed, WORKERS[(number + 1) % len(WORKERS)], kill) == -signal.SIGKILL
        last = run_children(arguments, killed, WORKERS[0])
        found = differences(reference, outcome(killed)[0]) if last == 0 else [f"the last resume ended with {last}"]
        print(f"Killed {died} times from steps {steps} on, resumed with {WORKERS} workers in turn")
        print("IDENTICAL: weights, optimizer, generators, metrics, history" if not found else f"DIFFERENT: {found}")
    return int(bool(found) or died < arguments.kills)


if __name__ == "__main__":
    sys.exit(main())
