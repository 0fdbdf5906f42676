"""Genotypes from elsewhere: as the JSON of a model names them, published ones, and files of the public PyTorch code."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.architecture.genotype import OPERATIONS, STRIDES, Genotype, cell_edges, input_names
from utils.architecture.space import random_genotype
from utils.errors import ConfigError
from utils.files import read_regular_text

RANDOM = "random:"
_MOST_RANDOM = 100  # layers, and blocks, of a random genotype
TRIPLE = ("network_path.npy", "network_path_space.npy", "genotype.npy")
"""The files in which https://github.com/NoamRosenberg/autodeeplab writes a decoded network."""
_WAYS = 'a JSON file, a folder with .npy files, or "random:17"'

# Source: hnasnet in https://github.com/tensorflow/models, research/deeplab/core/nas_network.py. An input is counted in
# the order in which a cell builds its states: 0 the cell one back, 1 the cell two back, 2 block 1, 3 block 2, ...
_PUBLISHED_LEVELS = (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)
_PUBLISHED_INPUTS = ((1, 0), (1, 0), (3, 1), (4, 2), (3, 5))
_PUBLISHED_OPERATIONS = (
    ("atrous_conv_5x5", "sep_conv_3x3"),
    ("sep_conv_3x3", "atrous_conv_3x3"),
    ("sep_conv_3x3", "sep_conv_3x3"),
    ("sep_conv_5x5", "sep_conv_5x5"),
    ("sep_conv_5x5", "atrous_conv_5x5"),
)


def published_genotype() -> Genotype:
    """Return the genotype of the networks that Google released: 12 layers, 5 blocks, found on Cityscapes."""
    names = ("one_back", "two_back", *input_names(len(_PUBLISHED_INPUTS))[2:])
    blocks = [
        ((names[inputs[0]], operations[0]), (names[inputs[1]], operations[1]))
        for inputs, operations in zip(_PUBLISHED_INPUTS, _PUBLISHED_OPERATIONS, strict=True)
    ]
    return Genotype(tuple(STRIDES[level] for level in _PUBLISHED_LEVELS), tuple(blocks))


def read_genotype(value: object, *, layers: int = 12, blocks: int = 5, where: str = "genotype") -> Genotype:
    """Return the genotype that an argument of a model or a strategy names.

    Args:
        value: None for the published one; a genotype, also as plain data (`Genotype.from_json`); the path of a JSON
            file, or of a folder with the three files of the public PyTorch code; "random:17" for the one that is drawn
            with the seed 17, "random:17:8:4" for one of 8 layers and 4 blocks.
        layers: Number of layers of a random one that states none.
        blocks: Number of blocks of a random one that states none.
        where: Name of the argument, for messages.

    Raises:
        ConfigError: There is no such file, or it holds no genotype.
    """
    if value is None:
        return published_genotype()
    if isinstance(value, Genotype):
        return value
    if not isinstance(value, str | Path):
        return Genotype.from_json(value, where)
    if isinstance(value, str) and value.startswith(RANDOM):
        return _random_genotype(value, layers, blocks, where)
    if isinstance(value, str) and not value.strip():
        raise ConfigError(f'{where} is "{value}": a genotype is named by {_WAYS}. Set one, or null for Google\'s.')
    if isinstance(value, str) and value.lstrip().startswith("{"):
        raise ConfigError(
            f"{where} is the text {_shortened(value)}: a genotype that is written out is an object. Write it without "
            "quotes around it."
        )
    try:
        is_folder = Path(value).is_dir()
    except (OSError, ValueError) as reason:
        words = reason.strerror if isinstance(reason, OSError) else reason
        raise ConfigError(f"{where} is {_shortened(str(value))}: it names no file ({words}). Set {_WAYS}.") from None
    return read_genotype_folder(Path(value)) if is_folder else _read_json_file(Path(value), where)


def _shortened(value: str) -> str:
    """Return a text in quotes, long ones cut."""
    return json.dumps(value if len(value) <= 60 else f"{value[:57]}...", ensure_ascii=False)


def _random_genotype(value: str, layers: int, blocks: int, where: str) -> Genotype:
    """Return the genotype that "random:SEED" or "random:SEED:LAYERS:BLOCKS" names."""
    found = re.fullmatch(r"([0-9]{1,100})(?::([0-9]{1,4}):([0-9]{1,4}))?", value.removeprefix(RANDOM))
    if found is None:
        raise ConfigError(
            f"{where} is {_shortened(value)}: a random genotype is named by its seed, and if it is not of {layers} "
            f'layers and {blocks} blocks by both. Set it as "{RANDOM}17", or as "{RANDOM}17:8:4" for 8 layers and 4 '
            "blocks."
        )
    if found[2] is not None:
        layers, blocks = int(found[2]), int(found[3])
    if not (1 <= layers <= _MOST_RANDOM and 1 <= blocks <= _MOST_RANDOM):
        raise ConfigError(
            f"{where} is {_shortened(value)}: a random genotype has 1 to {_MOST_RANDOM} layers and 1 to "
            f'{_MOST_RANDOM} blocks. Set it as "{RANDOM}{found[1]}:8:4".'
        )
    return random_genotype(int(found[1]), layers, blocks)


