"""The description in an exported file: how to make its input of an image, and the meaning of its output."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from utils.errors import CheckpointError

KEY = "espalier"  # of the metadata of an ONNX file; with .json after it the name of the extra file in a .pt2
FORMAT_VERSION = 1
_IMAGES = (
    "Scale the image to fit into resize [height, width], aspect ratio kept; centre it on padding_value; order its "
    "channels as color_channel; (value / 255 - mean) / std; (C, H, W) float32. Logits: softmax over axis 1"
)
RECIPES = {
    ("segmentation", 4): f"{_IMAGES}, cut the padding off, scale back.",
    ("classification", 4): f"{_IMAGES}.",
    ("classification", 3): (
        "A series (variables, steps); interpolate missing values linearly in time; resample linearly to length steps, "
        "if there is a length; divide each variable by scale, if there is a scale; (value - mean) / std, those of the "
        "series itself if normalize is series; float32. In a batch NaN for the steps after the end of a shorter "
        "series. Logits: softmax over axis 1."
    ),
}
INPUT, OUTPUT = "input", "logits"

Description = dict[str, Any]


def describe_export(
    preprocess: Any,
    *,
    recipe: str,
    loader: str,
    loader_arguments: Mapping[str, Any],
    class_names: Sequence[str],
    num_classes: int,
    origin: Mapping[str, Any],
) -> Description:
    """Return everything but the sizes of the network's input, as plain data.

    Args:
        preprocess: Makes an input of an image; its `mean`, `std` and `describe()` are included if it has them.
        recipe: The same in words.
        loader: The class whose `make_preprocessing` makes the same again, as a config names it.
        loader_arguments: Its arguments for that.
        class_names: Names in the order of their ids, or none.
        num_classes: Number of classes.
        origin: Identifies the checkpoint.
    """
    preprocessing = preprocess.describe() if hasattr(preprocess, "describe") else {}
    for name in ("mean", "std"):
        values = getattr(preprocess, name, None)
        if values is not None:
            # Six digits are those of float32; more would only show rounding errors.
            preprocessing[name] = [float(f"{value:.6g}") for value in values]
    return {
        "format_version": FORMAT_VERSION,
        "input": INPUT,
        "output": OUTPUT,
        "num_classes": num_classes,
        "class_names": list(class_names),
        "preprocessing": {**preprocessing, "recipe": recipe},
        "loader": {"type": loader, "args": dict(loader_arguments)},
        "checkpoint": dict(origin),
    }


def from_text(text: str | None, file: object) -> Description:
    """Read a description from its JSON.

    Raises:
        CheckpointError: There is none, or it is of a later version.
    """
    try:
        description = json.loads(text or "null")
    except ValueError:
        description = None
    if not isinstance(description, dict) or not {"loader", "class_names", "num_classes", "sides"} <= set(description):
        raise CheckpointError(
            f'{file}: holds no description of its input. It must be under "{KEY}" in the file\'s metadata, where '
            "export.py writes it. Export the checkpoint again: python export.py --resume FILE --output net.onnx."
        )
    if description.get("format_version", 0) > FORMAT_VERSION:
        raise CheckpointError(
            f"{file}: its description has version {description['format_version']}, later than {FORMAT_VERSION}, which "
            "is known here. Use the version of the code that wrote it, or export the checkpoint again."
        )
    return description
