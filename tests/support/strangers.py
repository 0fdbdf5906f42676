"""Exported files that a stranger may have made: any description, any number of outputs."""

import json
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from models.export.description import KEY

SIDES: dict[str, Any] = {"batch": {}, "height": {}, "width": {}}
DESCRIPTION: dict[str, Any] = {
    "format_version": 1,
    "num_classes": 3,
    "class_names": [],
    "loader": {"type": "SegmentationDataLoader", "args": {"in_channels": 3, "resize": [8, 8]}},
    "sides": SIDES,
}


def onnx_file(path: Path, description: Any, num_outputs: int = 1) -> Path:
    """A network that returns its input, with a description; the other outputs are the same."""
    names = [f"logits{number}" for number in range(num_outputs)]
    nodes = [helper.make_node("Relu", ["input"], [name]) for name in names]
    shape = ["batch", 3, "height", "width"]
    inputs = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    graph = helper.make_graph(nodes, "g", [inputs], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {KEY: json.dumps(description)})
    onnx.save(model, path)
    return path
