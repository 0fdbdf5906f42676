import shutil
import subprocess
from contextlib import closing

import cv2
import numpy as np
import pytest
from test_predictor_sources import save, save_video

from data_loader.images.files import read_image, read_mask
from predictor.io import sinks
from predictor.io import sinks as outputs
from predictor.io.sinks import ImageFileSink, Sink, VideoFileSink, WindowSink, display_problem, open_sinks
from predictor.io.sound import add_sound
from predictor.io.sources import Camera, Frame, Video, open_source
from predictor.loop import StageTimer, predict_all
from predictor.rendering import MaskRenderer, make_renderer
from tests.support.seen import red_segmenter, red_square
from utils.errors import ConfigError, DataError

NOTHING = np.empty(0)
FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="the ffmpeg program is not installed")


def grey(value, size=(32, 48)):
    return np.full((*size, 3), value, np.uint8)


def write_all(sink, results):
    with closing(sink):
        for index, result in enumerate(results):
            assert sink.write(Frame(f"{index:06d}", NOTHING), result)
    return sink


def test_images_of_every_kind_come_back_as_they_were(tmp_path):
    generator = np.random.default_rng(0)
    ids, deep = (generator.integers(0, high, (9, 7)) for high in (200, 60000))
    colour, alpha = (generator.integers(0, 256, (9, 7, depth), dtype=np.uint8) for depth in (3, 4))
    results = [ids.astype(np.uint8), deep.astype(np.uint16), colour, alpha]
    sink = write_all(ImageFileSink(lambda name: tmp_path / "neu" / f"ü 図 {name}.png"), results)
    files = sink.written
    assert len(files) == 4
    assert (read_mask(files[0]) == ids).all()
    assert (read_mask(files[1]) == deep).all()
    assert (read_image(files[2]) == colour).all()
    assert (read_image(files[3], in_channels=4) == alpha).all()


def test_a_folder_that_cannot_be_made_is_named_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    source = open_source(str(save(tmp_path / "a.png")), read_image)
    with pytest.raises(ConfigError, match=r"file/out/a\.png: cannot be written \(.*file is not a folder\)"):
        open_sinks(source, make_renderer("mask"), tmp_path / "file" / "out")
    video = open_source(str(save_video(tmp_path / "v.avi")), read_image)
    with pytest.raises(ConfigError, match=r"file/out/x\.mp4: cannot be written"):
        open_sinks(video, make_renderer("mask"), tmp_path / "file" / "out" / "x.mp4")


