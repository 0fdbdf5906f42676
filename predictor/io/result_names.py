"""The file of each result, decided in advance: no two results share one, and no original is overwritten."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from predictor.io.sources import PHOTO_SUFFIXES, VIDEO_SUFFIXES, FrameSource, Photos, Video
from utils.errors import ConfigError, DataError

COLOR_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
LOSSLESS_SUFFIXES = frozenset({".png", ".tif", ".tiff"})


def result_names(names: Sequence[str], suffix: str | None) -> dict[str, str]:
    """Return the name of the result for the name of each image, below the same folders.

    If two would collide (`a.jpg` and `a.png` both become `a.png`), the old suffix stays part of the name: `a_jpg.png`
    and `a_png.png`. Names that differ only in case collide, as they do on some disks.

    Args:
        names: Paths relative to the source folder.
        suffix: Of the results, e.g. `.png`; None keeps the suffix of each image if colours can be written that way.
    """
    plain: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        keeps_suffix = suffix is None and path.suffix.lower() in COLOR_SUFFIXES
        plain[name] = str(path if keeps_suffix else path.with_suffix(suffix or ".png"))
    counts = Counter(result.casefold() for result in plain.values())
    taken = {result for result, count in counts.items() if count == 1}
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


def image_targets(source: FrameSource, output: Path, *, is_lossless: bool) -> Callable[[str], Path]:
    """Return the function from the name of a frame to the file of its result.

    Args:
        source: Its kind and its names determine the files.
        output: A folder, or the file itself for a single photo.
        is_lossless: Write PNG, as masks and cut-outs need; otherwise a photo retains its file format.

    Raises:
        ConfigError: `output` is a file whose format cannot hold the result.
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


def video_target(source: FrameSource, output: Path) -> Path:
    """Return the file of a video: `output` itself if it is a video file, else that folder with the name of the source.

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
    """Raise if a result would overwrite a file of the user, under any name or link.

    Raises:
        DataError: A result has the place of an original.
    """
    resolved = {path.resolve(): path for path in originals}
    identities = {
        (status.st_dev, status.st_ino): path for path in resolved if path.exists() for status in [path.stat()]
    }
    for target in targets:
        original = resolved.get(target.resolve())
        if original is None and target.exists():
            status = target.stat()
            original = identities.get((status.st_dev, status.st_ino))
        if original is not None:
            raise DataError(
                f"--output would write over {original}, which is an original. Name another file or folder as --output."
            )
