"""Keys of optimizer and lr_scheduler beside their class: checked before anything is built, and at work."""

import copy
from pathlib import Path

import pytest
from test_train import changed, small  # noqa: F401 (a fixture)

from build import registry
from config import validate
from config.schema import json_schema
from tests.support.config_samples import sample
from train import train
from utils.checkpoint_file import read_checkpoint
from utils.errors import ConfigError


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("optimizer", {"groups": [{"lr_scale": 1.0}]}, r"optimizer\.groups\.0\.match: missing"),
        ("optimizer", {"groups": [{"match": "x", "lrscale": 1}]}, r'optimizer\.groups\.0\.lrscale: .*"lr_scale"'),
        ("optimizer", {"layer_decay": 1.5}, r"optimizer\.layer_decay: 1\.5 must be"),
        ("optimizer", {"layer_deca": 0.5}, r'optimizer\.layer_deca: unknown key .*"layer_decay"'),
        ("lr_scheduler", {"interval": "batch"}, r'lr_scheduler\.interval: "batch" must be .*"epoch", "step"'),
        ("lr_scheduler", {"warmup": 0}, r"lr_scheduler\.warmup: 0 must be"),
    ],
)
def test_wrong_extras_are_named_by_their_path(small, section, value, message):  # noqa: F811
    config = copy.deepcopy(small)
    config[section] = {**config[section], **value}
    with pytest.raises(ConfigError, match=message):
        validate(config, registry())


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ([], r"lr_scheduler: \[\] names no scheduler"),
        (["poly", "poly"], r"lr_scheduler\.0\.moves: missing"),
        ([{"type": "poly", "moves": 1}, {"type": "poly", "moves": 1}], r"lr_scheduler\.1\.moves: the last part"),
        ([{"type": "poly", "moves": 1}, {"type": "poly", "warmup": 1}], r"lr_scheduler\.1\.warmup: a warm-up is at"),
    ],
)
def test_wrong_chains_are_named_by_their_path(small, chain, message):  # noqa: F811
    with pytest.raises(ConfigError, match=message):
        validate({**small, "lr_scheduler": chain}, registry())


def test_the_schema_knows_the_extras():
    definitions = json_schema(registry())["$defs"]
    adam = next(item for item in definitions["optimizer"]["anyOf"] if item.get("title") == "AdamW")
    assert {"groups", "layer_decay", "decay_norm_and_bias"} <= set(adam["properties"])
    assert "warmup" in next(iter(definitions["lr_scheduler"]["anyOf"][3:]))["properties"]
    assert "arch" in sample()


def test_all_of_it_trains_and_goes_on_with_the_same_history(small):  # noqa: F811
    config = changed(
        small,
        optimizer__groups=[{"match": "head*", "lr_scale": 5.0}],
        optimizer__decay_norm_and_bias=False,
        lr_scheduler={"type": "poly", "warmup": 1},
        trainer__accumulate=2,
        trainer__ema=0.9,
        trainer__clip_norm=1.0,
        trainer__freeze=["encoder"],
        trainer__unfreeze_epoch=2,
        trainer__checkpoint_activations=["decoder"],
    )
    whole = train(changed(config, name="whole"))
    first = train(config)
    folder = Path(first.run_folder)
    (folder / "checkpoint-last.pth").unlink()
    (folder / "model_best.pth").rename(folder / "checkpoint-last.pth")
    again = train(config, resume="auto")
    assert again.history == whole.history
    content = read_checkpoint(whole.run_folder / "checkpoint-last.pth")
    assert content["ema"]["updates"] == content["global_step"] == 2 * 2  # 10 samples in steps of 8 and 2
    groups = content["optimizer"]["param_groups"]
    assert [group.get("lr_scale", 1.0) for group in groups] == [1.0, 1.0, 5.0, 5.0]
    assert [group["weight_decay"] > 0 for group in groups] == [True, False, True, False]
