"""Any convolutional network of timm as an encoder."""

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import StringConstraints
from torch import Tensor, nn

from models.backbones.weights import check_match, read_state_dict
from models.layers.blocks import Norm, pad_to_multiple
from utils.errors import ConfigError

PREFIX = "timm:"
TimmName = Annotated[str, StringConstraints(pattern=f"^{PREFIX}.+")]

COARSEST_FIRST_STRIDE = 4  # a decoder that begins with coarser maps cannot find edges


class TimmEncoder(nn.Module):
    """A network of timm that returns its feature maps.

    Images are padded to a multiple of its coarsest stride: its stems round odd sizes up or down.

    Args:
        name: "timm:" and a name of `timm.list_models()`, e.g. "timm:mobilenetv3_small_100".
        in_channels: Channels of the image.
        weights: null (from scratch), "DEFAULT" (timm's, fetched once), or a file with a state dict under timm's names.
        norm: "batch": the norm that timm gives the network; others are refused.
        output_stride: Stride of the coarsest feature map, 8, 16 or 32, if timm can dilate the network.

    Attributes:
        channels: Channels of the feature maps, finest first.
        strides: Their strides.
        first_stride: Stride of the finest feature map.
        stride: Stride of the coarsest feature map.

    Raises:
        ConfigError: timm is missing, has no such network, or cannot build it so; or weights cannot be found.
        CheckpointError: The weights are damaged or of another network.
    """

    def __init__(
        self,
        name: str,
        in_channels: int = 3,
        *,
        weights: str | None = None,
        norm: Norm = "batch",
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        if norm != "batch":
            raise ConfigError(
                f'Wrong norm {norm!r} for backbone {name!r}: a timm network brings its own. Set "norm": "batch".'
            )
        self.network = _create(name, in_channels, weights, output_stride)
        self.channels: list[int] = list(self.network.feature_info.channels())
        self.strides: list[int] = list(self.network.feature_info.reduction())
        self.first_stride = self.strides[0]
        self.stride = self.strides[-1]
        layout = str(getattr(self.network, "output_fmt", "NCHW")).rsplit(".", maxsplit=1)[-1]
        if layout != "NCHW" or self.first_stride > COARSEST_FIRST_STRIDE or self.stride > output_stride:
            raise ConfigError(
                f"Wrong backbone {name!r}: its feature maps have strides {self.strides} and layout {layout}; those of "
                f"a backbone begin at stride {COARSEST_FIRST_STRIDE} or finer, end at {output_stride}, and have layout "
                "NCHW. Choose a convolutional network."
            )
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.1  # as in `TorchvisionEncoder`: some come with 0.01 or less, for much longer runs

    def forward(self, inputs: Tensor, count: int | None = None) -> list[Tensor]:
        """Image (B, C, H, W) float -> the first `count` feature maps of the padded image, finest first."""
        features: list[Tensor] = self.network(pad_to_multiple(inputs, self.stride))
        return list(features[:count])


def _create(name: str, in_channels: int, weights: str | None, output_stride: int) -> Any:
    """Build the network without its classifier."""
    try:
        import timm
    except ModuleNotFoundError:
        raise ConfigError(
            f"Wrong backbone {name!r}: the package timm is not installed. Run: pip install timm."
        ) from None
    timm_name = name.removeprefix(PREFIX)
    if not timm.is_model(timm_name):
        near = ", ".join(timm.list_models(f"*{timm_name[:6]}*")[:5]) or "timm.list_models() lists them"
        raise ConfigError(f"Unknown backbone {name!r}: timm has no such network. Similar: {near}.")
    options: dict[str, Any] = {"features_only": True, "in_chans": in_channels, "pretrained": weights is not None}
    if output_stride != 32:  # some networks refuse the argument, whatever its value
        options["output_stride"] = output_stride
    if weights is not None and weights != "DEFAULT":
        path = Path(weights).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"No such weights {weights!r} for {timm_name}: neither a file nor DEFAULT. "
                'Correct it, or set "weights": null to train from scratch.'
            )
        # Only names and shapes are needed: no memory, no time, no random numbers.
        with torch.device("meta"):
            classifier: Any = timm.create_model(timm_name)
        state = read_state_dict(path, classifier)  # of a whole classifier; its last layer may have other shapes
        last = classifier.pretrained_cfg["classifier"]
        unused = tuple(f"{layer}." for layer in ([last] if isinstance(last, str) else last))
        own = {key: value for key, value in classifier.state_dict().items() if not key.startswith(unused)}
        check_match({key: value for key, value in state.items() if not key.startswith(unused)}, own, path, timm_name)
        options["pretrained_cfg_overlay"] = {"state_dict": state}
    try:
        return timm.create_model(timm_name, **options)
    except Exception as error:  # timm's networks refuse their arguments by errors of many kinds
        if weights == "DEFAULT" and isinstance(error, OSError | RuntimeError):
            raise ConfigError(
                f"Cannot fetch timm's weights of {name!r} ({type(error).__name__}): they are not on this machine yet. "
                'Name a file with its state dict in "weights", or set "weights": null to train from scratch.'
            ) from error
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ConfigError(
            f"Wrong backbone {name!r} with output_stride {output_stride}: timm cannot make a feature pyramid of it "
            f"({reason}). Choose another network or output_stride 32."
        ) from error
