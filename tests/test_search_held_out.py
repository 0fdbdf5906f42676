"""All candidates of a search hold out the same samples; studies of earlier versions continue as they began."""

import copy
import json

import pytest

from build import build_loader, registry
from config import load_plugins
from config.held_out import with_split_seed
from search.joining.command import create_shared_study
from search.study.folders import CONFIG, create_study_folder, read_study_config
from search.study.settings import build_study_parts
from search.worker.launch import checked_parts, config_of_new_study, open_study
from search.worker.nested import run_search_task
from tests.support import simulated_study
from tests.support.loader_cases import class_folders, series
from tests.support.people import people_loader
from tests.support.simulated_study import Simulation, World
from tests.test_search_strategies import ALL, IDS, builder
from train import train
from utils.errors import SearchError

SEED = 7
LOADER = {"type": "SegmentationDataLoader", "args": {"pairs_file": "a.txt", "validation_split": 0.25}}
SEEDED = {**LOADER, "args": {**LOADER["args"], "split_seed": SEED}}
FOLDS = {"fold": 0, "of": 5}
PLUGIN = """
from base.base_data_loader import BaseDataLoader


class Old(BaseDataLoader):
    def __init__(self, validation_split: float = 0.0, seed: int = 0) -> None:
        super().__init__(list(range(20)), 4, validation_split=validation_split, seed=seed)


class Fixed(BaseDataLoader):
    def __init__(self, split_seed: int | None = None, seed: int = 0) -> None:
        self.split_seed = split_seed
        super().__init__(list(range(20)), 4, validation_split=5, seed=seed)
"""


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory):
    file = tmp_path_factory.mktemp("plugins") / "held_out_plugin.py"
    file.write_text(PLUGIN)
    load_plugins([str(file)])


def filled(**config):
    return with_split_seed({"seed": 1, "search": {"seed": SEED}, **config}, registry())


def both(one, other):
    return {"$choice": [one, other]}


# ---- the config


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (LOADER, SEEDED),
        (both(LOADER, "Unknown"), both(SEEDED, "Unknown")),
        (
            {**LOADER, "args": both(LOADER["args"], {"samples": 8})},
            {**LOADER, "args": both(SEEDED["args"], {"samples": 8})},
        ),
        (
            {**LOADER, "args": {"validation_split": both(0.1, 0.2)}},
            {**LOADER, "args": {"validation_split": both(0.1, 0.2), "split_seed": SEED}},
        ),
        ({**LOADER, "args": {"folds": FOLDS}}, {**LOADER, "args": {"folds": {**FOLDS, "seed": SEED}}}),
        ("held_out_plugin.Fixed", {"type": "held_out_plugin.Fixed", "args": {"split_seed": SEED}}),
    ],
)
def test_the_seed_of_the_study_is_written_where_it_is_left_open(given, expected):
    assert filled(data_loader=given)["data_loader"] == expected
    assert filled(data_loader=expected)["data_loader"] == expected


@pytest.mark.parametrize(
    "given",
    [
        {**LOADER, "args": {"pairs_file": "a.txt"}},
        {**LOADER, "args": {"validation_split": 0}},
        {**LOADER, "args": {"validation_split": 0.1, "split_seed": None}},
        {**LOADER, "args": {"validation_split": 0.1, "split_seed": 3}},
        {**LOADER, "args": {"folds": {**FOLDS, "seed": 3}}},
        {"type": "held_out_plugin.Old", "args": {"validation_split": 0.2}},
        {"type": "Unknown", "args": {"validation_split": 0.2}},
        {"type": 3, "args": 4},
        "SegmentationDataLoader",
    ],
)
def test_nothing_is_written_elsewhere(given):
    assert filled(data_loader=given)["data_loader"] == given


def test_without_a_seed_of_the_search_it_is_that_of_the_file():
    assert filled(search={}, data_loader=LOADER)["data_loader"]["args"]["split_seed"] == 1
    config = {"search": {}, "train_loader": LOADER}
    assert with_split_seed(config, registry())["train_loader"]["args"]["split_seed"] == 0
    assert "split_seed" not in config["train_loader"]["args"], "the config of the caller remains"


def test_loaders_that_are_definitions_get_it_there():
    config = filled(data_loader={"$var": "data"}, **{"$defs": {"data": both(LOADER, LOADER), "x": {"$var": "x"}}})
    assert (config["data_loader"], config["$defs"]["data"]) == ({"$var": "data"}, both(SEEDED, SEEDED))
    assert filled(data_loader={"$var": "x"}, **{"$defs": {"x": {"$var": "x"}}})["data_loader"] == {"$var": "x"}


