"""What any strategy of the registry must hold to, whatever happens to its workers and candidates."""

import random

import pytest

import search.study.driver as driver_module
from search.strategies import SECTIONS
from search.study.settings import build_study_parts
from search.study.study import Study
from tests.support.sampler_laws import MARKED
from tests.support.simulated_study import Simulation, World, copied, put_back, results
from tests.support.slow import slow_unless
from tests.test_search_conformance import ALL as ALL_SCHEDULERS

EPOCHS = 9
SUPERNET = {"arch": "Supernet", "trainer": {"type": "BilevelTrainer"}}
CELLS = {
    "blocks": 3, "lookbacks": 1, "operators": ["identity", "3x3 conv"], "max_children": 2, "pnas_mode": True
}  # fmt: skip
CASES = {
    "MultiFidelity": [
        {"scheduler": {"type": name, "args": args}, "retrain": {"top": 2, "epochs": 3}, "num_samples": 9}
        for name, args in ALL_SCHEDULERS
    ],
    "PBT": [
        {"args": {"interval": 2}, "num_samples": 6},
        {"args": {"interval": 4, "quantile": 0.5, "resample": 1.0}, "num_samples": 5},
        {"args": {"interval": 9}, "num_samples": 3},
        {"args": {"interval": 1, "perturb": [], "factor": 2.0}, "num_samples": 4},
    ],
    "Grid": [
        {"study": {"conditions": {"a": {}, "b": {"x": 2}}, "seeds": 2}},
        {"study": {"conditions": {"a": {}}, "seeds": 2, "folds": 2}},
    ],
    "AutoDeepLab": [
        {"args": {"supernet": SUPERNET}, "retrain": {"top": 2, "epochs": 3, "seeds": 2}, "num_samples": 4},
        {"args": {"supernet": SUPERNET, "decode_epoch": 2}, "retrain": {"top": 1, "epochs": 3}, "num_samples": 3},
    ],
    "POPNAS": [
        {"args": CELLS, "retrain": {"top": 1, "epochs": 3}},
        {"args": {**CELLS, "max_exploration": 1}, "scheduler": {"type": "Hyperband", "args": {}}, "num_samples": 8},
        {"args": CELLS, "scheduler": {"type": "ASHA", "args": {"grace_period": 1}}},
    ],
}
ALL = [(name, case) for name in SECTIONS["strategy"].entries for case in CASES.get(name, [{}])]
IDS = [f"{name}-{case.get('scheduler', case.get('args', ''))}" for name, case in ALL]
# The decisions of these depend on which candidate was reported first.
ASYNCHRONOUS = ("ASHA",)
FATES = ("refused", "out_of_memory", "fails", "hangs", "finishes", "diverges")
SAVING = ("out_of_memory_saving", "fails_saving", "hangs_saving")
WORLDS = {
    "quiet": World(),
    "troubled": World(dict.fromkeys(FATES, 0.1), deaths=0.05),
    "trouble while saving": World(dict.fromkeys((*FATES, *SAVING), 0.07), deaths=0.1),
    "all fail": World({"fails_first": 1.0}),
    "all equal": World(is_constant=True),
    "all diverge": World({"diverges": 1.0}),
    "all finish early": World({"finishes": 1.0}),
}
every_strategy = pytest.mark.parametrize(("name", "case"), ALL, ids=IDS)
WITH_A_WINNER = [name for name, world in WORLDS.items() if "fails_first" not in world.fates]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(driver_module, "_TICK", 0.0)


def builder(name, case, space="conditional", *, objectives=("max val_miou",), **options):
    """A function that builds the parts of a study of a strategy."""
    case = {**case, **options}
    config = {"name": "s", "trainer": {"epochs": EPOCHS}, "search": {"objectives": list(objectives), **case}}
    if "study" in case:  # it has neither searched values nor a number of samples
        loader = {"type": "Some", "args": {"validation_split": 0.2}}
        config |= {"x": 1, "train_loader": loader, "valid_loader": "Other"}
        for key in ("num_samples", "retrain"):
            config["search"].pop(key, None)
        config["search"]["objectives"] = ["max val_miou"]
    else:
        if name == "POPNAS":  # it draws no values, and chooses the cells itself
            config |= {"arch": {"type": "Network", "args": {}}}
            config["search"].pop("sampler", None)
        else:
            config |= MARKED[space]
        strategy = {"type": name, "args": config["search"].pop("args", {})}
        config["search"] = {"num_samples": 5, "seed": 3, "strategy": strategy, **config["search"]}
        if name == "POPNAS" and "num_samples" not in case:
            del config["search"]["num_samples"]
    return lambda: build_study_parts(config)


def test_every_strategy_of_the_registry_is_covered(record_property):
    assert set(CASES) <= set(SECTIONS["strategy"].entries)
    record_property("covered", f"strategies: {len(SECTIONS['strategy'].entries)} in {len(ALL)} cases")


