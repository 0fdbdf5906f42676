"""What a run of inference tells at its end."""

import logging
from collections.abc import Sequence

from utils.errors import DataError
from visual.loop import Outcome
from visual.sinks import Sink
from visual.sources import Source

logger = logging.getLogger(__name__)


def report(outcome: Outcome, source: Source, sinks: Sequence[Sink]) -> None:
    """Say how fast it went, where the results are, and what did not work.

    Raises:
        DataError: Some of the pictures could not be used, although all others were.
    """
    for remark in dict.fromkeys([*source.remarks, *(remark for sink in sinks for remark in sink.remarks)]):
        logger.warning("%s", remark)
    unit = "pictures" if source.frame_rate is None else "frames"
    rate = outcome.pictures / max(outcome.seconds, 1e-9)
    logger.info("%d %s in %.1f s, %.1f %s/s", outcome.pictures, unit, outcome.seconds, rate, unit)
    files = list(dict.fromkeys(path for sink in sinks for path in sink.written))
    if files:
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        logger.info("Written: %s%s", files[0], more)
    failures = list(dict.fromkeys(source.failures))
    if failures:
        for failure in failures:
            logger.error("%s", failure)
        raise DataError(
            f"{len(failures)} of {len(failures) + outcome.pictures} pictures could not be used; all others are done. "
            "Their names stand above. Mend or remove them and run again."
        )
