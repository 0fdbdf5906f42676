"""How long a candidate of a search takes to start in a process that is warm.

    python benchmarks/candidate_start.py -c config/people/quickstart.json [path=value ...]

Trains one step of one epoch again and again, as a search's worker does: decoded data kept, each run in a folder of its
own with everything on that the config asks for. Counted is the time from the call of `train` to the first step's
request for a batch, and from the end of the epoch to the return of `train`.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from base import Callback
from config import assemble, load_config
from data_loader.kept import keeping
from train import train

if TYPE_CHECKING:
    from base import BaseTrainer

WARM_UPS = 2
KEPT_MB = 4096


class Clock(Callback):
    """Notes when the first epoch begins and when it has ended."""

    begun = ended = 0.0

    def on_epoch_start(self, trainer: "BaseTrainer") -> None:
        """The trainer is about to ask for its first batch."""
        self.begun = perf_counter()

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """The only epoch is over; its last checkpoint is still to be written."""
        self.ended = perf_counter()


class ModelClock:
    """Takes the place of `assemble.build_model` and adds up what it takes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._build = assemble.build_model

    def build(self, *arguments: Any) -> Any:
        """Build a network."""
        started = perf_counter()
        try:
            return self._build(*arguments)
        finally:
            self.seconds = perf_counter() - started


def measure(config: dict[str, Any], rounds: int) -> list[tuple[float, float, float]]:
    """Milliseconds of each round: to the first step, thereof building the model, and from the epoch's end on."""
    taken = []
    model_clock = ModelClock()
    assemble.build_model = model_clock.build  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as scratch, keeping(KEPT_MB):
        for number in range(WARM_UPS + rounds):
            clock, called = Clock(), perf_counter()
            train({**config, "seed": number}, [clock], run_folder=Path(scratch) / str(number))
            returned = perf_counter()
            taken.append((clock.begun - called, model_clock.seconds, returned - clock.ended))
    return [(1000 * start, 1000 * model, 1000 * end) for start, model, end in taken[WARM_UPS:]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", default="config/people/quickstart.json")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("overrides", nargs="*", metavar="path=value")
    arguments = parser.parse_args()
    quick = ["trainer.epochs=1", "trainer.len_epoch=1", "trainer.verbosity=0", "train_loader.args.n_workers=0"]
    config = load_config(arguments.config, [*quick, *arguments.overrides])
    rounds = measure(config, arguments.rounds)
    starts, models, ends = ([each[part] for each in rounds] for part in range(3))
    rest = [start - model for start, model in zip(starts, models, strict=True)]
    for name, values in (("start", starts), ("  the model", models), ("  the rest", rest), ("end", ends)):
        print(f"{name:12} {statistics.median(values):7.1f} ms   ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main()