def test_a_grid_study_remains_as_it_is():
    config = {"seed": 1, "data_loader": LOADER, "search": {"study": {"conditions": {"a": {}}}}}
    assert with_split_seed(config, registry()) == config


def test_changes_of_a_selection_get_it_too():
    changes = {"valid_loader": None, "train_loader.args.validation_split": 4}
    search = {"seed": SEED, "strategy": {"type": "POPNAS", "args": {"selection": {"changes": changes}}}}
    bare = {**LOADER, "args": {"pairs_file": "a.txt"}}
    found = filled(train_loader=bare, valid_loader=bare, search=search)["search"]["strategy"]["args"]["selection"]
    assert found["changes"] == {**changes, "train_loader": {"args": {"split_seed": SEED}}}


def test_what_is_laid_over_the_config_gets_it_too():
    changes, overlay = {"data_loader.args.validation_split": 4}, {"data_loader": {"args": {"validation_split": 0.5}}}
    search = {
        "seed": SEED,
        "retrain": {"changes": changes},
        "strategy": {"type": "AutoDeepLab", "args": {"supernet": overlay}},
    }
    bare = {**LOADER, "args": {"pairs_file": "a.txt"}}
    search = filled(data_loader=bare, search=search)["search"]
    assert search["retrain"]["changes"] == {**changes, "data_loader": {"args": {"split_seed": SEED}}}
    assert search["strategy"]["args"]["supernet"]["data_loader"]["args"] == {
        "validation_split": 0.5,
        "split_seed": SEED,
    }


# ---- all strategies


@pytest.mark.parametrize(("name", "case"), ALL, ids=IDS)
def test_every_run_of_a_study_has_the_seed_of_its_split(tmp_path, monkeypatch, name, case):
    tasks, start = [], simulated_study.SimulatedWorkers.start

    def noted(workers, task):
        tasks.append(task)
        start(workers, task)

    monkeypatch.setattr(simulated_study.SimulatedWorkers, "start", noted)
    config = {**builder(name, case)().config, "data_loader": LOADER}
    config.pop("train_loader", None)
    config.pop("valid_loader", None)
    config = with_split_seed(config, registry())
    Simulation(tmp_path, lambda: build_study_parts(config), World()).run()
    configs = [task.payload["config"] for task in tasks if "config" in task.payload]
    assert len({each.get("seed") for each in configs}) > 1
    seeds = {each["data_loader"]["args"].get("split_seed") for each in configs}
    assert seeds == ({None} if name == "Grid" else {build_study_parts(config).space.study_seed})


# ---- studies


def study_of(folder, loader, **search):
    """A search over three networks' learning rates, of one epoch each."""
    is_series = loader["type"].startswith("Time")
    arch = {"type": "FCN"} if is_series else {"type": "UNet", "args": {"channels": [4, 8], "norm": "group"}}
    if loader["type"].startswith("Image"):
        arch = {"type": "torchvision.models.squeezenet1_1"}
    return {
        "name": "small",
        "n_gpu": 0,
        "arch": arch,
        "data_loader": loader,
        "optimizer": {"type": "SGD", "args": {"lr": {"$choice": [0.05, 0.01, 0.002]}}},
        "loss": "ce_loss",
        "metrics": ["miou"] if loader["type"].startswith("Seg") else ["accuracy"],
        "trainer": {
            "epochs": 1, "save_dir": str(folder), "monitor": "min val_loss", "precision": "fp32", "tensorboard": False
        },
        "search": {"num_samples": 3, "sampler": "random", "seed": SEED} | search,
    }  # fmt: skip


def held_out(config):
    """The samples of the validation data of a candidate, without the training that would need a network."""
    plain = {key: value for key, value in config.items() if key not in ("search", "$defs")}
    return build_loader(plain, "valid").keys.indices.tolist()


def configs_of(study, record):
    runs = [each.folder for each in (*record.candidates, *record.retrained) if each.folder]
    return [json.loads((study.folder / folder / CONFIG).read_text()) for folder in runs]


@pytest.fixture
def photos():
    return people_loader("train", 12, validation_split=4)


def test_candidates_retrainings_and_a_separate_training_hold_out_the_same_samples(tmp_path, photos):
    config = study_of(tmp_path, photos, retrain={"top": 1, "seeds": 2})
    before = copy.deepcopy(config)
    study = open_study(config)
    assert config == before
    record = study.run()
    configs = configs_of(study, record)
    assert len(configs) == 5
    assert len({each["seed"] for each in configs}) == 5
    samples = held_out(configs[0])
    assert all(held_out(each) == samples for each in configs)
    best = json.loads((study.folder / "best" / CONFIG).read_text())
    assert best["data_loader"]["args"]["split_seed"] == SEED
    alone = {**best, "seed": 99, "name": "alone", "trainer": {**best["trainer"], "save_dir": str(tmp_path / "alone")}}
    train(alone)
    (file,) = (tmp_path / "alone").glob(f"*/*/{CONFIG}")
    assert held_out(json.loads(file.read_text())) == samples


