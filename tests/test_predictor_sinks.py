from contextlib import closing

import cv2
import numpy as np
import pytest
from test_predictor_sources import save, save_video

from data_loader.images.files import read_image, read_mask
from predictor.io import sinks as outputs
from predictor.io import video_sink
from predictor.io.sinks import ImageFileSink, Sink, VideoFileSink, WindowSink, display_problem, open_sinks
from predictor.io.sources import Camera, Frame, Video, open_source
from predictor.loop import StageTimer, predict_all
from predictor.rendering import MaskRenderer, make_renderer
from tests.support.seen import red_segmenter, red_square
from utils.errors import ConfigError, DataError

NOTHING = np.empty(0)


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


@pytest.mark.parametrize("suffix", sorted(outputs.COLOR_SUFFIXES))
def test_only_images_of_an_inference_are_replaced(tmp_path, suffix):
    source = open_source(str(save(tmp_path / f"in/a{suffix}")), read_image)
    drawn = save(tmp_path / f"masks/a{suffix}")
    content = drawn.read_bytes()
    with pytest.raises(ConfigError, match=r"not an image or a video of inference\.py.* or say --overwrite"):
        open_sinks(source, make_renderer("overlay"), drawn.parent)
    assert drawn.read_bytes() == content
    for is_first in (True, False):
        (sink,) = open_sinks(source, make_renderer("overlay"), drawn.parent, may_overwrite=is_first)
        sink.write(Frame(source.names[0], NOTHING), grey(90))
        assert sink.written == [drawn]
        assert np.abs(cv2.imread(str(drawn)).astype(int) - 90).max() <= 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".webm", ".mpg", ".wmv"])
def test_only_videos_of_an_inference_are_replaced(tmp_path, suffix):
    drawn = save_video(tmp_path / "v.avi").rename(tmp_path / f"v{suffix}")
    with pytest.raises(ConfigError, match=r"not an image or a video of inference\.py.* or say --overwrite"):
        open_sinks(Camera(0), make_renderer("overlay"), drawn)
    for is_first in (True, False):
        (sink,) = open_sinks(Camera(0), make_renderer("overlay"), drawn, may_overwrite=is_first)
        write_all(sink, [grey(90)] * 4)
        assert len(list(Video(drawn))) == 4


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


@pytest.mark.parametrize(("name", "expected"), [("v.mp4", [0, 1, 2, 3]), ("v.avi", [0, 1, 1, 1, 1, 2, 2, 2, 2, 3])])
def test_a_frame_is_shown_when_it_was(tmp_path, name, expected):
    times = [0.0, 0.1, 0.5, 0.9]
    with closing(VideoFileSink(tmp_path / name, 10)) as sink:
        for number, time in enumerate(times):
            sink.write(Frame(str(number), NOTHING, time), grey(80 * number))
    frames = list(Video(tmp_path / name))
    assert [round(frame.image.mean() / 80) for frame in frames] == expected
    assert [frames[expected.index(number)].time for number in range(4)] == pytest.approx(times, abs=1e-3)


def test_without_the_codec_another_kind_is_written_next_to_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setitem(video_sink.ENCODERS, ".mkv", (("none", {}),))
    (tmp_path / "v.mp4").write_text("an original")
    sink = write_all(VideoFileSink(tmp_path / "v.mkv", 10), [grey(90)])
    assert sink.written == [tmp_path / "v_.mp4"]
    assert sink.remarks == [".mkv videos cannot be written here; .mp4 is written."]
    assert (tmp_path / "v.mp4").read_text() == "an original"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.mp4", "v_.mp4"]


def test_without_any_codec(tmp_path, monkeypatch):
    monkeypatch.setattr(video_sink, "DEFAULT_ENCODERS", (("none", {}),))
    with pytest.raises(DataError, match=r"v\.mp4 cannot be written as a video \(none\)"):
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


@pytest.mark.parametrize("name", ["x.jfif", "x.pgm", "x.gif", "x.mp4"])
def test_a_file_that_cannot_hold_a_photo_in_colours_is_refused_before_any_work(tmp_path, name):
    source = open_source(str(save(tmp_path / "a.png")), read_image)
    rule = rf"{name}: a photo in colours cannot be written as \.{name[2:]}, only as \.bmp, .*\.ppm.* or a folder"
    with pytest.raises(ConfigError, match=rule):
        open_sinks(source, make_renderer("overlay"), tmp_path / name)
    (sink,) = open_sinks(source, make_renderer("overlay"), tmp_path / "x.PPM")
    assert sink.write(Frame("a.png", NOTHING), grey(90))


@pytest.mark.parametrize(("suffix", "limit"), outputs.LONGEST_SIDES.items())
def test_a_format_holds_what_its_limit_says_and_no_more(tmp_path, suffix, limit):
    sink = ImageFileSink(lambda _name: tmp_path / f"x{suffix}")
    assert sink.write(Frame("x", NOTHING), np.zeros((1, limit), np.uint8))
    rule = f"a result of {limit + 1}x1 pixels; \\{suffix} holds at most {limit} for each side. Scale the image down"
    with pytest.raises(DataError, match=rule):
        sink.write(Frame("x", NOTHING), np.zeros((1, limit + 1), np.uint8))


def test_a_result_that_opencv_refuses_is_named_with_a_repair(tmp_path):
    with pytest.raises(DataError, match=r"x\.pgm: a result of 48x32 pixels \(uint8\) cannot be encoded as \.pgm"):
        ImageFileSink(lambda _name: tmp_path / "x.pgm").write(Frame("x", NOTHING), grey(1))
    assert list(tmp_path.iterdir()) == []


def test_a_photo_whose_result_its_format_cannot_hold_does_not_stop_the_others(tmp_path, monkeypatch):
    for name, size in {"a.webp": (8, 8), "b.webp": (8, 9), "c.png": (8, 9)}.items():
        save(tmp_path / "in" / name, size=size)
    monkeypatch.setattr(outputs, "LONGEST_SIDES", {".webp": 8})
    source = open_source(str(tmp_path / "in"), read_image)
    sinks = open_sinks(source, make_renderer("overlay"), tmp_path / "out")
    assert predict_all(red_segmenter(), source, sinks, timer=StageTimer()).images == 2
    assert [path.name for path in sinks[0].written] == ["a.webp", "c.png"]
    assert [failure.partition(":")[0] for failure in source.failures] == ["b.webp"]
