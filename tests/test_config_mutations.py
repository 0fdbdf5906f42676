"""Three hundred ways to get a configuration wrong: each ends in code 2 with its place, and nothing touches the disk."""

import copy
import json
import random
import re
from pathlib import Path

import pytest
from test_config_dialects import HUMAN_SEGMENTATION

import train
from config import cli, load_config

ROOT = Path(__file__).parent.parent
PER_KIND = 50
OUT_OF_RANGE = {
    "seed": [-1, 2**63],
    "n_gpu": [-1],
    "trainer.epochs": [0, -3],
    "trainer.verbosity": [-1, 3],
    "trainer.early_stop": [-1],
    "trainer.save_period": [0, -1],
    "optimizer.args.lr": [-0.1],
    "optimizer.args.weight_decay": [-1],
    "train_loader.args.batch_size": [0, -4],
    "train_loader.args.n_workers": [-1],
    "train_loader.args.flip_hor": [1.5, -0.1],
    "train_loader.args.crop_range": [[1.2, 0.8], [-1, 1]],
    "train_loader.args.padding_value": [-1, 256],
    "train_loader.args.resize": [0, [0, 5]],
    "train_loader.args.samples": [0],
    "arch.args.dropout": [1.5, -1],
    "arch.args.in_channels": [0],
    "lr_scheduler.args.pct_start": [1.5, -1],
    "loss.0.args.smooth": [-1],
}


def today():
    """The quickstart, with its images found from anywhere."""
    config = load_config(ROOT / "config/people/quickstart.json")
    for section in ("train_loader", "valid_loader", "test_loader"):
        config[section]["args"]["pairs_file"] = str(ROOT / config[section]["args"]["pairs_file"])
    config["loss"] = [{"type": "dice_loss", "weight": 1, "args": {"smooth": 1}}, *config["loss"]]
    return config


def older():
    """The older dialect on the same images."""
    config = copy.deepcopy(HUMAN_SEGMENTATION)
    for section, split in (("train_loader", "train"), ("valid_loader", "valid")):
        pairs = str(ROOT / f"data/people/{split}_pairs.txt")
        config[section]["args"] |= {"pairs_file": pairs, "n_workers": 0, "resize": 64}  # a step of 320 takes seconds
    config["train_loader"]["args"]["batch_size"] = 4
    return config


def walk(value, path=""):
    """Every (path, value) in a configuration."""
    if path:
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from walk(item, f"{path}.{key}" if path else str(key))


def holder_of(config, path):
    """The container of a path's last part, and that part."""
    *parts, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    for part in parts:
        config = config[part]
    return config, last


def misspelt(word, chance):
    place = chance.randrange(len(word))
    return (
        chance.choice([word[:place] + word[place + 1 :], word[:place] + word[place] + word[place:], f"{word}x"]) or "x"
    )


def misspell_a_key(config, chance):
    path = chance.choice([path for path, _ in walk(config) if not path.rpartition(".")[2].isdecimal()])
    holder, key = holder_of(config, path)
    wrong = misspelt(key, chance)
    holder[wrong] = holder.pop(key)
    return f"{path.removesuffix(key)}{wrong}: unknown"


def change_a_type(config, chance):
    leaves = [(path, value) for path, value in walk(config) if value is not None and not isinstance(value, dict | list)]
    path, value = chance.choice(
        [leaf for leaf in leaves if leaf[0] not in ("loss", "metrics.0") and ".type" not in leaf[0]]
    )
    holder, key = holder_of(config, path)
    holder[key] = chance.choice([3.5, {}, []]) if isinstance(value, str) else chance.choice(["text", {}, "3"])
    return re.match(r"\w+\.args\.\w+|[\w.]+", path).group()


def leave_the_range(config, chance):
    objects = {path for path, value in walk(config) if isinstance(value, dict)}
    path = chance.choice([path for path in OUT_OF_RANGE if path.rpartition(".")[0] in {*objects, ""}])
    holder, key = holder_of(config, path)
    holder[key] = chance.choice(OUT_OF_RANGE[path])
    return path.split(".")[0]


def name_an_unknown_class(config, chance):
    path = chance.choice(
        [path for path, _ in walk(config) if path.endswith(".type") or re.match(r"metrics\.\d$", path)]
    )
    holder, key = holder_of(config, path)
    holder[key] = chance.choice(
        [misspelt(holder[key], chance), f"torch.nn.{holder[key]}x", "os.system", "builtins.eval"]
    )
    return f"{path.removesuffix('.type')}.type: "


def unbind_the_arguments(config, chance):
    path = chance.choice([path for path, _ in walk(config) if path.endswith(".args")])
    holder, key = holder_of(config, path)
    wrong = chance.choice(["params", "self", "kwargs", "learning_rate", "Lr", "0", "args"])
    holder[key][wrong] = 1
    return f"{path}.{wrong}: "


MUTATIONS = [misspell_a_key, change_a_type, leave_the_range, name_an_unknown_class, unbind_the_arguments]


def outcome(path, capsys, *flags):
    """Exit code and message of train.py."""
    code = cli.run_command(train.main, train.parser(), ["-c", str(path), *flags])
    return code, capsys.readouterr().err


def check_refused(text, expected, folder, capsys):
    path = folder / "config.json"
    path.write_text(text)
    code, message = outcome(path, capsys)
    assert code == 2, text
    assert "Traceback" not in message
    assert re.search(rf"(?m)^(error:)? *{expected}", message), f"{expected!r} is not in {message}"
    assert list(folder.iterdir()) == [path]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("base", [today, older])
def test_the_configurations_are_good_before_they_are_mutated(base, folder, capsys):
    path = folder / "config.json"
    path.write_text(json.dumps(base()))
    code, message = outcome(path, capsys, "--check")
    assert (code, "error" in message) == (0, False)


@pytest.mark.parametrize("number", range(PER_KIND))
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_mutated_configuration_is_refused_with_its_path(mutate, number, folder, capsys):
    chance = random.Random(f"{mutate.__name__} {number}")
    config = chance.choice([today, older])()
    place = mutate(config, chance)
    check_refused(json.dumps(config), re.escape(place), folder, capsys)


@pytest.mark.parametrize("number", range(PER_KIND))
def test_a_missing_brace_is_refused_with_line_and_column(number, folder, capsys):
    chance = random.Random(f"brace {number}")
    text = json.dumps(chance.choice([today, older])(), indent=2)
    place = chance.choice([match.start() for match in re.finditer(r'[{}\[\]",:]', text)])
    check_refused(text[:place] + text[place + 1 :], r".*config\.json: line \d+ column \d+: ", folder, capsys)
