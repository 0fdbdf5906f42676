"""Damaged and hostile checkpoints, and outputs that would destroy what must not be lost."""

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.fault_rows.bench import PWNED, Bench, Fault
from utils.checkpoint_file import read_checkpoint, write_checkpoint

Change = Callable[[bytes], bytes]
# (module, name, arguments) that a pickle would call when it is loaded.
PAYLOADS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "os.system": ("os", "system", (f"touch {PWNED}",)),
    "posix.system": ("posix", "system", (f"touch {PWNED}",)),
    "subprocess.call": ("subprocess", "call", (["touch", PWNED],)),
    "subprocess.Popen": ("subprocess", "Popen", (["touch", PWNED],)),
    "builtins.eval": ("builtins", "eval", (f"open({PWNED!r}, 'w')",)),
    "builtins.exec": ("builtins", "exec", (f"open({PWNED!r}, 'w')",)),
    "builtins.open": ("builtins", "open", (PWNED, "w")),
    "io.open": ("io", "open", (PWNED, "w")),
    "pathlib.Path.touch": ("pathlib", "Path.touch", (Path(PWNED),)),
    "runpy.run_path": ("runpy", "run_path", (PWNED,)),
    "importlib.import_module": ("importlib", "import_module", ("antigravity",)),
    "shutil.copy": ("shutil", "copy", ("/etc/hostname", PWNED)),
    "numpy.memmap": ("numpy", "memmap", (PWNED, "uint8", "w+", 0, 1)),
    "torch.hub.load": ("torch.hub", "load", ("nobody/nothing", "net")),
    "torch.load": ("torch", "load", ("other.pth",)),
    "pickle.loads": ("pickle", "loads", (b"cos\nsystem\n(S'touch pwned'\ntR.",)),
}


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, module: str, name: str, arguments: tuple[Any, ...]) -> None:
        self.call = module, name, arguments

    def __reduce__(self) -> Any:
        import importlib

        module, name, arguments = self.call
        target: Any = importlib.import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
        return target, arguments


def hostile(payload: tuple[str, str, tuple[Any, ...]]) -> bytes:
    """Return a file of `torch.save` that calls a function when it is unpickled."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.ones(2)}, "config": {}, "more": Calls(*payload)}, buffer)
    return buffer.getvalue()


def rewritten(bench: Bench, **changes: Any) -> Path:
    """Return the last checkpoint with other entries; None removes one."""
    content = {key: value for key, value in {**read_checkpoint(bench.last), **changes}.items() if value is not None}
    path = bench.folder / "changed.pth"
    write_checkpoint(content, [path])
    return path


def damaged(change: Change) -> Callable[[Bench], Sequence[str]]:
    """Return what tests a checkpoint whose bytes were changed."""

    def make(bench: Bench) -> Sequence[str]:
        return ["test", "--resume", str(bench.write("damaged.pth", change(bench.last.read_bytes())))]

    return make


def flipped(place: float) -> Change:
    """Return what changes one bit at a place between 0 and 1."""

    def change(whole: bytes) -> bytes:
        spoiled = bytearray(whole)
        spoiled[int(place * (len(whole) - 1))] ^= 4
        return bytes(spoiled)

    return change


def without_checksum(whole: bytes) -> bytes:
    """Return the archive with an empty comment."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as copy:
            for name in archive.namelist():
                copy.writestr(name, archive.read(name))
    return buffer.getvalue()


