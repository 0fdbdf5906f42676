"""The search section, the files that are shipped, and a search made small."""

import json
from pathlib import Path

import pytest

from config import find_markers, load_config
from search.__main__ import main
from search.cli.test_run import shrunk
from search.schedulers.halving import RandomSearch
from search.study.settings import build_study_parts
from search.study.study import build_strategy
from search.worker.candidate import canonical
from search.worker.launch import has_inert_rate
from train import check_config
from utils.errors import ConfigError, EspalierError

FOLDER = Path(__file__).resolve().parents[1] / "config/search"
SHIPPED = sorted(FOLDER.glob("*.json"))
TRAINER = {"epochs": 9, "monitor": "max val_miou"}


def space_file(**search):
    loader = {"type": "SegmentationDataLoader", "args": {"pairs_file": "x"}}
    return {"name": "s", "trainer": TRAINER, "train_loader": loader, "x": {"$choice": [1, 2]}, "search": search}


def parts_of(config):
    return build_study_parts(config, canonical)


def test_shipped_searches_are_found():
    assert len(SHIPPED) == 14
    assert sum(bool(find_markers(load_config(path))) for path in SHIPPED) == 6


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_search_is_good_in_every_branch_and_drawn_from(path):
    config = load_config(path)
    space = parts_of(config).space
    assert space.find_faults(check_config) == []
    candidates = [space.random(number) for number in range(5)]
    for drawn in candidates:
        check_config(space.config(drawn))
    assert len(set(map(space.key, candidates))) == 5 or not space.has_markers


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_search_can_be_made_small(path):
    small = shrunk(load_config(path), "2,16,8,3")
    parts = parts_of(small)
    assert (parts.scheduler.num_samples, parts.scheduler.max_epochs) == (3, 2)
    check_config(parts.space.config(parts.space.random(0)))
    if "data_loader" in small:
        assert small["data_loader"]["args"]["samples"] == 24
        assert small["data_loader"]["args"]["validation_split"] == 8
        return
    assert small["train_loader"]["args"]["samples"] == 16
    assert small["valid_loader"]["args"]["samples"] == 8


@pytest.mark.slow
def test_the_published_space_and_ours_have_their_sizes():
    sizes = {path.stem: parts_of(load_config(path)).space.extent for path in SHIPPED}
    assert (sizes["encdec_cityscapes_gpu"].outcomes, sizes["encdec_cityscapes_gpu"].continuous) == (22**11, 0)
    assert (sizes["encdec_camvid"].outcomes, sizes["encdec_camvid"].continuous) == (22**9, 0)
    # Three dilations; of each block one layer or two, but one where maps are large; two paddings, three activations,
    # two rates.
    layer, thin_layer = 3 * 3, 2 * 3 + 1
    people = layer**3 * (layer + layer**2) ** 2 * (thin_layer + thin_layer**2) ** 3 * 2 * 3 * 2
    assert sizes["encdec_people"].outcomes == people
    # Three batch sizes; two optimizers, of which the second draws rate, momentum and decay; its schedule has no rate.
    optimizer = sizes["encdec_people_optimizer"]
    assert (optimizer.outcomes, optimizer.continuous) == (people // 2 * 3 * 2, 3)


def test_candidates_for_people_have_at_most_half_the_weights_of_their_opponent():
    from models.encdec import EncDec

    fixed = load_config(FOLDER / "encdec_people_fixed.json")["arch"]["args"]
    limit = load_config(FOLDER / "encdec_people.json")["search"]["limits"]["max_params"]
    assert limit == EncDec(2, **fixed).parameter_count() // 2


def test_what_is_left_out_follows_from_the_file():
    parts = parts_of(space_file())
    assert isinstance(parts.scheduler, RandomSearch)
    assert [str(each) for each in parts.objectives] == ["max val_miou"]
    assert (parts.scheduler.num_samples, parts.scheduler.max_epochs, parts.retrain) == (1, 9, None)


def test_the_draws_follow_the_seed_of_the_search_or_of_the_file():
    def seeds(**changes):
        return parts_of({**space_file(), **changes}).space.seed(0)

    assert seeds() == seeds(seed=0) != seeds(seed=4)
    assert seeds(seed=4) == seeds(search={"seed": 4}) == seeds(seed=7, search={"seed": 4})


BILEVEL = {"type": "BilevelTrainer"}


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"num_sample": 1}, 'search.num_sample: unknown key "num_sample". Did you mean "num_samples"?'),
        ({"num_samples": 0}, "search.num_samples: 0 must be an integer >= 1"),
        ({"limits": {"max_parms": 1}}, 'search.limits.max_parms: unknown key "max_parms". Did you mean "max_params"?'),
        ({"budget": {"max_time": 0}}, "search.budget.max_time: 0 must be a number > 0"),
        ({"retrain": {"top": -1}}, "search.retrain.top: -1 must be an integer >= 0"),
        ({"objectives": ["val_miou"]}, '"val_miou" must be "min NAME" or "max NAME"'),
        ({"scheduler": "ASHAA"}, 'search.scheduler.type: unknown class "ASHAA". Did you mean "ASHA"?'),
        (
            {"scheduler": {"type": "ASHA", "args": {"grace": 1}}},
            'search.scheduler.args.grace: unknown argument "grace"',
        ),
    ],
)
def test_faults_of_the_section(search, message):
    with pytest.raises(EspalierError) as error:
        parts_of(space_file(**search))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("search", "known"),
    [
        ({"scheduler": {"type": "ASHA", "args": {"x": 1}}}, "brackets, grace_period, mode, reduction_factor"),
        ({"sampler": {"type": "auto", "args": {"x": 1}}}, "none"),
        ({"sampler": {"type": "gp", "args": {"x": 1}}}, "num_random, random_share"),
        (
            {"strategy": {"type": "PBT", "args": {"x": 1, "interval": 1}}},
            "factor, interval, perturb, quantile, resample, stage",
        ),
        (
            {"strategy": {"type": "AutoDeepLab", "args": {"x": 1, "supernet": {"arch": "S", "trainer": BILEVEL}}}},
            "decode_epoch, stage, supernet",
        ),
    ],
)
def test_only_what_a_file_can_set_is_named_as_a_known_argument(search, known):
    with pytest.raises(ConfigError, match=rf'args\.x: unknown argument "x"\. Known: {known}\.'):
        build_strategy(parts_of(space_file(**search)))