def test_a_image_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(_path, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(DataError, match=r"x\.png cannot be written \(No space left on device\)"):
        ImageFileSink(lambda _name: tmp_path / "x.png").write(Frame("x", NOTHING), grey(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["v.mp4", "v.avi", "v.mkv", "v.mov"])
def test_a_video_keeps_frames_size_and_rate(tmp_path, name):
    path = tmp_path / "out ü" / name
    path.parent.mkdir()
    sink = write_all(VideoFileSink(path, 30000 / 1001), [grey(40 * index) for index in range(6)])
    assert sink.written == [path]
    assert list(path.parent.iterdir()) == [path]
    video = Video(path)
    frames = list(video)
    assert [round(frame.image.mean() / 40) for frame in frames] == list(range(6))
    assert frames[0].image.shape == (32, 48, 3)
    assert video.frame_rate == pytest.approx(29.97, abs=1e-3)


def test_odd_sides_and_frames_of_another_size(tmp_path):
    sink = write_all(VideoFileSink(tmp_path / "v.mp4", 10), [grey(90, (33, 49)), grey(90, (16, 16))])
    assert sink.remarks == ["A video's sides are even: 49x33 became 48x32."]
    assert [frame.image.shape for frame in Video(tmp_path / "v.mp4")] == [(32, 48, 3)] * 2


def test_a_live_video_keeps_the_pace_of_the_world(tmp_path):
    seconds = iter([0.0, 0.0, 0.05, 0.5, 0.95])  # the start, then one for each frame
    sink = VideoFileSink(tmp_path / "v.avi", 10, clock=lambda: next(seconds))
    write_all(sink, [grey(value) for value in (0, 80, 160, 240)])
    shown = [round(frame.image.mean() / 80) for frame in Video(tmp_path / "v.avi")]
    assert shown == [0, 2, 2, 2, 2, 2, 3, 3, 3, 3]
    assert sink.count == 10


def test_without_the_codec_another_kind_is_written_beside_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(sinks, "DEFAULT_CODECS", ("none",))
    (tmp_path / "v.avi").write_text("an original")
    sink = write_all(VideoFileSink(tmp_path / "v.mp4", 10), [grey(90)])
    assert sink.written == [tmp_path / "v_.avi"]
    assert sink.remarks == ["This OpenCV cannot write .mp4 videos; .avi (Motion JPEG) is written."]
    assert (tmp_path / "v.avi").read_text() == "an original"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.avi", "v_.avi"]


def test_without_any_codec(tmp_path, monkeypatch):
    monkeypatch.setattr(sinks, "DEFAULT_CODECS", ("none",))
    monkeypatch.setattr(sinks, "LAST_RESORT", (".avi", "none"))
    with pytest.raises(DataError, match=r"v\.avi: this OpenCV has no codec to write videos"):
        VideoFileSink(tmp_path / "v.mp4", 10).write(Frame("0", NOTHING), grey(1))
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_before_an_error_can_be_played(tmp_path):
    def results():
        yield grey(90)
        raise DataError("lost")

    with pytest.raises(DataError, match="lost"):
        write_all(VideoFileSink(tmp_path / "v.mp4", 10), results())
    assert len(list(Video(tmp_path / "v.mp4"))) == 1


def test_a_video_that_the_disk_could_not_hold(tmp_path):
    sink = VideoFileSink(tmp_path / "v.mp4", 10)
    sink.write(Frame("0", NOTHING), grey(90))
    part = sink.part
    part.unlink()
    part.write_bytes(b"")  # what a full disk leaves
    with pytest.raises(DataError, match=r"v\.mp4 was not written completely: the disk is probably full"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


def with_tone(path, tmp_path, codec="aac"):
    silent = save_video(tmp_path / "silent.avi", count=20, rate=10)
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=5"]
    command = [FFMPEG, "-v", "error", "-i", str(silent), *tone, "-c:v", "copy", "-c:a", codec, str(path)]
    subprocess.run(command, check=True)
    return path


def streams(path):
    listing = subprocess.run([FFMPEG, "-hide_banner", "-i", str(path)], capture_output=True, text=True, check=False)
    return listing.stderr


@needs_ffmpeg
@pytest.mark.parametrize(("codec", "kept"), [("aac", "aac"), ("pcm_s16le", "aac")])
def test_a_video_keeps_its_sound_as_long_as_its_images(tmp_path, codec, kept):
    original = with_tone(tmp_path / "tone.mkv", tmp_path, codec)
    path = tmp_path / "out.mp4"
    sink = write_all(VideoFileSink(path, 10, sound_of=original), [grey(40 * index) for index in range(6)])
    assert sink.remarks == []
    assert f"Audio: {kept}" in streams(path)
    assert "Duration: 00:00:00.6" in streams(path)
    assert len(list(Video(path))) == 6


@needs_ffmpeg
def test_a_video_without_sound_stays_without(tmp_path):
    original = save_video(tmp_path / "silent.avi")
    sink = write_all(VideoFileSink(tmp_path / "out.mp4", 10, sound_of=original), [grey(90)])
    assert sink.remarks == []
    assert "Audio" not in streams(tmp_path / "out.mp4")


@needs_ffmpeg
def test_sound_that_cannot_be_read_costs_no_image(tmp_path):
    path = save_video(tmp_path / "v.avi")
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    problem = add_sound(path, tmp_path / "broken.mp4", 1)
    assert "v.avi has no sound: ffmpeg could not add it (" in problem
    assert len(list(Video(path))) == 6
    assert sorted(file.name for file in tmp_path.iterdir()) == ["broken.mp4", "v.avi"]


def test_without_ffmpeg_the_images_are_written_and_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    original = save_video(tmp_path / "v.avi")
    sink = write_all(VideoFileSink(tmp_path / "out.mp4", 10, sound_of=original), [grey(90)])
    assert "out.mp4 has no sound: the ffmpeg program is not installed" in sink.remarks[0]
    assert len(list(Video(tmp_path / "out.mp4"))) == 1


def test_without_a_display_there_is_a_warning_and_no_window(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(outputs, "display_problem", lambda: "there is no display")
    source = open_source(str(save(tmp_path / "a.png")), read_image)
    opened = open_sinks(source, make_renderer("mask"), tmp_path / "out", is_shown=True)
    assert [type(sink) for sink in opened] == [ImageFileSink]
    assert "No window is shown: there is no display." in caplog.text
    with pytest.raises(ConfigError, match=r"The results have nowhere to go\. Name a file or a folder as --output"):
        open_sinks(source, make_renderer("mask"), None, is_shown=True)


def test_a_display_is_tried_in_another_process(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", "")
    assert display_problem() == "there is no display (DISPLAY is not set)"
    monkeypatch.setenv("DISPLAY", ":987")
    assert display_problem() == "this OpenCV or this display cannot open a window"


def test_a_folder_is_not_its_own_output(tmp_path):
    save(tmp_path / "a.jpg")
    save(tmp_path / "b.jpg")
    source = open_source(str(tmp_path), read_image)
    with pytest.raises(DataError, match=r"is the source itself\. Name another folder"):
        open_sinks(source, make_renderer("mask"), tmp_path)


def test_other_originals_are_safe_too(tmp_path):
    beach = save_video(tmp_path / "beach.avi")
    with pytest.raises(ConfigError, match=r"would write over .*beach\.avi"):
        open_sinks(Camera(0), make_renderer("overlay"), beach, originals=[beach])


def test_a_camera_records_at_the_pace_of_the_world(tmp_path):
    (sink,) = open_sinks(Camera(0), make_renderer("mask"), tmp_path)
    assert sink.path == tmp_path / "camera.mp4"
    assert sink.clock is not None
    assert sink.sound_of is None


class Collected(Sink):
    """Stores the results that it gets."""

    def __init__(self, *, wants_rgb):
        super().__init__()
        self.wants_rgb, self.results = wants_rgb, []

    def write(self, frame, result):
        self.results.append(result)
        return True


def test_each_sink_gets_the_result_in_the_form_that_it_wants(tmp_path):
    image, inside = red_square()
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    segmenter, ids, shown = red_segmenter(), Collected(wants_rgb=False), Collected(wants_rgb=True)
    segmenter.renderer = MaskRenderer()
    predict_all(segmenter, open_source(str(tmp_path), read_image), [ids, shown], timer=StageTimer())
    assert (ids.results[0] == inside).all()
    assert shown.results[0].shape == image.shape


@pytest.mark.parametrize(
    ("is_slideshow", "keys", "is_visible", "expected"),
    [
        (False, [-1], 1, True),
        (False, [ord("q")], 1, False),
        (True, [-1, -1, ord("n")], 1, True),
        (True, [-1, 27], 1, False),
        (False, [-1], 0, False),
    ],
)
def test_a_window_shows_each_result_until_it_is_closed(monkeypatch, is_slideshow, keys, is_visible, expected):
    shown, left = [], list(keys)
    monkeypatch.setattr(cv2, "imshow", lambda _, pixels: shown.append(pixels))
    monkeypatch.setattr(cv2, "waitKey", lambda _: left.pop(0))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: is_visible)
    image, _ = red_square()
    assert WindowSink(is_slideshow=is_slideshow).write(Frame("0", NOTHING), image) is expected
    assert left == []
    assert (shown[0] == image[..., ::-1]).all()  # OpenCV shows BGR


def test_a_sound_that_ffmpeg_cannot_add_is_a_remark(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "new.mp4").write_bytes(b"images")
    remark = add_sound(tmp_path / "new.mp4", tmp_path / "old.mp4", 1.0)
    assert remark is not None
    assert remark.endswith("new.mp4 has no sound: ffmpeg could not add it (no such codec).")
    assert (tmp_path / "new.mp4").read_bytes() == b"images"
