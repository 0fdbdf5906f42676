"""Auto-DeepLab as a search: supernets, their genotypes, and the networks that are trained from them."""

import copy
import dataclasses
import errno
import io
import json
import math
import re
import shutil
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from build import build_schedule
from config import load_config, trainer_options
from models.auto_deeplab import AutoDeepLabSupernet
from search.__main__ import main as search_command
from search.cli.export import export_genotype
from search.cli.listing import best_text, list_text
from search.cli.live import LiveTable, Terminal
from search.cli.test_run import shrunk
from search.report import write_report
from search.report.sections import inline_picture
from search.results.architecture import ARCHITECTURES, course_sections, read_course
from search.results.record import CandidateRecord, RetrainedRecord, StudyRecord, parse_objectives
from search.strategies.supernet import extreme_genotypes
from search.study.best import write_best
from search.study.folders import require_place
from search.study.journal import JOURNAL, Event, read_events
from search.study.settings import build_study_parts
from search.study.state import StudyState
from search.study.study import Study, build_strategy
from search.worker import launch
from search.worker import supernet as supernet_check
from search.worker.launch import checked_parts, open_study
from test import test as evaluate_checkpoint
from tests.support.people import people_loader
from tests.support.simulated_study import Simulation, World, results
from train import check_config
from trainer.checkpoints import saving as saving_module
from trainer.checkpoints.resume import weights_of
from trainer.runtime.devices import RunPrecision
from trainer.trainer import TrainingPlan
from utils import checkpoint_file
from utils.architecture.decoding import encode
from utils.architecture.genotype import Genotype
from utils.architecture.pictures import path_svg
from utils.errors import ConfigError, DiskFull, Interrupted, SearchError

GENOTYPES = [
    Genotype((4, 8, 16), ((("two_back", "skip"), ("one_back", "sep_conv_3x3")),)),
    Genotype((8, 8, 4), ((("two_back", "max_pool_3x3"), ("one_back", "sep_conv_5x5")),)),
]
SUPERNET = {"arch": "Supernet", "trainer": {"type": "BilevelTrainer", "epochs": 4}}
SHIPPED = ("auto_deeplab_camvid", "auto_deeplab_people", "auto_deeplab_quickstart", "auto_deeplab_cityscapes_gpu")


def study_config(**search):
    strategy = {"type": "AutoDeepLab", "args": {"supernet": copy.deepcopy(SUPERNET)}}
    given = {"objectives": ["max val_miou"], "strategy": strategy, "retrain": {"top": 2, "epochs": 3}}
    return {
        "name": "s",
        "arch": {"type": "AutoDeepLab", "args": {}},
        "trainer": {"epochs": 6},
        "search": given | search,
    }


def architectures(genotypes):
    """A course that decodes to a genotype after each epoch."""
    epochs = []
    for number, genotype in enumerate(genotypes, 1):
        alpha, beta = encode(genotype)
        epochs.append({"epoch": number, "alpha": alpha.tolist(), "beta": beta.tolist()})
    return json.dumps({"epochs": epochs})


def changed_epoch(place, **values):
    """A course of two epochs, of which one has other values."""
    content = json.loads(architectures([GENOTYPES[0]] * 2))
    content["epochs"][place] |= values
    return json.dumps(content)


class Decided(Simulation):
    """A simulation whose supernets have these genotypes by epoch."""

    courses: list

    def session(self, kill_at=None, watchers=()):
        def write(event, _state):
            if event.name == "search.ended":
                course = self.courses[event.candidate]
                text = course if isinstance(course, str) else architectures(course)
                (self.folder / "candidates" / f"{event.candidate:05d}" / ARCHITECTURES).write_text(text)

        return super().session(kill_at, [*watchers, write])


def decided(folder, courses, **search):
    config = study_config(num_samples=len(courses), **search)
    simulation = Decided(folder, lambda: build_study_parts(config), World())
    simulation.courses = courses
    return simulation


def decoded(simulation):
    return [(each.candidate, each.data["epoch"]) for each in simulation.events if each.name == "decode.decoded"]


ONE, OTHER = GENOTYPES


def test_equal_genotypes_are_trained_once(tmp_path):
    simulation = decided(tmp_path, [[ONE] * 4, [ONE] * 4, [OTHER] * 4])
    study = simulation.run()
    best = study.ranked()
    first = next(each for each in best if each != 2)  # of the two that are alike
    assert {run.candidate for run in study.state.retrained.values()} == {first, 2}
    assert decoded(simulation) == [(0, 4), (1, 4), (2, 4)]
    configs = {each: study.strategy.config_of(each) for each in (0, 1, 2)}
    assert configs[0] == configs[1] != configs[2]
    assert configs[2]["arch"] == {"type": "AutoDeepLab", "args": {"genotype": OTHER.to_json()}}
    assert configs[2]["trainer"] == {"epochs": 6}, "it is the study's own"
    epochs = {run.max_epochs for run in study.state.retrained.values()}
    assert epochs == {3}, "those of search.retrain"


def test_a_supernet_is_decoded_at_the_epoch_that_is_asked_for(tmp_path):
    course = [ONE, OTHER, ONE, ONE]
    strategy = {"type": "AutoDeepLab", "args": {"supernet": SUPERNET, "decode_epoch": 2}}
    simulation = decided(tmp_path, [course], strategy=strategy)
    study = simulation.run()
    assert decoded(simulation) == [(0, 2)]
    assert study.strategy.config_of(0)["arch"]["args"]["genotype"] == OTHER.to_json()


