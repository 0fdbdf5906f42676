"""The parts of one's own in docs/extending.md and docs/loops.md, each trained as it stands there."""

import json
import re
import runpy
import shlex

import cv2
import numpy as np
import pytest
import torch

import inference
import test as test_command
import train
from base import Callback
from base.base_trainer import StopRequest
from config import cli, load_config, load_plugins
from tests.support.pages import PAGES, PLUGINS, blocks, workplace  # noqa: F401 (a fixture)
from trainer.trainer import Trainer
from utils.checkpoint_file import read_checkpoint
from utils.errors import Interrupted

SCRIPTS = [(page, text) for page, text in blocks("python") if page not in ("extending.md", "loops.md")]


def run(command):
    return cli.run_command(train.main, train.parser(), shlex.split(command))


def test_every_block_of_code_is_one_of_these():
    assert PLUGINS == ["my_functions", "my_loader", "my_loop", "my_measures", "my_net", "my_trainer"]
    assert [page for page, _ in blocks("python")].count("extending.md") == 4
    assert [page for page, _ in blocks("python")].count("loops.md") == 3
    assert [page for page, _ in SCRIPTS] == ["popnas_networks.md", "popnas_runs.md"]


@pytest.mark.parametrize(("page", "text"), SCRIPTS, ids=[page for page, _ in SCRIPTS])
def test_a_script_runs_as_it_stands(page, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, masks = np.empty(2, dtype=object), np.empty(2, dtype=object)
    for number, size in enumerate([(4, 6), (5, 3)]):
        images[number] = np.full((*size, 3), [250, 0, 3], np.uint8)
        masks[number] = np.full((*size, 1), number)
    for name in ("training", "validation", "test"):
        np.savez(tmp_path / f"{name}.npz", x=images, y=masks)
    exec(compile(text, page, "exec"), {})
    if page == "popnas_runs.md":
        written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
        assert len(written) == 2 * 3 * 2
        image, mask = (cv2.imread(f"masks/{kind}/val/1.png", cv2.IMREAD_UNCHANGED) for kind in ("data", "labels"))
        assert image.shape == (5, 3, 3)
        assert image[0, 0].tolist() == [3, 0, 250]
        assert (mask == 1).all()


@pytest.mark.parametrize("name", PLUGINS)
def test_a_part_of_ones_own_trains(name, workplace, capsys):  # noqa: F811
    assert run(f"-c {name}.json --plugin {name}.py") == 0, capsys.readouterr().err
    (folder,) = (workplace / "saved" / name).iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["epochs"] == 2
    assert result["best"] is not None
    assert all(np.isfinite(value) for value in result["last"].values())


def test_the_loss_is_that_of_its_paper(workplace):  # noqa: F811
    load_plugins(["my_measures.py"])
    from my_measures import FocalLoss

    logits = torch.tensor([[[[2.0, 2.0]], [[0.0, 0.0]]]])  # class 0 has the probability 0.8807970 at both pixels
    target = torch.tensor([[[0, 255]]])
    expected = (1 - 0.8807970) ** 2 * 0.1269280
    assert float(FocalLoss(2.0, ignore_index=255)(logits, target)) == pytest.approx(expected, rel=1e-5)
    assert float(FocalLoss()(logits, torch.full_like(target, -100))) == 0.0


def test_the_metric_counts_images(workplace):  # noqa: F811
    load_plugins(["my_measures.py"])
    from my_measures import Found

    found = Found(0.5, ignore_index=255)
    assert np.isnan(found.compute()["found"])
    logits = torch.tensor([[[[0.0, 0.0]], [[1.0, 1.0]]]] * 2)
    found.update(logits, torch.tensor([[[1, 255]], [[0, 0]]]))
    assert found.compute() == {"found": 0.5}


def test_the_loader_holds_a_part_back(workplace):  # noqa: F811
    load_plugins(["my_loader.py"])
    from my_loader import PhotoLoader

    loader = PhotoLoader("data/people", 32)
    assert (loader.num_samples, loader.split_validation().num_samples) == (160, 40)
    image, mask = next(iter(loader))
    assert (image.shape, mask.shape) == ((8, 3, 32, 32), (8, 32, 32))
    assert set(mask.unique().tolist()) == {0, 1, 255}


def test_the_trainer_pastes_a_stripe_of_image_and_mask(workplace, monkeypatch):  # noqa: F811
    load_plugins(["my_trainer.py"])
    from my_trainer import CutMixTrainer

    seen = []
    monkeypatch.setattr(Trainer, "train_step", lambda self, inputs, target: seen.append((inputs, target)))
    trainer = CutMixTrainer.__new__(CutMixTrainer)
    trainer.share = 0.25
    target = torch.arange(2)[:, None, None].expand(2, 3, 8)
    trainer.train_step(target[:, None].float().expand(2, 3, 3, 8), target)
    ((inputs, mixed),) = seen
    assert (mixed != target).float().mean() == 0.25
    assert torch.equal(inputs, mixed[:, None].float().expand(2, 3, 3, 8))


class StopOnce(Callback):
    """A signal in the middle of the first epoch."""

    def on_step_end(self, trainer, report):
        if trainer.global_step == 1:
            trainer.stop_request = StopRequest.from_signal(15)


@pytest.mark.parametrize("name", ["my_loop", "my_trainer"])
def test_a_loop_of_ones_own_resumes_exactly(name, workplace):  # noqa: F811
    load_plugins([f"{name}.py"])
    expected = train.train(load_config(f"{name}.json", ["name=whole", "train_loader.args.batch_size=2"]))
    parts = [f"{name}.json", ["name=parts", "train_loader.args.batch_size=2"]]
    with pytest.raises(Interrupted, match="the state was saved"):
        train.train(load_config(*parts), [StopOnce()])
    result = train.train(load_config(*parts), resume="last")
    assert result.history == expected.history
    one, other = (read_checkpoint(each.run_folder / "checkpoint-last.pth") for each in (expected, result))
    assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])


def test_the_script_with_a_callback_runs(workplace, capsys):  # noqa: F811
    shown = runpy.run_path("my_run.py", run_name="__main__")
    assert re.search(r"^epoch \d: val_miou 0\.\d+, saved/good_enough/", capsys.readouterr().out, re.M)
    config = load_config("config/people/quickstart.json")
    assert train.train(config, callbacks=[shown["StopAt"](0.0)]).epochs == 1


def test_a_network_of_ones_own_is_tested_and_used(workplace, capsys):  # noqa: F811
    assert run("-c my_net.json --plugin my_net.py") == 0
    (folder,) = (workplace / "saved/my_net").iterdir()
    shown = PAGES["loops.md"].split("## Afterwards")[1]
    for script, command in (("test.py", test_command), ("inference.py", inference)):
        line = re.search(rf"python {script} (.*)", shown).group(1).replace("saved/my_net/RUN", str(folder))
        assert cli.run_command(command.main, command.parser(), shlex.split(line)) == 0, capsys.readouterr().err
    assert list((workplace / "out").iterdir())


def test_a_loader_of_ones_own_tells_inference_how_to_prepare_a_image(workplace, capsys):  # noqa: F811
    assert run("-c my_loader.json --plugin my_loader.py trainer.epochs=1") == 0
    (folder,) = (workplace / "saved/my_loader").iterdir()
    segmenter = inference.load(folder, plugins=["my_loader.py"])
    assert segmenter.preprocess.size == (96, 96)
