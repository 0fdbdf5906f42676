"""Which image goes with which mask: from a list, or from a folder's layout."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_loader.common.shared_cache import read_once
from data_loader.images.files import IMAGE_SUFFIXES
from data_loader.segmentation.labels import Labels
from utils.errors import ConfigError, DataError
from utils.geometry import Size

_SHOWN = 5


class PairFault(DataError):
    """What is wrong with one pair.

    Attributes:
        unknown: Labels that the mask must not hold, where that is the fault.
    """

    unknown: Sequence[int] = ()


def unknown_labels(mask: str, unknown: Sequence[int], labels: Labels) -> PairFault:
    """The fault of a mask with labels that it must not hold."""
    shown = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
    fault = PairFault(f"{mask} holds the labels {shown}: masks must hold {labels.rule()}. {labels.repair(unknown)}")
    fault.unknown = unknown
    return fault


def require_same_size(names: tuple[str, str], image: Size, mask: Size) -> None:
    """Refuse a mask of another size than its image.

    Raises:
        PairFault: With both sizes.
    """
    if image == mask:
        return
    turned = (
        " Height and width are swapped: where EXIF turns the photo, turn the mask, too." if image == mask[::-1] else ""
    )
    raise PairFault(
        f"{names[1]} is {mask[0]}x{mask[1]} (height x width) but its image {names[0]} is "
        f"{image[0]}x{image[1]}: both must have the same size.{turned} Resize the mask (nearest neighbour)."
    )


def require_one_size(inputs: Mapping[str, Size], batch_size: int) -> None:
    """Refuse images that cannot share a batch.

    Args:
        inputs: Image -> size of what the network gets of it.
        batch_size: Samples per batch.

    Raises:
        DataError: With two images that differ.
    """
    sizes = list(inputs.items())
    other = next((item for item in sizes if item[1] != sizes[0][1]), None)
    if other is not None:
        (first, one), (second, another) = sizes[0], other
        raise DataError(
            f"Images of different sizes cannot share a batch: {first} is {one[0]}x{one[1]} (height x width), "
            f"{second} {another[0]}x{another[1]}, and batch_size is {batch_size}. "
            "Set resize to [height, width], or batch_size to 1."
        )


def attempt(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same work with a `DataError` as its result instead of an end to all."""

    def attempted(job: Any) -> Any:
        try:
            return work(job)
        except DataError as error:
            return error

    return attempted


def checked(results: Iterable[Any], labels: Labels) -> list[Any]:
    """The results of `attempt`.

    Raises:
        DataError: One error for all that failed.
    """
    results = list(results)
    faults = [result for result in results if isinstance(result, DataError)]
    if not faults:
        return results
    if len(faults) == 1:
        raise faults[0]
    lines = [str(fault) for fault in faults if not getattr(fault, "unknown", ())]
    parts = [f"{len(faults)} of {len(results)} pairs cannot be used."]
    parts += [f"  {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        parts.append(f"  ... and {len(lines) - _SHOWN} more like these.")
    parts += _label_faults([fault for fault in faults if isinstance(fault, PairFault) and fault.unknown], labels)
    raise DataError("\n".join(parts))


def _label_faults(faults: Sequence[PairFault], labels: Labels) -> list[str]:
    if not faults:
        return []
    values = sorted({value for fault in faults for value in fault.unknown})
    shown = [f"  {str(fault).split(': ', maxsplit=1)[0]}" for fault in faults[:_SHOWN]]
    more = [f"  ... and {len(faults) - _SHOWN} more like these."] if len(faults) > _SHOWN else []
    return [*shown, *more, f"Masks must hold {labels.rule()}. {labels.repair(values)}"]


_SHOWN_PAIRS = 5


class Pair(NamedTuple):
    """A photo and its mask."""

    image: Path
    mask: Path


def read_pairs(pairs_file: str | Path, data_root: str | Path | None = None) -> list[Pair]:
    """Read a list with one `image, mask` per line; a comma, a tab or blanks between them, `#` begins a comment line.

    Paths are relative to `data_root`. Without it they are relative to the first of these places where the first pair
    is found: the folder of the list, that folder's parent, the working directory.

    Raises:
        DataError: The list is missing, empty, badly written, or names files that do not exist.
    """
    how = None if data_root is None else str(data_root), os.getcwd()
    return read_once(pairs_file, lambda path: _read_list(path, data_root), _list_bytes, how=how)


def _list_bytes(pairs: list[Pair]) -> int:
    return sum(sys.getsizeof(str(path)) for pair in pairs for path in pair)


def _read_list(path: Path, data_root: str | Path | None) -> list[Pair]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"The list of pairs {path} does not exist. Correct pairs_file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list of pairs {path} cannot be read: {error}. It must be a text file (UTF-8).") from None
    names = [_parse(line, path, number) for number, line in enumerate(lines, start=1) if _holds_pair(line)]
    if not names:
        raise DataError(f"The list of pairs {path} is empty. It must hold one `image, mask` per line.")
    root = Path(data_root) if data_root is not None else _find_root(path, names[0])
    pairs = [Pair(root / image, root / mask) for image, mask in names]
    _require_files(pairs, f"The list {path}", root)
    return pairs