def untrained(epochs, trained=0):
    """A course whose last epochs alone are trained."""
    content = json.loads(architectures([ONE] * epochs))
    for entry in content["epochs"]:
        entry["steps"] = max(0, entry["epoch"] - epochs + trained)
    return json.dumps(content)


def test_a_supernet_whose_architecture_has_not_learned_is_not_decoded(tmp_path):
    courses = [untrained(4), untrained(4, trained=1)]
    simulation = decided(tmp_path, courses)
    study = simulation.run()
    assert decoded(simulation) == [(1, 4)]
    assert {run.candidate for run in study.state.retrained.values()} == {1}
    rows = {row[0]: row[-1] for row in study.record().sections[0]["table"][1:]}
    assert rows == {0: "not decoded: after epoch 4 its architecture has not learned", 1: "1 blocks"}


def test_without_a_supernet_that_has_learned_nothing_is_trained_again(tmp_path):
    simulation = decided(tmp_path, [untrained(4), untrained(4)])
    message = r"random: candidate 0 after epoch 4, 1 after epoch 4\. Set a lower search.*architecture_from_epoch"
    for _ in range(2):  # and when it is continued
        with pytest.raises(SearchError, match=message):
            simulation.run()
    events = [each.name for each in simulation.events]
    assert events.count("decode.untrained") == 2
    assert "retrain.job" not in events


class Declining(World):
    """The first supernet has its best result after the first epoch, and the worst after its last one."""

    def row(self, run, epoch, epochs):
        values = {"00000": [0.9, 0.2, 0.2, 0.1], "00001": [0.5, 0.5, 0.5, 0.5]}.get(Path(run).name)
        return super().row(run, epoch, epochs) | ({} if values is None else {"val_miou": values[epoch - 1]})


@pytest.mark.parametrize(
    ("arguments", "constraints", "first"),
    [({}, [], 1), ({"decode_epoch": 1}, [], 0), ({"decode_epoch": 1}, ["val_miou <= 0.6"], 1)],
)
def test_supernets_are_ranked_by_their_results_after_the_epoch_of_which_they_are_decoded(
    tmp_path, arguments, constraints, first
):
    strategy = {"type": "AutoDeepLab", "args": {"supernet": SUPERNET, **arguments}}
    simulation = decided(
        tmp_path,
        [[ONE] * 4, [OTHER] * 4],
        strategy=strategy,
        constraints=constraints,
        retrain={"top": 1, "epochs": 3},
    )
    simulation.world = Declining()
    study = simulation.run()
    assert [run.candidate for run in study.state.retrained.values()] == [first]
    epoch = arguments.get("decode_epoch", 4)
    shown = {row[0]: row[1:3] for row in study.record().sections[0]["table"][1:]}
    assert shown == {0: [epoch, 0.9 if epoch == 1 else 0.1], 1: [epoch, 0.5]}


def test_the_genotype_survives_the_file_it_was_read_from(tmp_path):
    simulation = decided(tmp_path, [[ONE] * 4])
    study = simulation.run()
    (tmp_path / "candidates" / "00000" / ARCHITECTURES).unlink()
    again = Study(tmp_path, simulation.build_parts(), worker="")
    simulation.restore(again)
    assert again.strategy.config_of(0) == study.strategy.config_of(0)
    titles = [section["title"] for section in again.record().sections]
    assert titles == ["Genotypes", "Network of candidate 0"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "missing or empty"),
        ("{", "cannot be read"),
        ('{"epochs": [{"epoch": 1}]}', "no course of an architecture"),
        ('{"epochs": []}', "it has no epoch"),
        ('{"epochs": [3]}', "no course of an architecture"),
        ('{"epochs": [{"epoch": Infinity, "alpha": [], "beta": []}]}', "no course of an architecture"),
        (changed_epoch(0, beta=[[[0.0]]]), r"no course of an architecture \(ValueError: beta has shape"),
        (changed_epoch(0, beta=[[[0.0] * 3] * 4] * 2), r"\(ValueError: alpha and beta have 2 different shapes"),
    ],
)
def test_a_course_that_is_missing_or_damaged_is_named(tmp_path, content, reason):
    path = tmp_path / ARCHITECTURES
    if content is not None:
        path.write_text(content)
    with pytest.raises(SearchError, match=rf"{ARCHITECTURES}.*{reason}.*Put back a copy"):
        read_course(path)


@pytest.mark.parametrize("content", [None, "", "{", '{"epochs": []}'])
def test_a_lost_course_is_read_from_the_checkpoint_with_most_of_it(tmp_path, content):
    path, entries = tmp_path / ARCHITECTURES, json.loads(architectures([ONE, OTHER]))["epochs"]
    write_checkpoint(tmp_path / "checkpoint-last.pth", entries)
    write_checkpoint(tmp_path / "model_best.pth", entries[:1])
    if content is not None:
        path.write_text(content)
    assert [each.decode() for each in read_course(path)] == [ONE, OTHER]
    assert content is None or path.read_text() == content
    read_course(path, restores=True)
    assert json.loads(path.read_text()) == {"epochs": entries}


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_checkpoint_restores_nothing(tmp_path, damage):
    path = tmp_path / "checkpoint-last.pth"
    write_checkpoint(path, json.loads(architectures([ONE, OTHER]))["epochs"])
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[content.index(b"epochs") + 400] ^= 1
    path.write_bytes(b"text" if damage == "other" else content[:-600] if damage == "cut" else content)
    with pytest.raises(
        SearchError, match=r"missing or empty.*no checkpoint next to it holds it\. Put back a copy of one"
    ):
        read_course(tmp_path / ARCHITECTURES)