def genotype_of_arrays(path: Sequence[int], rows: Sequence[Sequence[int]], where: str = "genotype") -> Genotype:
    """Return the genotype of two arrays of the public PyTorch code.

    Each operation belongs to the edge of its own row. The public code's own networks take the operations of a block in
    the order of the rows, which is that of strength, but the edges in ascending order: there the operations of a block
    are swapped if its first row has the larger edge.

    Args:
        path: Level of each layer, 0 to 3 (`network_path.npy`).
        rows: (2 B, 2): number of the edge, two rows per block, and number of the operation (`genotype.npy`).
        where: Name of the source, for messages.

    Raises:
        ConfigError: They describe no genotype.
    """
    levels, table = _whole_numbers(path, 1, f"{where}: the path"), _whole_numbers(rows, 2, f"{where}: the cell")
    if not len(levels) or levels.min() < 0 or levels.max() >= len(STRIDES):
        raise ConfigError(f"{where}: the path {levels.tolist()} is not a list of levels from 0 to 3. Decode it again.")
    if table.shape[0] % 2 or table.shape[1] != 2 or not len(table):
        raise ConfigError(f"{where}: the cell has shape {table.shape}: it must be (2 for each block, 2).")
    num_blocks = len(table) // 2
    edges, blocks = cell_edges(num_blocks), []
    for place, (edge, operation) in enumerate(table.tolist()):
        if not 0 <= edge < len(edges) or edges[edge][0] != place // 2 or not 0 <= operation < len(OPERATIONS):
            own = [number for number, (block, _) in enumerate(edges) if block == place // 2]
            rule = f"row {place} belongs to block {place // 2 + 1} with the edges {own[0]} to {own[-1]}"
            raise ConfigError(f"{where}: row [{edge}, {operation}] does not fit: {rule}; operations are 0 to 7.")
        blocks.append((input_names(num_blocks)[edges[edge][1]], OPERATIONS[operation]))
    strides = [STRIDES[level] for level in levels]
    pairs = [dict(blocks[start : start + 2]) for start in range(0, len(blocks), 2)]
    return Genotype.from_json({"strides": strides, "blocks": pairs}, where)


def read_genotype_folder(folder: Path) -> Genotype:
    """Return the genotype that the public PyTorch code left in a folder.

    Args:
        folder: Holds `network_path.npy` and `genotype.npy`. `network_path_space.npy`, the same path in another form,
            is compared if it is there.

    Raises:
        ConfigError: A file is missing, damaged, or contradicts another.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name in TRIPLE:
        if not (folder / name).is_file():
            if name == TRIPLE[1]:
                continue
            rule = f"a folder with a genotype holds {TRIPLE[0]} and {TRIPLE[2]}"
            raise ConfigError(f"{folder} holds no {name}: {rule}. Decode the search again, or name a JSON file.")
        try:
            arrays[name] = np.load(folder / name, allow_pickle=False)
        except (OSError, ValueError, EOFError) as reason:
            words = str(reason).splitlines()[0]
            raise ConfigError(f"{folder / name}: cannot be read as an array ({words}). Decode it again.") from None
    genotype = genotype_of_arrays(arrays[TRIPLE[0]].tolist(), arrays[TRIPLE[2]].tolist(), str(folder))
    space = arrays.get(TRIPLE[1])
    if space is not None and not _same_path(space, genotype.levels):
        raise ConfigError(f"{folder}: {TRIPLE[0]} and {TRIPLE[1]} hold different paths. Decode it again.")
    return genotype


def _same_path(space: NDArray[Any], levels: tuple[int, ...]) -> bool:
    """Return whether (L, 4, 3) has its single one of each layer at the layer's level."""
    if space.shape != (len(levels), len(STRIDES), 3):
        return False
    return bool((space.sum(axis=(1, 2)) == 1).all()) and space.sum(axis=2).argmax(axis=1).tolist() == list(levels)


def _whole_numbers(values: object, dimensions: int, where: str) -> NDArray[np.int64]:
    """Return an array of integers; the public code also stores them as floats."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0).reshape(())
    if array.ndim != dimensions or not np.array_equal(array, np.trunc(array)) or not np.isfinite(array).all():
        raise ConfigError(f"{where} is not an array of whole numbers with {dimensions} dimensions. Decode it again.")
    return array.astype(np.int64)


def _read_json_file(path: Path, where: str) -> Genotype:
    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f'{path}: "{name}" stands twice in one object: keys must differ. Remove one of them.')
        return dict(pairs)

    try:
        content = json.loads(read_regular_text(path), object_pairs_hook=without_repeats)
    except FileNotFoundError:
        raise ConfigError(f'{where}: there is no file "{path}". Name {_WAYS}, or write the genotype out.') from None
    except RecursionError:
        raise ConfigError(f"{path}: cannot be read (it is nested too deep). Write the genotype again.") from None
    except (OSError, ValueError) as reason:
        raise ConfigError(f"{path}: cannot be read as JSON ({reason}). Write the genotype again.") from None
    return Genotype.from_json(content, str(path))
