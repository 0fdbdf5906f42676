"""How long a candidate of a search takes to start in a process that is warm.

    python benchmarks/candidate_start.py -c config/people/quickstart.json [path=value ...]

Trains one step of one epoch again and again, as a search's worker does: decoded data kept, each run in a folder of its
own with everything on that the config asks for. Counted is the time from the call of `train` to the first step's
request for a batch, and from the end of the epoch to the return of `train`: milliseconds by the clock, and those of the
processor, which hold on a machine that others use, too.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import build
from base import Callback
from config import load_config
from data_loader.common.image_cache import share_decoded
from train import train

if TYPE_CHECKING:
    from base import BaseTrainer

WARM_UPS = 2
KEPT_MB = 4096


def now() -> tuple[float, float]:
    """Milliseconds by the clock and of the processor."""
    return 1000 * perf_counter(), 1000 * process_time()


def since(started: tuple[float, float], ended: tuple[float, float]) -> tuple[float, float]:
    """Milliseconds between two moments."""
    return ended[0] - started[0], ended[1] - started[1]


class Clock(Callback):
    """Notes when the first epoch begins and when it has ended."""

    begun = ended = (0.0, 0.0)

    def on_epoch_start(self, trainer: "BaseTrainer") -> None:
        """The trainer is about to ask for its first batch."""
        self.begun = now()

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """The only epoch is over; its last checkpoint is still to be written."""
        self.ended = now()


class ModelClock:
    """Takes the place of `build.build_model` and says how long it took last."""

    def __init__(self) -> None:
        self.taken = (0.0, 0.0)
        self._build = build.build_model

    def build(self, *arguments: Any) -> Any:
        """Build a network."""
        started = now()
        try:
            return self._build(*arguments)
        finally:
            self.taken = since(started, now())


def measure(config: dict[str, Any], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of each round, by the clock and of the processor."""
    taken: dict[str, list[tuple[float, float]]] = {"start": [], "  the model": [], "  the rest": [], "end": []}
    model_clock = ModelClock()
    build.build_model = model_clock.build  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as scratch, share_decoded(KEPT_MB):
        for number in range(WARM_UPS + rounds):
            clock, called = Clock(), now()
            train({**config, "seed": number}, [clock], run_folder=Path(scratch) / str(number))
            start, model = since(called, clock.begun), model_clock.taken
            parts = (start, model, since(model, start), since(clock.ended, now()))
            for values, part in zip(taken.values(), parts, strict=True):
                values.append(part)
    return {name: values[WARM_UPS:] for name, values in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", default="config/people/quickstart.json")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("overrides", nargs="*", metavar="path=value")
    arguments = parser.parse_args()
    quick = ["trainer.epochs=1", "trainer.len_epoch=1", "trainer.verbosity=0", "train_loader.args.n_workers=0"]
    config = load_config(arguments.config, [*quick, *arguments.overrides])
    print(f"{'':12} {'clock':>10} {'processor':>12}   ms, median of {arguments.rounds}")
    for name, values in measure(config, arguments.rounds).items():
        clock, processor = (statistics.median(each[part] for each in values) for part in (0, 1))
        print(f"{name:12} {clock:10.1f} {processor:12.1f}")


if __name__ == "__main__":
    main()
