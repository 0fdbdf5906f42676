"""Progress, metrics.csv and TensorBoard, driven by a real, tiny trainer."""

import io
import logging
import math
import sys
import threading

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from base.base_trainer import BaseTrainer
from base.callback import Callback, StepReport
from logger.callbacks import MetricsFile, ProgressBar, Speedometer, TensorBoardLogger, draw_masks
from utils.durations import duration
from utils.errors import ConfigError, TrainingError
from utils.images.palette import Palette


class TinyTrainer(BaseTrainer):
    """Three steps an epoch of a 1x1 convolution; the loss falls as the steps go by."""

    @property
    def steps_per_epoch(self):
        return 3

    def train_epoch(self):
        while self.batch < self.steps_per_epoch:
            self.model.weight.grad = torch.ones_like(self.model.weight)
            self.finish_step(StepReport(torch.tensor(1 / (self.global_step + 1)), 4, 0.01, 0.04))
        return {"step": self.global_step, "lr": 0.1, "loss": 1 / self.global_step, "miou": 0.1 * self.epoch}

    def validate_epoch(self):
        inputs = torch.rand(2, 3, 8, 8)
        target = torch.randint(0, 2, (2, 8, 8))
        self.notify("on_validation_batch", inputs, target, self.model(inputs).detach())
        return {"loss": 0.5 / self.global_step, "miou": 0.2 * self.epoch}

    def result_names(self):
        return ["loss", "miou", "val_loss", "val_miou"]


