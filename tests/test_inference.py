"""inference.py: what it makes of a checkpoint, on every kind of source, and what it says when something is wrong."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_predictor_sources import save, save_video
from torch import nn

import inference
from base.base_inference import BaseInference, batches_of_one_size, choose_device, read_trained
from build import build_loader, build_model
from config import DataSpec, cli
from data_loader.images.files import read_image, read_mask
from data_loader.images.preprocessing import Preprocessing
from predictor.io import sinks as outputs
from predictor.io.sources import Video
from predictor.segmenter import Segmenter
from tests.support.checkpoints import write_checkpoint
from tests.support.groups import from_flat
from tests.support.seen import RedNet, red_segmenter, red_square
from utils.errors import CheckpointError, ConfigError, DataError
from utils.geometry import restore_logits

ROOT = Path(__file__).parents[1]
PEOPLE = ROOT / "data" / "people"
PHOTOS = sorted((PEOPLE / "images").rglob("*.jpg"))[:5]


def people_config(**loader_arguments):
    arguments = {
        "pairs_file": str(PEOPLE / "test_pairs.txt"),
        "classes": ["background", "person"],
        "resize": [48, 32],
        "is_training": False,
        "samples": 4,
        **loader_arguments,
    }
    return {
        "name": "tiny",
        "arch": {"type": "UNet", "args": {"channels": [4, 8], "num_classes": 2, "in_channels": 3}},
        "valid_loader": {"type": "SegmentationDataLoader", "args": arguments},
    }


def save_untrained(path, config, step=1):
    torch.manual_seed(3)
    model = build_model(config, DataSpec.from_config(config))
    for module in model.modules():  # statistics of its own, so that a wrong preprocessing shows
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
    content = {"arch": config["arch"]["type"], "epoch": 1, "global_step": step, "format_version": 1}
    write_checkpoint(path, {**content, "state_dict": model.state_dict(), "config": config})
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("run") / "model_best.pth", people_config())


def run(*argv):
    return cli.run_command(inference.main, inference.parser(), [str(argument) for argument in argv])


def use(checkpoint, source, *argv):
    return run("--resume", checkpoint, "--source", source, "-d", "cpu", *argv)


@pytest.mark.parametrize("of_training", [None, 1, 3])
@pytest.mark.parametrize("window", [[], ["--window", "48", "32"]])
def test_the_limit_of_decoded_megabytes_is_that_of_the_command_line_or_of_training(
    tmp_path, capsys, of_training, window
):
    network = save_untrained(tmp_path / "model.pth", people_config(max_decoded_mb=of_training))
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((700, 600, 3), np.uint8))  # 1.2 MB
    options = [tmp_path / "large.png", "--output", tmp_path / "out", *window]
    assert use(network, *options) == (3 if of_training == 1 else 0)
    assert use(network, *options, "--max-decoded-mb", 2) == 0
    capsys.readouterr()
    assert use(network, *options, "--max-decoded-mb", 1) == 3
    message = (
        "the limit is 1 MB (max_decoded_mb). Scale it down, or set max_decoded_mb of the loader, or --max-decoded-mb"
    )
    assert message in capsys.readouterr().err
    background = ["--background", tmp_path / "large.png", "--max-decoded-mb", 1]
    assert use(network, PHOTOS[0], "--output", tmp_path / "out", *background) == 3
    assert "large.png holds 700x600 pixels" in capsys.readouterr().err


# --- the network in code ---


@pytest.mark.parametrize("resize", [[48, 32], 40, None])
def test_predictions_are_those_of_the_evaluation_loader(tmp_path, resize):
    config = people_config(resize=resize, batch_size=1)
    path = save_untrained(tmp_path / "c.pth", config)
    segmenter = inference.load(path)
    loader = build_loader(config, "valid")
    for inputs, _, sources in loader:
        logits = segmenter.model(inputs)[0]
        expected = restore_logits(logits, sources[0].geometry).softmax(dim=0).detach()
        (found,) = segmenter.probabilities([read_image(PEOPLE / sources[0].name)])
        assert found.shape[1:] == sources[0].target.shape
        assert np.allclose(found, expected, atol=1e-6)


def test_one_line_predicts_at_each_images_own_size(checkpoint):
    images = [read_image(path) for path in PHOTOS]
    masks = inference.predict(checkpoint, images)
    assert [mask.shape for mask in masks] == [image.shape[:2] for image in images]
    assert {0, 1} >= set(np.unique(masks[0]))


def test_batches_change_nothing(checkpoint):
    images = [read_image(path) for path in PHOTOS]
    segmenter = inference.load(checkpoint)
    together, alone = segmenter.probabilities(images, 4), segmenter.probabilities(images, 1)
    for left, right in zip(together, alone, strict=True):
        assert np.allclose(left, right, atol=1e-5)


def test_only_inputs_of_one_size_share_a_batch():
    assert batches_of_one_size([(3, 4, 4), (3, 4, 5), (3, 4, 4), (3, 4, 4)], 2) == [[0, 2], [3], [1]]
    segmenter = red_segmenter()
    images = [red_square((24, 32 + 8 * (index % 2)))[0] for index in range(5)]
    masks = segmenter.masks(images, batch_size=3)
    assert segmenter.model.seen_batches == [3, 2]
    assert [mask.shape[1] for mask in masks] == [32, 40, 32, 40, 32]


@pytest.mark.parametrize("resize", [None, 64, [30, 90]])
@pytest.mark.parametrize("has_auxiliary", [False, True])
def test_the_mask_lies_where_the_object_is(resize, has_auxiliary):
    image, inside = red_square((60, 80), 12, 32, 24)
    (mask,) = red_segmenter(resize, has_auxiliary=has_auxiliary).masks([image])
    assert (mask == inside).mean() > 0.97


def test_sixteen_bits_are_as_good_as_eight():
    image, inside = red_square()
    assert (red_segmenter().masks([image.astype(np.uint16) * 257])[0] == inside).all()


def test_a_result_is_rendered_for_each_image():
    image, inside = red_square()
    (shown,) = red_segmenter()([image])
    assert shown.shape == image.shape
    assert not (shown[inside] == image[inside]).all()


def test_the_base_wants_to_know_how_to_render():
    with pytest.raises(TypeError, match=r"abstract method '?render"):
        BaseInference(RedNet(), Preprocessing())


def test_an_image_without_the_channels_of_training():
    segmenter = Segmenter(RedNet(), from_flat(Preprocessing, in_channels=4, normalize=False))
    with pytest.raises(DataError, match="The image has 3 channels, but the network was trained on 4"):
        segmenter.probabilities([red_square()[0]])


def test_classes_by_name_and_id(checkpoint):
    segmenter = inference.load(checkpoint)
    assert segmenter.class_names == ["background", "person"]
    assert (segmenter.class_id("person"), segmenter.class_id("0")) == (1, 0)
    for wrong in ("persn", "2"):
        with pytest.raises(ConfigError, match=f"--class {wrong}: there is no such class. The network knows 0 backgro"):
            segmenter.class_id(wrong)
    segmenter.config = {"arch": {"args": {}}}
    assert segmenter.class_id("7") == 7  # how many there are is not known


def test_a_gpu_that_is_not_there_is_replaced(caplog):
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("64").type in {"cpu", "cuda"}
    assert "-d 64: there are" in caplog.text


# --- checkpoints ---


def test_the_best_of_a_run_folder_is_used_and_a_damaged_one_is_named(tmp_path, caplog):
    for step, name in enumerate(["checkpoint-epoch1.pth", "model_best.pth", "checkpoint-last.pth"]):
        save_untrained(tmp_path / name, people_config(), step)
    assert read_trained(tmp_path)[1].name == "model_best.pth"
    (tmp_path / "model_best.pth").write_bytes(b"damaged" * 100)
    assert read_trained(tmp_path)[1].name == "checkpoint-last.pth"
    assert re.search(r"model_best\.pth: .* damaged", caplog.text)
    (tmp_path / "checkpoint-last.pth").unlink()
    assert read_trained(tmp_path)[1].name == "checkpoint-epoch1.pth"


def test_checkpoints_that_cannot_be_used(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no such file.* No other checkpoint in .* is good"):
        read_trained(tmp_path)
    write_checkpoint(tmp_path / "weights.pth", {"state_dict": {}})
    with pytest.raises(CheckpointError, match=r"weights\.pth has no config: it is not a checkpoint of a training"):
        inference.load(tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="there is no such file"):
        inference.load(tmp_path / "gone.pth")


def test_weights_of_another_network(tmp_path, checkpoint):
    content, _ = read_trained(checkpoint)
    content["config"]["arch"]["args"]["channels"] = [4, 8, 16]
    write_checkpoint(tmp_path / "c.pth", content)
    with pytest.raises(CheckpointError, match=r"c\.pth: its weights do not fit the network that its config describes"):
        inference.load(tmp_path / "c.pth")


def test_nothing_is_fetched_to_use_a_checkpoint(tmp_path):
    config = people_config()
    config["arch"]["args"] = {"backbone": "resnet18", "num_classes": 2, "in_channels": 3}
    path = save_untrained(tmp_path / "c.pth", config)
    content, _ = read_trained(path)
    content["config"]["arch"]["args"]["weights"] = "/nowhere/resnet18.pth"
    write_checkpoint(path, content)
    assert inference.load(path).masks([read_image(PHOTOS[0])])[0].max() <= 1


def test_a_strangers_checkpoint_runs_only_what_the_registry_holds(tmp_path, checkpoint):
    content, _ = read_trained(checkpoint)
    for kind in ("os.system", "builtins.eval", "subprocess.Popen"):
        changed = copy.deepcopy(content)
        changed["config"]["arch"] = {"type": kind, "args": {"command": "touch x"}}
        write_checkpoint(tmp_path / "c.pth", changed)
        with pytest.raises(ConfigError, match=kind):
            inference.load(tmp_path / "c.pth")


def test_plugins_are_loaded_only_when_named(tmp_path):
    plugin = tmp_path / "my_red_net.py"
    plugin.write_text(
        "import torch\n\n\nclass MyNet(torch.nn.Module):\n"
        "    def __init__(self, num_classes: int):\n"
        "        super().__init__()\n        self.layer = torch.nn.Conv2d(3, num_classes, 1)\n\n"
        "    def forward(self, inputs):\n        return self.layer(inputs)\n"
    )
    config = people_config()
    config["arch"] = {"type": "my_red_net.MyNet", "args": {"num_classes": 2}}
    content = {"state_dict": nn.Conv2d(3, 2, 1).state_dict(prefix="layer."), "config": config}
    write_checkpoint(tmp_path / "c.pth", content)
    assert run("--resume", tmp_path / "c.pth", "--source", PHOTOS[0], "--output", tmp_path / "out") == 2
    assert use(tmp_path / "c.pth", PHOTOS[0], "--output", tmp_path / "out", "--plugin", plugin) == 0


# --- the command ---


def test_a_photo_in_every_mode(checkpoint, tmp_path):
    image = read_image(PHOTOS[0])
    (mask,) = inference.predict(checkpoint, [image])
    assert use(checkpoint, PHOTOS[0], "--output", tmp_path / "mask.png", "--mode", "mask") == 0
    assert (read_mask(tmp_path / "mask.png") == mask).all()
    assert use(checkpoint, PHOTOS[0], "--output", tmp_path / "new") == 0
    assert read_image(tmp_path / "new" / PHOTOS[0].name).shape == image.shape
    assert use(checkpoint, PHOTOS[0], "--output", tmp_path / "cut", "--mode", "cutout", "--class", "background") == 0
    cut = read_image(tmp_path / "cut" / f"{PHOTOS[0].stem}.png", in_channels=4)
    assert ((cut[..., 3] == 255) == (mask == 0)).all()
    assert use(checkpoint, PHOTOS[0], "--output", tmp_path / "b.png", "--background", "#0000ff") == 0
    assert (read_image(tmp_path / "b.png")[mask == 0] == (0, 0, 255)).all()
    assert use(checkpoint, PHOTOS[0], "--output", tmp_path / "s.png", "--mode", "background", "--soft") == 0
    assert use(checkpoint, PHOTOS[0], "--output", tmp_path / "p.png", "--background", PHOTOS[1]) == 0


def test_a_folder_with_a_bad_photo_is_done_and_ends_with_code_3(checkpoint, tmp_path, capsys):
    folder = tmp_path / "photos"
    save(folder / "a.jpg")
    save(folder / "a.png", size=(12, 9))
    save(folder / "deep" / "ü.png", size=(5, 64))
    (folder / "bad.jpg").write_bytes(b"no image")
    assert use(checkpoint, folder, "--output", tmp_path / "out", "--mode", "mask") == 3
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert written == ["a_jpg.png", "a_png.png", "deep/ü.png"]
    assert read_mask(tmp_path / "out" / "deep" / "ü.png").shape == (5, 64)
    told = capsys.readouterr().err
    assert "bad.jpg cannot be read as an image" in told
    assert "1 of 4 images could not be used; all others are done" in told


def test_a_folder_of_bad_photos_only(checkpoint, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    assert use(checkpoint, tmp_path, "--output", tmp_path / "out") == 3
    assert "None of the 1 images could be used. The first:" in capsys.readouterr().err


def test_a_video_keeps_frames_rate_and_size(checkpoint, tmp_path, capsys):
    clip = save_video(tmp_path / "clip.avi", count=7, rate=29.97)
    assert use(checkpoint, clip, "--output", tmp_path / "out", "--smooth", "0.6") == 0
    video = Video(tmp_path / "out" / "clip.mp4")
    assert video.frame_rate == pytest.approx(29.97, abs=1e-3)
    assert [frame.image.shape for frame in video] == [(32, 48, 3)] * 7
    told = capsys.readouterr().err
    assert "7 frames in" in told
    assert "sound" not in told


def test_a_video_cut_out_is_a_folder_of_frames(checkpoint, tmp_path, capsys):
    clip = save_video(tmp_path / "clip.avi")
    assert use(checkpoint, clip, "--output", tmp_path / "out", "--mode", "cutout", "--limit", 3) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png", "000002.png"]
    assert use(checkpoint, clip, "--output", tmp_path / "out.mp4", "--mode", "cutout") == 2
    assert "a video file has no transparency" in capsys.readouterr().err


def test_a_folder_of_videos_is_done_one_by_one(checkpoint, tmp_path, capsys):
    for name in ("a.avi", "b.avi"):
        save_video(tmp_path / name, count=3)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert use(checkpoint, tmp_path, "--output", tmp_path / "out", "--mode", "mask", "--limit", 5) == 3
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert written == {"a/000000.png", "a/000001.png", "a/000002.png", "b/000000.png", "b/000001.png"}
    assert "bad.mp4 cannot be read as a video" in capsys.readouterr().err


def test_a_camera_without_a_display_records_to_a_file(checkpoint, tmp_path, monkeypatch, caplog):
    real, scene = cv2.VideoCapture, save_video(tmp_path / "scene.avi", count=4)
    monkeypatch.setattr(cv2, "VideoCapture", lambda which, *more: real(str(scene) if which == 0 else which, *more))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outputs, "display_problem", lambda: "there is no display")
    assert use(checkpoint, "0", "--output", "seen.avi", "--show") == 0
    assert len(list(Video(tmp_path / "seen.avi"))) >= 1
    assert "No window is shown: there is no display." in caplog.text
    assert use(checkpoint, "0") == 2


def test_originals_stay_as_they_were(checkpoint, tmp_path, capsys):
    photo, clip = save(tmp_path / "a.png"), save_video(tmp_path / "v.avi")
    before = [path.read_bytes() for path in (photo, clip, checkpoint)]
    assert use(checkpoint, photo, "--output", photo) == 2
    assert use(checkpoint, photo, "--output", tmp_path) == 2
    assert use(checkpoint, clip, "--output", clip) == 2
    assert use(checkpoint, tmp_path, "--output", tmp_path) == 2
    assert use(checkpoint, clip, "--output", photo.parent / "b.avi", "--background", photo) == 0
    assert [path.read_bytes() for path in (photo, clip, checkpoint)] == before
    assert capsys.readouterr().err.count("Name another") == 4


@pytest.mark.parametrize(
    "mistake",
    [
        (["--output", "out", "--mode", "mask", "--soft"], 2, "--class and --soft have no effect in mode mask"),
        (["--output", "out", "--mode", "overlay", "--background", "blur"], 2, "--background has no effect in mode"),
        (["--output", "out", "--background", "nowhere.jpg"], 2, "--background nowhere.jpg: must be a colour"),
        (["--output", "out", "--mode", "cutout", "--class", "dog"], 2, "--class dog: there is no such class"),
        ([], 2, "The results have nowhere to go"),
        (["--output", "out", "--source", "nowhere.jpg"], 3, "--source nowhere.jpg does not exist"),
        (["--output", "out", "--resume", "nowhere.pth"], 4, "nowhere.pth: there is no such file"),
        (["--output", "out", "--source", "95"], 3, "Camera 95 gives no image"),
    ],
)
def test_mistakes_end_in_one_line_and_their_code(checkpoint, tmp_path, monkeypatch, capsys, mistake):
    arguments, code, message = mistake
    monkeypatch.chdir(tmp_path)
    assert use(checkpoint, PHOTOS[0], *arguments) == code
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_benchmark_prints_every_stage(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inference, "BENCHMARK_IMAGES", 9)
    assert use(checkpoint, PHOTOS[0], "--output", tmp_path, "--benchmark", "--batch-size", 2) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["stage", "ms/image", "measured"]
    rows = {line.split()[0]: line.split()[1:] for line in table[1:]}
    assert list(rows) == ["read", "preprocess", "model", "restore", "draw", "write", "sum", "images/s"]
    assert rows["draw"][1] == "6"  # nine without the three of the warm-up
    assert all(float(values[0]) > 0 for values in rows.values())


def test_benchmark_needs_no_output(checkpoint, monkeypatch):
    monkeypatch.setattr(inference, "BENCHMARK_IMAGES", 2)
    assert use(checkpoint, PHOTOS[0], "--benchmark") == 0


def test_an_interruption_keeps_what_is_done(checkpoint, tmp_path, monkeypatch):
    clip = save_video(tmp_path / "clip.avi")
    real = Segmenter.render
    calls = []

    def render(self, image, probabilities):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, image, probabilities)

    monkeypatch.setattr(Segmenter, "render", render)
    assert use(checkpoint, clip, "--output", tmp_path / "out.avi") == 130
    assert len(list(Video(tmp_path / "out.avi"))) == 3


def test_memory_that_runs_out_is_explained(checkpoint, tmp_path, monkeypatch, capsys):
    def logits(_self, _inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Segmenter, "logits", logits)
    assert use(checkpoint, PHOTOS[0], "--output", tmp_path) == 5
    assert "Memory ran out with 1 images at once. Make --batch-size smaller" in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    code = "import sys; import inference; inference.parser().format_help(); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "cv2", "numpy", "albumentations", "torchvision"):
        assert f"'{heavy}'" not in loaded


def test_smooth_is_a_share(capsys):
    with pytest.raises(SystemExit) as ended:
        inference.parser().parse_args(["--resume", "x", "--source", "y", "--smooth", "1"])
    assert ended.value.code == 2
    assert "1 must be from 0 to below 1" in capsys.readouterr().err


def test_images_read_by_opencv_are_red_first():
    image, inside = red_square()
    data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    back = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert (red_segmenter().masks([back])[0] == inside).all()
