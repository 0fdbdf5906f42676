"""Make a small file of a run for this folder: `python -m models.zoo.pack saved/people_zoo/RUN models/zoo/people.pth`.

It holds the weights that were evaluated, in half precision, and the config; not what only resuming needs.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from utils.checkpoint_file import evaluated_weights, read_saved, write_checkpoint

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


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run", type=Path, help="a run folder (its best checkpoint), or a checkpoint")
    options.add_argument("output", type=Path, help="the file to write")
    arguments = options.parse_args()
    file, content = read_saved(arguments.run)
    largest = max(float(value.abs().max()) for value in evaluated_weights(content).values() if value.numel())
    if largest > torch.finfo(torch.float16).max:
        raise SystemExit(f"{file}: a weight of {largest} is beyond half precision.")
    write_checkpoint(packed(content), [arguments.output])


if __name__ == "__main__":
    main()
