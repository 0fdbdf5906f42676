"""The pipeline of inference: results in order, and threads that end however it ends."""

import threading

import numpy as np
import pytest
from test_predictor_sources import save_video

from data_loader.images.preprocessing import Preprocessing
from predictor.classifier import Classifier
from predictor.io.frames import Frame, FrameSource
from predictor.io.sink import Sink
from predictor.io.video import Video
from predictor.loop import StageTimer, predict_all
from predictor.rendering import MaskRenderer
from tests.support.groups import from_flat
from tests.support.seen import RedNet, red_segmenter
from utils.errors import DataError

FRAMES = 30


class FullDisk(Sink):
    """Stores the names of frames, and raises an error, or wants no more, at one of them."""

    def __init__(self, at, error=None):
        super().__init__()
        self.at, self.error, self.names = at, error, []

    def write(self, frame, _result):
        self.names.append(frame.name)
        if len(self.names) == self.at and self.error is not None:
            raise self.error
        return len(self.names) < self.at


class PooledRedNet(RedNet):
    """A classifier: the mean of the logits."""

    def forward(self, inputs):
        return super().forward(inputs).mean((2, 3))


class TornRenderer(MaskRenderer):
    """Fails at the fifth frame."""

    count = 0

    def __call__(self, image, probabilities):
        self.count += 1
        if self.count == 5:
            raise DataError("the fifth")
        return super().__call__(image, probabilities)


@pytest.fixture
def video(tmp_path):
    return Video(save_video(tmp_path / "v.avi", FRAMES))


def predict(video, sink, segmenter=None, **options):
    try:
        return predict_all(segmenter or red_segmenter(), video, [sink], timer=StageTimer(), **options)
    finally:
        assert "reader" not in {thread.name for thread in threading.enumerate()}


def numbered(count):
    return [f"{number:06d}" for number in range(count)]


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_every_frame_comes_once_and_in_order(video, batch_size):
    sink = FullDisk(at=1000)
    assert predict(video, sink, batch_size=batch_size).images == FRAMES
    assert sink.names == numbered(FRAMES)


def test_a_sink_that_wants_no_more_ends_all_stages(video):
    sink = FullDisk(at=3)
    assert predict(video, sink, batch_size=4).images == 3
    assert sink.names == numbered(3)


@pytest.mark.parametrize("error", [DataError("the disk is full"), KeyboardInterrupt()])
def test_an_error_or_an_interruption_while_writing_ends_all_stages(video, error):
    sink = FullDisk(at=3, error=error)
    with pytest.raises(type(error)):
        predict(video, sink, batch_size=2)
    assert sink.names == numbered(3)


class TornSource(FrameSource):
    """Ends with an error after seven frames."""

    def __iter__(self):
        for number in range(7):
            yield Frame(f"{number:06d}", np.zeros((8, 8, 3), np.uint8))
        raise DataError("the file ends here")


def test_an_error_of_the_source_comes_after_the_frames_before_it():
    sink = FullDisk(at=1000)
    with pytest.raises(DataError, match="the file ends here"):
        predict(TornSource([]), sink, batch_size=4)
    assert sink.names == numbered(7)


def test_an_error_of_a_sample_comes_after_the_predictions_before_it():
    def samples():
        for number in range(3):
            yield str(number), np.zeros((8, 8, 3), np.uint8)
        yield "3", np.zeros((8, 8, 2), np.uint8)  # lacks a channel

    classifier = Classifier(PooledRedNet(), from_flat(Preprocessing, resize=8))
    predictions = classifier.classify(samples(), 4)
    assert [next(predictions).name for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(DataError, match="2 channels"):
        next(predictions)


def test_an_error_while_drawing_comes_after_the_frames_before_it(video):
    sink, segmenter = FullDisk(at=1000), red_segmenter()
    segmenter.renderer = TornRenderer()
    with pytest.raises(DataError, match="the fifth"):
        predict(video, sink, segmenter, batch_size=2)
    assert sink.names == numbered(4)
