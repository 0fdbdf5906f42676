"""A trained network put to use on images, without the data that it was trained on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from base.base_model import class_logits, main_output
from utils.checkpoint_file import judged_weights, read_saved
from utils.environment import devices_named
from utils.errors import CheckpointError, DataError
from utils.geometry import Geometry, restore_logits

Preprocess = Callable[[NDArray[Any]], tuple[NDArray[np.float32], Geometry]]
Build = Callable[[dict[str, Any]], tuple[nn.Module, Preprocess]]
DEFAULT_BATCH_SIZE = 8


class Prepared(NamedTuple):
    """An image as the network wants it.

    Attributes:
        inputs: (C, H, W) float32.
        geometry: How the image lies on it.
    """

    inputs: NDArray[np.float32]
    geometry: Geometry


class BaseInference(ABC):
    """Images in, results at each image's own size out. A subclass says what a result is.

    The steps (`prepare`, `logits`, `restore`, `render`) are public so that a loop can time them one by one;
    `probabilities` and calling the object do all of them.

    Args:
        model: Inputs (B, C, H, W) float -> logits (B, K, H, W), or a tuple that begins with them.
        preprocess: Image (h, w, 3) RGB -> ((C, H, W) float32, geometry); the one that training used.
        device: Where the network computes.

    Attributes:
        config: The configuration the network was trained with; empty where it came from elsewhere.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).to(memory_format=torch.channels_last).eval()
        self.preprocess = preprocess
        self.config: dict[str, Any] = {}

    @classmethod
    def from_checkpoint(cls, path: str | Path, build: Build, *, device: torch.device | str = "cpu") -> Self:
        """Load what a training saved.

        Args:
            path: A checkpoint, or a run folder (its best one).
            build: Config of the checkpoint -> (model, preprocess).
            device: Where the network computes.

        Raises:
            CheckpointError: The checkpoint is missing, damaged, or does not fit its own config.
            ConfigError: The config in it names what is not there.
        """
        content, file = read_trained(Path(path))
        model, preprocess = build(content["config"])
        try:
            model.load_state_dict(judged_weights(content))
        except RuntimeError as error:
            raise CheckpointError(
                f"{file}: its weights do not fit the network that its config describes ({_first_lines(error)}). "
                "Use the code it was trained with, or another checkpoint."
            ) from error
        inference = cls(model, preprocess, device=device)
        inference.config = content["config"]
        return inference

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their ids; empty if the config does not name them."""
        for section in ("valid_loader", "train_loader", "data_loader", "test_loader"):
            spec = self.config.get(section)
            names = spec.get("args", {}).get("classes") if isinstance(spec, dict) else None
            if names:
                return [str(name) for name in names]
        return []

    @abstractmethod
    def render(self, image: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[Any]:
        """Make the result of an image (h, w, 3 or 4) and its probabilities (K, h, w)."""

    def prepare(self, image: NDArray[Any]) -> Prepared:
        """Make a network's input of an image (h, w, 3 or 4) uint8 or uint16 RGB.

        Raises:
            DataError: The image lacks channels that the network needs.
        """
        channels = 1 if image.ndim == 2 else image.shape[2]
        wanted = getattr(self.preprocess, "in_channels", channels)
        if 1 < channels < wanted:
            raise DataError(
                f"The image has {channels} channels, but the network was trained on {wanted}. "
                "Use images of the same kind as in training."
            )
        inputs, geometry = self.preprocess(image)
        return Prepared(inputs, geometry)

    @torch.inference_mode()
    def logits(self, inputs: Sequence[NDArray[np.float32]]) -> Tensor:
        """Run the network once: inputs of one size, (C, H, W) float32 each -> (B, K, H, W) float32 on the device.

        A binary network with one channel gives two classes here. Of a classifier (B, K), whose inputs may be series
        (V, T).
        """
        batch = torch.from_numpy(np.stack(inputs)).to(self.device)
        if batch.dim() == 4:
            batch = batch.to(memory_format=torch.channels_last)
        is_half = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_half):
            output = self.model(batch)
        return class_logits(main_output(output).float())

    @torch.inference_mode()
    def restore(self, logits: Tensor, geometry: Geometry) -> NDArray[np.float32]:
        """Logits of one input (K, H, W) -> probabilities (K, h, w) float32 at the image's own size."""
        probabilities: NDArray[np.float32] = restore_logits(logits, geometry).softmax(dim=0).cpu().numpy()
        return probabilities

    def probabilities(
        self, images: Iterable[NDArray[Any]], batch_size: int = DEFAULT_BATCH_SIZE
    ) -> list[NDArray[np.float32]]:
        """Probabilities (K, h, w) float32 of each image (h, w, 3) RGB, at its own size and in the same order."""
        prepared = [self.prepare(image) for image in images]
        results: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(prepared)
        for positions in batches_of_one_size([item.inputs.shape for item in prepared], batch_size):
            logits = self.logits([prepared[position].inputs for position in positions])
            for position, own in zip(positions, logits, strict=True):
                results[position] = self.restore(own, prepared[position].geometry)
        return results

    def masks(self, images: Iterable[NDArray[Any]], batch_size: int = DEFAULT_BATCH_SIZE) -> list[NDArray[np.intp]]:
        """The class ids (h, w) of each image (h, w, 3) RGB."""
        return [each.argmax(axis=0) for each in self.probabilities(images, batch_size)]

    def __call__(self, images: Sequence[NDArray[Any]], batch_size: int = DEFAULT_BATCH_SIZE) -> list[NDArray[Any]]:
        """The rendered result of each image (h, w, 3) RGB."""
        found = self.probabilities(images, batch_size)
        return [self.render(image, each) for image, each in zip(images, found, strict=True)]


def batches_of_one_size(shapes: Sequence[tuple[int, ...]], batch_size: int) -> list[list[int]]:
    """Positions of equal shapes together, at most `batch_size` in each batch, in order of first appearance."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(position)
    return [
        positions[start : start + batch_size]
        for positions in by_shape.values()
        for start in range(0, len(positions), batch_size)
    ]


def read_trained(path: Path) -> tuple[dict[str, Any], Path]:
    """A checkpoint with weights and config, and its file. Of a run folder the best one, or the newest that is good.

    Raises:
        CheckpointError: It is missing, damaged, or no checkpoint of a training.
    """
    file, content = read_saved(path)
    for key in ("config", "state_dict"):
        if not isinstance(content.get(key), dict):
            raise CheckpointError(
                f"{file} has no {key}: it is no checkpoint of a training here. Name one that train.py wrote."
            )
    return content, file


def choose_device(asked: str | None) -> torch.device:
    """The device of `-d`: `cpu`, or the number of a GPU; by default the first GPU, where there is one.

    A GPU that is not there is replaced by what is, with a warning.
    """
    if asked is not None:
        return devices_named(asked)[0]
    return torch.device("cuda", 0) if torch.cuda.device_count() else torch.device("cpu")


def _first_lines(error: Exception, count: int = 3) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:count])[:400]
