"""A trained network applied to images, without the data that it was trained on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from base.base_model import class_logits, main_output
from utils.checkpoint_file import read_saved
from utils.environment import devices_named
from utils.errors import CheckpointError, DataError
from utils.geometry import Geometry, restore_logits
from utils.images.palette import Palette, of_loaders

Preprocess = Callable[[NDArray[Any]], tuple[NDArray[np.float32], Geometry]]
DEFAULT_BATCH_SIZE = 8


class Prepared(NamedTuple):
    """An image as the input of a network.

    Attributes:
        inputs: (C, H, W) float32.
        geometry: The place of the image on it.
    """

    inputs: NDArray[np.float32]
    geometry: Geometry


@torch.inference_mode()
def task_of_outputs(model: nn.Module, preprocess: Preprocess) -> str:
    """Return the task of a network by the shape of its logits for a black image: `segmentation` or `classification`.

    Args:
        model: Inputs (1, C, H, W) float -> logits (1, K, H, W) or (1, K).
        preprocess: Image (h, w, 3) RGB, (h, w, 4), or (h, w, C) if it names `suffixes` of other files than photos, ->
            ((C, H, W) float32, geometry).
    """
    channels = getattr(preprocess, "in_channels", None) or 3
    if not hasattr(preprocess, "suffixes"):  # photos have colours, of which it makes grey
        channels = max(3, channels)
    inputs, _ = preprocess(np.zeros((64, 64, channels), np.uint8))
    logits = main_output(model.cpu().eval()(torch.from_numpy(inputs)[None]))
    return "segmentation" if logits.dim() > 2 else "classification"


class BaseInference(ABC):
    """A trained network with its preprocessing: images in, results at each image's own size out.

    A subclass defines the result. The steps (`prepare`, `logits`, `restore`, `render`) are public so that a loop can
    time each of them; `probabilities` and calling the object run all of them.

    Args:
        model: Inputs (B, C, H, W) float -> logits (B, K, H, W), or a tuple that starts with them.
        preprocess: Image (h, w, 3) RGB -> ((C, H, W) float32, geometry); the one that training used.
        device: The device that the network computes on.

    Attributes:
        config: The config that the network was trained with; empty if there is none.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).to(memory_format=torch.channels_last).eval()
        self.preprocess = preprocess
        self.config: dict[str, Any] = {}

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their ids; empty if the config does not name them."""
        return of_loaders(self.config, "classes")

    def palette(self, num_classes: int) -> Palette:
        """Return the colours and names of the classes, as the config says."""
        return Palette.of(num_classes, self.class_names, of_loaders(self.config, "palette"))

    @abstractmethod
    def render(self, image: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[Any]:
        """Make the result of an image (h, w, 3 or 4) from its probabilities (K, h, w)."""

    def prepare(self, image: NDArray[Any]) -> Prepared:
        """Make the network's input from an image (h, w, 3 or 4) uint8 or uint16 RGB.

        Raises:
            DataError: The image lacks channels that the network needs.
        """
        channels = 1 if image.ndim == 2 else image.shape[2]
        wanted = getattr(self.preprocess, "in_channels", None) or channels
        if 1 < channels < wanted:  # grey images are repeated by the preprocessing
            raise DataError(
                f"The image has {channels} channels, but the network was trained on {wanted}. "
                "Use images of the same kind as in training."
            )
        return Prepared(*self.preprocess(image))

    @torch.inference_mode()
    def logits(self, inputs: Sequence[NDArray[np.float32]]) -> Tensor:
        """Run the network once: inputs of one size, (C, H, W) float32 each -> (B, K, H, W) float32 on the device.

        A binary network with one channel gives two classes here. A classifier gives (B, K); its inputs may be series
        (V, T).
        """
        batch = torch.from_numpy(np.stack(inputs)).to(self.device)
        if batch.dim() == 4:
            batch = batch.to(memory_format=torch.channels_last)
        # A processor computes in fp32, also if the training used bf16.
        is_half = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_half):
            output = self.model(batch)
        return class_logits(main_output(output).float())

    @torch.inference_mode()
    def restore(self, logits: Tensor, geometry: Geometry) -> NDArray[np.float32]:
        """Return the probabilities (K, h, w) float32 at the image's own size, from logits (K, H, W) of one input."""
        probabilities: NDArray[np.float32] = restore_logits(logits, geometry).softmax(dim=0).cpu().numpy()
        return probabilities

    def probabilities(
        self, images: Iterable[NDArray[Any]], batch_size: int = DEFAULT_BATCH_SIZE
    ) -> list[NDArray[np.float32]]:
        """Return the probabilities (K, h, w) float32 of each image (h, w, 3) RGB, at its own size and in order."""
        prepared = [self.prepare(image) for image in images]
        results: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(prepared)
        for positions in batches_of_one_size([item.inputs.shape for item in prepared], batch_size):
            logits = self.logits([prepared[position].inputs for position in positions])
            for position, image_logits in zip(positions, logits, strict=True):
                results[position] = self.restore(image_logits, prepared[position].geometry)
        return results

    def masks(self, images: Iterable[NDArray[Any]], batch_size: int = DEFAULT_BATCH_SIZE) -> list[NDArray[np.intp]]:
        """Return the class ids (h, w) of each image (h, w, 3) RGB."""
        return [each.argmax(axis=0) for each in self.probabilities(images, batch_size)]

    def __call__(self, images: Sequence[NDArray[Any]], batch_size: int = DEFAULT_BATCH_SIZE) -> list[NDArray[Any]]:
        """Return the rendered result of each image (h, w, 3) RGB."""
        found = self.probabilities(images, batch_size)
        return [self.render(image, each) for image, each in zip(images, found, strict=True)]


def batches_of_one_size(shapes: Sequence[tuple[int, ...]], batch_size: int) -> list[list[int]]:
    """Group the positions of equal shapes, at most `batch_size` in each batch, in order of first appearance."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(position)
    return [
        positions[start : start + batch_size]
        for positions in by_shape.values()
        for start in range(0, len(positions), batch_size)
    ]


def read_trained(path: Path) -> tuple[dict[str, Any], Path]:
    """Read a checkpoint with weights and config; of a run folder the best one, or the newest that is undamaged.

    Returns:
        Its content, and its file.

    Raises:
        CheckpointError: It is missing, damaged, or no checkpoint of a training.
    """
    file, content = read_saved(path)
    for key in ("config", "state_dict"):
        if not isinstance(content.get(key), dict):
            raise CheckpointError(
                f"{file} has no {key}: it is not a checkpoint of a training here. Name one that train.py wrote."
            )
    if "arch" not in content["config"]:
        raise CheckpointError(f"{file}: its config has no arch, the network. Name a checkpoint that train.py wrote.")
    return content, file


def choose_device(asked: str | None) -> torch.device:
    """Return the device of `-d`: `cpu`, or the number of a GPU; by default the first GPU if there is one.

    A GPU that does not exist is replaced by the best device that does, with a warning.
    """
    if asked is not None:
        return devices_named(asked)[0]
    return torch.device("cuda", 0) if torch.cuda.device_count() else torch.device("cpu")
