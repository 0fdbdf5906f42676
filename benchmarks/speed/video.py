"""Frames per second of `inference.py` on a video of 768x432, next to a bare loop around a public selfie model.

    pip install ai-edge-litert onnx onnxscript onnxruntime
    npm pack @mediapipe/selfie_segmentation && tar xzf mediapipe-*.tgz
    SELFIE_MODEL=package/selfie_segmentation.tflite python -m benchmarks video

The networks are that of config/people/quickstart.json (trained here for two epochs, as a checkpoint and as ONNX) and
the people model. `VIDEO` names a video to use instead of a walk through the photos of data/people. Both sides read,
draw and write videos with the same encoder; loading the networks is not counted.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import export
import inference
from benchmarks.speed.comparison import Comparison, alternate
from config import load_config
from data_loader.images.files import read_image
from predictor.io.video_writer import DEFAULT_ENCODERS
from predictor.segmenter import Segmenter
from train import train

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "config" / "people" / "quickstart.json"
WIDTH, HEIGHT, RATE = 768, 432, 30
SECONDS_PER_PHOTO = 1
GREEN = (0, 200, 140)
PEER = "bare loop around the public selfie model"
# What a mode is called here, and the options of inference.py for it.
MODES = {
    "mask": ["--mode", "mask"],
    "overlay": ["--mode", "overlay"],
    "blur": ["--mode", "background", "--background", "blur"],
}
Image = NDArray[np.uint8]


def measure(rounds: int) -> list[Comparison]:
    """Compare every network and mode with the selfie model, and ONNX with its checkpoint."""
    model = os.environ.get("SELFIE_MODEL", "")
    if not Path(model).is_file():
        raise SystemExit(f"SELFIE_MODEL={model}: must name selfie_segmentation.tflite of the npm package. {__doc__}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        video = place / "walk.mp4"
        count = write_video(video, scaled_frames(os.environ.get("VIDEO")))
        segment = selfie_model(model)
        networks = {name: inference.load(file) for name, file in trained_networks(place).items()}
        cases: dict[str, Callable[[], float]] = {}
        for mode, options in MODES.items():
            cases[f"selfie, {mode}"] = partial(run_selfie, video, place / "selfie.mp4", segment, DRAWING[mode], count)
            for name, network in networks.items():
                cases[f"{name}, {mode}"] = partial(run_ours, video, place / "ours.mp4", network, options, count)
        values = alternate(cases, rounds)
    rows = []
    for mode in MODES:
        for name in networks:
            bar = None if name == "people model" else 1.0
            ours = values[f"{name}, {mode}"]
            rows.append(row(f"{name}, {mode}", ours, values[f"selfie, {mode}"], PEER, bar))
        rows.append(row(f"ONNX, {mode}", values[f"ONNX, {mode}"], values[f"checkpoint, {mode}"], "its checkpoint", 1.0))
    return rows


def row(name: str, ours: tuple[float, ...], other: tuple[float, ...], other_name: str, bar: float | None) -> Comparison:
    """Return one comparison of frames per second."""
    return Comparison(name, "frames/s", ours, other, other_name, is_limit=False, bar=bar, higher_is_better=True)


def trained_networks(place: Path) -> dict[str, str]:
    """Train the quickstart's network for two epochs and export it; return the files of all networks, by name."""
    config = load_config(QUICKSTART, ["trainer.epochs=2", "trainer.tensorboard=false", f"trainer.save_dir={place}"])
    checkpoint, onnx = str(train(config).checkpoint), str(place / "net.onnx")
    export.main(export.parser().parse_args(["--resume", checkpoint, "--output", onnx]))
    return {"checkpoint": checkpoint, "ONNX": onnx, "people model": "people"}


def run_ours(video: Path, output: Path, network: Segmenter, options: list[str], count: int) -> float:
    """Return the frames per second of `inference.py` with a network that is loaded."""
    named = ["--resume", "loaded", "--source", str(video), "--output", str(output), *options]
    arguments: argparse.Namespace = inference.parser().parse_args(named)
    start = time.perf_counter()
    inference.segment(arguments, network)
    return count / (time.perf_counter() - start)


def run_selfie(
    video: Path,
    output: Path,
    segment: Callable[[Image], NDArray[np.bool_]],
    draw: Callable[[Image, NDArray[np.bool_]], Image],
    count: int,
) -> float:
    """Return the frames per second of a loop that reads, segments, draws and writes one frame after the other."""
    start = time.perf_counter()
    write_video(output, (draw(frame, segment(frame)) for frame in frames_of(video)))
    return count / (time.perf_counter() - start)


def selfie_model(file: str) -> Callable[[Image], NDArray[np.bool_]]:
    """Return the function from an image (h, w, 3) RGB to the pixels (h, w) of a person."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=file, num_threads=len(os.sched_getaffinity(0)))
    interpreter.allocate_tensors()
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    height, width = given["shape"][1:3]

    def segment(image: Image) -> NDArray[np.bool_]:
        small = cv2.resize(image, (width, height)).astype(np.float32) * np.float32(1 / 255)
        interpreter.set_tensor(given["index"], small[None])
        interpreter.invoke()
        share = interpreter.get_tensor(found["index"])[0, ..., 0]
        return np.asarray(cv2.resize(share, image.shape[1::-1]) > 0.5)

    return segment


def draw_mask(image: Image, inside: NDArray[np.bool_]) -> Image:
    """Return a person in green on black."""
    green = np.empty_like(image)
    green[:] = GREEN
    return np.asarray(cv2.copyTo(green, inside.view(np.uint8), np.zeros_like(image)))


def draw_overlay(image: Image, inside: NDArray[np.bool_]) -> Image:
    """Return the image with a person half in green."""
    green = np.empty_like(image)
    green[:] = GREEN
    return np.asarray(cv2.copyTo(cv2.addWeighted(image, 0.5, green, 0.5, 0), inside.view(np.uint8), image.copy()))


def draw_blur(image: Image, inside: NDArray[np.bool_]) -> Image:
    """Return a person on a blurred background, with the blur of the model's example in Python."""
    return np.asarray(cv2.copyTo(image, inside.view(np.uint8), cv2.GaussianBlur(image, (55, 55), 0)))


DRAWING = {"mask": draw_mask, "overlay": draw_overlay, "blur": draw_blur}


def frames_of(video: str | Path) -> Iterator[Image]:
    """Yield the frames of a video, (h, w, 3) RGB."""
    import av

    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def scaled_frames(video: str | None) -> Iterator[Image]:
    """Yield frames (432, 768, 3) of a video, or of a camera that moves over photos."""
    if video:
        yield from (np.asarray(cv2.resize(frame, (WIDTH, HEIGHT)), dtype=np.uint8) for frame in frames_of(video))
        return
    for file in sorted((ROOT / "data" / "people" / "images" / "test").glob("*.jpg"))[:3]:
        photo = read_image(file)
        wide = cv2.resize(photo, (WIDTH, round(photo.shape[0] * WIDTH / photo.shape[1])))
        steps = SECONDS_PER_PHOTO * RATE
        for step in range(steps):
            top = (len(wide) - HEIGHT) * step // steps
            yield np.ascontiguousarray(wide[top : top + HEIGHT], dtype=np.uint8)


def write_video(file: Path, frames: Iterator[Image]) -> int:
    """Write frames with the encoder of `inference.py`; return their number."""
    import av

    count, (encoder, options) = 0, DEFAULT_ENCODERS[0]
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream(encoder, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base, count = count, Fraction(1, RATE), count + 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return count
