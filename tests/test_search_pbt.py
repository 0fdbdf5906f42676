"""Population based training: who replaces whom, which values change, and from which checkpoint a child begins."""

import json

import numpy as np
import pytest

from search.schedulers.base import Decision, Ending, Job, Need
from search.schedulers.population import Offspring, Population
from search.space.walk import Site
from search.strategies.pbt import PBT, perturbed
from search.study.folders import create_study_folder
from search.study.journal import JOURNAL, read_events
from search.study.settings import build_study_parts
from search.study.study import Study, read
from tests.support.search_worker import WORKER, value_at
from utils.errors import ConfigError

EPOCHS = 6
OPTIMIZER = {"type": "SGD", "args": {"lr": {"$loguniform": [0.001, 1.0]}, "momentum": {"$choice": [0.5, 0.8, 0.9]}}}


def config_of(num_samples=4, **args):
    search = {"num_samples": num_samples, "objectives": ["max val_miou"], "seed": 1}
    return {
        "name": "sample",
        "quality": {"$uniform": [0.1, 0.9]},
        "size": 3,
        "optimizer": OPTIMIZER,
        "trainer": {"epochs": EPOCHS},
        "search": search | {"strategy": {"type": "PBT", "args": {"interval": 2, "quantile": 0.25, **args}}},
    }


def population(values, **options):
    """A population whose members have reported these values at the end of the first round of two epochs."""
    found = Population(len(values), EPOCHS, **{"interval": 2, "quantile": 0.25, **options})
    for number in range(len(values)):
        assert found.ask() == Need()
        assert found.admit(number) == Job(number, 0, 2)
    for number, value in enumerate(values):
        assert found.report(number, 1, (0.0,)).decision is Decision.CONTINUE
        assert found.report(number, 2, (value,)).decision is Decision.PAUSE
    return found


def test_the_worst_is_replaced_by_a_child_of_the_best():
    found = population([0.4, 0.9, 0.1, 0.5])
    assert found.ask() == Offspring(parent=1, epochs=2, replaces=2)
    assert found.admit(4) == Job(4, 2, 4)
    assert [found.ask() for _ in range(4)] == [Job(0, 2, 4), Job(1, 2, 4), Job(3, 2, 4), None]
    assert found.rungs()[0].promoted == (0, 1, 3)
    assert not found.may_resume(2)


def test_values_of_earlier_rounds_do_not_count():
    found = population([0.4, 0.9, 0.1, 0.5])
    found.admit(4)
    jobs = list(iter(found.ask, None))
    for candidate, value in {4: 0.2, **{job.candidate: 0.3 + 0.1 * job.candidate for job in jobs}, 1: 0.0}.items():
        found.report(candidate, 3, (0.9,))
        found.report(candidate, 4, (value,))
    assert found.ask() == Offspring(parent=3, epochs=4, replaces=1)


def test_a_failed_member_is_replaced_whatever_the_share_and_never_a_parent():
    found = Population(6, EPOCHS, interval=2, quantile=0.2)
    for number in range(6):
        found.admit(number)
    for number in (0, 1, 2, 3):
        found.end(number, Ending.FAILED)
    for number in (4, 5):
        found.report(number, 1, (0.1,))
        found.report(number, 2, (0.1,))
    needs = []
    while isinstance(need := found.ask(), Offspring):
        needs.append(need)
        found.admit(6 + len(needs))
    assert [need.replaces for need in needs] == [0, 1, 2, 3]
    assert {need.parent for need in needs} <= {4, 5}


def test_without_any_result_nothing_is_replaced():
    found = population([float("nan")] * 4)
    assert [found.ask() for _ in range(5)] == [*(Job(number, 2, 4) for number in range(4)), None]


def test_one_that_is_withdrawn_makes_room_in_the_first_round_only():
    found = Population(2, EPOCHS, interval=2, quantile=0.5)
    found.admit(0)
    found.admit(1)
    assert found.ask() is None
    found.end(1, Ending.WITHDRAWN)
    assert found.ask() == Need()
    found.admit(2)
    for number in (0, 2):
        found.report(number, 1, (0.1 * number,))
        found.report(number, 2, (0.1 * number,))
    assert found.ask() == Offspring(2, 2, 0)
    found.admit(3)
    found.end(3, Ending.WITHDRAWN)
    assert found.ask() == Job(2, 2, 4)
    found.report(2, 3, (0.1,))
    found.report(2, 4, (0.1,))
    assert found.ask() == Offspring(2, 4, 3)


def test_it_grows_until_the_first_round_is_over():
    found = Population(2, EPOCHS, interval=2, quantile=0.5)
    found.grow(3)
    assert found.num_vacant == 3
    grown = population([0.1, 0.2])
    with pytest.raises(ConfigError, match=r"search.num_samples 3: Population cannot continue with other than its 2"):
        grown.grow(3)


@pytest.mark.parametrize(("quantile", "interval", "message"), [(0.6, 2, "quantile 0.6: must"), (0.2, 0, "interval 0")])
def test_arguments_out_of_range_are_refused(quantile, interval, message):
    with pytest.raises(ConfigError, match=message):
        Population(4, EPOCHS, interval=interval, quantile=quantile)


