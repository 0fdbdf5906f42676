"""Random histories of each strategy, with simulated workers: `python benchmarks/search_histories.py --histories 300`.

Each has 1 to 16 workers that die, hang and fail at any moment, a user who commands now and then, and a search that is
killed at random events and continued. At the end, the journal is read again, and cut at random events and continued
from there. A history that raises, or loses or repeats a report, is an error, which is printed with its number.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import search.study.driver
from tests.support.sampler_laws import MARKED
from tests.support.simulated_study import Simulation, copied, put_back
from tests.test_search_strategies import ALL, WORLDS, builder


def run_history(number: int, name: str, case: dict[str, Any], folder: Path) -> None:
    """Run a history, and continue it from some prefixes of its journal."""
    chance = random.Random(number)
    objectives = ("max val_miou", "min params")[: chance.choice([1, 1, 2])]
    space = chance.choice(list(MARKED))
    budget = {"budget": {"epochs": chance.randrange(5, 60)}} if chance.random() < 0.2 and "study" not in case else {}
    options = {**case, "retrain": None} if chance.random() < 0.5 else case
    world = chance.choice(list(WORLDS.values()))
    build = builder(name, options, space, objectives=objectives, limits={}, **budget)
    workers = chance.randrange(1, 17)
    commands, stops = chance.choice([0.0, 0.02, 0.1]), chance.choice([0.0, 0.01])
    simulation = Simulation(folder, build, world, workers, number, commands=commands, stops=stops)
    kills = [chance.randrange(1, 40) for _ in range(chance.randrange(6))]
    stored = []
    simulation.run(kills, watchers=[lambda *_: stored.append((len(simulation.events), copied(folder)))])
    events = simulation.events
    for count, files in chance.sample(stored, min(3, len(stored))):
        put_back(folder, files)
        simulation.events, simulation.num_sessions, simulation.seed = events[:count], 0, number + count
        simulation.run()


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--strategies", nargs="+", default=["MultiFidelity", "PBT", "Grid"])
    arguments = parser.parse_args()
    search.study.driver._TICK = 0.0
    cases = [(name, case) for name, case in ALL if name in arguments.strategies]
    begin, faults = time.monotonic(), 0
    for number in range(arguments.first, arguments.first + arguments.histories):
        name, case = cases[number % len(cases)]
        with tempfile.TemporaryDirectory() as folder:
            try:
                run_history(number, name, case, Path(folder))
            except Exception as error:
                if "none of" in str(error) or "has a finite value" in str(error):  # nothing to train again
                    continue
                faults += 1
                place = traceback.extract_tb(error.__traceback__)[-1]
                print(f"history {number}, {name} {case}: {type(error).__name__} at {place.name}: {error}", flush=True)
    seconds = time.monotonic() - begin
    print(f"{arguments.histories} histories in {seconds:.0f} s, {faults} faults")


if __name__ == "__main__":
    main()
