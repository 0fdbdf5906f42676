"""Make a small file of a run for this folder: `python -m models.zoo.pack saved/people_zoo/RUN models/zoo/people.pth`.

It holds the weights that were evaluated, in half precision, and the config; nothing that only resuming needs.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from config import cli
from utils.checkpoint_file import evaluated_weights, read_checkpoint, read_saved, write_checkpoint
from utils.errors import CheckpointError
from utils.writing.outputs import Originals, OutputKind, require_output
from utils.writing.text import in_one_line, write_out

KEPT = ("format_version", "arch", "monitor_best", "epoch", "global_step", "versions")


def packed(content: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a checkpoint that inference and fine-tuning need.

    The config loses the folder that results were saved in, which means nothing elsewhere.
    """
    weights = evaluated_weights(content)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    trainer = {key: value for key, value in content["config"]["trainer"].items() if key != "save_dir"}
    return {
        **{key: content[key] for key in KEPT},
        "state_dict": halves,
        "config": {**content["config"], "trainer": trainer},
    }


def require_packable(file: Path, content: Mapping[str, Any]) -> None:
    """Raise if a checkpoint lacks something that a packed one has, or half precision cannot hold its weights.

    Raises:
        CheckpointError: It is not of a training by this version, or a weight is too large.
    """
    weights, config = evaluated_weights(content), content.get("config", {})
    missing = [key for key in (*KEPT, "config") if key not in content]
    missing += [] if isinstance(config.get("trainer"), Mapping) else ["config.trainer"]
    is_plain = isinstance(weights, Mapping) and all(isinstance(value, Tensor) for value in weights.values())
    if missing or not is_plain:
        reason = f"it has no {missing[0]}" if missing else "its weights are no tensors"
        raise CheckpointError(f"{file}: is no checkpoint of a training ({reason}). Name a run folder or its file.")
    largest = max((float(value.abs().max()) for value in weights.values() if value.numel()), default=0.0)
    if largest > torch.finfo(torch.float16).max:
        raise CheckpointError(f"{file}: a weight of {largest} is beyond half precision. Use the checkpoint itself.")


def _is_packed(path: Path) -> bool:
    try:
        return read_checkpoint(path).keys() == {*KEPT, "state_dict", "config"}
    except CheckpointError:
        return False


PACKED = OutputKind("a network that models.zoo.pack wrote", (".pth",), _is_packed)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(prog="python -m models.zoo.pack", description="Make a small file of a run.")
    options.add_argument("run", type=Path, help="a run folder (its best checkpoint), or a checkpoint")
    options.add_argument("output", type=Path, help="the file to write")
    options.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return options


def main(arguments: argparse.Namespace) -> None:
    """Run the command line."""
    output: Path = arguments.output
    require_output(output, "OUTPUT", PACKED, Originals([arguments.run] if arguments.run.is_file() else []))
    file, content = read_saved(arguments.run)
    require_packable(file, content)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(packed(content), [output])
    write_out(f"Written: {in_one_line(output)} ({output.stat().st_size / 2**20:.1f} MB)\n")


if __name__ == "__main__":
    sys.exit(cli.run_command(main, parser()))