@every_strategy
@pytest.mark.parametrize("world", slow_unless({"quiet", "trouble while saving"}.__contains__, WITH_A_WINNER))
def test_a_study_ends_whatever_happens(tmp_path, name, case, world):
    for seed, workers in enumerate((1, 2, 16)):
        folder = tmp_path / str(seed)
        simulation = Simulation(folder, builder(name, case, limits={}), WORLDS[world], workers, seed)
        study = simulation.run()
        again = Study(folder, simulation.build_parts(), worker="")
        simulation.restore(again)
        assert results(again) == results(study), "it is read as it was"


@every_strategy
def test_synchronous_decisions_do_not_depend_on_workers_and_time(tmp_path, name, case):
    if case.get("scheduler", {}).get("type") in ASYNCHRONOUS:
        return
    sampler = {} if "study" in case else {"sampler": "random"}  # what others propose depends on what is known by then
    found = set()
    for seed, workers in enumerate((1, 2, 16)):
        build = builder(name, case, limits={}, **sampler)
        found.add(results(Simulation(tmp_path / str(seed), build, WORLDS["troubled"], workers, seed).run()))
    assert len(found) == 1


@every_strategy
def test_a_full_disk_stops_a_study_and_is_no_result_of_any_run(tmp_path, name, case):
    if case.get("scheduler", {}).get("type") in ASYNCHRONOUS:
        return
    sampler = {} if "study" in case else {"sampler": "random"}
    build, full = builder(name, case, limits={}, **sampler), World({"fills_disk": 0.5, "fills_disk_saving": 0.5})
    expected = results(Simulation(tmp_path / "space", build, World()).run())
    for workers in (1, 2):
        simulation = Simulation(tmp_path / str(workers), build, full, workers)
        study = simulation.run()
        assert simulation.num_sessions > 1
        assert results(study) == expected
        assert not any(event.data.get("status") == "failed" for event in simulation.events)


@every_strategy
def test_a_study_continues_from_any_prefix_of_its_journal(tmp_path, name, case):
    """Killed after each event before it took effect, with the files as they were then."""
    case = {**case, "num_samples": min(case.get("num_samples", 4), 4)}
    num_workers = 1 if case.get("scheduler", {}).get("type") in ASYNCHRONOUS else 2
    simulation = Simulation(tmp_path, builder(name, case, limits={}), WORLDS["troubled"], num_workers)
    stored = []
    expected = results(simulation.session(watchers=[lambda *_: stored.append(copied(tmp_path))]))
    events = simulation.events
    for count in range(1, len(events), max(1, len(events) // 12)):
        put_back(tmp_path, stored[count - 1])
        simulation.events, simulation.num_sessions, simulation.seed = events[: count + 1], 0, count
        assert results(simulation.run()) == expected, f"after {count}: {events[count].name}"


@every_strategy
@pytest.mark.parametrize("world", slow_unless("troubled".__eq__, ["troubled", "trouble while saving"]))
def test_a_study_that_is_killed_and_commanded_at_any_time_ends(tmp_path, name, case, world):
    for seed, workers in enumerate((2, 16)):
        chance = random.Random(seed)
        kills = [chance.randrange(1, 25) for _ in range(8)]
        build = builder(name, case, limits={}, objectives=("max val_miou", "min params")[: 1 + seed % 2])
        study = Simulation(tmp_path / str(seed), build, WORLDS[world], workers, seed, commands=0.03, stops=0.002).run(
            kills
        )
        assert study.strategy.is_done


@every_strategy
@pytest.mark.parametrize("space", MARKED)
def test_any_space_is_searched(tmp_path, name, case, space):
    """Also one of a single candidate, one that is soon exhausted, and one in which only seeds differ."""
    study = Simulation(tmp_path, builder(name, case, space), WORLDS["quiet"], 2).run()
    assert study.strategy.winner() is not None


@every_strategy
def test_nothing_that_can_be_trained_leaves_no_winner(tmp_path, name, case):
    study = Simulation(tmp_path, builder(name, {**case, "retrain": None}), WORLDS["all fail"], 2).run()
    assert study.strategy.winner() is None
    assert {each.record.status for each in study.state.candidates.values()} <= {"failed", "duplicate"}


@every_strategy
def test_a_budget_ends_it_and_a_larger_one_continues_it(tmp_path, name, case):
    build = builder(name, {**case, "retrain": None}, budget={"epochs": 7})
    simulation = Simulation(tmp_path, build, WORLDS["quiet"], 1)
    study = simulation.run()
    assert study.state.epochs == 7
    simulation.build_parts = builder(name, {**case, "retrain": None})
    whole = Simulation(tmp_path / "whole", simulation.build_parts, WORLDS["quiet"], 1).run()
    assert results(simulation.run()) == results(whole)
