"""Any convolutional network of timm as a feature pyramid."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints
from torch import Tensor, nn

from models.backbones.weights import check_match, read_state_dict
from models.layers.blocks import Norm, pad_to_multiple
from utils.errors import ConfigError

PREFIX = "timm:"
TimmName = Annotated[str, StringConstraints(pattern=f"^{PREFIX}.+")]

COARSEST_FIRST_STRIDE = 4  # a decoder that begins with coarser maps cannot find edges
CREATION_ERRORS = (
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


class TimmTrunk(nn.Module):
    """A network of timm, asked for its features only.

    Images are padded to a multiple of its coarsest stride: its stems round odd sizes up or down as they like.

    Args:
        name: "timm:" and a name of `timm.list_models()`, e.g. "timm:mobilenetv3_small_100".
        in_channels: Channels of the image.
        weights: null (from scratch), "DEFAULT" (timm's own, fetched once), or a file with a state dict under timm's
            names.
        norm: "batch": whatever timm gives the network; others cannot be had.
        output_stride: Stride of the coarsest feature map, 8, 16 or 32, where timm can dilate the network.

    Attributes:
        channels: Channels of the feature maps, finest first.
        strides: Their strides.
        first_stride: Stride of the finest feature map.
        stride: Stride of the coarsest feature map.

    Raises:
        ConfigError: timm is missing, has no such network, or cannot make it so; or weights cannot be had.
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
        _check_pyramid(name, self.network, self.strides, output_stride)
        self.first_stride = self.strides[0]
        self.stride = self.strides[-1]
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.1  # as in `Trunk`: some come with 0.01 or less, made for much longer runs

    def forward(self, inputs: Tensor, count: int | None = None) -> list[Tensor]:
        """Image (B, C, H, W) -> feature maps of the padded image, finest first; the first `count` of them."""
        features: list[Tensor] = self.network(pad_to_multiple(inputs, self.stride))
        return list(features[:count])


def _create(name: str, in_channels: int, weights: str | None, output_stride: int) -> Any:
    """The network, its features only."""
    try:
        import timm
    except ModuleNotFoundError:
        raise ConfigError(
            f"Wrong backbone {name!r}: the package timm is not installed. Run: pip install timm."
        ) from None
    own_name = name.removeprefix(PREFIX)
    if not timm.is_model(own_name):
        near = ", ".join(timm.list_models(f"*{own_name[:6]}*")[:5]) or "timm.list_models() lists them"
        raise ConfigError(f"Unknown backbone {name!r}: timm has no such network. Similar: {near}.")
    options: dict[str, Any] = {"features_only": True, "in_chans": in_channels}
    if output_stride != 32:
        options["output_stride"] = output_stride
    if weights not in (None, "DEFAULT"):
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": _own_weights(own_name, str(weights))}}
    try:
        if weights == "DEFAULT":
            return _fetch(name, own_name, options)
        return timm.create_model(own_name, **options)
    except CREATION_ERRORS as error:
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ConfigError(
            f"Wrong backbone {name!r} with output_stride {output_stride}: timm cannot make a feature pyramid of it "
            f"({reason}). Choose another network or output_stride 32."
        ) from error


def _fetch(name: str, own_name: str, options: dict[str, Any]) -> Any:
    import timm

    try:
        return timm.create_model(own_name, pretrained=True, **options)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"Cannot fetch timm's weights of {name!r} ({type(error).__name__}): they are not on this machine yet. "
            'Name a file with its state dict in "weights", or set "weights": null to train from scratch.'
        ) from error


def _own_weights(own_name: str, weights: str) -> dict[str, Tensor]:
    """The state dict of a file, which must be that of the whole classifier; only its last layer may be another's."""
    import timm
    import torch

    path = Path(weights).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"No such weights {weights!r} for {own_name}: neither a file nor DEFAULT. "
            'Correct it, or set "weights": null to train from scratch.'
        )
    state = read_state_dict(path)
    with torch.device("meta"):
        classifier: Any = timm.create_model(own_name)
    last = classifier.pretrained_cfg["classifier"]
    unused = tuple(f"{layer}." for layer in ([last] if isinstance(last, str) else last))
    own = {key: value for key, value in classifier.state_dict().items() if not key.startswith(unused)}
    check_match({key: value for key, value in state.items() if not key.startswith(unused)}, own, path, own_name)
    return state


def _check_pyramid(name: str, network: Any, strides: list[int], output_stride: int) -> None:
    layout = str(getattr(network, "output_fmt", "NCHW")).rsplit(".", maxsplit=1)[-1]
    if layout != "NCHW" or strides[0] > COARSEST_FIRST_STRIDE or strides[-1] > output_stride:
        raise ConfigError(
            f"Wrong backbone {name!r}: its feature maps have strides {strides} and layout {layout}; a trunk begins at "
            f"stride {COARSEST_FIRST_STRIDE} or finer, ends at {output_stride}, and has layout NCHW. "
            "Choose a convolutional network."
        )
