import os
from pathlib import Path

import pytest
from test_predictor_sources import save, save_video

from data_loader.images.files import read_image
from predictor.io.sinks import image_targets, output_names, video_target
from predictor.io.sources import Camera, open_source
from utils.errors import ConfigError
from utils.writing.outputs import IMAGE, Originals, require_output


def test_results_lie_as_the_images_do():
    assert output_names(["a.jpg", "b/a.jpg"], ".png") == {"a.jpg": "a.png", "b/a.jpg": "b/a.png"}


def test_images_that_differ_in_suffix_only_keep_it_in_the_name():
    names = output_names(["a.jpg", "a.PNG", "a.x.jpg", "b.png"], ".png")
    assert names == {"a.jpg": "a_jpg.png", "a.PNG": "a_png.png", "a.x.jpg": "a.x.png", "b.png": "b.png"}


@pytest.mark.parametrize("suffix", [".png", None])
def test_no_two_results_share_a_name_whatever_the_images_are_called(suffix):
    names = ["a.jpg", "a.png", "a_jpg.bmp", "A.jpg", "a_png_.png", "a_png.jpg", "a.ppm", "a.jpg.png", "sub/a.jpg"]
    results = [result.casefold() for result in output_names(names, suffix).values()]
    assert len(set(results)) == len(names)


def test_images_in_colour_keep_their_kind():
    names = output_names(["a.jpg", "a.png", "c.ppm"], None)
    assert names == {"a.jpg": "a.jpg", "a.png": "a.png", "c.ppm": "c.png"}


def photo(tmp_path, name="a.jpg"):
    return open_source(str(save(tmp_path / name)), read_image)


def test_one_photo_goes_to_a_file_or_a_folder(tmp_path):
    source = photo(tmp_path)
    assert image_targets(source, Path("out"), is_lossless=True)("a.jpg") == Path("out/a.png")
    assert image_targets(source, Path("out"), is_lossless=False)("a.jpg") == Path("out/a.jpg")
    assert image_targets(source, Path("out/x.png"), is_lossless=True)("a.jpg") == Path("out/x.png")
    (tmp_path / "odd.png").mkdir()
    assert image_targets(source, tmp_path / "odd.png", is_lossless=True)("a.jpg") == tmp_path / "odd.png" / "a.png"


def test_outputs_that_cannot_hold_the_result(tmp_path):
    source = photo(tmp_path)
    with pytest.raises(ConfigError, match=r"--output x\.jpg: this mode's exact values need PNG"):
        image_targets(source, Path("x.jpg"), is_lossless=True)
    save(tmp_path / "b.jpg")
    with pytest.raises(ConfigError, match=r"--output x\.png is one file, but there are several photos"):
        image_targets(open_source(str(tmp_path), read_image), Path("x.png"), is_lossless=True)
    video = open_source(str(save_video(tmp_path / "v.avi")), read_image)
    with pytest.raises(ConfigError, match=r"--output x\.mp4: a video file has no transparency"):
        image_targets(video, Path("x.mp4"), is_lossless=True)
    for name in ("x.jpg", "x.gif"):
        with pytest.raises(ConfigError, match=f"--output {name} is an image, but the source is a video"):
            video_target(video, Path(name))


def test_where_videos_go(tmp_path):
    video = open_source(str(save_video(tmp_path / "v.avi")), read_image)
    assert video_target(video, Path("out")) == Path("out/v.mp4")
    assert video_target(video, Path("x.MKV")) == Path("x.MKV")
    assert video_target(Camera(0), Path("out")) == Path("out/camera.mp4")
    assert image_targets(video, Path("out"), is_lossless=True)("000004") == Path("out/000004.png")


def test_originals_are_never_written_over(tmp_path, monkeypatch):
    original = save(tmp_path / "a.png")
    (tmp_path / "soft.png").symlink_to(original)
    os.link(original, tmp_path / "hard.png")
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "./x/../a.png", "soft.png", "hard.png"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=r"--output .*png: would write over .*a\.png, which this command reads"):
            require_output(Path(name), "--output", IMAGE, Originals([original]))
    require_output(Path("new.png"), "--output", IMAGE, Originals([original, Path("gone.png")]))
