"""Which file each result goes to, decided beforehand: no two share one, and no original is written over."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from predictor.io.sources import PHOTO_SUFFIXES, VIDEO_SUFFIXES, Photos, Source, Video
from utils.errors import ConfigError, DataError

COLOR_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
LOSSLESS_SUFFIXES = frozenset({".png", ".tif", ".tiff"})


def result_names(names: Sequence[str], suffix: str | None) -> dict[str, str]:
    """A result's name for each image's name, below the same folders.

    Where two would meet (`a.jpg` and `a.png` both become `a.png`), the old suffix stays part of the name:
    `a_jpg.png` and `a_png.png`. Names that differ in case only count as meeting, as they do on some disks.

    Args:
        names: Paths relative to the source folder.
        suffix: Of the results, e.g. `.png`; None keeps each image's own where colours can be written that way.
    """
    plain = {name: _with_suffix(PurePosixPath(name), suffix) for name in names}
    counts = _counts(plain.values())
    taken = {result.casefold() for result in plain.values() if counts[result.casefold()] == 1}
    results: dict[str, str] = {}
    for name, result in plain.items():
        if counts[result.casefold()] > 1:
            path = PurePosixPath(name)
            stem = f"{path.stem}_{path.suffix[1:].lower()}"
            while (result := str(path.with_name(stem + PurePosixPath(result).suffix))).casefold() in taken:
                stem += "_"
            taken.add(result.casefold())
        results[name] = result
    return results


def _with_suffix(path: PurePosixPath, suffix: str | None) -> str:
    if suffix is None and path.suffix.lower() in COLOR_SUFFIXES:
        return str(path)
    return str(path.with_suffix(suffix or ".png"))


def _counts(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name.casefold()] = counts.get(name.casefold(), 0) + 1
    return counts


def image_targets(source: Source, output: Path, *, is_lossless: bool) -> Callable[[str], Path]:
    """Where the result of each image goes.

    Args:
        source: Its names and kind decide.
        output: A folder, or for a single photo also the file itself.
        is_lossless: Masks and cut-outs must be PNG; else a photo keeps its kind.

    Raises:
        ConfigError: `output` is a file of a kind that cannot hold the result.
    """
    suffix = output.suffix.lower()
    if not isinstance(source, Photos):
        if suffix in VIDEO_SUFFIXES:
            raise ConfigError(
                f"--output {output}: a video file has no transparency. Name a folder (one PNG for each frame), "
                "or use --mode background --background '#00ff00'."
            )
        return lambda name: output / f"{name}.png"
    if len(source.paths) == 1 and suffix in PHOTO_SUFFIXES and not output.is_dir():
        if is_lossless and suffix not in LOSSLESS_SUFFIXES:
            raise ConfigError(f"--output {output}: this mode's exact values need PNG. Name a .png file or a folder.")
        return lambda _name: output
    if suffix in PHOTO_SUFFIXES | VIDEO_SUFFIXES and not output.is_dir():
        raise ConfigError(f"--output {output} is one file, but there are several photos. Name a folder.")
    names = result_names(
        [path.relative_to(source.root).as_posix() for path in source.paths], ".png" if is_lossless else None
    )
    return lambda name: output / names[name]


def video_target(source: Source, output: Path) -> Path:
    """Where a video goes: `output` itself where it is a video file, else below that folder under the source's name.

    Raises:
        ConfigError: `output` is an image.
    """
    suffix = output.suffix.lower()
    if suffix in PHOTO_SUFFIXES | {".gif"} and not output.is_dir():
        raise ConfigError(f"--output {output} is an image, but the source is a video. Name a .mp4 file or a folder.")
    if suffix in VIDEO_SUFFIXES:
        return output
    return output / f"{source.path.stem if isinstance(source, Video) else 'camera'}.mp4"


def refuse_originals(targets: Iterable[Path], originals: Iterable[Path]) -> None:
    """Never write over what the user brought, under whatever name or link.

    Raises:
        DataError: A result would go where an original is.
    """
    kept = {path.resolve(): path for path in originals}
    identities = {(status.st_dev, status.st_ino): path for path in kept if path.exists() for status in [path.stat()]}
    for target in targets:
        original = kept.get(target.resolve())
        if original is None and target.exists():
            status = target.stat()
            original = identities.get((status.st_dev, status.st_ino))
        if original is not None:
            raise DataError(
                f"--output would write over {original}, which is an original. Name another file or folder as --output."
            )
