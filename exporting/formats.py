"""A traced network as the bytes of a file, its description in the file's metadata."""

import importlib
import io
import re
from typing import Any, Literal

import torch

from exporting.description import INPUT, KEY, OUTPUT, Description, to_text
from exporting.tracing import Traced, quiet, sides_of
from utils.errors import ConfigError, ExportError

Format = Literal["onnx", "torch"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
EXTRA_FILE = f"{KEY}.json"


def to_bytes(traced: Traced, description: Description, form: Format, *, opset: int | None = None) -> bytes:
    """The content of the file.

    Args:
        traced: The network.
        description: Goes into the metadata, the sides of the input with it.
        form: `onnx` or `torch` (torch.export).
        opset: Version of ONNX's operators; torch's choice where not given.

    Raises:
        ConfigError: A package is missing, or the opset is not known.
        ExportError: The network has an operation that ONNX lacks.
    """
    text = to_text({**description, "sides": traced.plain_sides()})
    if form == "onnx":
        return _onnx_bytes(traced, text, opset)
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(traced.program, buffer, extra_files={EXTRA_FILE: text})
    return buffer.getvalue()


def require(*packages: str) -> list[Any]:
    """Optional packages, imported.

    Raises:
        ConfigError: One is missing.
    """
    try:
        return [importlib.import_module(package) for package in packages]
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed. ONNX files need it. Run: pip install onnx onnxscript onnxruntime"
        ) from error


def _onnx_bytes(traced: Traced, text: str, opset: int | None) -> bytes:
    onnx, _ = require("onnx", "onnxscript")
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not 18 <= opset <= newest:
        raise ConfigError(f"--opset {opset}: it must be 18 to {newest}, which this version of onnx knows.")
    try:
        with quiet():
            program = torch.onnx.export(
                traced.program,
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever an operation trips over
        raise ExportError(
            f"ONNX cannot hold this network ({type(error).__name__}: {str(error).splitlines()[0][:300]}). Every "
            "operation needs one in ONNX. Use --format torch, or another --opset."
        ) from error
    assert program is not None, "torch.onnx.export gives a program with dynamo=True"
    proto = program.model_proto
    _name_sides(proto.graph)
    onnx.helper.set_model_props(proto, {KEY: text})
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _name_sides(graph: Any) -> None:
    """Call the free sides batch, height, width, length in the place of the tracer's symbols, in expressions, too."""
    shape = graph.input[0].type.tensor_type.shape.dim
    symbols = {side.dim_param: name for name, side in sides_of(shape).items()}
    symbols = {symbol: name for symbol, name in symbols.items() if symbol.isidentifier()}
    if not symbols:
        return
    pattern = re.compile(rf"\b({'|'.join(symbols)})\b")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = pattern.sub(lambda found: symbols[found.group()], side.dim_param)
