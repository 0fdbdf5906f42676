"""Several views of an image: sliding windows over large ones, flips and scales whose results are averaged.

B batch, C channels, K classes, H, W size of the image, h, w size of a window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base.base_model import main_output
from utils.errors import ConfigError
from utils.geometry import Size

Flip = Literal["horizontal", "vertical", "both"]

# Deviation of the Gaussian as a fraction of the window's side, as in nnU-Net (arXiv:1904.08128).
SIGMA = 0.125
# Least weight, that of the window's middle being 1: the image's corners are in one window only.
LEAST_WEIGHT = 1e-3
# The dimensions of (B, C, H, W) that each view mirrors.
MIRRORED: dict[Flip | None, list[tuple[int, ...]]] = {
    None: [()],
    "horizontal": [(), (3,)],
    "vertical": [(), (2,)],
    "both": [(), (3,), (2,), (2, 3)],
}


@dataclass(frozen=True)
class Views:
    """The views of an image that a network gets.

    Attributes:
        window: (height, width) of sliding windows; None for whole images.
        overlap: Fraction of a window's sides that its neighbour shares, at least.
        flip: Average with the mirrored image: left-right, upside down, or both and their combination.
        scales: Average over the image at these scales; 1 is the image itself.
        windows_at_once: Windows in one batch.

    Raises:
        ConfigError: A value is out of its range.
    """

    window: Size | None = None
    overlap: float = 0.25
    flip: Flip | None = None
    scales: Sequence[float] = (1.0,)
    windows_at_once: int = 4

    def __post_init__(self) -> None:
        if self.window is not None and (len(self.window) != 2 or min(self.window) < 1):
            raise ConfigError(f"Wrong window {list(self.window)}: it must be [height, width], each 1 or more.")
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"Wrong overlap {self.overlap}: it must be from 0 to below 1. Write e.g. 0.25.")
        if self.flip not in MIRRORED:
            raise ConfigError(f"Wrong flip {self.flip!r}: it must be horizontal, vertical, both, or none at all.")
        if not self.scales or not all(math.isfinite(scale) and scale > 0 for scale in self.scales):
            raise ConfigError(f"Wrong scales {list(self.scales)}: they must be above 0. Write e.g. 0.75 1 1.25.")
        if self.windows_at_once < 1:
            raise ConfigError(f"Wrong windows_at_once {self.windows_at_once}: it must be 1 or more.")

    @property
    def is_plain(self) -> bool:
        """Whether there is only one view: the whole image at its scale."""
        return not self.options()

    def options(self) -> list[str]:
        """Return the options of the command line that ask for more than one view."""
        asked = {
            "--window": self.window is not None,
            "--tta-flip": self.flip is not None,
            "--tta-scales": tuple(self.scales) != (1.0,),
        }
        return [option for option, is_asked in asked.items() if is_asked]


def require_masks(options: Sequence[str], task: str | None) -> None:
    """Refuse options that ask for several views of a network whose results are no masks.

    Args:
        options: As `Views.options` returns them.
        task: Of the network, `segmentation` or `classification`; None if it is not known.

    Raises:
        ConfigError: There are such options, and the network classifies.
    """
    if options and task == "classification":
        raise ConfigError(
            f"{', '.join(options)}: the network gives one class to a whole image or series. Windows, flips and scales "
            "are averaged pixel by pixel, for masks. Leave these options out."
        )


def with_views(model: nn.Module, views: Views) -> nn.Module:
    """Return the network with its views: windows innermost, so that a scaled or flipped image is windowed, too.

    Args:
        model: Images (B, C, H, W) -> logits (B, K, H, W), or a tuple that begins with them.
        views: The views of each image.

    Returns:
        A network of the same kind; `model` itself if there is nothing to add.
    """
    if views.window is not None:
        model = SlidingWindows(model, views.window, overlap=views.overlap, windows_at_once=views.windows_at_once)
    if views.flip is not None or tuple(views.scales) != (1.0,):
        model = AveragedViews(model, flip=views.flip, scales=views.scales)
    return model


class SlidingWindows(nn.Module):
    """A network that gets a large image as overlapping windows; their logits are blended by a Gaussian.

    Windows never reach beyond the image: they are distributed evenly with at least the wanted overlap, and
    are as small as the image if that is smaller. One window that covers the image is the network itself.

    Args:
        model: Images (B, C, h, w) -> logits (B, K, h, w), or a tuple that begins with them.
        window: (height, width).
        overlap: Fraction of a window's sides that its neighbour shares, at least.
        windows_at_once: Windows in one batch.
    """

    def __init__(self, model: nn.Module, window: Size, *, overlap: float = 0.25, windows_at_once: int = 4) -> None:
        super().__init__()
        self.model = model
        self.window = window
        self.overlap = overlap
        self.windows_at_once = windows_at_once

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (B, C, H, W) float -> logits (B, K, H, W) float32."""
        batch, _, height, width = inputs.shape
        size = min(height, self.window[0]), min(width, self.window[1])
        if size == (height, width):
            return main_output(self.model(inputs)).float()
        weight = gaussian_weight(size).to(inputs.device)
        weights = torch.zeros(height, width, device=inputs.device)
        tops, lefts = (window_starts(height, size[0], self.overlap), window_starts(width, size[1], self.overlap))
        places = list(product(range(batch), tops, lefts))
        # Windows have the memory format of the image that they are cut from, which makes the network as fast.
        is_last = inputs.is_contiguous(memory_format=torch.channels_last) and not inputs.is_contiguous()
        memory_format = torch.channels_last if is_last else torch.contiguous_format
        blended: Tensor | None = None
        for start in range(0, len(places), self.windows_at_once):
            chunk = places[start : start + self.windows_at_once]
            parts = [inputs[sample, :, top : top + size[0], left : left + size[1]] for sample, top, left in chunk]
            logits = main_output(self.model(torch.stack(parts).contiguous(memory_format=memory_format))).float()
            if blended is None:
                blended = torch.zeros(batch, logits.shape[1], height, width, device=inputs.device)
            for (sample, top, left), of_window in zip(chunk, logits, strict=True):
                blended[sample, :, top : top + size[0], left : left + size[1]] += of_window * weight
                # The windows of every sample are at the same places.
                if sample == 0:
                    weights[top : top + size[0], left : left + size[1]] += weight
        assert blended is not None, "an image has at least one window"
        return blended.div_(weights)