@pytest.mark.parametrize("make", [class_folders, series])
def test_classes_and_series_are_held_out_alike_after_a_resume(tmp_path, make):
    names = {class_folders: "ImageClassificationDataLoader", series: "TimeSeriesDataLoader"}
    args = make(tmp_path) | {"validation_split": 3, "batch_size": 2}
    config = study_of(tmp_path / "saved", {"type": names[make], "args": args})
    parts = open_study(config).parts
    again = open_study(config, "auto")
    assert again.parts.config == parts.config
    for each in (parts, again.parts):
        draws = [{**each.space.config(each.space.random(n)), "seed": each.space.seed(n)} for n in range(4)]
        assert len({draw["seed"] for draw in draws}) == 4
        assert len({tuple(held_out(draw)) for draw in draws}) == 1
        assert held_out(draws[0]) == held_out({**draws[0], "seed": SEED})


def test_a_study_is_continued_with_its_file_and_its_folder(tmp_path, photos):
    config = study_of(tmp_path, photos)
    folder = open_study(config).folder
    for resume in ("auto", str(folder)):
        assert open_study(config, resume).folder == folder
    assert open_study(read_study_config(folder), str(folder)).folder == folder
    config["data_loader"]["args"]["split_seed"] = SEED  # what the study has
    assert open_study(config, "auto").folder == folder
    config["data_loader"]["args"]["split_seed"] = 8
    with pytest.raises(SearchError, match=r"differs in data_loader\.args\.split_seed \(7 there, 8 here\)\. A study"):
        open_study(config, str(folder))
    assert open_study(config, "auto").folder != folder


def test_a_study_of_an_earlier_version_continues_as_it_began(tmp_path, photos):
    config = study_of(tmp_path, photos, retrain={"top": 1})
    folder = create_study_folder(str(tmp_path), "small", config)  # as that version did
    text = (folder / CONFIG).read_text()
    for resume in (str(folder), "auto"):
        study = open_study(config, resume)
        assert study.folder == folder
    configs = configs_of(study, study.run())
    assert (folder / CONFIG).read_text() == text
    assert "split_seed" not in json.dumps(configs)
    assert len({tuple(held_out(each)) for each in configs}) > 1
    assert [held_out(each) for each in configs] == [
        held_out({"data_loader": photos, "seed": each["seed"]}) for each in configs
    ]


def test_a_class_without_the_argument_is_searched_as_before(tmp_path):
    loader = {"type": "held_out_plugin.Old", "args": {"validation_split": 0.25}}
    config = study_of(tmp_path, {"type": "Segmentation", "args": {}}) | {"data_loader": loader}
    assert config_of_new_study(config) == config
    assert len({tuple(held_out({"data_loader": loader, "seed": seed})) for seed in range(3)}) == 3
    own = with_split_seed({"data_loader": "held_out_plugin.Fixed"}, registry())
    assert len({tuple(held_out({**own, "seed": seed})) for seed in range(3)}) == 1


def test_a_shared_study_is_created_with_it_and_compared_with_it(tmp_path, photos):
    config = study_of(tmp_path, photos)
    for _ in range(2):
        create_shared_study(tmp_path / "new", config, config_of_new_study)
    assert read_study_config(tmp_path / "new")["data_loader"]["args"]["split_seed"] == SEED
    create_shared_study(tmp_path / "old", config)  # by an earlier version
    create_shared_study(tmp_path / "old", config, config_of_new_study)
    assert read_study_config(tmp_path / "old") == config


def test_a_search_in_a_grid_remains_as_it_is(tmp_path, photos):
    config = study_of(tmp_path, photos, num_samples=2)
    run_search_task({"config": config, "folder": str(tmp_path / "run"), "reported": 0}, lambda _: "continue")
    assert "split_seed" not in (tmp_path / "run" / CONFIG).read_text()


def test_folds_of_a_search_leave_the_seed_of_the_split_for_the_retraining(tmp_path, photos):
    config = study_of(tmp_path, photos, folds=2, retrain={"top": 1})
    parts = checked_parts(config_of_new_study(config))
    candidate = parts.space.config(parts.space.random(0))
    assert held_out(parts.retrained_config(candidate, 5)) == held_out(parts.retrained_config(candidate, 6))