def make_trainer(folder, *callbacks, epochs=2):
    model = nn.Conv2d(3, 2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = TinyTrainer(model, optimizer, epochs=epochs, monitor="max val_miou", callbacks=callbacks)
    trainer.run_folder = folder
    return trainer


def test_speed_is_samples_and_waiting_over_time():
    speed = Speedometer()
    assert speed.summary() == "0 samples/s, data 0%"
    for _ in range(2):
        speed.add(StepReport(torch.tensor(0.0), 8, 0.25, 1.0))
    assert (speed.steps, speed.samples, speed.seconds, speed.data_seconds) == (2, 16, 2.0, 0.5)
    assert speed.summary() == "8 samples/s, data 25%"


def test_metrics_file_is_exact_and_the_union_of_columns(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.history = [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": math.nan, "val_miou": 1e-17}]
    MetricsFile().on_fit_start(trainer)
    text = (tmp_path / "metrics.csv").read_text()
    assert text == "epoch,loss,val_miou\n1,0.30000000000000004,\n2,nan,1e-17\n"


def test_metrics_file_is_rewritten_from_the_history(tmp_path):
    make_trainer(tmp_path, MetricsFile()).fit()
    whole = (tmp_path / "metrics.csv").read_bytes()
    assert whole.decode().splitlines()[0] == "epoch,step,lr,loss,miou,val_loss,val_miou"
    assert len(whole.splitlines()) == 3

    (tmp_path / "metrics.csv").write_text("torn")
    interrupted = make_trainer(tmp_path, epochs=1)
    interrupted.fit()
    resumed = make_trainer(tmp_path, MetricsFile())
    resumed.load_state_dict(interrupted.state_dict())
    resumed.notify("on_fit_start")
    assert (tmp_path / "metrics.csv").read_bytes() == b"\n".join(whole.splitlines()[:2]) + b"\n"
    resumed.fit()
    assert (tmp_path / "metrics.csv").read_bytes() == whole


def test_metrics_file_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(TrainingError, match=r"metrics\.csv: not written .* --resume auto"):
        make_trainer(tmp_path, MetricsFile()).fit()


def test_metrics_file_needs_a_folder_and_the_main_process(tmp_path):
    make_trainer(None, MetricsFile()).fit()
    other = make_trainer(tmp_path, MetricsFile())
    other.is_main_process = False
    other.fit()
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_there_is_one_line_per_epoch(caplog, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with caplog.at_level(logging.INFO):
        make_trainer(None, ProgressBar()).fit()
    assert stream.getvalue() == ""
    first, second, best = caplog.messages
    assert first.startswith("Epoch 1/2  loss 0.3333  val_loss 0.1667  val_miou 0.0000 (best)")
    assert first.endswith("100 samples/s, data 25%")
    assert second.startswith("Epoch 2/2  loss 0.1667")
    assert best == "Best: val_miou 0.2000, epoch 2"


def test_bar_shows_loss_speed_waiting_and_time_left(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("logger.callbacks.SECONDS_BETWEEN_UPDATES", 0.0)
    make_trainer(None, ProgressBar(show_bar=True)).fit()
    shown = stream.getvalue()
    assert "Epoch 1/2  33%" in shown
    assert "1/3, loss 1.0000, 100 samples/s, data 25%, 0:00 left" in shown
    assert "validating, batch 1" in shown


def test_bar_of_a_resumed_epoch_begins_where_it_goes_on(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    bar = ProgressBar(show_bar=True)
    trainer = make_trainer(None, bar)
    trainer.batch = 2
    bar.on_epoch_start(trainer)
    bar.on_close(trainer)
    assert "2/3" in stream.getvalue()


def test_loss_is_read_only_when_the_bar_is_redrawn(monkeypatch):
    class Unreadable:
        def __float__(self):
            raise AssertionError("the loss was read")

    monkeypatch.setattr("sys.stderr", io.StringIO())
    bar = ProgressBar(show_bar=True)
    trainer = make_trainer(None, bar)
    bar.on_epoch_start(trainer)
    monkeypatch.setattr("time.perf_counter", lambda: -1.0)
    bar.on_step_end(trainer, StepReport(Unreadable(), 4, 0.0, 0.1))
    bar.on_close(trainer)


def test_other_processes_say_nothing(caplog, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    trainer = make_trainer(None, ProgressBar(show_bar=True))
    trainer.is_main_process = False
    with caplog.at_level(logging.INFO):
        trainer.fit()
    assert (stream.getvalue(), caplog.messages) == ("", [])


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (62, "1:02"), (3 * 3600 + 65, "3:01:05"), (-1, "0:00")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def test_tensorboard_has_both_curves_under_one_name(tmp_path):
    make_trainer(tmp_path, TensorBoardLogger(images=1)).fit()
    train, valid = (read_events(tmp_path / "tensorboard" / name) for name in ("train", "valid"))
    assert {"loss", "miou", "run/lr", "run/epoch", "run/steps_per_second", "run/data_share"} <= set(
        train.Tags()["scalars"]
    )
    assert set(valid.Tags()["scalars"]) == {"loss", "miou"}
    assert [event.step for event in valid.Scalars("loss")] == [3, 6]
    assert [event.value for event in valid.Scalars("loss")] == pytest.approx([0.5 / 3, 0.5 / 6])
    assert valid.Tags()["images"] == ["validation/0"]
    assert len(valid.Images("validation/0")) == 2
    assert train.Tags()["histograms"] == []


def test_tensorboard_draws_images_of_a_classification(tmp_path, monkeypatch):
    captions = []

    def noted(inputs, caption):
        captions.append((inputs.shape, caption))
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr("logger.callbacks.draw_input", noted)
    writer = TensorBoardLogger(images=2, class_names=["cat"])
    trainer = make_trainer(tmp_path, writer)
    writer.on_fit_start(trainer)
    writer.on_validation_batch(trainer, torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 0]), torch.eye(2)[[0, 0, 1]])
    writer.on_epoch_end(trainer, {"epoch": 1})
    writer.on_close(trainer)
    assert captions == [((1, 8, 8), "cat, taken for cat"), ((1, 8, 8), "1, taken for cat")]
    assert read_events(tmp_path / "tensorboard" / "valid").Tags()["images"] == ["validation/0", "validation/1"]


def test_tensorboard_has_the_pixels_of_the_batch_though_its_memory_is_used_again(tmp_path, monkeypatch):
    changed, encode = threading.Event(), cv2.imencode

    def encode_late(*arguments):
        assert changed.wait(60)
        return encode(*arguments)

    monkeypatch.setattr(cv2, "imencode", encode_late)
    writer = TensorBoardLogger(images=1, ignore_index=255)
    trainer = make_trainer(tmp_path, writer)
    inputs, output = torch.rand(2, 3, 12, 9), torch.randn(2, 4, 12, 9)
    target = torch.randint(0, 4, (2, 12, 9))
    expected = draw_masks(
        inputs[0].numpy().copy(), [target[0].numpy(), output[0].argmax(0).numpy()], Palette.of(4), 255
    )
    writer.on_fit_start(trainer)
    writer.on_validation_batch(trainer, inputs, target, output)
    writer.on_epoch_end(trainer, {"epoch": 1})
    for tensor in (inputs, output, target):
        tensor.zero_()
    changed.set()
    writer.on_fit_end(trainer, None)
    writer.on_close(trainer)
    [event] = read_events(tmp_path / "tensorboard" / "valid").Images("validation/0")
    shown = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(shown, expected)
    assert (event.height, event.width) == expected.shape[:2]


def test_a_run_goes_on_without_an_image_that_cannot_be_drawn(tmp_path, monkeypatch, caplog):
    def fail(*arguments):
        raise ValueError("no such colour")

    monkeypatch.setattr("logger.callbacks.draw_masks", fail)
    assert make_trainer(tmp_path, TensorBoardLogger(images=1), epochs=2).fit().epochs == 2
    assert [each for each in caplog.messages if "no such colour" in each] == [
        "TensorBoard: the validation images of an epoch were not written (no such colour)."
    ] * 2


def test_tensorboard_draws_histograms_when_asked(tmp_path):
    make_trainer(tmp_path, TensorBoardLogger(histograms=True)).fit()
    train = read_events(tmp_path / "tensorboard" / "train")
    assert set(train.Tags()["histograms"]) == {"parameters/weight", "parameters/bias", "gradients/weight"}


def test_tensorboard_of_a_resumed_run_hides_what_was_beyond(tmp_path):
    first = make_trainer(tmp_path, TensorBoardLogger(images=0), epochs=1)
    first.fit()
    state = first.state_dict()
    first.epochs = 2
    first.fit()
    resumed = make_trainer(tmp_path, TensorBoardLogger(images=0))
    resumed.load_state_dict(state)
    resumed.fit()
    steps = [event.step for event in read_events(tmp_path / "tensorboard" / "valid").Scalars("loss")]
    assert sorted(steps) == [3, 6]  # files of one second are read in any order


def test_tensorboard_writes_the_loss_every_fiftieth_step(tmp_path):
    make_trainer(tmp_path, TensorBoardLogger(images=0), epochs=34).fit()
    events = read_events(tmp_path / "tensorboard" / "train").Scalars("step/loss")
    assert [(event.step, event.value) for event in events] == [(50, pytest.approx(1 / 50)), (100, pytest.approx(0.01))]


def test_tensorboard_is_opened_with_the_first_point(tmp_path):
    seen = []

    class Look(Callback):
        def on_step_end(self, trainer, report):
            seen.append((tmp_path / "tensorboard").exists())

    make_trainer(tmp_path, Look(), TensorBoardLogger()).fit()
    assert seen[0] is False
    assert (tmp_path / "tensorboard" / "valid").exists()


def test_a_tensorboard_that_is_damaged_ends_no_training_and_one_that_is_not_there_begins_none(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # its import fails
    assert len(make_trainer(tmp_path, TensorBoardLogger()).fit().history) == 2
    (message,) = [each for each in caplog.messages if "TensorBoard" in each]
    assert "pip install tensorboard" in message
    assert "Nothing is written" in message
    monkeypatch.setattr("logger.callbacks.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"TensorBoard cannot be imported \(there is no such package\)"):
        make_trainer(tmp_path / "other", TensorBoardLogger()).fit()


def test_tensorboard_writes_nothing_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # SummaryWriter would make `runs` here
    make_trainer(None, TensorBoardLogger()).fit()
    assert not list(tmp_path.iterdir())
