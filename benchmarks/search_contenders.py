"""The searches that are compared: ours by scheduler and sampler, and those of other packages."""

import fnmatch
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.peer_schedulers import OptunaPeer, Peer, SyneTuneASHA, SyneTunePeer, is_installed
from benchmarks.search_tasks import Task
from config import instantiate
from search.registry import REGISTRY
from search.samplers.base import Sampler
from search.samplers.random import RandomSampler
from search.schedulers.base import Scheduler
from search.schedulers.rungs import rung_epochs
from search.space.table_space import TableSpace
from utils.errors import ConfigError

Search = tuple[Scheduler, Sampler]
REFERENCE = "Syne Tune ASHA"
_STEEP = [(2, 6), (6, 4), (18, 2)]
# Our schedulers by a short name: the class and its arguments. Halving begins with as many as the budget is enough for.
_SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("RandomSearch", {}),
    "default": ("ASHA", {}),
    "stop-1": ("ASHA", {"mode": "stop", "grace_period": 1}),
    "stop-3": ("ASHA", {"mode": "stop", "grace_period": 3}),
    "promote-1": ("ASHA", {"mode": "promote", "grace_period": 1}),
    "promote-3": ("ASHA", {"mode": "promote", "grace_period": 3}),
    "halving": ("SuccessiveHalving", {"grace_period": 2}),
    "halving-steep": ("SuccessiveHalving", {"rungs": _STEEP}),
}
_WITH_SAMPLERS = ("default", "promote-1")  # under which samplers that learn are compared
# MOBSTER fits its model at each suggestion: half a minute of computing for one search. At every third is what
# Syne Tune does for DyHPO.
_FEWER_FITS = {"opt_skip_init_length": 0, "opt_skip_period": 3}


@dataclass(frozen=True)
class Contender:
    """A search.

    Attributes:
        name: As printed and written to the file.
        make: A scheduler in its first state and a sampler, for a task and a seed.
        is_model: Whether its draws depend on results.
        twin: Name of the search with the same scheduler that draws at random; empty: it is one itself.
        package: That must be installed.
    """

    name: str
    make: Callable[[Task, int], Search]
    is_model: bool = False
    twin: str = ""
    package: str = ""


def contenders(patterns: Sequence[str]) -> list[Contender]:
    """Return those whose names match a pattern, and those that a pattern describes.

    Args:
        patterns: As in a shell; or a scheduler and a sampler of ours as `SCHEDULER[:ARGS]+SAMPLER[:ARGS]`, by their
            names in the registry or above, with arguments as JSON; empty: all.

    Raises:
        SystemExit: A pattern is neither.
    """
    known = [*_ours(), *_peers()]
    chosen = []
    for pattern in patterns or ["*"]:
        found = [each for each in known if fnmatch.fnmatchcase(each.name, pattern)]
        if not found and "+" in pattern:
            found = [described(pattern)]
        if not found:
            names = "\n  ".join(each.name for each in known)
            raise SystemExit(f"{pattern}: no such contender. Write SCHEDULER+SAMPLER, or one of these:\n  {names}")
        chosen += found
    return list({each.name: each for each in chosen}.values())


def described(name: str) -> Contender:
    """Return the search of ours that `SCHEDULER[:ARGS]+SAMPLER[:ARGS]` describes."""
    try:
        scheduler, sampler = _split(name)
    except ValueError as error:
        raise SystemExit(f"{name}: arguments that are not JSON: {error}. Write NAME:{{...}}+NAME:{{...}}.") from None
    is_model = sampler["type"] != "random"
    twin = f"{name[: name.rindex('+')]}+random" if is_model else ""
    return Contender(name, partial(_our_search, scheduler, sampler), is_model, twin)