def damage_rows() -> list[Fault]:
    """Return checkpoints of damaged bytes."""
    changes: dict[str, Change] = {
        "is empty": lambda whole: b"",
        "is cut to a quarter": lambda whole: whole[: len(whole) // 4],
        "is cut in its middle": lambda whole: whole[: len(whole) // 2],
        "lacks its last byte": lambda whole: whole[:-1],
        "lacks its first byte": lambda whole: whole[1:],
        "has a changed bit at its beginning": flipped(0.001),
        "has a changed bit in its middle": flipped(0.5),
        "has a changed bit in its checksum": flipped(1.0),
        "has a block of zeros": lambda whole: whole[:4000] + bytes(512) + whole[4512:],
        "has bytes behind its end": lambda whole: whole + b"more",
        "is text": lambda whole: b"no checkpoint\n" * 100,
        "is a list": lambda whole: pickle.dumps([1, 2, 3] * 100),
        "is JSON": lambda whole: json.dumps({"state_dict": [0.0] * 100}).encode(),
        "has lost its checksum": without_checksum,
        "is another archive": lambda whole: without_checksum(whole).replace(b"data.pkl", b"data.txt"),
    }
    return [
        Fault(
            "checkpoint",
            f"a checkpoint {name}",
            4,
            "damaged.pth: .*(damaged|too short|not opened|Use another)",
            damaged(change),
        )
        for name, change in changes.items()
    ]


def content_rows() -> list[Fault]:
    """Return whole files whose content is not that of a checkpoint."""

    def test_with(**changes: Any) -> Callable[[Bench], Sequence[str]]:
        return lambda bench: ["test", "--resume", str(rewritten(bench, **changes))]

    def newer(bench: Bench) -> Sequence[str]:
        rewritten(bench, format_version=99).replace(bench.last)
        bench.best.unlink()
        return ["train", "-c", bench.config({"trainer.epochs": 2}), "--resume", "auto"]

    def foreign(bench: Bench) -> Sequence[str]:
        torch.save({"conv1.weight": torch.ones(2)}, bench.run / "resnet18.pth")
        bench.last.write_bytes(b"")
        return ["train", "-c", bench.config({"trainer.epochs": 2}), "--resume", "auto"]

    def only_foreign(bench: Bench) -> Sequence[str]:
        for file in bench.run.glob("*.pth"):
            file.unlink()
        torch.save({"conv1.weight": torch.ones(2)}, bench.run / "resnet18.pth")
        return ["train", "-c", bench.config({"trainer.epochs": 1}), "--resume", "last"]

    return [
        Fault(
            "checkpoint",
            "format_version 99",
            4,
            "format_version 99, and this version.*up to 1",
            test_with(format_version=99),
        ),
        Fault("checkpoint", "format_version 99 with --resume auto", 4, "format_version 99", newer),
        Fault("checkpoint", "format_version is a word", 4, "format_version 'new'", test_with(format_version="new")),
        Fault("checkpoint", "format_version 0", 4, "format_version 0", test_with(format_version=0)),
        Fault("checkpoint", "its config is a list", 4, "config that is a list", test_with(config=[1])),
        Fault("checkpoint", "no config", 2, "holds no configuration.*-c FILE", test_with(config=None)),
        Fault("checkpoint", "no weights", 4, "holds no weights", test_with(state_dict={}, ema=None)),
        Fault(
            "checkpoint",
            "weights of another network",
            4,
            "do not fit the network",
            test_with(state_dict={"other.weight": torch.ones(3)}),
        ),
        Fault(
            "checkpoint",
            "a .pth of others in the folder, the last one damaged",
            0,
            "resnet18.pth: is no checkpoint of a run.*Continuing",
            foreign,
        ),
        Fault("checkpoint", "a .pth of others alone in the folder", 4, "There is no run of .small.", only_foreign),
        Fault(
            "checkpoint",
            "no such checkpoint",
            4,
            "there is no such file",
            lambda bench: ["test", "--resume", "none.pth"],
        ),
        Fault(
            "checkpoint",
            "a folder without a checkpoint",
            4,
            "no such file|is good",
            lambda bench: ["test", "--resume", str(bench.folder)],
        ),
        Fault(
            "checkpoint",
            "inference of a damaged checkpoint",
            4,
            "damaged|too short",
            lambda bench: [
                "inference",
                "--resume",
                str(bench.write("d.pth", b"x" * 500)),
                "--source",
                "a.jpg",
                "--output",
                "o.png",
            ],
        ),
        Fault(
            "checkpoint",
            "export of a damaged checkpoint",
            4,
            "damaged|too short",
            lambda bench: [
                "export",
                "--resume",
                str(bench.write("d.pth", b"x" * 500)),
                "--format",
                "onnx",
                "--output",
                "o.onnx",
            ],
        ),
        Fault(
            "checkpoint",
            "test of an exported network",
            2,
            "is an exported network.*--resume",
            lambda bench: ["test", "--model", "net.onnx"],
        ),
        Fault(
            "checkpoint",
            "an exported network that is damaged",
            4,
            "cannot be opened",
            lambda bench: [
                "inference",
                "--model",
                str(bench.write("net.onnx", b"no network")),
                "--source",
                "a.jpg",
                "--output",
                "o.png",
            ],
        ),
    ]


def hostile_rows() -> list[Fault]:
    """Return checkpoints that would run code, opened by each command in turn."""
    rows = []
    for number, (name, payload) in enumerate(PAYLOADS.items()):

        def make(bench: Bench, number: int = number, payload: Any = payload) -> Sequence[str]:
            file = str(bench.write("hostile.pth", hostile(payload)))
            return [
                ["test", "--resume", file],
                ["inference", "--resume", file, "--source", "a.jpg", "--output", "o.png"],
                ["export", "--resume", file, "--format", "onnx", "--output", "o.onnx"],
                ["train", *bench.train()[1:], "--resume", file],
            ][number % 4]

        rows.append(
            Fault("hostile file", f"a checkpoint that calls {name}", 4, "hostile.pth: .*(not opened|damaged)", make)
        )
    return rows


def unchanged(bench: Bench) -> str:
    """Return a fault if the checkpoints or the config of the run are others than they were."""
    wanted = json.loads((bench.folder / "digests.json").read_text())
    changed = [name for name, digest in wanted.items() if _digest(bench.run / name) != digest]
    return f"{changed[0]} was changed" if changed else ""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "gone"


def output_rows() -> list[Fault]:
    """Return outputs onto what must not be lost."""
    kept = ("checkpoint-last.pth", "model_best.pth", "config.json", "environment.json", "metrics.csv")

    def onto(name: str, *command: str) -> Callable[[Bench], Sequence[str]]:
        def make(bench: Bench) -> Sequence[str]:
            bench.write("digests.json", json.dumps({each: _digest(bench.run / each) for each in kept}))
            bench.write(
                "photo.jpg",
                next((Path(__file__).resolve().parents[2] / "data/people/images/test").glob("*.jpg")).read_bytes(),
            )
            words = {"LAST": str(bench.last), "TARGET": str(bench.run / name), "PHOTO": str(bench.folder / "photo.jpg")}
            return [words.get(word, word) for word in command]

        return make

    rows = []
    for name in kept:
        commands = {
            "test --json": ("test", "--resume", "LAST", "--json", "TARGET"),
            "inference --output": ("inference", "--resume", "LAST", "--source", "PHOTO", "--output", "TARGET"),
            "export --output": ("export", "--resume", "LAST", "--format", "onnx", "--output", "TARGET"),
        }
        for command, words in commands.items():
            rows.append(
                Fault("output", f"{command} onto {name} of a run", 2, "^.*error: ", onto(name, *words), check=unchanged)
            )
    return rows


ROWS = [*damage_rows(), *content_rows(), *hostile_rows(), *output_rows()]
