"""An exported file: its content from a program, a network from its content, and the description in it.

The description holds how to make an input of an image, and the meaning of the output.
"""

import importlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.export.description import FORMAT_VERSION, KEY, read_description
from models.export.tracing import Side, Traced, as_function, quiet, sides_of
from utils.environment import is_out_of_memory
from utils.errors import CheckpointError, ConfigError, DataError, ExportError, OutOfMemory
from utils.files import open_regular

_SOFTMAX = "Logits: softmax over axis 1"
_SIGMOID = "One logit z for two classes: sigmoid(z) is the probability of class 1, which is the prediction if z > 0"
_OF_A_LOADER = "As make_preprocessing of the loader's class makes it; float32."
INPUT, OUTPUT = "input", "logits"

Description = dict[str, Any]

Format = Literal["onnx", "torch"]
Run = Callable[[Tensor], Tensor]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
EXTRA_FILE = f"{KEY}.json"
OLDEST_OPSET = 18  # of the exporter of torch.onnx


def recipe_of(preprocess: Any, *, has_masks: bool, num_outputs: int) -> str:
    """Return how to make an input, and the meaning of the output, in words.

    Args:
        preprocess: Makes an input; its `recipe` says how, if it has one. A subclass inherits that of its base.
        has_masks: There is a class for each pixel.
        num_outputs: Channels of the output; one channel separates two classes.
    """
    meaning, place = (
        _SIGMOID if num_outputs == 1 else _SOFTMAX,
        ", cut the padding off, scale back" if has_masks else "",
    )
    return f"{getattr(preprocess, 'recipe', _OF_A_LOADER)} {meaning}{place}."


def describe_export(
    preprocess: Any,
    *,
    recipe: str,
    loader: str,
    loader_arguments: Mapping[str, Any],
    class_names: Sequence[str],
    palette: Sequence[str] = (),
    num_classes: int,
    origin: Mapping[str, Any],
) -> Description:
    """Return everything but the sizes of the network's input, as plain data.

    Args:
        preprocess: Makes an input of an image; its `describe()`, and `mean` and `std` that are numbers, are included
            if it has them.
        recipe: The same in words.
        loader: The class whose `make_preprocessing` makes the same again, as a config names it.
        loader_arguments: Its arguments for that.
        class_names: Names in the order of their ids, or none.
        palette: `#rrggbb` for each class, or none.
        num_classes: Number of classes.
        origin: Identifies the checkpoint.
    """
    preprocessing = preprocess.describe() if hasattr(preprocess, "describe") else {}
    for name in ("mean", "std"):
        values = getattr(preprocess, name, None)
        if isinstance(values, int | float | list | tuple | np.ndarray | Tensor):
            numbers = np.ravel(np.asarray(values, np.float32))
            preprocessing[name] = [float(str(value)) for value in numbers]  # 0.485, not 0.48500001430511475
    return {
        "format_version": FORMAT_VERSION,
        "input": INPUT,
        "output": OUTPUT,
        "num_classes": num_classes,
        "class_names": list(class_names),
        "palette": list(palette),
        "preprocessing": {**preprocessing, "recipe": recipe},
        "loader": {"type": loader, "args": dict(loader_arguments)},
        "checkpoint": dict(origin),
    }