def find_pairs(
    folder: str | Path,
    split: str,
    *,
    image_suffixes: frozenset[str] = IMAGE_SUFFIXES,
    mask_suffixes: Sequence[str] = (".png",),
) -> list[Pair]:
    """Pairs of the layout `folder/data/split/NAME.*` and `folder/labels/split/NAME.png`, sorted by name.

    Args:
        folder: Holds `data` and `labels`.
        split: Name of the folders in them.
        image_suffixes: What images end in.
        mask_suffixes: What masks end in; the first that is there goes.

    Raises:
        DataError: A folder is missing or empty, or a name is on one side only.
    """
    images_folder, masks_folder = (Path(folder) / side / split for side in ("data", "labels"))
    for side in (images_folder, masks_folder):
        if not side.is_dir():
            raise DataError(f"The folder {side} does not exist. Images lie in data/{split}, masks in labels/{split}.")
    images = sorted(path for path in images_folder.rglob("*") if path.suffix.lower() in image_suffixes)
    if not images:
        raise DataError(f"The folder {images_folder} holds no image ({', '.join(sorted(image_suffixes))}).")
    pairs = [Pair(path, _mask_of(masks_folder / path.relative_to(images_folder), mask_suffixes)) for path in images]
    _require_files(pairs, f"The folder {folder}", None)
    masks = {mask for suffix in mask_suffixes for mask in masks_folder.rglob(f"*{suffix}")}
    lonely = masks - {pair.mask for pair in pairs}
    if lonely:
        raise DataError(
            f"{len(lonely)} masks without an image in {images_folder}: {_first(sorted(lonely))}. Add or remove."
        )
    return pairs


def choose_pairs(
    pairs_file: str | None,
    folder: str | None,
    split: str,
    data_root: str | None,
    samples: int | None,
    *,
    image_suffixes: frozenset[str] = IMAGE_SUFFIXES,
    mask_suffixes: Sequence[str] = (".png",),
) -> list[Pair]:
    """The pairs that a loader's arguments mean, from `read_pairs` or `find_pairs`.

    Raises:
        ConfigError: Neither list nor folder is named, or both are; or there would be no sample.
        DataError: The list or the folder does not hold what it should.
    """
    if (pairs_file is None) == (folder is None):
        raise ConfigError("A loader needs pairs_file (a list) or folder (with data/ and labels/), and not both.")
    sample_count(0, samples)
    if folder is None:
        return first_pairs(read_pairs(str(pairs_file), data_root), samples)
    found = find_pairs(
        Path(data_root or "") / folder, split, image_suffixes=image_suffixes, mask_suffixes=mask_suffixes
    )
    return first_pairs(found, samples)


def _mask_of(path: Path, suffixes: Sequence[str]) -> Path:
    candidates = [path.with_suffix(suffix) for suffix in suffixes]
    return next((candidate for candidate in candidates if candidate.is_file()), candidates[0])


def first_pairs(pairs: list[Pair], samples: int | None) -> list[Pair]:
    """The first `samples` pairs, all of them where it is None.

    Raises:
        ConfigError: There would be none.
    """
    return pairs[: sample_count(len(pairs), samples)]


def sample_count(count: int, samples: int | None) -> int:
    """How many of `count` samples to use.

    Raises:
        ConfigError: It would be none.
    """
    if samples is not None and samples < 1:
        raise ConfigError(f"Wrong samples {samples}: it must be 1 or more, or null for all.")
    return count if samples is None else min(count, samples)


def _holds_pair(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _parse(line: str, path: Path, number: int) -> tuple[str, str]:
    separator = "," if "," in line else "\t" if "\t" in line else None
    parts = [part.strip() for part in line.split(separator) if part.strip()]
    if len(parts) != 2:
        raise DataError(
            f"{path}, line {number}: {line.strip()!r} is not one image and one mask. Write `image, mask`; "
            "use a comma or a tab where names hold blanks."
        )
    return parts[0], parts[1]


def _find_root(path: Path, first: tuple[str, str]) -> Path:
    places = (path.parent, path.parent.parent if path.parent.name else Path(".."), Path())
    return next((place for place in places if all((place / name).exists() for name in first)), path.parent)


def _require_files(pairs: list[Pair], source: str, root: Path | None) -> None:
    missing = [path for pair in pairs for path in pair if not os.path.isfile(path)]
    if missing:
        where = "" if root is None else f" Paths are relative to {root.resolve()}; set data_root if that is wrong."
        raise DataError(f"{source} names {len(missing)} files that do not exist: {_first(missing)}.{where}")


def _first(paths: Iterable[Path]) -> str:
    names = [str(path) for path in paths]
    return ", ".join(names[:_SHOWN_PAIRS]) + (", ..." if len(names) > _SHOWN_PAIRS else "")