class AveragedViews(nn.Module):
    """A network that gets an image mirrored and at several scales; the classes' probabilities are averaged.

    Args:
        model: Images (B, C, H, W) -> logits (B, K, H, W), or a tuple that begins with them.
        flip: Mirror left-right, upside down, or both and their combination; None does not mirror.
        scales: Of the image; 1 is the image itself.
    """

    def __init__(self, model: nn.Module, *, flip: Flip | None = None, scales: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        self.model = model
        self.flip = flip
        self.scales = tuple(scales)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (B, C, H, W) float -> logits (B, K, H, W) float32 whose softmax is the mean of the views' softmax.

        Of a single logit (K 1) the sigmoid is averaged.
        """
        size = inputs.shape[2:]
        flips = MIRRORED[self.flip]
        total: Tensor | None = None
        for scale in self.scales:
            scaled = _resize(inputs, [max(1, round(side * scale)) for side in size])
            for dimensions in flips:
                logits = main_output(self.model(scaled.flip(dimensions) if dimensions else scaled)).float()
                logits = _resize(logits.flip(dimensions) if dimensions else logits, list(size))
                probabilities = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
                total = probabilities if total is None else total.add_(probabilities)
        assert total is not None, "there is at least one scale"
        mean = total.div_(len(self.scales) * len(flips))
        least = torch.finfo(mean.dtype).tiny  # the logarithm of 0 would be infinite
        if mean.shape[1] == 1:
            return mean.clamp(least, 1 - torch.finfo(mean.dtype).eps).logit()
        return mean.clamp_min_(least).log_()


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Return the first pixels of windows on a side of `length`: from 0 to the end, evenly distributed.

    Args:
        length: Of the image's side.
        window: Of the window's side, at most `length`.
        overlap: Fraction of a window that its neighbour shares, at least.
    """
    rest = length - window
    step = max(1, int(window * (1 - overlap) + 1e-6))  # 10 * (1 - 0.9) is a little below 1
    count = math.ceil(rest / step)
    return [0] if count == 0 else [(index * rest + count // 2) // count for index in range(count + 1)]


def gaussian_weight(size: Size) -> Tensor:
    """Return (h, w) float32: near 1 in the middle, falling to the rim, never below `LEAST_WEIGHT`."""
    sides = [torch.exp(-0.5 * (((torch.arange(side) + 0.5) / side - 0.5) / SIGMA) ** 2) for side in size]
    return torch.outer(*sides).clamp_min_(LEAST_WEIGHT)


def _resize(maps: Tensor, size: list[int]) -> Tensor:
    """Return (B, C, H, W) at another size, bilinear; areas are averaged when shrinking."""
    if list(maps.shape[2:]) == size:
        return maps
    shrinks = size[0] < maps.shape[2] or size[1] < maps.shape[3]
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=shrinks)