def write_checkpoint(path, entries):
    weights = {"a": torch.zeros(3), "b": torch.ones(2, dtype=torch.bfloat16)}
    state = {"optimizer": {"state": weights}, "steps": 4, "epochs": entries}
    content = {"state_dict": OrderedDict(weights), "architecture": state, "config": {}}
    checkpoint_file.write_checkpoint(content, [path])


def test_a_budget_that_ends_before_a_supernet_says_so(tmp_path):
    simulation = decided(tmp_path, [[ONE] * 4, [ONE] * 4], budget={"epochs": 2})
    with pytest.raises(SearchError, match=r"no supernet was trained to its end \(2 epochs are spent\).*Raise search"):
        simulation.run()
    larger = study_config(num_samples=2)
    simulation.build_parts = lambda: build_study_parts(larger)
    assert results(simulation.run()) == results(decided(tmp_path / "whole", [[ONE] * 4, [ONE] * 4]).run())


def test_a_supernet_that_does_not_fit_is_drawn_once(tmp_path):
    config = study_config(num_samples=3, limits={"max_memory_mb": 10})
    simulation = Simulation(tmp_path, lambda: build_study_parts(config), World({"refused": 1.0}))
    with pytest.raises(SearchError, match=r"the supernet cannot be trained: params 9 is more than.*batch_size"):
        simulation.run()
    assert sum(each.name == "search.drawn" for each in simulation.events) == 1


def test_a_marker_of_the_config_is_drawn_for_both_networks(tmp_path):
    config = study_config(num_samples=4, sampler="random")
    config["optimizer"] = {"type": "SGD", "args": {"lr": {"$uniform": [0.1, 0.9]}}}
    config["search"]["strategy"]["args"]["supernet"]["loss"] = {"$choice": ["a", "b"]}
    simulation = Decided(tmp_path, lambda: build_study_parts(config), World())
    simulation.courses = [[ONE] * 4] * 4
    study = simulation.run()
    for index, each in study.state.candidates.items():
        drawn = study.parts.space.config(each.drawn)
        final = study.strategy.config_of(index)
        assert final["optimizer"] == drawn["optimizer"]
        assert drawn["loss"] in ("a", "b")
        assert "loss" not in final
    assert len(study.strategy.strategies[0].finalists()) == 4, "equal genotypes with other values are other networks"


def faults_of(config, check=lambda _config: None):
    parts = build_study_parts(config)
    with pytest.raises(ConfigError) as caught:
        build_strategy(parts).find_faults(parts.space, check)
    return [str(each) for each in caught.value.parts or [caught.value]]


def test_an_overlay_that_makes_no_supernet_is_refused():
    for args, fault in [
        ({"supernet": {}}, "search.strategy.args.supernet: {} must be what is laid over"),
        ({"supernet": {"trainer": {"type": "BilevelTrainer"}}}, "supernet.arch: null names no supernet"),
        ({"supernet": {"arch": "Supernet"}}, "supernet.trainer.type: null trains no architecture"),
        ({"supernet": {**SUPERNET, "search": {}}}, "supernet.search: {}, and it is that of the study"),
    ]:
        with pytest.raises(ConfigError, match=fault.replace("{", r"\{").replace("}", r"\}")):
            build_study_parts(study_config(strategy={"type": "AutoDeepLab", "args": args}))


def test_all_contradictions_are_listed_at_once():
    supernet = copy.deepcopy(SUPERNET)
    supernet["trainer"]["args"] = {"architecture_from_epoch": 3}
    config = study_config(
        strategy={"type": "AutoDeepLab", "args": {"supernet": supernet, "decode_epoch": 5}},
        retrain=None,
        objectives=["max val_miou", "min params"],
        constraints=["params <= 100"],
        limits={"max_params": 9, "max_memory_mb": 100},
        sampler="sobol",
        warm_start="saved/other",
        scheduler={"type": "ASHA", "args": {"grace_period": 2}},
        num_samples=4,
    )
    config["arch"]["args"]["genotype"] = ONE.to_json()
    places = [fault.split(": ")[0] for fault in faults_of(config)]
    assert places == [
        "search.retrain",
        "search.objectives",
        "search.constraints",
        "search.limits.max_params",
        "search.sampler",
        "search.warm_start",
        "search.scheduler",
        "search.strategy.args.decode_epoch",
        "arch.args.genotype",
    ]


