"""Videos as people have them: times, sound, rotation, frames in folders, cuts."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from test_predictor_sinks import NOTHING, grey, write_all
from test_predictor_sources import save, save_video

from data_loader.images.files import read_image, read_mask
from predictor.io.frames import Frame
from predictor.io.sinks import ImageFileSink, VideoFileSink, open_sinks, outputs_of
from predictor.io.sources import Camera, Photos, Video, open_sources
from predictor.io.video import _plausible
from predictor.io.video_writer import LONGEST_STILL, VideoWriter
from predictor.rendering import MaskRenderer, make_renderer
from utils.errors import ConfigError, DataError

# As of telephones and screen recordings: the first frames every 40 ms, the others every half second.
TIMES = [*(0.04 * number for number in range(6)), *(0.5 * number for number in range(1, 5))]


def variable(path):
    """A video with a frame at each of TIMES, whose brightness is 25 times its number."""
    writer = VideoWriter(path, ("mpeg4", {}), (32, 48), 25)
    for number, time in enumerate(TIMES):
        writer.write(grey(25 * number), time, 0.04)
    writer.close()
    return path


def copy(source, path):
    sink = VideoFileSink(path, source.frame_rate, sound_of=source.path)
    for frame in source:
        sink.write(frame, frame.image)
    sink.close()
    return sink


@pytest.mark.parametrize("kind", [".mkv", ".mp4"])
def test_a_variable_frame_rate_keeps_its_times(tmp_path, kind):
    source = Video(variable(tmp_path / f"v{kind}"))
    assert [frame.time for frame in source] == pytest.approx(TIMES, abs=1e-3)
    sink = copy(source, tmp_path / "out.mp4")
    assert source.remarks + sink.remarks == []
    result = list(Video(tmp_path / "out.mp4"))
    assert [frame.time for frame in result] == pytest.approx(TIMES, abs=1e-3)
    assert [round(frame.image.mean() / 25) for frame in result] == list(range(10))


def test_a_gif_of_unequal_delays_keeps_them(tmp_path):
    frames = [Image.fromarray(grey(60 * number)) for number in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[50, 1000, 120, 700])
    copy(Video(tmp_path / "a.gif"), tmp_path / "out.mp4")
    result = list(Video(tmp_path / "out.mp4"))
    assert [frame.time for frame in result] == pytest.approx([0, 0.05, 1.05, 1.17], abs=1e-3)
    assert result[-1].seconds == pytest.approx(0.7, abs=1e-3)


def with_tone(path, codec):
    """Twenty frames at ten a second, and five seconds of a tone."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        sound = output.add_stream(codec, rate=48000, layout="mono")
        for _ in range(20):
            output.mux(video.encode(av.VideoFrame.from_ndarray(grey(90), format="rgb24")))
        output.mux(video.encode(None))
        samples = np.sin(np.arange(5 * 48000) * 0.06)[None] * 20000
        frame = av.AudioFrame.from_ndarray(samples.astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = 48000
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
    return path


def anamorphic(path, encoder="libx264"):
    """Three frames whose pixels are 64/45 as wide as high, as on a DVD."""
    writer = VideoWriter(path, (encoder, {}), (32, 48), 10, pixel_aspect=Fraction(64, 45))
    for number in range(3):
        writer.write(grey(80 * number), number / 10, 0.1)
    writer.close()
    return path


@pytest.mark.parametrize("kind", [".mp4", ".mkv", ".avi", ".webm"])
def test_pixels_that_are_no_squares_keep_their_shape_or_it_is_said(tmp_path, kind):
    source = Video(anamorphic(tmp_path / "v.mp4"))
    assert source.pixel_aspect == Fraction(64, 45)
    sink = copy(source, tmp_path / f"out{kind}")
    if kind == ".webm":
        assert (
            "out.webm is shown with other proportions: a .webm cannot say that its pixels are 1.422" in sink.remarks[0]
        )
    else:
        assert sink.remarks == []
        assert Video(sink.path).pixel_aspect == Fraction(64, 45)


def test_frames_as_images_are_said_to_have_other_proportions(tmp_path):
    source = Video(anamorphic(tmp_path / "v.mp4"))
    (sink,) = open_sinks(source, MaskRenderer(), tmp_path / "frames")
    assert "are 1.422 times as wide as high, and those of its frames as images are squares" in sink.remarks[0]
    (sink,) = open_sinks(Video(save_video(tmp_path / "square.avi")), MaskRenderer(), tmp_path / "others")
    assert sink.remarks == []


@pytest.mark.parametrize("aspect", [None, Fraction(0, 1), Fraction(1, 1000), Fraction(10**6, 1)])
def test_shapes_of_pixels_that_no_video_has_are_not_believed(aspect):
    assert _plausible(aspect) == 1


def test_a_gap_in_a_file_without_times_is_not_filled_for_ever(tmp_path):
    sink = VideoFileSink(tmp_path / "v.avi", 1)
    for time in (0, 30, 5000, 5001):
        sink.write(Frame("", NOTHING, time, 1.0), grey(90))
    sink.close()
    # 30 frames until the second image, which is repeated for 60 seconds, and the last two.
    assert len(list(Video(sink.path))) == 30 + 1 + LONGEST_STILL + 2
    assert "v.avi is 4909 seconds shorter than its source" in sink.remarks[0]


@pytest.mark.parametrize(
    ("codec", "kind", "kept"), [("aac", ".mp4", "aac"), ("pcm_s16le", ".mp4", "aac"), ("aac", ".webm", "opus")]
)
def test_a_video_keeps_its_sound_as_long_as_its_images(tmp_path, codec, kind, kept):
    sink = VideoFileSink(tmp_path / f"out{kind}", 10, sound_of=with_tone(tmp_path / "tone.mkv", codec))
    write_all(sink, [grey(40 * index) for index in range(6)])
    assert sink.remarks == []
    with av.open(str(sink.path)) as result:
        sound = result.streams.audio[0]
        assert sound.codec_context.name.startswith(kept)
        heard = [frame for frame in result.decode(sound) if frame.samples]
        assert heard[-1].time == pytest.approx(0.6, abs=0.06)
        assert max(np.abs(frame.to_ndarray()).max() for frame in heard) > 0.4


def test_a_silent_video_is_copied_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no program is needed
    sink = write_all(VideoFileSink(tmp_path / "o.mp4", 10, sound_of=save_video(tmp_path / "v.avi")), [grey(90)])
    assert sink.remarks == []


def test_sound_that_cannot_be_read_costs_no_image(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    sink = write_all(VideoFileSink(tmp_path / "out.mp4", 10, sound_of=tmp_path / "broken.mp4"), [grey(90)] * 3)
    assert "out.mp4 has no sound: that of" in sink.remarks[0]
    assert len(list(Video(tmp_path / "out.mp4"))) == 3


def test_damaged_sound_costs_no_image(tmp_path, caplog):
    path = with_tone(tmp_path / "tone.mkv", "ac3")
    with av.open(str(path)) as video:
        packet = bytes(list(video.demux(video.streams.audio[0]))[3])
    path.write_bytes(path.read_bytes().replace(packet, bytes(len(packet))))
    sink = write_all(VideoFileSink(tmp_path / "out.webm", 10, sound_of=path), [grey(40 * index) for index in range(6)])
    assert len(list(Video(sink.path))) == 6
    assert "Damaged sound is left out" in caplog.text


def test_a_cut_video_without_a_number_of_frames_is_noticed(tmp_path):
    whole = tmp_path / "whole.mkv"
    with av.open(str(whole), "w") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(40):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(grey(5 * number), format="rgb24")))
        output.mux(stream.encode(None))
    video = Video(whole)
    assert len(list(video)) == 40
    assert video.remarks == []
    content = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    video = Video(tmp_path / "cut.mkv")
    assert 1 < len(list(video)) < 35
    assert "it may be cut off" in video.remarks[0]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_is_upright(tmp_path, degrees):
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24] = 250  # bright at the top left
    with av.open(str(tmp_path / "v.mp4"), "w") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.set_display_rotation(degrees)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))
    frame = next(iter(Video(tmp_path / "v.mp4"))).image
    expected = cv2.VideoCapture(str(tmp_path / "v.mp4")).read()[1]  # which OpenCV turns as players do
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected[..., ::-1]).mean() < 8


