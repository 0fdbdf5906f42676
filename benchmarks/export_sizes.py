"""Export every network of the registry in both formats, and transformers, and compare each file with its network.

    python benchmarks/export_sizes.py [NAME ...]

The tests do the same with one format per network. It takes about three minutes on one core.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.deeplabv3plus import DeepLabV3Plus
from models.export.files import from_bytes, to_bytes
from models.export.tracing import trace
from models.unetplus import UNetPlus
from tests.support.exported import CASES, CPU, DESCRIPTION, check_every_size, images

TRANSFORMERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "UNetPlus over a plain transformer": (UNetPlus, {"backbone": "timm:test_vit3"}),
    "DeepLabV3Plus over a plain transformer": (DeepLabV3Plus, {"backbone": "timm:test_vit3", "aspp_channels": 8}),
    "UNetPlus over Swin": (UNetPlus, {"backbone": "timm:swin_tiny_patch4_window7_224"}),
}


def check_transformer(title: str) -> None:
    """Compare a network over a transformer with its ONNX file, at the size of the file."""
    network_class, args = TRANSFORMERS[title]
    torch.manual_seed(0)
    network = network_class(3, **args).eval()
    exported, _ = from_bytes(to_bytes(trace(network, 3, (64, 96)), DESCRIPTION, "onnx"), "onnx", CPU)
    batch = images(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(exported(batch), network(batch), rtol=1e-3, atol=1e-4)


def main() -> None:
    """Print one line per network; the first difference is an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="networks; by default all")
    names = parser.parse_args().names
    for name, args in CASES:
        if not names or name in names:
            start = time.process_time()
            check_every_size(name, args, ("onnx", "torch"))
            print(f"{name} {args}: as the network in both formats, {time.process_time() - start:.0f} s", flush=True)
    for title in TRANSFORMERS:
        if not names or title.partition(" ")[0] in names:
            start = time.process_time()
            check_transformer(title)
            print(f"{title}: as the network, {time.process_time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