def to_bytes(traced: Traced, description: Description, form: Format, *, opset: int | None = None) -> bytes:
    """Return the content of the file.

    Args:
        traced: The network.
        description: Goes into the metadata, with the sides of the input.
        form: `onnx` or `torch` (torch.export).
        opset: Version of ONNX's operators; torch chooses if not given.

    Raises:
        ConfigError: A package is missing, or the opset is not known.
        ExportError: The network has an operation that ONNX lacks.
    """
    sides = {name: asdict(side) for name, side in traced.sides.items()}
    text = json.dumps({**description, "sides": sides}, indent=1)
    if form == "torch":
        buffer = io.BytesIO()
        with quiet():
            torch.export.save(traced.program, buffer, extra_files={EXTRA_FILE: text})
        return buffer.getvalue()
    onnx, _ = require("onnx", "onnxscript")
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        raise ConfigError(f"--opset {opset}: it must be {OLDEST_OPSET} to {newest}, which this version of onnx knows.")
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT]}
    try:
        with quiet():
            program = torch.onnx.export(traced.program, dynamo=True, opset_version=opset, verbose=False, **names)
    except Exception as error:  # the exporter raises any error that an operation causes
        raise ExportError(
            f"ONNX cannot hold this network ({type(error).__name__}: {str(error).splitlines()[0][:300]}). Every "
            "operation needs one in ONNX. Use --format torch, or another --opset."
        ) from error
    assert program is not None, "torch.onnx.export returns a program with dynamo=True"
    proto = program.model_proto
    # The free sides are called batch, height, width, length instead of the tracer's symbols, also within expressions.
    values = (*proto.graph.input, *proto.graph.output, *proto.graph.value_info)
    shapes = [value.type.tensor_type.shape.dim for value in values]
    symbols = {side.dim_param: name for name, side in sides_of(shapes[0]).items() if side.dim_param.isidentifier()}
    if symbols:
        pattern = re.compile(rf"\b({'|'.join(symbols)})\b")
        for side in (side for shape in shapes for side in shape if side.dim_param):
            side.dim_param = pattern.sub(lambda found: symbols[found.group()], side.dim_param)
    onnx.helper.set_model_props(proto, {KEY: text})
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def require(*packages: str) -> list[Any]:
    """Import optional packages.

    Raises:
        ConfigError: One is missing.
    """
    try:
        return [importlib.import_module(package) for package in packages]
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed. ONNX files need it. Run: pip install onnx onnxscript onnxruntime"
        ) from error


class ExportedNetwork(nn.Module):
    """An exported file that runs instead of the network that it was made of.

    Args:
        run: Inputs (B, C, H, W) float32 -> logits (B, K, H, W) float32, on the same device; of a classifier (B, K), and
            of series (B, C, T).
        sides: Lengths that batch, height and width, or batch and length, may have.
        num_classes: K; one channel separates two classes.
    """

    def __init__(self, run: Run, sides: dict[str, Side], *, num_classes: int) -> None:
        super().__init__()
        self._run = run
        self.sides = sides
        self.num_classes = num_classes

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (B, C, ...) float32 -> logits (B, K, ...) float32.

        Raises:
            CheckpointError: The network is another than its description says.
            DataError: The file was not made for inputs of this size.
            OutOfMemory: The memory does not suffice for the batch.
        """
        lengths = sides_of(inputs.shape)
        if lengths.keys() != self.sides.keys():
            raise _other_network(f"takes {', '.join(self.sides)}, and its input has {', '.join(lengths)}")
        for name in list(lengths)[1:]:
            if not self.sides[name].takes(lengths[name]):
                size = "x".join(map(str, inputs.shape[2:]))
                images = "Use other images, or --window if it segments them"
                repair = "Use series of that length" if name == "length" else images
                raise DataError(
                    f"An input of {size}: the {name} of the exported network's input must be {self.sides[name]}. "
                    f"{repair}, or export with another --size."
                )
        batch = self.sides["batch"].fixed or len(inputs)
        # The file computes in float32, also if the program around it uses autocast.
        with torch.autocast(inputs.device.type, enabled=False):
            if batch == len(inputs):
                return self._logits(inputs)
            return torch.cat([self._logits(part) for part in torch.split(inputs, batch)])

    def _logits(self, inputs: Tensor) -> Tensor:
        """Run the network and check that the result can be the logits of these inputs."""
        size = "x".join(map(str, inputs.shape))
        try:
            logits = self._run(inputs)
        except Exception as error:  # the runtime raises errors of many kinds for a file that does not fit
            if is_out_of_memory(error) or "allocate memory" in str(error):
                raise OutOfMemory(
                    f"Memory ran out with inputs of {size}. All of a batch must fit into it. Make --batch-size or the "
                    "images smaller."
                ) from error
            reason = (str(error).splitlines() or [""])[0][:300]
            raise _other_network(f"fails at inputs of {size} ({type(error).__name__}: {reason})") from error
        channels = {self.num_classes, 1} if self.num_classes <= 2 else {self.num_classes}
        sizes = (inputs.shape[2:], torch.Size())  # of each pixel, or of the image
        fits = logits.dim() > 1 and len(logits) == len(inputs) and logits.shape[2:] in sizes
        if not (fits and logits.is_floating_point() and logits.shape[1] in channels):
            found = f"{'x'.join(map(str, logits.shape))} ({str(logits.dtype).removeprefix('torch.')})"
            raise _other_network(f"gives {found} for inputs of {size}, no logits of {self.num_classes} classes")
        return logits


def _other_network(found: str) -> CheckpointError:
    return CheckpointError(
        f"The exported network {found}: it is another than its description says. Export the checkpoint again: python "
        "export.py --resume FILE --output net.onnx."
    )


def open_exported(path: Path, device: torch.device) -> tuple[ExportedNetwork, dict[str, Any]]:
    """Return the network of an exported file, and the config of its preprocessing and classes.

    An ONNX file is data. A .pt2 file is a program that torch unpacks: open only files that you trust.

    Raises:
        CheckpointError: The file is missing, damaged, or without a description of its input.
        ConfigError: onnxruntime is missing.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}). Name a file that export.py wrote."
        ) from error
    form: Format = "onnx" if path.suffix.lower() == SUFFIXES["onnx"] else "torch"
    network, description = from_bytes(content, form, device, name=str(path))
    loader = description["loader"]
    named = {"classes": description["class_names"], "palette": description.get("palette")}
    names = {name: value for name, value in named.items() if value}
    return network, {
        "arch": {"args": {"num_classes": description["num_classes"]}},
        "valid_loader": {"type": loader["type"], "args": {**loader["args"], **names}},
    }


