"""The networks that come with Espalier: their names, their files, and what they do on photos."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import inference
from config import load_config
from models.zoo.cards import FOLDER, cards, find_network
from models.zoo.pack import packed
from utils.checkpoint_file import read_checkpoint
from utils.errors import CheckpointError

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.pth"))


def test_every_network_has_a_card_and_every_card_a_network() -> None:
    assert [card.name for card in cards()] == sorted(path.stem for path in FOLDER.glob("*.json")) == ["people"]
    for card in cards():
        assert card.scores
        assert all(re.search(r"\d", score) for score in card.scores.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_small_and_as_its_card_and_its_config_say(name: str) -> None:
    card = next(card for card in cards() if card.name == name)
    content = read_checkpoint(card.file)
    config = load_config(ROOT / card.config)
    stored = content["config"]
    numbers = sum(value.numel() for key, value in content["state_dict"].items() if "running" not in key)

    assert card.file.stat().st_size <= 8e6
    of_training = ("weights", "frozen_stages")
    wanted = {key: value for key, value in config["arch"]["args"].items() if key not in of_training}
    assert {key: stored["arch"]["args"][key] for key in wanted} == wanted
    assert tuple(stored["valid_loader"]["args"]["resize"]) == card.input_size
    assert card.parameters == pytest.approx(numbers, rel=0.001)  # the norms count their batches, too
    assert '"/' not in json.dumps(stored)  # no path of the machine that trained it


def test_people_are_found_in_photos() -> None:
    network = inference.load("people")
    counts = np.zeros((2, 2))
    for line in (ROOT / "data" / "people" / "test_pairs.txt").read_text().splitlines():
        image, mask = (ROOT / "data" / "people" / part.strip() for part in line.split(","))
        found = network.masks([cv2.imread(str(image))[..., ::-1].copy()])[0]
        truth = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
        counts += np.histogram2d(truth.ravel(), found.ravel(), bins=2, range=[[0, 1], [0, 1]])[0]
    iou = counts[1, 1] / (counts.sum() - counts[0, 0])
    assert iou > 0.85

    assert network.class_names == ["background", "person"]


def test_the_command_takes_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = next((ROOT / "data" / "people" / "images" / "test").glob("*.jpg"))
    arguments = ["--model", "people", "--source", str(photo), "--output", str(tmp_path / "cut"), "--mode", "cutout"]

    inference.main(inference.parser().parse_args(arguments))

    cut = cv2.imread(str(tmp_path / "cut" / f"{photo.stem}.png"), cv2.IMREAD_UNCHANGED)
    assert cut.shape[2] == 4
    assert 0.05 < (cut[..., 3] > 127).mean() < 0.6


def test_models_are_listed_with_scores_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        inference.parser().parse_args(["--list-models"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert text.startswith("people: ")
    assert all(word in text for word in ("Apache-2.0", "limits", "config/people/zoo.json"))


def test_an_existing_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_network("people") == str(FOLDER / "people.pth")
    (tmp_path / "people").mkdir()
    assert find_network("people") == "people"
    assert find_network("saved/people") == "saved/people"
    with pytest.raises(
        CheckpointError, match=r"^peoples: there is no such file, and no such network .* networks: people\.$"
    ):
        find_network("peoples")


def test_a_packed_checkpoint_holds_what_inference_needs_and_no_more() -> None:
    weights = {"a": torch.tensor([1.0, 2.0]), "count": torch.tensor(3)}
    content = {
        "format_version": 1, "arch": "UNet", "monitor_best": 0.9, "epoch": 2, "global_step": 4, "versions": {},
        "state_dict": {"a": torch.zeros(2), "count": torch.tensor(0)}, "ema": {"state_dict": weights},
        "optimizer": {"state": {}}, "rng": [], "config": {"name": "x", "trainer": {"epochs": 3, "save_dir": "/mine"}},
    }  # fmt: skip
    small = packed(content)

    assert small["state_dict"]["a"].dtype == torch.float16
    assert small["state_dict"]["a"].tolist() == [1, 2]
    assert small["state_dict"]["count"].item() == 3
    assert small["config"] == {"name": "x", "trainer": {"epochs": 3}}
    assert not small.keys() & {"optimizer", "rng", "ema"}
    assert content["config"]["trainer"]["save_dir"] == "/mine"
