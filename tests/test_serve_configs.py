"""The configs that a request may start: what a job would load is held to the rule, and all that a study makes of it."""

import json
from pathlib import Path

import pytest

from config import load_config
from search.serve.jobs.allowed import admitted, config_text, kind_of, require_inside
from search.serve.jobs.starting import AllowedConfigs
from search.serve.refusals import Refusal
from tests.support.served_job import write_configs
from utils.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]


def test_only_files_below_the_allowed_folders_are_configs(tmp_path):
    configs = write_configs(tmp_path / "configs")
    (configs / "inner").mkdir()
    (configs / "inner/table.json").write_text("[1]")
    (tmp_path / "secret.json").write_text('{"name": "secret"}')
    (configs / "link.json").symlink_to(tmp_path / "secret.json")
    (configs / "linked").symlink_to(tmp_path)
    allowed = AllowedConfigs([configs])
    assert list(allowed.files()) == ["configs/inner/table.json", "configs/plain.json", "configs/sweep.json"]
    assert allowed.kinds() == {"configs/plain.json": "training", "configs/sweep.json": "study"}
    for text in ("name=a\0b", "name=\ud800"):
        with pytest.raises(ConfigError, match=r"override 'name=.*a character that no file can hold"):
            allowed.load("configs/plain.json", [text])
    for name in ("configs/../secret.json", "secret.json", "/etc/passwd", "configs/link.json", ""):
        with pytest.raises(Refusal, match="is in no folder of --configs"):
            allowed.load(name, [])


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["name=../elsewhere"], r"name: \"../elsewhere\" names no folder"),
        (["name=.serve"], "names no folder"),
        (["name=a/b"], "names no folder"),
        (["search.run_dir=/tmp"], r"search\.run_dir: \"/tmp\" is outside"),
        (["search.run_dir={saved}/.serve/jobs"], r"search\.run_dir: .* or hidden in it"),
        (["search.run_dir={saved}/runs"], r"search\.run_dir: .* in the folder of their study"),
        (["visualization.wandb={}"], r"visualization\.wandb: a service sends no results elsewhere"),
        (['visualization.mlflow={"tracking_uri": "http://x"}'], r"visualization\.mlflow"),
        (["search.executor.args.address=10.0.0.1:6379"], r"executor\.args\.address: \"10.0.0.1:6379\" is another"),
        (["arch.args.weights=DEFAULT"], r"arch\.args\.weights: \"DEFAULT\" may be downloaded"),
        (['arch.args.inner={"$choice": [{"pretrained": true}, 1]}'], "may be downloaded"),
        (["arch.args.name=hf_hub:someone/net"], "of a config that a service starts is fetched"),
        (["train_loader.type=torchvision.datasets.LSUN"], "runs code from its files"),
        (["search.num_samples=none"], r"search\.num_samples"),
    ],
)
def test_a_config_that_writes_or_reads_elsewhere_is_refused(overrides, fault, tmp_path):
    configs = write_configs(tmp_path / "configs")
    overrides = [each.replace("{saved}", str(tmp_path / "saved")) for each in overrides]
    content = load_config(configs / "sweep.json", overrides)
    with pytest.raises(ConfigError, match=fault):
        admitted(content, "study", tmp_path / "saved")


def test_a_config_is_saved_in_the_folder_of_the_service_and_downloads_nothing(tmp_path):
    configs = write_configs(tmp_path / "configs")
    content = load_config(configs / "plain.json", ["trainer.save_dir=/tmp", "train_loader.args.download=true"])
    found = admitted(content, "training", tmp_path / "saved")
    assert found["trainer"]["save_dir"] == str(tmp_path / "saved")
    assert found["train_loader"]["args"]["download"] is False
    with pytest.raises(Refusal, match="POST /api/runs"):
        admitted(content, "study", tmp_path / "saved")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/plain").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="names no folder"):
        admitted(content, "training", tmp_path / "saved")


REFERENCES = (
    ['$defs={"n": ".serve"}', 'name={"$ref": "n"}'],
    ['$defs={"u": {"tracking_uri": "file:/tmp/out"}}', 'visualization.mlflow={"$ref": "u"}'],
    ['$defs={"w": {}}', 'visualization={"$ref": "w"}'],
    ['$defs={"w": "DEFAULT"}', "arch.type=UNet", 'arch.args={"$ref": "w"}'],
    ["$extends=/etc/hostname"],
    ["$extends=[]"],
    ["$schema=x"],
    ["optimizer.args.$ref=x"],
    ['search.retrain={"top": 1, "changes": {"arch.$ref": "x"}}'],
)


@pytest.mark.parametrize("overrides", REFERENCES, ids=range(len(REFERENCES)))
def test_overrides_cannot_refer_to_values_that_the_job_would_read(overrides, tmp_path):
    content = load_config(write_configs(tmp_path / "configs") / "sweep.json", overrides)
    with pytest.raises(ConfigError, match="refers to another value, and an override cannot set it"):
        admitted(content, "study", tmp_path / "saved")


