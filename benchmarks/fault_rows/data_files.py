"""Damaged and wrong images, masks and lists of them."""

import os
from collections.abc import Callable, Sequence

from benchmarks.fault_rows.bench import PEOPLE, Bench, Fault

Change = Callable[[bytes], bytes]


def listed(lines: str | bytes) -> Callable[[Bench], Sequence[str]]:
    """Return what trains on a list of pairs with a content."""
    return lambda bench: bench.train({"train_loader.args.pairs_file": str(bench.write("pairs.txt", lines))})


def pair(photo: Change = bytes, mask: Change = bytes, name: str = "photo.jpg") -> Callable[[Bench], Sequence[str]]:
    """Return what trains on one changed photo and mask."""

    def make(bench: Bench) -> Sequence[str]:
        first = (PEOPLE / "train_pairs.txt").read_text().splitlines()[0].split(",")
        files = [PEOPLE / each.strip() for each in first]
        bench.write(name, photo(files[0].read_bytes()))
        bench.write(f"mask{files[1].suffix}", mask(files[1].read_bytes()))
        line = f"{bench.folder / name}, {bench.folder / f'mask{files[1].suffix}'}\n"
        return bench.train({"train_loader.args.pairs_file": str(bench.write("pairs.txt", line * 8))})

    return make


def no_file(name: str, make: Callable[[Bench, str], None], path: str) -> Callable[[Bench], Sequence[str]]:
    """Return what trains on a pipe or a device.

    Args:
        name: Of the file, whose suffix is that of its kind.
        make: Makes it.
        path: JSON path of the argument that names it.
    """

    def train(bench: Bench) -> Sequence[str]:
        file = str(bench.folder / name)
        make(bench, file)
        section, _, argument = path.partition(".args.")
        if section in ("list", "series"):
            kind = "ImageClassificationDataLoader" if section == "list" else "TimeSeriesDataLoader"
            return bench.train({"train_loader": {"type": kind, "args": {argument: file}}})
        return bench.train({path: file})

    return train


def pipe(_bench: Bench, file: str) -> None:
    """Make a named pipe that nobody writes to."""
    os.mkfifo(file)


def device(_bench: Bench, file: str) -> None:
    """Make a link to a device that never ends."""
    os.symlink("/dev/zero", file)


def hole(whole: bytes) -> bytes:
    """Return a file with 4 KB of zeros in its middle."""
    middle = len(whole) // 2
    return whole[:middle] + bytes(min(4096, len(whole) // 4)) + whole[middle + min(4096, len(whole) // 4) :]


ROWS = [
    *(
        Fault("data", f"{kind.__name__} as {name}", 3, "it is a pipe or a device", no_file(name, kind, path))
        for kind in (pipe, device)
        for name, path in (
            ("pairs.txt", "train_loader.args.pairs_file"),
            ("list.csv", "list.args.list_file"),
            ("series.ts", "series.args.path"),
            ("series.npz", "series.args.path"),
        )
    ),
    Fault("data", "an empty list", 3, "pairs.txt", listed("")),
    Fault("data", "a list of one column", 3, "error: ", listed("a.jpg\nb.jpg\n")),
    Fault("data", "a list of missing files", 3, "a.jpg", listed("a.jpg, a.png\n")),
    Fault("data", "a list with a null byte", 3, "error: ", listed(b"a\x00.jpg, a.png\n")),
    Fault("data", "a list that is no text", 3, "error: ", listed(b"\xff\xfe\xfa" * 30)),
    Fault("data", "a list with a terminal escape", 3, r"\\x1b|\\u001b", listed("\x1b[31ma.jpg, a.png\n")),
    Fault("data", "no list", 3, "none.txt", lambda bench: bench.train({"train_loader.args.pairs_file": "none.txt"})),
    Fault("data", "an empty photo", 3, "photo.jpg", pair(photo=lambda whole: b"")),
    Fault("data", "a photo cut off", 3, "photo.jpg", pair(photo=lambda whole: whole[: len(whole) // 2])),
    Fault("data", "a photo with a hole", 3, "photo.jpg", pair(photo=hole)),
    Fault("data", "a photo that is text", 3, "photo.jpg", pair(photo=lambda whole: b"no photo\n" * 90)),
    Fault("data", "an empty mask", 3, "mask", pair(mask=lambda whole: b"")),
    Fault("data", "a mask cut off", 3, "mask", pair(mask=lambda whole: whole[: len(whole) // 2])),
    Fault("data", "a mask that is text", 3, "mask", pair(mask=lambda whole: b"no mask\n" * 90)),
    Fault(
        "data",
        "fewer classes than names and labels",
        2,
        "error: ",
        lambda bench: bench.train({"train_loader.args.num_classes": 1, "train_loader.args.classes": ["person"]}),
    ),
]
