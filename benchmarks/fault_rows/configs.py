"""Configs that explode, are no files, or come from the checkpoint of a stranger; names with control characters."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.fault_rows.bench import PEOPLE, Bench, Config, Fault, base_config
from benchmarks.fault_rows.checkpoints import rewritten
from utils.checkpoint_file import read_checkpoint

Make = Callable[[Bench], Sequence[str]]


def text(content: str) -> Make:
    """Return what trains a file with a text."""
    return lambda bench: ["train", "-c", str(bench.write("bad.json", content))]


def extends(make: Callable[[Bench], str]) -> Make:
    """Return what trains a config that extends another file."""
    return lambda bench: ["train", "-c", str(bench.write("x.json", json.dumps({"$extends": make(bench), "name": "x"})))]


def pipe(bench: Bench) -> str:
    """Return a named pipe that nobody writes to."""
    path = str(bench.folder / "pipe.json")
    os.mkfifo(path)
    return path


def diamonds(bench: Bench) -> str:
    """Return the first of 20 files that each extend the next one twice."""
    for number in range(20):
        parents = [f"d{number + 1}.json"] * 2 if number < 19 else []
        bench.write(f"d{number}.json", json.dumps({"$extends": parents, "name": "x"} if parents else {"name": "x"}))
    return str(bench.folder / "d0.json")


def searching(rate: Any, **more: Any) -> Make:
    """Return what searches a space with one value."""

    def make(bench: Bench) -> Sequence[str]:
        config: Config = {**base_config(str(bench.folder)), "search": {"num_samples": 2}, **more}
        config["optimizer"]["args"]["lr"] = rate
        return ["search", "-c", str(bench.write("s.json", json.dumps(config)))]

    return make


def doubled(levels: int) -> Any:
    """Return choices in choices, twice as many at each level."""
    value: Any = 0.1
    for _ in range(levels):
        value = {"$choice": [value, value]}
    return value


def stranger(change: Callable[[Config, Bench], None], command: str = "test") -> Make:
    """Return what uses a checkpoint with a changed config."""

    def make(bench: Bench) -> Sequence[str]:
        config = read_checkpoint(bench.last)["config"]
        change(config, bench)
        file = str(rewritten(bench, config=config))
        return {
            "test": ["test", "--resume", file],
            "train": ["train", "--resume", file],
            "inference": [
                "inference",
                "--resume",
                file,
                "--source",
                str(next((PEOPLE / "images/test").glob("*.jpg"))),
                "--output",
                "o.png",
            ],
        }[command]

    return make


def torchvision_data(name: str, **arguments: Any) -> Callable[[Config, Bench], None]:
    """Return what lets the test data be a data set of torchvision."""

    def change(config: Config, bench: Bench) -> None:
        args = {
            "source": f"torchvision.datasets.{name}",
            "args": {"root": str(bench.folder), **arguments},
            "num_classes": 2,
        }
        config["test_loader"] = {"type": "TorchvisionSegmentationDataLoader", "args": args}

    return change


def argument(section: str, name: str, value: Any) -> Callable[[Config, Bench], None]:
    """Return what replaces an argument of a section."""
    return lambda config, bench: config[section]["args"].__setitem__(name, value)


def tracked(uri: str) -> Make:
    """Return what trains on with a checkpoint whose config sends results to a place."""
    return stranger(entry("visualization", {"mlflow": {"tracking_uri": uri}}), "train")


def entry(section: str, value: Any) -> Callable[[Config, Bench], None]:
    """Return what replaces a section."""
    return lambda config, bench: config.__setitem__(section, value)


def named(name: str) -> Make:
    """Return what trains with a wrong class name in the config."""
    return lambda bench: bench.train({"optimizer.type": name})


SMALL = {"type": "UNet", "args": {"channels": [4, 8]}}
ROWS = [
    Fault("config", "an empty file", 2, "bad.json", text("")),
    Fault("config", "half a file", 2, "bad.json", text('{"name": "x", "arch":')),
    Fault("config", "a key twice", 2, "name", text('{"name": "x", "name": "y"}')),
    Fault("config", "NaN", 2, "NaN", text('{"name": "x", "trainer": {"epochs": NaN}}')),
    Fault("config", "a number of 100,000 digits", 2, "error: ", text('{"name": "x", "seed": ' + "9" * 100_000 + "}")),
    Fault("config", "nested 100,000 deep", 2, "error: ", text("[" * 100_000 + "]" * 100_000)),
    Fault(
        "config",
        "bytes that are no text",
        2,
        "bad.json",
        lambda bench: ["train", "-c", str(bench.write("bad.json", b"\xff\xfe\x00" * 50))],
    ),
    Fault("config", "a list", 2, "error: ", text("[1, 2]")),
    Fault("config", "a file of 5 MB", 2, "error: ", text('{"name": "' + "x" * 5_000_000 + '"}')),
    Fault("config", "a folder", 2, "error: ", lambda bench: ["train", "-c", str(bench.folder)]),
    Fault("config", "a named pipe as config", 2, "error: ", lambda bench: ["train", "-c", pipe(bench)]),
    Fault("config", "a named pipe as $extends", 2, "error: ", extends(pipe)),
    Fault("config", "a device as $extends", 2, "error: ", extends(lambda bench: "/dev/zero")),
    Fault("config", "a file that extends itself", 2, "error: ", extends(lambda bench: str(bench.folder / "x.json"))),
    Fault("config", "diamonds of $extends", 2, "error: ", extends(diamonds)),
    Fault("config", "lr_scheduler=None", 2, "Did you mean null", lambda bench: bench.train(None, "lr_scheduler=None")),
    Fault("space", "$range to 10^30", 2, "error: ", searching({"$range": [0, 10**30]})),
    Fault("space", "$range with a step of 0", 2, "error: ", searching({"$range": [0, 5, 0]})),
    Fault(
        "space",
        "$repeat of 10^8",
        2,
        "error: ",
        searching(0.1, arch={"type": "UNet", "args": {"channels": {"$repeat": {"of": 8, "times": 10**8}}}}),
    ),
    Fault("space", "choices doubled 20 times", 2, "error: ", searching(doubled(20))),
    Fault("space", "$loguniform from 0", 2, "error: ", searching({"$loguniform": [0, 1]})),
    Fault("space", "no choice", 2, "error: ", searching({"$choice": []})),
    Fault("space", "an unknown marker", 2, "error: ", searching({"$chioce": [1, 2]})),
    Fault("space", "a $var that is not defined", 2, "error: ", searching({"$var": "nobody"})),
    Fault("stranger", "LSUN, whose cache file is a pickle", 2, "LSUN", stranger(torchvision_data("LSUN"))),
    Fault(
        "stranger", "download of a data set", 3, "error: ", stranger(torchvision_data("VOCSegmentation", download=True))
    ),
    Fault(
        "stranger",
        "weights of a hub",
        2,
        "hf-hub",
        stranger(entry("arch", {"type": "timm.create_model", "args": {"model_name": "hf-hub:x/y"}})),
    ),
    Fault(
        "stranger",
        "code of torch.hub",
        2,
        "torch.hub",
        stranger(entry("arch", {"type": "torch.hub.load", "args": {"repo_or_dir": "a/b", "model": "c"}})),
    ),
    Fault(
        "stranger",
        "os.system as network",
        2,
        "error: ",
        stranger(entry("arch", {"type": "os.system", "args": {"command": "touch pwned"}})),
    ),
    Fault(
        "stranger",
        "os.system as loss",
        2,
        "error: ",
        stranger(entry("loss", {"type": "os.system", "args": {"command": "touch pwned"}})),
    ),
    Fault(
        "stranger",
        "a class of a plug-in that is not named",
        2,
        "--plugin",
        stranger(entry("arch", {"type": "my_models.Net"}), "inference"),
    ),
    Fault(
        "stranger",
        "runs below /etc",
        2,
        "outside of the working folder",
        stranger(lambda config, bench: config["trainer"].update(save_dir="/etc"), "train"),
    ),
    Fault(
        "stranger",
        "weights of a backbone, by a network's name",
        2,
        "builds a network by its name",
        stranger(entry("arch", "torchvision.models.detection.backbone_utils.mobilenet_backbone"), "inference"),
    ),
    *(
        Fault("stranger", f"results sent to {uri}", 2, "a place that you have not named", tracked(uri))
        for uri in (
            *("FILE:///tmp/outside", "file://localhost/tmp/outside", "file:%2e%2e/%2e%2e/outside"),
            *("http://server.example", "mysql://server.example/x"),
        )
    ),
    Fault(
        "stranger",
        "arguments of a network in a list",
        2,
        r"arch\.args",
        stranger(entry("arch", {"type": "UNet", "args": [1]}), "inference"),
    ),
    Fault(
        "stranger",
        "inputs of 10^6 by 10^6",
        2,
        "Wrong resize",
        stranger(argument("valid_loader", "resize", [10**6, 10**6]), "inference"),
    ),
    Fault(
        "stranger",
        "a network of 10^9 channels",
        5,
        "Memory ran out",
        stranger(argument("arch", "channels", [10**9, 10**9]), "inference"),
    ),
    Fault("stranger", "a name with ../..", 2, "error: ", stranger(entry("name", "../../x"), "train")),
    Fault("names", "terminal escape in a name", 2, r"\\x1b\[31m|\\u001b\[31m", named("\x1b[31mSGD")),
    Fault("names", "a newline in a name", 2, r"SGD\\n", named("SGD\nerror: no")),
]
