import threading

import cv2
import numpy as np
import pytest

from data_loader.images import files as images
from data_loader.images.files import read_image
from predictor.io.sources import PHOTO_SUFFIXES, Camera, Photos, Video, open_source
from predictor.loop import read_ahead
from utils.errors import DataError


def save(path, value=100, size=(8, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((*size, 3), value, np.uint8))[1].tobytes())
    return path


def save_video(path, count=6, rate=29.97, size=(32, 48), codec="MJPG"):
    """A video whose frame i has the brightness 30 i, beginning again at 8."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, size[::-1])
    assert writer.isOpened()
    for index in range(count):
        writer.write(np.full((*size, 3), 30 * (index % 8), np.uint8))
    writer.release()
    return path


def test_a_folder_is_read_with_all_folders_below_in_order(tmp_path):
    for name in ("b.png", "a.JPG", "deep/er/ç 照片.png", ".hidden.png", ".cache/x.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(str(tmp_path), read_image)
    assert [frame.name for frame in source] == ["a.JPG", "b.png", "deep/er/ç 照片.png"]
    assert source.expected == 3
    assert source.frame_rate is None


def test_a_folder_with_earlier_results_does_not_feed_on_them(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "out" / "a.png")
    assert [frame.name for frame in open_source(str(tmp_path), read_image, excluded=tmp_path / "out")] == ["a.png"]


def test_an_unreadable_photo_is_named_and_the_others_go_on(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    save(tmp_path / "c.png")
    source = open_source(str(tmp_path), read_image)
    assert [frame.name for frame in source] == ["a.png", "c.png"]
    assert len(source.failures) == 1
    assert "b.png cannot be read as an image" in source.failures[0]


def test_photos_and_videos_are_told_apart_by_name(tmp_path):
    assert isinstance(open_source(str(save(tmp_path / "a.webp")), read_image), Photos)
    assert isinstance(open_source(str(save_video(tmp_path / "v.AVI")), read_image), Video)
    assert images.IMAGE_SUFFIXES == PHOTO_SUFFIXES


def test_a_number_is_a_camera_unless_there_is_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    camera = open_source("7", read_image)
    assert isinstance(camera, Camera)
    assert camera.is_live
    assert camera.number == 7
    save(tmp_path / "7" / "a.png")
    assert isinstance(open_source("7", read_image), Photos)


def test_a_camera_that_is_not_there():
    with pytest.raises(DataError, match="Camera 97 gives no image: it is not connected, in use elsewhere"):
        list(Camera(97))


def test_a_camera_is_a_mirror_until_it_stops(tmp_path, monkeypatch):
    real = cv2.VideoCapture
    file = tmp_path / "scene.avi"
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 16))
    bright_left = np.zeros((16, 32, 3), np.uint8)
    bright_left[:, :16] = 250
    for _ in range(3):
        writer.write(bright_left)
    writer.release()
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: real(str(file)))
    camera = Camera(0)
    frames = [frame.image for frame in camera]
    assert len(frames) == 3
    assert frames[0][:, 20:].mean() > 200
    assert frames[0][:, :12].mean() < 50
    assert camera.remarks == ["Camera 0 stopped after 3 frames."]


def test_sources_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match=r"--source nowhere does not exist\. Name a photo, a video"):
        open_source("nowhere", read_image)
    (tmp_path / "text.doc").touch()
    with pytest.raises(DataError, match=r"text\.doc is neither a photo \(bmp jfif jpeg"):
        open_source(str(tmp_path / "text.doc"), read_image)
    with pytest.raises(DataError, match="holds no photo"):
        open_source(str(tmp_path), read_image)
    save_video(tmp_path / "v.avi")
    save_video(tmp_path / "w.avi")
    with pytest.raises(DataError, match=r"holds no photo, but 2 video\(s\)\. Name one of them"):
        open_source(str(tmp_path), read_image)


def test_videos_in_a_folder_of_photos_are_mentioned(tmp_path):
    save(tmp_path / "a.png")
    save_video(tmp_path / "v.avi")
    source = open_source(str(tmp_path), read_image)
    assert "also holds 1 video(s), which are skipped" in source.remarks[0]


def test_a_video_has_all_frames_in_order_and_its_rate(tmp_path):
    video = Video(save_video(tmp_path / "v.avi"))
    frames = list(video)
    assert [round(frame.image.mean() / 30) for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.name for frame in frames][:2] == ["000000", "000001"]
    assert frames[0].image.shape == (32, 48, 3)
    assert video.frame_rate == pytest.approx(29.97)
    assert video.expected == 6
    assert video.remarks == []
    assert len(list(video)) == 6  # again from the beginning


def test_frames_are_rgb(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 32))
    writer.write(np.full((32, 32, 3), (0, 0, 255), np.uint8))  # OpenCV's red
    writer.release()
    red, green, blue = next(iter(Video(tmp_path / "v.avi"))).image.reshape(-1, 3).mean(axis=0)
    assert red > 200
    assert max(green, blue) < 60


def test_a_video_that_is_none(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(
        DataError, match=r"v\.mp4 cannot be read as a video \(.*\): it is damaged, no video, or of an unknown"
    ):
        open_source(str(tmp_path / "v.mp4"), read_image)


def test_a_video_without_a_frame(tmp_path):
    whole = save_video(tmp_path / "v.avi", count=1).read_bytes()
    frame = whole.index(b"\xff\xd8\xff", whole.index(b"movi"))  # the only frame's JPEG
    (tmp_path / "empty.avi").write_bytes(whole[:frame] + bytes(len(whole) - frame))
    with pytest.raises(DataError, match=r"empty\.avi holds no frame that can be decoded|cannot be read as a video"):
        list(Video(tmp_path / "empty.avi"))


def test_a_video_that_was_cut_off_gives_what_is_there_and_says_so(tmp_path):
    whole = save_video(tmp_path / "v.avi", count=40).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    video = Video(tmp_path / "cut.avi")
    video.promised = 40  # what the whole file's header says
    count = len(list(video))
    assert 5 < count < 35
    assert f"promises 40 frames and {count} could be decoded" in video.remarks[0]


def test_reading_ahead_keeps_the_order():
    assert list(read_ahead(range(50), 3)) == list(range(50))


def test_an_error_while_reading_ahead_comes_after_what_was_read():
    def items():
        yield 1
        yield 2
        raise DataError("the disk is gone")

    ahead = read_ahead(items(), 5)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(DataError, match="the disk is gone"):
        next(ahead)


def test_closing_stops_the_thread_and_the_source():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    ahead = read_ahead(endless(), 2)
    next(ahead)
    ahead.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "reader"]


def test_at_most_so_many_items_wait():
    taken = []
    full = threading.Event()

    def items():
        for number in range(10):
            taken.append(number)
            if number == 3:
                full.set()  # one was handed out, two wait, this one is in the reader's hand
            yield number

    ahead = read_ahead(items(), 2)
    assert next(ahead) == 0
    assert full.wait(10)
    assert len(taken) == 4
    ahead.close()


def test_of_a_live_image_the_newest_are_kept():
    all_read = threading.Event()

    def items():
        yield 0
        assert first_taken.wait(10)
        yield from range(1, 9)
        all_read.set()
        yield 9

    first_taken = threading.Event()
    ahead = read_ahead(items(), 1, keep_newest=True)
    assert next(ahead) == 0
    first_taken.set()
    assert all_read.wait(10)
    assert next(ahead) >= 8
    ahead.close()