@pytest.mark.parametrize(
    ("marker", "chosen", "factor", "expected"),
    [
        ({"$uniform": [0, 1]}, 0.5, 1.2, 0.6),
        ({"$uniform": [0, 1]}, 0.9, 1.2, 1.0),
        ({"$loguniform": [0.001, 1]}, 0.012, 1 / 1.2, 0.01),
        ({"$range": [1, 5]}, 2, 1.2, 3),
        ({"$range": [1, 5]}, 4, 1.2, 4),
        ({"$range": [0, 1000]}, 100, 1.2, 120),
        ({"$range": [10, 0, -5]}, 10, 1 / 1.2, 5),
        ({"$logrange": [1, 64]}, 1, 1.2, 2),
        ({"$choice": [0.9, 0.5, 0.8]}, 1, 1.2, 2),  # from 0.5 to 0.8
        ({"$choice": [0.9, 0.5, 0.8]}, 0, 1.2, 0),
        ({"$choice": ["a", "b"]}, 0, 1.2, 0),
        ({"$choice": [True, False]}, 0, 1.2, 0),
    ],
)
def test_a_number_is_changed_a_little_within_its_marker(marker, chosen, factor, expected):
    assert perturbed(Site("x", "", (), marker), chosen, factor) == pytest.approx(expected)


def studied(tmp_path, config):
    parts = build_study_parts(config)
    study = Study(create_study_folder(str(tmp_path), "sample", config), parts, worker=WORKER)
    return study, study.run()


def test_a_child_has_its_parents_values_but_those_that_may_change(tmp_path):
    _, record = studied(tmp_path, config_of(resample=0.0))
    children = [each for each in record.candidates if each.inherited]
    assert len(children) == 2
    for child in children:
        parent = next(
            each for each in record.candidates if each.reports[: child.inherited] == child.reports[: child.inherited]
        )
        before, now = dict(parent.drawn), dict(child.drawn)
        assert now["quality"] == before["quality"]
        ratio = now["optimizer.args.lr"] / before["optimizer.args.lr"]
        assert np.isclose([ratio, 1 / ratio], 1.2, rtol=1e-4).any() or now["optimizer.args.lr"] in (0.001, 1.0)
        assert child.seed != parent.seed


def test_the_paths_that_change_can_be_named(tmp_path):
    _, record = studied(tmp_path, config_of(perturb=["quality"]))
    child = next(each for each in record.candidates if each.inherited)
    lrs = [dict(each.drawn)["optimizer.args.lr"] for each in record.candidates[:4]]
    assert dict(child.drawn)["optimizer.args.lr"] in lrs
    with pytest.raises(ConfigError, match=r'perturb "arch": no searched value is there \(quality, optimizer.args.lr'):
        studied(tmp_path, config_of(perturb=["arch"]))


def test_epochs_that_are_inherited_are_trained_once(tmp_path):
    study, record = studied(tmp_path, config_of())
    events = [event for event in read_events(study.folder / JOURNAL) if event.kind == "report"]
    assert len(events) == 4 * EPOCHS == study.state.epochs
    finals = [each for each in record.candidates if each.epochs == EPOCHS]
    assert len(finals) == 4
    assert sum(len(each.own_reports) for each in record.candidates) == 4 * EPOCHS
    assert read(study.folder, build_study_parts(config_of())) == record


def test_the_report_has_the_schedule_of_the_winner(tmp_path):
    study, record = studied(tmp_path, config_of())
    winner = json.loads((study.folder / "best" / "result.json").read_text())["candidate"]
    schedule, replaced = record.sections
    head, *rows = schedule["table"]
    assert head == ["epochs", "candidate", "optimizer.args.lr", "optimizer.args.momentum", "max val_miou"]
    assert rows[-1][1] == winner
    assert rows[-1][0].endswith(f"to {EPOCHS}")
    assert replaced["table"][0] == ["epoch", "child", "parent", "max val_miou of the parent"]
    assert [row[0] for row in replaced["table"][1:]] == [2, 4]


def test_a_child_begins_with_its_parents_state_of_that_epoch(tmp_path):
    """Also if the parent is trained further first; the link is gone once the child has a checkpoint."""
    study, record = studied(tmp_path, config_of())
    for child in (each for each in record.candidates if each.inherited):
        folder = study.folder / (child.folder or "")
        assert not (folder / "parent").exists()
        qualities = [dict(each.drawn)["quality"] for each in record.candidates]
        values = [row["val_miou"] for row in child.reports]
        quality = dict(child.drawn)["quality"]
        assert quality in qualities[:4]
        assert values == [value_at(quality, epoch) for epoch in range(1, len(values) + 1)]


def test_a_scheduler_or_a_retraining_is_refused():
    for key, value, message in (
        ("scheduler", "ASHA", "search.scheduler: ASHA, and PBT decides itself"),
        ("retrain", {"top": 1}, "search.retrain: top 1, and the values"),
    ):
        config = config_of()
        config["search"][key] = value
        with pytest.raises(ConfigError, match=message):
            PBT(build_study_parts(config), interval=2)
    for args, message in (
        ({"resample": 1.5}, "resample 1.5: must be a"),
        ({"factor": 1.0}, "factor 1.0: must be above"),
    ):
        with pytest.raises(ConfigError, match=message):
            PBT(build_study_parts(config_of()), interval=2, **args)
