"""From the command line's wishes to the sinks that fulfil them."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from utils.errors import ConfigError, DataError
from visual.looks import Look
from visual.names import picture_targets, refuse_originals, video_target
from visual.sinks import PictureFiles, Sink, VideoFile, Window, display_problem, require_writable
from visual.sources import FALLBACK_FRAME_RATE, Photos, Source, Video

logger = logging.getLogger(__name__)


def open_sinks(
    source: Source,
    look: Look,
    output: Path | None,
    *,
    is_shown: bool = False,
    may_be_empty: bool = False,
    originals: Sequence[Path] = (),
) -> list[Sink]:
    """Everything that takes the results.

    Args:
        source: Its kind decides between pictures and a video.
        look: What the results are like.
        output: A file or a folder; None writes nothing.
        is_shown: Open a window; without a display there is a warning and no window.
        may_be_empty: Running for its own sake is meant.
        originals: Files beside the source's own that must not be written over.

    Raises:
        ConfigError: The output cannot hold such results, or there is nowhere for them to go.
        DataError: The output is an original, or cannot be written.
    """
    sinks: list[Sink] = []
    if output is not None:
        sinks.append(_files(source, look, output, [*source.files(), *originals]))
    if is_shown:
        problem = display_problem()
        if problem is None:
            sinks.append(Window(is_slideshow=isinstance(source, Photos)))
        else:
            logger.warning("No window is shown: %s.", problem)
    if not sinks and not may_be_empty:
        raise ConfigError("The results have nowhere to go. Name a file or a folder as --output.")
    return sinks


def _files(source: Source, look: Look, output: Path, originals: list[Path]) -> Sink:
    if isinstance(source, Photos) and output.resolve() == source.root.resolve() and len(source.paths) > 1:
        raise DataError(f"--output {output} is the source itself. Name another folder.")
    if isinstance(source, Photos) or look.has_alpha:
        target = picture_targets(source, output, is_lossless=look.is_lossless)
        names = (
            [path.relative_to(source.root).as_posix() for path in source.files()] if isinstance(source, Photos) else []
        )
        files = [target(name) for name in names]
        refuse_originals(files, originals)
        require_writable(files[0].parent if len(files) == 1 else output)
        return PictureFiles(target)
    path = video_target(source, output)
    refuse_originals([path], originals)
    require_writable(path.parent)
    return VideoFile(
        path,
        source.frame_rate or FALLBACK_FRAME_RATE,
        clock=time.monotonic if source.is_live else None,
        sound_of=source.path if isinstance(source, Video) else None,
    )
