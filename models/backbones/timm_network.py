"""Networks of timm: those that it has, the maps that they give, and how they are built for images of any size."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import StringConstraints
from torch import Tensor, nn

from models.backbones.weights import check_match, read_state_dict
from models.layers.blocks import Norm
from utils.environment import is_network_error
from utils.errors import ConfigError

PREFIX = "timm:"
TimmName = Annotated[str, StringConstraints(pattern=f"^{PREFIX}.+")]

PATCH_SIZE = 16  # of plain vision transformers whose patches are no power of two, such as the 14 of DINOv2
POWERS_OF_TWO = (2, 4, 8, 16, 32)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TimmTraits:
    """The feature maps of a network of timm, known without its weights.

    Attributes:
        strides: Strides of the feature maps, finest first.
        channels: Their channels.
        layout: "NCHW" or "NHWC", the order of their dimensions.
        image_size: (height, width) of the images if the network takes only those of its pretraining; else None.
        options: Arguments of `timm.create_model` with which it takes images of any size.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    layout: str
    image_size: tuple[int, int] | None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether all maps have one stride, as those of a plain vision transformer."""
        return len(set(self.strides)) == 1


def read_traits(name: str) -> TimmTraits:
    """Return the traits of a network, "timm:" and a name of `timm.list_models()`.

    Nothing is allocated, fetched or drawn.

    Raises:
        ConfigError: timm has no such network, or gives no feature maps of it.
    """
    timm = timm_with(name)
    timm_name = name.removeprefix(PREFIX)
    options: dict[str, Any] = {}
    with torch.device("meta"):
        try:
            network = timm.create_model(timm_name, features_only=True, dynamic_img_size=True)
            options["dynamic_img_size"] = True  # positional embeddings and masks follow the image
        except Exception:  # most networks have no such argument, which they say by errors of many kinds
            network = _features(name, timm_name)
        strides = tuple(network.feature_info.reduction())
        if len(set(strides)) == 1 and strides[0] not in POWERS_OF_TWO and options:
            # The grid of positional embeddings keeps its size, so that they are resized once, to the image.
            grid = network.model.patch_embed.grid_size
            options |= {"patch_size": PATCH_SIZE, "img_size": tuple(side * PATCH_SIZE for side in grid)}
            network = timm.create_model(timm_name, features_only=True, **options)
            strides = tuple(network.feature_info.reduction())
    pretrained = network.pretrained_cfg
    is_fixed = pretrained.get("fixed_input_size", False) and not options
    return TimmTraits(
        strides,
        tuple(network.feature_info.channels()),
        str(getattr(network, "output_fmt", "NCHW")).rsplit(".", maxsplit=1)[-1],
        tuple(pretrained["input_size"][1:]) if is_fixed else None,
        options,
    )


def create_network(name: str, in_channels: int, weights: str | None, **options: Any) -> Any:
    """Build a network of timm.

    Args:
        name: "timm:" and a name of `timm.list_models()`.
        in_channels: Channels of the image.
        weights: null (from scratch), "DEFAULT" (timm's, fetched once), or a file with a state dict under timm's names.
        options: Further arguments of `timm.create_model`.

    Raises:
        ConfigError: timm cannot build the network so, or the weights cannot be found.
        CheckpointError: The weights are damaged or of another network.
    """
    timm = timm_with(name)
    timm_name = name.removeprefix(PREFIX)
    options |= {"in_chans": in_channels, "pretrained": weights is not None}
    if weights is not None and weights != "DEFAULT":
        options["pretrained_cfg_overlay"] = {"state_dict": _read_weights(Path(weights).expanduser(), timm, timm_name)}
    source = _source(timm, timm_name)
    if weights == "DEFAULT":
        logger.info("Weights of %s: %s, fetched once.", timm_name, source)
    try:
        return timm.create_model(timm_name, **options)
    except Exception as error:  # timm's networks refuse their arguments by errors of many kinds
        if weights == "DEFAULT" and (isinstance(error, OSError | RuntimeError) or is_network_error(error)):
            raise ConfigError(
                f"Cannot fetch timm's weights of {name!r} from {source} ({type(error).__name__}): they are not on this "
                "machine yet. "
                'Name a file with its state dict in "weights", or set "weights": null to train from scratch.'
            ) from error
        output_stride = options.get("output_stride", 32)
        raise ConfigError(
            f"Wrong backbone {name!r} with output_stride {output_stride}: timm cannot make a feature pyramid of it "
            f"({_reason(error)}). Choose another network or output_stride 32."
        ) from error


def refuse_other_norms(network: nn.Module, name: str, norm: Norm) -> None:
    """Raise an error if another norm is asked for than the batch norm that timm gives a network.

    Raises:
        ConfigError: It is.
    """
    if norm == "none" or (norm != "batch" and any(isinstance(part, nn.BatchNorm2d) for part in network.modules())):
        raise ConfigError(
            f'Wrong norm {norm!r} for backbone {name!r}: a timm network brings its own. Set "norm": "batch".'
        )


@contextmanager
def size_errors(name: str, traits: TimmTraits, images: Tensor) -> Iterator[None]:
    """Report a failure of a network that cannot take images (B, C, H, W) of every size as one of the size.

    Raises:
        ConfigError: The network has a fixed size and failed.
    """
    try:
        yield
    except (AssertionError, RuntimeError) as error:
        if traits.image_size is None or isinstance(error, torch.OutOfMemoryError):
            raise
        (given_height, given_width), (height, width) = images.shape[2:], traits.image_size
        raise ConfigError(
            f"Wrong image size {given_height}x{given_width} for backbone {name!r}: it was made for {height}x{width}, "
            f"and timm cannot resize its positional embeddings ({_reason(error)}). Set resize to [{height}, {width}], "
            "or choose a network that takes any size, such as timm:vit_small_patch16_224."
        ) from error


def timm_with(name: str) -> Any:
    """Return the package, if it has a network of that name."""
    import timm

    timm_name = name.removeprefix(PREFIX)
    if not timm.is_model(timm_name):
        near = ", ".join(timm.list_models(f"*{timm_name[:6]}*")[:5]) or "timm.list_models() lists them"
        raise ConfigError(f"Unknown backbone {name!r}: timm has no such network. Similar: {near}.")
    return timm


def _source(timm: Any, timm_name: str) -> str:
    """Return the place that the pretrained weights of a network come from."""
    pretrained = timm.get_pretrained_cfg(timm_name, allow_unregistered=True)
    hub_name = getattr(pretrained, "hf_hub_id", None)
    return f"huggingface.co/{hub_name}" if hub_name else getattr(pretrained, "url", None) or "no known place"


def _features(name: str, timm_name: str) -> Any:
    """Build a network with feature maps only."""
    import timm

    try:
        return timm.create_model(timm_name, features_only=True)
    except Exception as error:  # timm's networks refuse their arguments by errors of many kinds
        raise ConfigError(
            f"Wrong backbone {name!r}: timm gives no feature maps of it ({_reason(error)}). Choose another network."
        ) from error


def _read_weights(path: Path, timm: Any, timm_name: str) -> dict[str, torch.Tensor]:
    """Return the state dict of a file if it is that of the whole classifier; its last layer may have other shapes."""
    if not path.is_file():
        raise ConfigError(
            f"No such weights {str(path)!r} for {timm_name}: neither a file nor DEFAULT. "
            'Correct it, or set "weights": null to train from scratch.'
        )
    # Only names and shapes are needed: no memory, no time, no random numbers.
    with torch.device("meta"):
        classifier: Any = timm.create_model(timm_name)
    state = read_state_dict(path, classifier)
    last = classifier.pretrained_cfg["classifier"]
    unused = tuple(f"{layer}." for layer in ([last] if isinstance(last, str) else last))
    own = {key: value for key, value in classifier.state_dict().items() if not key.startswith(unused)}
    check_match({key: value for key, value in state.items() if not key.startswith(unused)}, own, path, timm_name)
    return state


def _reason(error: Exception) -> str:
    """Return an error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split())