def _split(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the specs of scheduler and sampler."""
    specs = []
    for part in name.rsplit("+", 1):
        kind, _, args = part.partition(":")
        target, known = _SCHEDULERS.get(kind, (kind, {}))
        specs.append({"type": target, "args": {**known, **(json.loads(args) if args else {})}})
    return specs[0], specs[1]


def _our_search(scheduler: dict[str, Any], sampler: dict[str, Any], task: Task, seed: int) -> Search:
    """Return scheduler and sampler, built as a study builds them."""
    runtime = {"num_samples": _num_samples(scheduler, task), "max_epochs": task.epochs}
    try:
        made: Scheduler = instantiate(
            {"search": {"scheduler": scheduler}}, "search.scheduler", REGISTRY, runtime=runtime
        )
        return made, our_sampler(sampler, task.space.reseeded(seed), made)
    except ConfigError as error:
        raise SystemExit(str(error)) from None


def our_sampler(spec: dict[str, Any], space: TableSpace, scheduler: Scheduler, num_objectives: int = 1) -> Sampler:
    """Return a sampler of ours.

    Raises:
        ConfigError: There is none of this name, or its arguments do not fit.
    """
    known = {"space": space, "fidelities": scheduler.fidelities(), "num_objectives": num_objectives}
    sampler: Sampler = instantiate({"search": {"sampler": spec}}, "search.sampler", REGISTRY, runtime=known)
    return sampler


def learning_samplers() -> list[str]:
    """Return the names of our samplers that learn from results and need no arguments."""
    return [name for name in ("evolution", "gp", "auto") if name in REGISTRY["sampler"].entries]


def _num_samples(scheduler: dict[str, Any], task: Task) -> int:
    """Return as many candidates as the table has; for synchronous halving as many as the budget is enough for."""
    if scheduler["type"] != "SuccessiveHalving":
        return len(task.table)
    args = scheduler["args"]
    factor = args.get("reduction_factor", 3)
    rungs = args.get("rungs") or [
        (epochs, factor) for epochs in rung_epochs(task.epochs, args.get("grace_period", 3), factor)[:-1]
    ]
    levels = [0, *(epochs for epochs, _ in rungs), task.epochs]

    def cost(size: int) -> int:
        counts = [max(1, size // math.prod(factor for _, factor in rungs[:index])) for index in range(len(levels) - 1)]
        return sum(count * (end - start) for count, start, end in zip(counts, levels, levels[1:], strict=False))

    return max(size for size in range(1, len(task.table)) if cost(size) <= task.budget)


def _ours() -> list[Contender]:
    drawn_at_random = [described(f"{scheduler}+random") for scheduler in _SCHEDULERS]
    return drawn_at_random + [described(f"{each}+{name}") for name in learning_samplers() for each in _WITH_SAMPLERS]


def _peer_search(make: Callable[..., Peer], chooses: bool, task: Task, seed: int) -> Search:
    space = task.space.reseeded(seed)
    if not chooses:
        return make(task.epochs), RandomSampler(space)
    peer = make(task.epochs, space, seed=seed)
    return peer, peer


def _peers() -> list[Contender]:
    def row(name: str, package: str, make: Callable[..., Peer], twin: str = "") -> Contender:
        return Contender(name, partial(_peer_search, make, bool(twin)), bool(twin), twin, package)

    promotes = partial(SyneTunePeer, type="promotion")
    promote, halving, hyperband = "Syne Tune ASHA promote", "Optuna halving", "Optuna Hyperband"
    optuna = partial(row, package="optuna")
    syne_tune, legacy = partial(row, package="syne_tune"), partial(row, package="syne_tune.optimizer.legacy_baselines")
    return [
        syne_tune(REFERENCE, make=SyneTuneASHA),
        syne_tune(f"{REFERENCE} grace 3", make=partial(SyneTuneASHA, grace_period=3)),
        legacy(promote, make=partial(promotes, name="ASHA")),
        legacy("Syne Tune MOBSTER", make=partial(promotes, name="MOBSTER", search_options=_FEWER_FITS), twin=promote),
        legacy(
            "Syne Tune HyperTune",
            make=partial(promotes, name="HyperTune", brackets=4, search_options=_FEWER_FITS),
            twin=promote,
        ),
        legacy("Syne Tune DyHPO", make=partial(SyneTunePeer, name="DyHPO"), twin=promote),
        legacy("Syne Tune BOHB", make=partial(promotes, name="BOHB"), twin=promote),
        legacy("Syne Tune ASHA BORE", make=partial(promotes, name="ASHABORE"), twin=promote),
        optuna(halving, make=OptunaPeer),
        optuna(hyperband, make=partial(OptunaPeer, hyperband=True)),
        optuna("Optuna TPE halving", make=partial(OptunaPeer, sampler="TPESampler"), twin=halving),
        optuna("Optuna TPE Hyperband", make=partial(OptunaPeer, sampler="TPESampler", hyperband=True), twin=hyperband),
    ]


def installed(chosen: Sequence[Contender]) -> tuple[list[Contender], list[Contender]]:
    """Return those whose package is installed, and the others."""
    are = [each for each in chosen if not each.package or is_installed(each.package)]
    return are, [each for each in chosen if each not in are]
