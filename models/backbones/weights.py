"""Pretrained weights: nothing is fetched unless asked for, and nothing is dropped in silence."""

import logging
import re
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from utils.checkpoint_file import read_checkpoint
from utils.errors import CheckpointError, ConfigError
from utils.weight_names import fit_names

StateDict = dict[str, Tensor]
FAULTS_SHOWN = 12
RGB = 3
logger = logging.getLogger(__name__)


def load_weights(network: nn.Module, name: str, weights: str, *, first_convolution: str, unused: Sequence[str]) -> None:
    """Load pretrained weights into a torchvision network.

    Args:
        network: The network, its first convolution possibly with other than three input channels.
        name: Its name in torchvision.
        weights: "DEFAULT" or the name of one of torchvision's weights (fetched once, then read from torch's cache), or
            a file with a state dict under torchvision's names.
        first_convolution: Name of the convolution whose weights are adapted to the input channels.
        unused: Prefixes of names that the file may have or lack: the classifier.

    Raises:
        ConfigError: No such weights or file, or the download failed.
        CheckpointError: The file is damaged or belongs to another network.
    """
    import torchvision

    available = torchvision.models.get_model_weights(name)
    # torchvision's "ResNet18_Weights.DEFAULT" and "DEFAULT" are the same.
    member = weights.rsplit(".", maxsplit=1)[-1]
    if member == "DEFAULT" or member in available.__members__:
        url = available[member].url
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
        if not path.is_file():
            # File names of torch's hub contain the first digits of the SHA-256.
            checksum = re.search(r"-([0-9a-f]{8,})\.", path.name)
            digits = checksum.group(1) if checksum else None
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(path), digits, progress=False)
            except (OSError, RuntimeError, HTTPException) as error:
                raise ConfigError(
                    f"Cannot fetch the weights {weights!r} from {url} ({error}): they are not on this machine yet. "
                    f'Put that file at {path}, or name its place in "weights", or set "weights": null to train from '
                    "scratch."
                ) from error
    else:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"No such weights {weights!r} for {name}: neither a file nor one of DEFAULT, "
                f'{", ".join(available.__members__)}. Correct it, or set "weights": null to train from scratch.'
            )
    state = read_state_dict(path, network)
    state = {key: value for key, value in state.items() if not key.startswith(tuple(unused))}
    needed = {key: value for key, value in network.state_dict().items() if not key.startswith(tuple(unused))}
    key = f"{first_convolution}.weight"
    if key in state and state[key].ndim == 4 and state[key].shape[1] == RGB:
        state[key] = adapt_input_channels(state[key], needed[key].shape[1])
    check_match(state, needed, path, name)
    network.load_state_dict(state, strict=False)


def adapt_input_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Adapt filters for RGB to other inputs.

    For one channel the three are summed: a grey image gives the response of the same image as grey RGB. For others
    they are repeated in turn and scaled, so that the strength of the response stays.

    Args:
        weight: (out, 3, kh, kw) float.
        in_channels: Channels of the input.

    Returns:
        (out, in_channels, kh, kw); `weight` itself if it fits.
    """
    if in_channels == RGB:
        return weight
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    turns = torch.arange(in_channels) % RGB  # red, green, blue, red, ...
    return weight[:, turns] * (RGB / in_channels)


def read_state_dict(path: Path, network: nn.Module) -> StateDict:
    """Return the tensors of a file; also of a checkpoint that holds them under "state_dict".

    A prefix that all names have is left out if the weights fit the network then.

    Raises:
        CheckpointError: Not a file of tensors and plain data.
    """
    try:
        content = read_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"Cannot read the weights {path}: the file is damaged, or holds something other than tensors and plain "
            'data. Get it again, or set "weights": null to train from scratch.'
        ) from error
    if isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"Wrong content of the weights {path}: a state dict (name -> tensor) is needed. "
            "Save one with torch.save(model.state_dict(), path)."
        )
    # A checkpoint of a network in DataParallel has that prefix, even if nothing fits.
    state = {str(key).removeprefix("module."): value for key, value in content.items()}
    shapes = [{key: value.shape for key, value in each.items()} for each in (state, network.state_dict())]
    fitted = fit_names(shapes[0], shapes[1])
    if fitted.change:
        logger.info("Weights of %s: %s.", path, fitted.change)
    return {fitted.names[key]: value for key, value in state.items()}


def check_match(state: StateDict, needed: StateDict, path: Path, name: str) -> None:
    """Refuse weights whose names or shapes are not those of the network.

    Raises:
        CheckpointError: Lists the names that are missing, superfluous or of another shape.
    """
    # Files from before torch 0.4.1 lack the counters; batch norm works without.
    missing = [key for key in needed if key not in state and not key.endswith("num_batches_tracked")]
    faults = [f"missing {key}" for key in missing]
    faults += [f"not in {name}: {key}" for key in state if key not in needed]
    faults += [
        f"{key} is {tuple(value.shape)}, needed {tuple(needed[key].shape)}"
        for key, value in state.items()
        if key in needed and value.shape != needed[key].shape
    ]
    if faults:
        rest = len(faults) - FAULTS_SHOWN
        shown = faults[:FAULTS_SHOWN] + ([f"and {rest} more"] if rest > 0 else [])
        raise CheckpointError(
            f"The weights {path} are not those of {name}: " + "; ".join(shown) + ". "
            "Choose the backbone that they were made for, or other weights."
        )