@pytest.mark.parametrize(
    ("trainer", "arguments", "scheduler", "fault"),
    [
        ({"args": {"architecture_from_epoch": 3}}, {"decode_epoch": 2}, {}, "args.decode_epoch: 2 is before epoch 3"),
        ({}, {"decode_epoch": 2}, {}, "args.decode_epoch: 2 is before epoch 3, .* Write 3 to 4 or null, or a lower"),
        ({"args": {"architecture_from_epoch": None}}, {}, {"grace_period": 2}, "after 2 epochs, .* from epoch 3 on"),
        ({"ema": 0.9}, {}, {}, 'args.supernet.trainer.ema: 0.9: .* Write "ema": null there'),
    ],
)
def test_supernets_are_not_used_before_their_architecture_is_trained(trainer, arguments, scheduler, fault):
    supernet = {**SUPERNET, "trainer": {**SUPERNET["trainer"], **trainer}}
    config = study_config(strategy={"type": "AutoDeepLab", "args": {"supernet": supernet, **arguments}}, num_samples=4)
    if scheduler:
        config["search"]["scheduler"] = {"type": "ASHA", "args": scheduler}
    (found,) = faults_of(config)
    assert re.search(fault, found)
    parts = dataclasses.replace(build_study_parts(config), is_new=False)  # one of an earlier version continues
    assert build_strategy(parts).find_faults(parts.space, lambda _config: None) == []


@pytest.mark.parametrize(
    ("arguments", "scheduler"), [({"decode_epoch": 3}, None), ({}, {"type": "ASHA", "args": {"grace_period": 3}})]
)
@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
def test_a_test_run_uses_supernets_after_their_architecture_is_trained(arguments, scheduler, epochs):
    strategy = {"type": "AutoDeepLab", "args": {"supernet": SUPERNET, **arguments}}
    config = study_config(strategy=strategy, num_samples=4, scheduler=scheduler)
    for each in (config, shrunk(config, f"{epochs},8,4,4")):
        parts = build_study_parts(each)
        assert build_strategy(parts).find_faults(parts.space, lambda _config: None) == []


def test_an_average_of_the_final_network_is_not_one_of_the_supernet():
    config = study_config()
    config["trainer"]["ema"] = 0.9
    assert "trainer.ema: 0.9" in "".join(faults_of(config))
    config["search"]["strategy"]["args"]["supernet"]["trainer"]["ema"] = None
    parts = build_study_parts(config)
    assert build_strategy(parts).find_faults(parts.space, lambda _config: None) == []


def test_a_marker_that_the_supernet_replaces_is_refused():
    config = study_config()
    config["arch"]["args"] = {"filter_multiplier": {"$choice": [8, 20]}}
    assert faults_of(config) == [
        "arch.args.filter_multiplier: the supernet replaces this marker, so that no candidate draws it. Write a value."
    ]


def test_faults_of_both_networks_are_listed_with_their_places_in_the_file():
    def check(config):
        is_final = "genotype" in (config["arch"]["args"] if isinstance(config["arch"], dict) else {})
        paths = ["arch.args.genotype", "optimizer.args.lr"] if is_final else ["trainer.epochs", "optimizer.args.lr"]
        raise ConfigError("two", [ConfigError(f"{path}: unknown argument. Correct it.") for path in paths])

    config = study_config()
    config["optimizer"] = {"type": "SGD", "args": {"lr": "x"}}
    faults = faults_of(config, check)
    assert [fault.split(":")[0] for fault in faults] == [
        "arch.type",
        "optimizer.args.lr",
        "search.strategy.args.supernet.trainer.epochs",
    ]
    assert faults[0] == (
        'arch.type: "AutoDeepLab" takes no genotype, and search.strategy writes one into its args. Name "AutoDeepLab", '
        "or a network that takes one."
    )


def test_a_test_run_shortens_the_supernet():
    config = study_config()
    supernet = config["search"]["strategy"]["args"]["supernet"]
    supernet |= {"train_loader": {"args": {"samples": 99, "batch_size": 2}}}
    supernet["trainer"]["args"] = {"architecture_from_epoch": 3}
    small = shrunk(config | {"train_loader": {"args": {}}}, "2,8,4,1")
    args = small["search"]["strategy"]["args"]
    assert args["supernet"]["trainer"] == {
        "type": "BilevelTrainer",
        "epochs": 2,
        "args": {"architecture_from_epoch": 2},
    }
    assert args["supernet"]["train_loader"] == {"args": {"batch_size": 2}}
    assert build_study_parts(small).space.config(build_study_parts(small).space.random(0))["train_loader"] == {
        "args": {"samples": 8, "batch_size": 2}
    }


def test_the_report_shows_the_course(tmp_path):
    rng = np.random.default_rng(0)
    course = [
        {"epoch": each, "alpha": (rng.normal(size=(5, 8)) * each).tolist(), "beta": rng.normal(size=(4, 4, 3)).tolist()}
        for each in (1, 2, 3)
    ]
    (tmp_path / ARCHITECTURES).write_text(json.dumps({"epochs": course}))
    read = read_course(tmp_path / ARCHITECTURES)
    sections = course_sections(7, read, None)
    assert [each["title"] for each in sections] == [
        "Network of candidate 7",
        "Course of the architecture",
        "Operations by epoch",
        "Moves by epoch",
    ]
    table = sections[1]["table"]
    assert [row[0] for row in table[1:]] == ["1", "2", "3"]
    assert table[-1][1] == " ".join(map(str, read[-1].decode().strides))
    first = read[0].decode()
    (network, *_) = course_sections(7, read, first.to_json(), 1)
    assert network["pictures"][0] == path_svg(first, beta=read[0].beta), "the weights are those of the same epoch"


