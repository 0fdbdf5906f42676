"""What a proposal of a sampler that learns costs: `python benchmarks/sampler_cost.py [--samplers auto evolution]`.

The study has 100 and 1,000 candidates whose curves end where ASHA ends them: each rung of trainings of 50 epochs is
passed by a third of those that reach it. In the second rows all of them are trained in full. The spaces are that of
`config/search/encdec_people.json` and one of eight numbers; a curve approaches a value that is better near a hidden
candidate. Seconds are those of the processor, with one thread, so that other work on the machine does not count.
Proposals that are random draws are left out.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from config.loading.load import load_config
from config.objects import instantiate
from search.samplers import SECTIONS
from search.samplers.base import Observation, Sampler
from search.schedulers.asha import ASHA
from search.space.space import Space

EPOCHS = 50
NUMBERS: dict[str, Any] = {"name": "numbers", "args": {f"x{number}": {"$uniform": [0, 1]} for number in range(8)}}
PEOPLE = "config/search/encdec_people.json"


def finished(space: Space, count: int, rungs: tuple[int, ...], is_full: bool) -> list[Observation]:
    """Return candidates with their curves."""
    rng = np.random.default_rng(0)
    drawn = [space.random(number) for number in range(count)]
    points = np.array([space.vector(each)[0] for each in drawn])
    quality = -((points - rng.random(points.shape[1])) ** 2).mean(axis=1)
    ended = np.full(count, rungs[-1])
    order = np.argsort(-quality, kind="stable")
    for place, rung in enumerate(rungs[:-1]):  # of all candidates, a third fewer reach each next rung
        ended[order[count // 3 ** (place + 1) :]] = np.minimum(ended[order[count // 3 ** (place + 1) :]], rung)
    epochs = np.arange(1, EPOCHS + 1)
    curves = quality[:, None] - 0.5 / epochs + rng.normal(scale=0.01, size=(count, EPOCHS))
    lengths = np.full(count, EPOCHS) if is_full else ended
    return [
        Observation(number, drawn[number], tuple((float(value),) for value in curves[number, : lengths[number]]))
        for number in range(count)
    ]


def seconds_of(sampler: Sampler, known: list[Observation], repeats: int) -> list[float]:
    """Return the seconds of proposals that are made because of results, that of a new process first."""
    taken: list[float] = []
    for number in range(len(known), len(known) + 4 * repeats):
        begun = time.process_time()
        proposed = sampler.propose(number, known)
        elapsed = time.process_time() - begun
        if proposed is not None and proposed.origin == "model":
            taken.append(elapsed)
        if len(taken) == repeats:
            break
    return taken


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", default=["auto"])
    parser.add_argument("--candidates", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    rungs = ASHA(max(options.candidates), EPOCHS, grace_period=1).fidelities()
    configs = {PEOPLE: load_config(PEOPLE), "eight numbers": NUMBERS}
    print(f"rungs {rungs}; seconds of the processor: median, most, first of {options.repeats} proposals; beliefs")
    for sampler_name in options.samplers:
        for space_name, config in configs.items():
            for is_full in (False, True):
                for count in options.candidates:
                    space = Space(config)
                    runtime = {"space": space, "fidelities": rungs, "num_objectives": 1}
                    sampler: Sampler = instantiate(
                        {"search": {"sampler": sampler_name}}, "search.sampler", SECTIONS, runtime=runtime
                    )
                    known = finished(space, count, rungs, is_full)
                    taken = seconds_of(sampler, known, options.repeats)
                    begun = time.process_time()
                    sampler.beliefs(known)
                    beliefs = time.process_time() - begun
                    figures = f"{statistics.median(taken):.3f} {max(taken):.3f} {taken[0]:.3f}; {beliefs:.3f}"
                    ended = "in full" if is_full else "as ASHA ends them"
                    print(f"{sampler_name}, {space_name}, {count} candidates {ended}: {figures}", flush=True)


if __name__ == "__main__":
    main()