def test_faults_of_the_section_are_told_at_once():
    with pytest.raises(ConfigError, match=r"(?s)3 faults.*search\.budget\.hours.*num_sample.*trainer\.epochs"):
        parts_of({**space_file(num_sample=1, budget={"hours": 1}), "trainer": {"monitor": "max val_miou"}})
    executor = {"type": "processes", "args": {"workers": 0}}
    with pytest.raises(ConfigError, match=r"(?s)2 faults.*search\.scheduler\.type.*workers 0 must be 1 or more"):
        parts_of(space_file(scheduler="ASHAA", executor=executor))


@pytest.mark.parametrize(
    ("scheduler", "rungs"),
    [
        ("ASHA", [1, 2]),
        ({"type": "ASHA", "args": {"grace_period": 1}}, [1, 2]),
        ({"type": "ASHA", "args": {"grace_period": 9}}, [2]),
        ({"type": "SuccessiveHalving", "args": {"rungs": [[1, 3], [2, 3], [9, 3]]}}, [1, 2]),
        ({"type": "SuccessiveHalving", "args": {"rungs": [[2, 3]]}}, [2]),
    ],
)
def test_the_rungs_of_a_small_search_come_in_time(scheduler, rungs):
    small = parts_of(shrunk(space_file(scheduler=scheduler), "2,4,4,3")).scheduler
    assert list(small.fidelities()) == rungs


def test_a_small_search_leaves_the_file_as_it_was_and_has_a_name_of_its_own():
    config = space_file(num_samples=100, retrain={"top": 2, "epochs": 50})
    small = shrunk(config, "2, 4, 3, 5")
    assert config == space_file(num_samples=100, retrain={"top": 2, "epochs": 50})
    assert small["name"] == "s_test_run"
    assert small["search"] == {"num_samples": 5, "retrain": {"top": 2, "epochs": 2}}


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"num_samples": 0}, "search.num_samples: 0 must be an integer >= 1"),
        (
            {"retrain": {"changes": {"name": "z"}}},
            'search.retrain.changes: name: "z", and the search sets it. Remove it',
        ),
        ({"retrain": {"epochs": "x"}}, 'search.retrain.epochs: "x" must be an integer >= 1'),
        ({"scheduler": {"type": "ASHA", "args": {"grace_period": -1}}}, "grace_period"),
    ],
)
def test_a_small_search_does_not_hide_a_fault_of_the_file(tmp_path, capsys, search, message):
    config = space_file(**search)
    config["trainer"] = {**config["trainer"], "save_dir": str(tmp_path / "saved")}
    (tmp_path / "c.json").write_text(json.dumps(config))
    assert main(["-c", str(tmp_path / "c.json"), "--test-run", "1,2,2,2"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("sizes", ["", "2,3,4", "2,3,4,x", "2,3,4,0", "1,2,3,4,5"])
def test_four_sizes_are_needed(sizes):
    with pytest.raises(ConfigError, match="must be four whole numbers from 1, EPOCHS,TRAIN,VALID,SAMPLES"):
        shrunk(space_file(), sizes)


def test_a_loader_without_arguments_cannot_be_made_small():
    with pytest.raises(ConfigError, match=r"train_loader: --test-run sets its args\.samples, and it has no args"):
        shrunk({**space_file(), "train_loader": "Loader"}, "1,1,1,1")


@pytest.mark.parametrize(
    ("rate", "args", "expected"),
    [
        ({"$loguniform": [0.001, 0.1]}, {"max_lr": 0.01}, True),
        ({"$loguniform": [0.001, 0.1]}, {"max_lr": {"$choice": [0.01, 0.02]}}, False),
        ({"$loguniform": [0.001, 0.1]}, {"pct_start": 0.1}, False),
        (0.01, {"max_lr": 0.02}, False),
    ],
)
def test_a_searched_rate_without_effect_is_known(rate, args, expected):
    config = {"optimizer": {"type": "SGD", "args": {"lr": rate}}}
    assert has_inert_rate({**config, "lr_scheduler": {"type": "OneCycleLR", "args": args}}) is expected
    assert not has_inert_rate({**config, "lr_scheduler": {"type": "CyclicLR", "args": args}})
    assert not has_inert_rate({**config, "lr_scheduler": "OneCycleLR"})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_no_shipped_search_has_a_rate_without_effect(path):
    assert not has_inert_rate(load_config(path))