def test_the_pictures_mark_the_genotype_that_is_shown(tmp_path):
    (tmp_path / ARCHITECTURES).write_text(architectures(GENOTYPES))
    course = read_course(tmp_path / ARCHITECTURES)
    for epoch, shown in enumerate(GENOTYPES, 1):
        *_, operations, moves = course_sections(0, course, shown.to_json(), epoch)
        marked = re.findall(r'class="strong"[^>]*>([^<]*)<', operations["pictures"][0])
        assert [text.split()[0] for text in marked[1::2]] == [operation for _, operation in shown.blocks[0]]
        framed = re.findall(r'<rect class="(sep|line)"', moves["pictures"][0])  # into layer 1 from 4, layer 2 from 4, 8
        assert framed[:3] == ["sep", *(("sep", "line") if shown.strides[0] == 4 else ("line", "sep"))]


def test_a_course_with_weights_of_edges_decodes_by_them(tmp_path):
    entry = {"epoch": 1, "alpha": np.zeros((5, 8)).tolist(), "beta": np.zeros((1, 4, 3)).tolist()}
    (tmp_path / ARCHITECTURES).write_text(json.dumps({"epochs": [entry, entry | {"edges": [0, 0, 0, 1, 1]}]}))
    without, weighted = (each.decode().blocks[1] for each in read_course(tmp_path / ARCHITECTURES))
    assert [name for name, _ in without] == ["two_back", "one_back"]
    assert [name for name, _ in weighted] == ["one_back", "block_1"]


def test_a_supernet_is_never_the_result(tmp_path):
    study = StudyRecord("s", str(tmp_path), {}, "AutoDeepLab", ["max val_miou"], 1, result_is_retrained=True)
    row = {"epoch": 1, "val_miou": 0.5, "epoch_seconds": 1.0}
    done = CandidateRecord(0, 1, [], "completed", reports=[row], objectives={"val_miou": 0.5}, best_epoch=1)
    study.candidates.append(done)
    study.retrained.append(RetrainedRecord(0, 1, 2, "failed", reason="the loss is not finite."))
    with pytest.raises(SearchError, match=r"none of 1 retrainings has a result; the last reason: the loss is not"):
        write_best(study, lambda _: {"trainer": {}}, retrained_config=lambda config, seed: config)
    assert not (tmp_path / "best").exists()


def record_of_supernet(folder, *retrained):
    """A study of one supernet with val_miou 0.5, and retrainings with a value and a test each."""
    study = StudyRecord("s", str(folder), {}, "AutoDeepLab", ["max val_miou"], 1, result_is_retrained=True)
    row = {"epoch": 1, "val_miou": 0.5, "epoch_seconds": 1.0}
    done = CandidateRecord(0, 1, [], "completed", reports=[row], objectives={"val_miou": 0.5}, best_epoch=1)
    study.candidates.append(done)
    for seed, (value, test) in enumerate(retrained):
        run = RetrainedRecord(0, 1, seed, "completed", reports=[row | {"val_miou": value}], test=test)
        study.retrained.append(run)
    return study


@pytest.mark.parametrize(
    ("retrained", "tiles", "best"),
    [
        ([], ["val_miou of the supernet 0.5000 candidate 0 at"], "val_miou 0.5 (supernet)"),
        (
            [(0.75, {"test_miou": 0.625})],
            ["val_miou 0.7500 network of candidate 0, retrained; test_miou 0.6250", "val_miou of the supernet 0.5000 "],
            "val_miou 0.75",
        ),
        (
            [(0.75, {}), (0.25, {})],
            ["val_miou 0.5000 network of candidate 0, retrained, mean of 2", "val_miou of the supernet 0.5000 "],
            "val_miou 0.5",
        ),
    ],
)
def test_the_first_result_that_is_shown_is_that_of_the_retrained_network(tmp_path, retrained, tiles, best):
    study = record_of_supernet(tmp_path, *retrained)
    write_report(study, tmp_path / "report.html")
    text = " ".join(re.sub("<[^>]+>", " ", (tmp_path / "report.html").read_text().partition("<dl")[2]).split())
    assert text.partition(" candidates 1 ")[0].startswith('class="tiles"> ' + tiles[0])
    assert all(tile in text for tile in tiles)
    assert "result of the supernet value val_miou 0.5000" in text
    columns = re.split("  +", list_text([study]).splitlines()[1])
    assert best in columns


def test_the_live_table_says_what_was_decoded():
    stream = io.StringIO()
    event = Event("decode.decoded", 3, {"epoch": 7, "genotype": ONE.to_json()}, 0.0)
    terminal = Terminal("s", 1, table=LiveTable(stream=stream, clock=lambda: -math.inf))
    terminal.watch(event, StudyState(parse_objectives(["max val_miou"]), 9))
    terminal.watch(Event("decode.untrained", 4, {"epoch": 2}, 0.0), StudyState(parse_objectives(["max val_miou"]), 9))
    assert "Candidate 3 decoded after epoch 7: strides 4 8 16\n" in stream.getvalue()
    assert "Candidate 4 is not decoded: after epoch 2 its architecture has not learned" in stream.getvalue()


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<path onload="x"/>',
        '<image href="http://x"/>',
        '<rect style="fill:url(http://x)"/>',
    ],
)
def test_a_picture_of_a_report_may_only_draw(inside):
    assert inline_picture('<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0h1"/></svg>')
    with pytest.raises(ValueError, match="may only draw"):
        inline_picture(f'<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>')