@pytest.mark.parametrize(("size", "matrix"), [((1280, 720), "ITU709"), ((320, 240), "ITU601")])
def test_colours_without_a_matrix_are_those_of_the_size(tmp_path, size, matrix):
    red = np.zeros((size[1], size[0], 3), np.uint8)
    red[..., 0] = 255
    with av.open(str(tmp_path / "v.avi"), "w") as output:
        stream = output.add_stream("mpeg4", rate=10, options={"qmin": "2", "qmax": "2"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        image = av.VideoFrame.from_ndarray(red, format="rgb24").reformat(format="yuv420p", dst_colorspace=matrix)
        image.colorspace = 2  # not said
        output.mux(stream.encode(image))
        output.mux(stream.encode(None))
    found = next(iter(Video(tmp_path / "v.avi"))).image
    assert found[100, 100].tolist() == pytest.approx([255, 0, 0], abs=4)


def test_masks_of_a_video_are_ids_in_a_folder(tmp_path):
    source = Video(save_video(tmp_path / "v.avi", count=2))
    (sink,) = open_sinks(source, make_renderer("mask"), tmp_path / "masks")
    assert isinstance(sink, ImageFileSink)
    write_all(sink, [np.full((4, 4), 200, np.uint8)])
    assert (read_mask(tmp_path / "masks/000000.png") == 200).all()
    (video,) = open_sinks(source, make_renderer("mask"), tmp_path / "m.mp4")
    assert "shows the classes in colours, from which ids cannot be read" in video.remarks[0]
    with pytest.raises(ConfigError, match=r"--own-ids: .*m\.mp4 is a video, which holds colours"):
        open_sinks(source, MaskRenderer([0, 40, 80]), tmp_path / "m.mp4")
    assert isinstance(open_sinks(Camera(0), make_renderer("overlay"), tmp_path)[0], VideoFileSink)


def test_frames_of_two_videos_are_not_mixed(tmp_path):
    source = Video(save_video(tmp_path / "v.avi", count=2))
    (sink,) = open_sinks(source, make_renderer("cutout"), tmp_path / "frames")
    write_all(sink, [np.zeros((4, 4, 4), np.uint8)] * 2)
    with pytest.raises(DataError, match=r"frames holds 2 frames of an earlier run, such as 000000\.png: frames of two"):
        open_sinks(source, make_renderer("mask"), tmp_path / "frames")


def test_a_folder_of_videos_gives_a_result_for_each(tmp_path):
    save(tmp_path / "in/a.png")
    for name in ("b.avi", "b.mkv", "deep/c.avi"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        save_video(tmp_path / "in" / name, count=2)
    (tmp_path / "in/x.mp4").write_bytes(b"nothing")
    sources = open_sources(str(tmp_path / "in"), read_image)
    assert [type(source) for source in sources] == [Photos, Video, Video, Video]
    assert "x.mp4 cannot be read as a video" in sources[0].failures[0]
    out = tmp_path / "out"
    targets = outputs_of(sources, make_renderer("overlay"), out)
    assert targets == [out, out / "b_avi.mp4", out / "b_mkv.mp4", out / "deep/c.mp4"]
    targets = outputs_of(sources, make_renderer("cutout"), out)
    assert targets == [out, out / "b_avi", out / "b_mkv", out / "deep/c"]
    with pytest.raises(ConfigError, match="is one file, but there are several sources"):
        outputs_of(sources, make_renderer("overlay"), tmp_path / "o.mp4")


def test_frames_without_a_time_follow_the_rate(tmp_path):
    write_all(VideoFileSink(tmp_path / "v.mp4", 5), [grey(9)] * 3)
    assert [frame.time for frame in Video(tmp_path / "v.mp4")] == pytest.approx([0, 0.2, 0.4], abs=1e-3)
    assert Frame("a", NOTHING).time is None