def test_a_config_that_its_job_would_read_otherwise_is_refused(tmp_path):
    content = load_config(write_configs(tmp_path / "configs") / "sweep.json", ['$defs={"n": 1}'])
    with pytest.raises(ConfigError, match=r"a job would read \$defs otherwise"):
        admitted(content, "study", tmp_path / "saved")


def test_a_job_loads_the_config_that_was_checked(tmp_path):
    configs = write_configs(tmp_path / "configs")
    (tmp_path / "base.json").write_text('{"optimizer": {"type": "SGD", "args": {"lr": 1e-1}}}')
    content = {"$extends": "../base.json", "$defs": {"w": {"$choice": [1, 2.0]}}, "arch": {"type": "UNet", "args": {}}}
    content["arch"]["args"]["width"] = {"$var": "w"}
    (configs / "space.json").write_text(
        json.dumps({**content, "trainer": {"epochs": 2}, "search": {"num_samples": 2, "objectives": ["min val_loss"]}})
    )
    found = admitted(load_config(configs / "space.json"), "study", tmp_path / "saved")
    (tmp_path / "config.json").write_text(config_text(found))
    assert load_config(tmp_path / "config.json") == found


LATER = (
    ({"visualization": {"wandb": {}}}, r"visualization\.wandb: a service sends no results elsewhere"),
    ({"visualization.mlflow.tracking_uri": "file:/tmp/out"}, r"visualization\.mlflow"),
    ({"visualization": {"$choice": [{"wandb": {}}, {}]}}, "visualization: is drawn"),
    ({"trainer.save_dir": "/tmp/out"}, r"trainer\.save_dir: must be the folder"),
    ({"arch.args.weights": "DEFAULT"}, r"arch\.args\.weights: \"DEFAULT\" may be downloaded"),
    ({"train_loader.type": "torchvision.datasets.LSUN"}, "runs code from its files"),
    ({"train_loader": {"args": {"download": True}}}, "download: a service downloads nothing"),
    ({"arch": {"type": "UNet", "args": {"cache_dir": "/tmp"}}}, "is fetched or read from elsewhere"),
    ({"search.executor.args.address": "10.0.0.1:6379"}, "is another cluster"),
    ({"name": ".serve"}, "names no folder"),
)


@pytest.mark.parametrize(("changes", "fault"), LATER, ids=range(len(LATER)))
@pytest.mark.parametrize("place", ["condition", "retrain", "selection", "supernet", "retrain of condition"])
def test_all_that_a_study_trains_is_held_to_the_rule(place, changes, fault, tmp_path):
    retrain = {"retrain": {"top": 1, "changes": changes}}
    search = {
        "condition": {"study": {"conditions": {"none": {}, "other": changes}}},
        "retrain": retrain,
        "selection": {"strategy": {"type": "POPNAS", "args": {"selection": {"changes": changes}}}},
        "supernet": {"strategy": {"type": "AutoDeepLab", "args": {"supernet": changes}}},
        "retrain of condition": {"study": {"conditions": {"a": {"search.retrain": retrain["retrain"]}}}},
    }[place]
    configs = write_configs(tmp_path / "configs")
    (configs / "sweep.json").write_text(json.dumps({"trainer": {"epochs": 2}, "search": search}))
    with pytest.raises(ConfigError, match=fault):
        admitted(load_config(configs / "sweep.json"), "study", tmp_path / "saved")


def test_conditions_have_no_conditions(tmp_path):
    study = {"conditions": {"a": {"search.study": {"conditions": {"b": {}}}}}}
    with pytest.raises(ConfigError, match=r"study\.conditions\.a: search\.study: a condition has no conditions"):
        require_inside({"name": "a", "search": {"study": study}}, tmp_path)
    study = {"conditions": {str(number): {} for number in range(1000)}}
    with pytest.raises(ConfigError, match="1000 sets of changes, more than 500"):
        require_inside({"name": "a", "search": {"study": study}}, tmp_path)


DEFINED = (
    ({"weights": "DEFAULT"}, "arch", r"\$defs\.x\.weights: \"DEFAULT\" may be downloaded"),
    ({"name": "hf_hub:someone/net"}, "arch", r"\$defs\.x\.name.* is fetched"),
    ({"root": "a", "type": "torchvision.datasets.LSUN"}, "train_loader", r"\$defs\.x\.type.* runs code from its files"),
)


@pytest.mark.parametrize(("value", "section", "fault"), DEFINED, ids=range(len(DEFINED)))
def test_definitions_of_a_space_are_held_to_the_rule(value, section, fault, tmp_path):
    content = {"$defs": {"x": value}, "trainer": {"epochs": 2}, "search": {"num_samples": 2}}
    content[section] = {"type": "UNet", "args": {"$var": "x"}}
    (tmp_path / "space.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=fault):
        admitted(load_config(tmp_path / "space.json"), "study", tmp_path / "saved")


@pytest.mark.parametrize("name", ["search/auto_deeplab_people", "search/minimal", "studies/search_against_random"])
def test_shipped_studies_can_be_started(name, tmp_path):
    config = load_config(ROOT / f"config/{name}.json")
    assert admitted(config, kind_of(config), tmp_path)["name"] == config["name"]
