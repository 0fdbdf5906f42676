"""Exported files with wrong descriptions, as a stranger may make them."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.fault_rows.bench import PEOPLE, Bench, Config, Fault
from tests.support.strangers import DESCRIPTION, SIDES, onnx_file


def described(change: Callable[[Config], Any], num_outputs: int = 1) -> Callable[[Bench], Sequence[str]]:
    """Return what applies an ONNX file with a changed description to a photo."""

    def make(bench: Bench) -> Sequence[str]:
        description = copy.deepcopy(DESCRIPTION)
        change(description)
        file = onnx_file(bench.folder / "net.onnx", description, num_outputs)
        photo = next((PEOPLE / "images/test").glob("*.jpg"))
        return ["inference", "--resume", str(file), "--source", str(photo), "--output", "o.png"]

    return make


def entry(name: str, value: Any) -> Callable[[Config], Any]:
    """Return what replaces an entry of a description."""
    return lambda description: description.__setitem__(name, value)


def argument(name: str, value: Any) -> Callable[[Config], Any]:
    """Return what replaces an argument of the loader."""
    return lambda description: description["loader"]["args"].__setitem__(name, value)


WRONG: dict[str, tuple[Callable[[Config], Any], str]] = {
    "a loader that is text": (entry("loader", "x"), "loader of its description"),
    "a loader without arguments": (entry("loader", {"type": "SegmentationDataLoader"}), r"loader\.args of its desc"),
    "arguments in a list": (entry("loader", {"type": "SegmentationDataLoader", "args": [1]}), r"loader\.args of its"),
    "a version that is text": (entry("format_version", "x"), "format_version of its description"),
    "10^12 classes": (entry("num_classes", 10**12), "num_classes of its description"),
    "4 classes for 3 logits": (entry("num_classes", 4), "no logits of 4 classes"),
    "sides in a list": (entry("sides", [1]), "sides of its description"),
    "an unknown key of a side": (entry("sides", {**SIDES, "height": {"most": 3}}), r"sides\.height\.most of its desc"),
    "sides without a height": (entry("sides", {"batch": {}, "width": {}}), "sides of its description"),
    "inputs of 10^6 by 10^6": (argument("resize", [10**6, 10**6]), "Wrong resize"),
    "a padding that is a list": (argument("padding_value", [1]), r"args\.padding_value"),
}
ROWS = [
    *(
        Fault(
            "exported",
            f"a description with {name}",
            4,
            f"error: .*{expected}.*Export the",
            described(change),
        )
        for name, (change, expected) in WRONG.items()
    ),
    Fault("exported", "a network of two outputs", 4, "error: .*1 inputs and 2 outputs", described(dict, 2)),
]
