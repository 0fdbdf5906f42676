"""The pipeline of inference: results in order, and threads that end however it ends."""

import threading
from itertools import count

import numpy as np
import pytest
from test_predictor_sources import save_video

from data_loader.images.preprocessing import Preprocessing
from predictor.classifier import Classifier
from predictor.io.frames import Frame, FrameSource
from predictor.io.sink import Sink
from predictor.io.video import Video
from predictor.loop import FAILURES_SHOWN, StageTimer, predict_all, report_predictions
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


class OneSizeOnly(RedNet):
    """Takes inputs that are 8 high, as an exported network may, or fails as torch does."""

    error: type[Exception] = DataError

    def forward(self, inputs):
        if inputs.shape[2] != 8:
            raise self.error("the height must be 8")
        return super().forward(inputs)


class Raises(RedNet):
    """Fails at every input."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, inputs):
        raise self.error


class PooledOneSizeOnly(OneSizeOnly):
    """The same as a classifier."""

    def forward(self, inputs):
        return super().forward(inputs).mean((2, 3))


class Heights(FrameSource):
    """Images of these heights, named by them; those of a stream if it has a frame rate."""

    def __init__(self, heights, **options):
        super().__init__([], **options)
        self.heights = heights

    def __iter__(self):
        for height in self.heights:
            yield Frame(str(height), np.zeros((height, 8, 3), np.uint8))


@pytest.mark.parametrize("error", [DataError, RuntimeError])
def test_a_photo_that_the_network_cannot_take_does_not_stop_the_others(error, caplog):
    segmenter, sink = red_segmenter(), FullDisk(at=1000)
    segmenter.model = OneSizeOnly()
    segmenter.model.error = error
    source = Heights([8, 9, 8, 10])
    stats = predict(source, sink, segmenter, batch_size=4)
    assert sink.names == ["8", "8"]
    assert [failure.partition(":")[0] for failure in source.failures] == ["9", "10"]
    assert all("the height must be 8" in failure for failure in source.failures)
    with pytest.raises(DataError, match="2 of 4 images could not be used; all others are done"):
        report_predictions(stats, source, [])
    with pytest.raises(DataError, match=r"None of the 2 images could be used\. The first: 9: "):
        predict(Heights([9, 10]), sink, segmenter)
    assert "10: " in caplog.text


def test_a_folder_without_any_usable_photo_is_told_in_a_few_lines(caplog):
    segmenter = red_segmenter()
    segmenter.model = OneSizeOnly()
    with pytest.raises(DataError, match=r"None of the 50 images could be used"):
        predict(Heights([*range(9, 59), 9]), FullDisk(at=1000), segmenter)
    assert len(caplog.records) == FAILURES_SHOWN + 1
    assert "... and 29 more" in caplog.text


@pytest.mark.parametrize(
    "error", [NotImplementedError("no kernel"), RecursionError("too deep"), RuntimeError("cuDNN error: FAILED")]
)
def test_an_error_of_the_code_or_of_the_device_is_no_fault_of_an_image(error):
    segmenter = red_segmenter()
    segmenter.model = Raises(error)
    with pytest.raises(type(error), match=str(error)):
        predict(Heights([8, 9]), FullDisk(at=1000), segmenter)


def test_a_stream_ends_at_the_first_frame_that_the_network_cannot_take():
    segmenter = red_segmenter()
    segmenter.model = OneSizeOnly()
    for heights in ([9, 9, 9], [8, 9, 9]):
        source = Heights(heights, frame_rate=25.0)
        with pytest.raises(DataError, match="Frame 9 of the camera: the height must be 8"):
            predict(source, FullDisk(at=1000), segmenter)


def test_what_was_left_out_is_named_also_when_another_error_ends_the_loop(caplog):
    segmenter = red_segmenter()
    segmenter.model = OneSizeOnly()
    with pytest.raises(DataError, match="the disk is full"):
        predict(Heights([9, 8]), FullDisk(at=1, error=DataError("the disk is full")), segmenter)
    assert "9: the height must be 8" in caplog.text


def test_a_classifier_names_samples_that_it_cannot_take():
    samples = [
        (str(height), np.zeros((height, 8, channels), np.uint8)) for height, channels in ((8, 3), (9, 3), (8, 2))
    ]
    classifier = Classifier(PooledOneSizeOnly(), from_flat(Preprocessing, resize=None))
    failures = []
    assert [each.name for each in classifier.classify(samples, 4, failures=failures)] == ["8"]
    assert [failure[:20] for failure in failures] == ["8: The image has 2 c", "9: the height must b"]


class Quick(Heights):
    """A camera that is faster than the network, and never ends."""

    is_live = True

    def __iter__(self):
        for number in count():
            yield Frame(str(number), np.zeros((8, 8, 3), np.uint8))


def test_a_camera_gives_as_many_results_as_the_limit_says():
    sink = FullDisk(at=1000)
    assert predict(Quick([], frame_rate=25.0), sink, limit=7).images == 7
    assert len(sink.names) == 7