def from_bytes(
    content: bytes, form: Format, device: torch.device, *, name: str = "the file"
) -> tuple[ExportedNetwork, Description]:
    """Return the network in the content of a file, and its description.

    Raises:
        CheckpointError: It is damaged, has no description of its input, or one of a later version.
        ConfigError: onnxruntime is missing.
    """
    if form == "onnx":
        require("onnxruntime")  # a missing package is no damaged file
    try:
        run, text = (_open_onnx if form == "onnx" else _open_torch)(content, device, name)
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes raise any error of the reader
        raise CheckpointError(
            f"{name}: cannot be opened ({type(error).__name__}). The file is damaged or no exported network. Export "
            "the checkpoint again."
        ) from error
    description, plain = read_description(text, name)
    network = ExportedNetwork(run, description.known_sides(), num_classes=description.num_classes)
    return network, plain


def _open_onnx(content: bytes, device: torch.device, name: str) -> tuple[Run, str | None]:
    (onnxruntime,) = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    # Waiting threads sleep: spinning, as by default, they take the cores from torch, OpenCV and the video's encoder.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # By default it has a thread per core, whatever torch may use.
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"][device.type != "cuda" :]
    providers = [each for each in wanted if each in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(content, options, providers=providers)
    _require_one(name, session.get_inputs(), session.get_outputs())
    (value,) = session.get_inputs()

    def run(inputs: Tensor) -> Tensor:
        (logits,) = session.run(None, {value.name: inputs.float().contiguous().cpu().numpy()})
        return torch.from_numpy(logits).to(inputs.device)

    return run, session.get_modelmeta().custom_metadata_map.get(KEY)


def _require_one(name: str, inputs: Sized, outputs: Sized) -> None:
    """Raise if a network has other than one input and one output.

    Raises:
        CheckpointError: It has.
    """
    if (len(inputs), len(outputs)) != (1, 1):
        raise CheckpointError(
            f"{name}: its network has {len(inputs)} inputs and {len(outputs)} outputs, and must have one of each: an "
            "image or series, and its logits. Export the checkpoint again: python export.py --resume FILE --output "
            "net.onnx."
        )


def _open_torch(content: bytes, device: torch.device, name: str) -> tuple[Run, str | None]:
    extra = {EXTRA_FILE: ""}
    with quiet():
        program = torch.export.load(io.BytesIO(content), extra_files=extra)
    _require_one(name, program.graph_signature.user_inputs, program.graph_signature.user_outputs)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return as_function(program), extra[EXTRA_FILE]


def refuse_exported(name: str) -> None:
    """Refuse a file of export.py, which holds neither data, loss nor metrics.

    Raises:
        ConfigError: It is one.
    """
    if Path(name).suffix.lower() in SUFFIXES.values():
        raise ConfigError(
            f"{name}: is an exported network, which names no data, loss or metrics to test with. export.py has "
            "compared it with its checkpoint: test that one with --resume FILE. inference.py --model applies an "
            "exported one."
        )