def small_config(folder, **search):
    """All three stages on a few photos of this repository."""
    supernet = {
        "arch": {"type": "AutoDeepLabSupernet", "args": {"layers": 2, "blocks": 1, "filter_multiplier": 2}},
        "trainer": {"type": "BilevelTrainer", "args": {"architecture_from_epoch": 1}, "epochs": 2},
        "optimizer": {"type": "SGD", "args": {"lr": 0.01}},
    }
    arguments = {"filter_multiplier": 2, "stem_channels": [4, 4, 4], "aspp_channels": 4}
    return {
        "name": "small",
        "arch": {"type": "AutoDeepLab", "args": arguments},
        "train_loader": people_loader("train", 4, batch_size=2),
        "valid_loader": people_loader("valid", 2, is_training=False, shuffle=False),
        "test_loader": people_loader("test", 2, is_training=False, shuffle=False),
        "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
        "loss": {"type": "ce_loss"},
        "metrics": ["miou"],
        "trainer": {"epochs": 3, "save_dir": str(folder), "monitor": "max val_miou", "tensorboard": False},
        "search": {
            "strategy": {"type": "AutoDeepLab", "args": {"supernet": supernet}},
            "retrain": {"top": 1, "epochs": 1},
            **search,
        },
    }


def fill_disk(monkeypatch, module, name, times):
    """Let a function that writes find the disk full the first times."""
    write, left = getattr(module, name), [times]

    def full(*arguments):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr(module, name, full)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search of three stages that was interrupted, found the disk full, lost a file, and was continued each time."""
    folder = tmp_path_factory.mktemp("saved")
    config = small_config(folder)

    def stop(event, _state):
        if event.name == "search.report":
            raise Interrupted(15)

    study = open_study(config)
    study.watchers = [stop]
    with pytest.raises(Interrupted):
        study.run()
    with pytest.MonkeyPatch.context() as monkeypatch:
        fill_disk(monkeypatch, saving_module, "write_json", 1)  # result.json of the supernet
        with pytest.raises(DiskFull, match=r"candidate 0: The disk is full"):
            open_study(config, "auto").run()
        (course,) = folder.glob(f"small/*/candidates/00000/{ARCHITECTURES}")
        before = read_course(course)
        course.unlink()
        study = open_study(config, "auto").run()
    after = read_course(course)
    assert [each.decode() for each in after[: len(before)]] == [each.decode() for each in before]
    assert [each.epoch for each in after] == [1, 2], "it is restored from the checkpoint"
    return study


def test_three_stages_end_with_a_tested_network(finished):
    folder = Path(finished.folder)
    events = list(read_events(folder / JOURNAL))
    (genotype,) = [each.data["genotype"] for each in events if each.name == "decode.decoded"]
    assert [each.data["epoch"] for each in events if each.name == "search.report"] == [1, 2]
    (run,) = finished.retrained
    assert (run.status, run.max_epochs, list(run.test)) == ("completed", 1, ["test_loss", "test_miou"])
    config = load_config(folder / "best" / "config.json")
    expected = small_config(folder.parents[1])
    assert config["arch"]["args"] == {**expected["arch"]["args"], "genotype": genotype}
    assert config["optimizer"] == expected["optimizer"]
    assert "type" not in config["trainer"]
    assert read_course(folder / "candidates" / "00000" / ARCHITECTURES)[-1].decode().to_json() == genotype
    check_config(config)


def test_the_winner_is_tested_by_the_command_that_is_printed(finished):
    content = checkpoint_file.read_saved(Path(finished.folder) / "best" / "model_best.pth")[1]
    tested = evaluate_checkpoint(content["config"], weights_of(content))
    assert tested["metrics"]["miou"] == pytest.approx(finished.retrained[0].test["test_miou"])


@pytest.mark.slow
def test_a_genotype_is_exported_after_any_epoch(finished, tmp_path, capsys):
    folder, file = finished.folder, tmp_path / "genotype.json"
    assert search_command(["export", folder, "--genotype", str(file), "--epoch", "1"]) == 0
    course = read_course(Path(folder) / "candidates" / "00000" / ARCHITECTURES)
    assert json.loads(file.read_text()) == course[0].decode().to_json()
    assert "candidate 0 after epoch 1, strides" in capsys.readouterr().out
    for words, fault in [
        (["--genotype", str(file), "--epoch", "9"], "--epoch 9: candidate 0 has the epochs 1 to 2. Name one of them."),
        (["--genotype", str(file), "--candidate", "7"], "candidate 7 has no results"),
        (["--genotype", f"{folder}/config.json"], "config.json: it is among the files of the study"),
        (["--genotype", f"{folder}/best/x.json"], "it is among the files of the study"),
        (["--epoch", "1"], "Add --genotype FILE.json"),
        (["--genotype", str(file), "--csv", "x.csv"], "Leave --csv and --optuna out"),
    ]:
        assert search_command(["export", folder, *words]) > 0
        assert fault in capsys.readouterr().err


@pytest.mark.slow
def test_the_genotype_of_a_study_is_exported_from_its_journal(finished, tmp_path):
    folder, file = tmp_path / "study", tmp_path / "genotype.json"
    shutil.copytree(finished.folder, folder)
    (decoded_event,) = [each for each in read_events(folder / JOURNAL) if each.name == "decode.decoded"]
    course = folder / "candidates" / "00000" / ARCHITECTURES
    course.write_text(architectures([ONE, OTHER]))
    study = dataclasses.replace(finished, folder=str(folder))
    for epoch, expected in [(None, decoded_event.data["genotype"]), (2, decoded_event.data["genotype"]), (1, ONE)]:
        export_genotype(study, file, epoch=epoch)
        assert json.loads(file.read_text()) == (expected if isinstance(expected, dict) else expected.to_json())
    course.write_text(untrained(3, trained=1))
    texts = [export_genotype(study, file, epoch=epoch) for epoch in (1, 3)]
    assert [text.endswith("(random: until then its architecture has not learned)") for text in texts] == [True, False]
    course.unlink()
    export_genotype(study, file)
    assert json.loads(file.read_text()) == decoded_event.data["genotype"]
    export_genotype(study, file, epoch=1)
    course_of_checkpoint = read_course(Path(finished.folder) / "candidates" / "00000" / ARCHITECTURES)
    assert json.loads(file.read_text()) == course_of_checkpoint[0].decode().to_json()
    for checkpoint in course.parent.glob("*.pth"):
        checkpoint.unlink()
    with pytest.raises(SearchError, match=r"missing or empty"):
        export_genotype(study, file, epoch=1)
    with pytest.raises(SearchError, match=r"trains no supernets, and has no genotype\. Name a study"):
        export_genotype(dataclasses.replace(study, result_is_retrained=False), file)


@pytest.mark.slow
def test_the_winner_is_shown_with_its_genotype(finished):
    text = best_text(finished)
    assert "Results:" not in text
    assert "decoded after epoch" in text
    assert "Genotypes:" in text
    assert "python train.py -c" in text


@pytest.mark.slow
def test_the_report_of_a_finished_search_is_small_and_shows_its_network(finished, tmp_path):
    write_report(finished, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 500_000
    assert text.count("<svg") == 4
    assert "Network of candidate 0" in text
    assert "network of candidate 0, retrained; test_miou" in text


@pytest.mark.parametrize(
    ("blocked", "key"), [("saved", "trainer.save_dir"), ("saved/small", "trainer.save_dir"), ("runs", "search.run_dir")]
)
def test_a_place_that_cannot_be_written_is_named(tmp_path, blocked, key):
    config = small_config(tmp_path / "saved", run_dir=str(tmp_path / "runs"))
    require_place(config)
    assert not any(tmp_path.iterdir()), "a check writes nothing"
    (tmp_path / blocked).parent.mkdir(exist_ok=True)
    (tmp_path / blocked).write_text("a file")
    with pytest.raises(ConfigError, match=rf"^{key}: .*{blocked} is not a folder\).*to: {key}=FOLDER\.$"):
        require_place(config)


@pytest.mark.slow
def test_the_check_names_a_place_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "saved").write_text("a file")
    (tmp_path / "config.json").write_text(json.dumps(small_config(tmp_path / "saved")))
    assert search_command(["-c", str(tmp_path / "config.json"), "--check"]) == 2
    assert "saved is not a folder). A study is stored below it" in capsys.readouterr().err


@pytest.mark.slow
def test_a_supernet_that_exceeds_its_memory_is_refused_at_the_start(tmp_path):
    with pytest.raises(ConfigError, match=r"supernet: memory_mb [\d.]+ is more than max_memory_mb 0.01. Take fewer"):
        checked_parts(small_config(tmp_path, limits={"max_memory_mb": 0.01}))


def test_a_supernet_that_cannot_be_built_is_not_said_to_be_too_large(tmp_path):
    config = small_config(tmp_path)
    config["train_loader"]["args"]["classes"] = ["person", "person"]
    with pytest.raises(ConfigError, match=r"classes") as caught:
        checked_parts(config)
    assert "Take fewer" not in str(caught.value)


@pytest.mark.slow
def test_schedules_that_do_not_fit_are_refused_at_the_start(tmp_path):
    config = small_config(tmp_path)
    supernet = config["search"]["strategy"]["args"]["supernet"]
    config["lr_scheduler"] = {"type": "poly", "warmup": 3}  # the retraining has 2 steps, `trainer.epochs` would have 6
    supernet["lr_scheduler"] = {"type": "CosineAnnealingLR"}
    with pytest.raises(ConfigError) as caught:
        checked_parts(config)
    of_final, of_supernet = map(str, caught.value.parts)
    assert of_final.startswith("search.retrain: lr_scheduler: warm-up and chained parts take 3 of the run's 2 moves")
    assert of_supernet.startswith("search.strategy.args.supernet.lr_scheduler: warm-up and chained parts take 3 of ")
    assert of_supernet.endswith('write "warmup": null to leave it out.')
    supernet["lr_scheduler"]["warmup"] = None
    config["search"]["retrain"]["epochs"] = 2
    checked_parts(config)


@pytest.mark.slow
def test_data_without_masks_is_refused_at_the_start(tmp_path):
    config = small_config(tmp_path)
    fake = {"type": "torchvision.datasets.FakeData", "args": {"size": 4, "image_size": [3, 16, 16], "num_classes": 2}}
    for split in ("train", "valid", "test"):
        arguments = {"dataset": fake, "classes": ["a", "b"], "batch_size": 2}
        config[f"{split}_loader"] = {"type": "ImageClassificationDataLoader", "args": arguments}
    place = "search.strategy.args.supernet.arch.type"
    with pytest.raises(ConfigError, match=rf"^{place}: AutoDeepLabSupernet gives logits of .*one class per sample"):
        checked_parts(config)


@pytest.mark.slow
def test_a_supernet_that_exceeds_the_memory_of_the_machine_is_refused_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(supernet_check, "free_memory", lambda _device: 1000)
    with pytest.raises(ConfigError, match=r"supernet: a training step needs .* kB, and .* are free. Take fewer layers"):
        checked_parts(small_config(tmp_path))
    config = small_config(tmp_path)
    config["search"]["strategy"]["args"]["supernet"]["trainer"]["ema"] = 0.5
    checked_parts(config, is_new=False)  # it has begun, perhaps on another machine and by earlier rules


def test_the_memory_of_the_final_network_is_foreseen_before_the_search(tmp_path, caplog):
    final = {key: section for key, section in small_config(tmp_path).items() if key != "search"}
    supernet = {"arch": {"type": "AutoDeepLabSupernet", "args": {"layers": 2, "blocks": 1}}}
    foresee = partial(supernet_check.foresee_final_memory, final, AutoDeepLabSupernet, supernet, device="cpu")
    with pytest.raises(ConfigError, match=r"^arch: a training step of the final network needs .* kB, which") as caught:
        foresee(free=1000)
    assert str(caught.value).endswith("search.retrain.changes for this training alone.")
    least, most = (float(each) for each in re.findall(r"([\d.]+) [kM]B", str(caught.value))[:2])
    assert 0 < least < most
    assert not caplog.records
    foresee(free=int(most * 1000) - 1000)
    assert "the retraining may fail after all supernets are trained. Lower" in caplog.text


def test_extreme_genotypes_are_genotypes_of_the_size():
    lightest, heaviest = (Genotype.from_json(each) for each in extreme_genotypes(5, 2))
    assert (lightest.strides, heaviest.strides) == ((8, 16, 32, 32, 32), (4,) * 5)
    assert lightest.num_blocks == heaviest.num_blocks == 2


def grid_of(config, **search):
    """A grid whose conditions are trainings of the final network, and a search by supernets."""
    options = {**config.pop("search"), **search}
    config["arch"]["args"]["genotype"] = ONE.to_json()
    condition = {"search": options, "arch": {"type": "AutoDeepLab", "args": {"genotype": None}}}
    return {**config, "search": {"study": {"conditions": {"plain": {}, "searched": condition}}}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"retrain": {"top": 0}}, "search.retrain"),
        ({"limits": {"max_memory_mb": 0.01}}, "search.strategy.args.supernet: memory_mb"),
    ],
)
def test_a_condition_that_is_a_search_is_checked_when_its_grid_begins(tmp_path, search, message):
    config = grid_of(small_config(tmp_path), **search)
    with pytest.raises(ConfigError, match=f"^search.study.conditions.searched: {message}"):
        checked_parts(config)
    assert not any(tmp_path.iterdir())
    checked_parts(config, is_new=False)  # it has begun by earlier rules, and the condition fails as a candidate


def test_faults_of_trainings_and_of_searches_are_listed_together(tmp_path):
    config = grid_of(small_config(tmp_path), retrain={"top": 0})
    config["search"]["study"]["conditions"]["plain"] = {"optimizer.args.rate": 1}
    with pytest.raises(ConfigError) as caught:
        checked_parts(config)
    places = [str(part).split(": ")[0] for part in caught.value.parts]
    assert places == ["search.study.conditions.searched", "search.study.conditions.plain"]


def test_a_condition_is_not_checked_by_later_rules_than_its_grid(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "require_trainable", lambda _parts: pytest.fail("checked again"))
    config = small_config(tmp_path)
    config["search"]["strategy"]["args"]["supernet"]["trainer"]["ema"] = 0.5  # refused by a later rule
    parts = open_study(config, "auto", is_condition=True).parts
    assert not parts.is_new


def test_a_network_without_an_architecture_is_refused_at_the_start(tmp_path):
    config = small_config(tmp_path)
    config["search"]["strategy"]["args"]["supernet"]["arch"] = {"type": "UNet", "args": {"channels": [4, 8]}}
    with pytest.raises(ConfigError, match=r'supernet.arch.type: "UNet" has no architecture.*AutoDeepLabSupernet'):
        checked_parts(config)


def test_a_final_network_without_a_genotype_is_refused_at_the_start(tmp_path):
    config = small_config(tmp_path)
    config["arch"] = {"type": "UNet", "args": {"channels": [4, 8]}}
    with pytest.raises(ConfigError, match=r"takes no genotype"):
        checked_parts(config)


@pytest.mark.parametrize("name", SHIPPED)
def test_both_networks_of_a_shipped_search_are_good(name):
    for config in (
        load_config(f"config/search/{name}.json"),
        shrunk(load_config(f"config/search/{name}.json"), "2,8,4,1"),
    ):
        parts = build_study_parts(config)
        strategy = build_strategy(parts)
        assert strategy.find_faults(parts.space, check_config) == []
        final = strategy.strategies[0].example_of_finalist()
        build_schedule_of(next(parts.space.covering()).config)
        build_schedule_of(parts.retrained_config(final, 0))


def build_schedule_of(config):
    """Build the schedule of a training, for data that are not here: few steps if it has few epochs."""
    options = trainer_options(config)
    plan = TrainingPlan.from_options(options, precision=RunPrecision.from_options(torch.device("cpu"), options))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    assert build_schedule(config, optimizer, plan, 1 if options["epochs"] == 2 else 20) is not None
