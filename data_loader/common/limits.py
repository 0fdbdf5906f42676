"""Limits on the size of decoded data, checked before anything is decoded: a small file may unpack to a huge one."""

from pathlib import Path

from utils.errors import DataError

IMAGE_MB = 512
"""Largest decoded image or mask: about 179 megapixels in colours of 8 bits."""

FILE_MB = 1024
"""Largest decoded file of many samples."""

_MB = 2**20


def require_decoded_size(path: str | Path, found: str, num_bytes: int, limit_mb: int | None, *, of_many: bool) -> None:
    """Raise an error if a file would take more memory than it may.

    Args:
        path: The file.
        found: Its content, for the message, as "13500x13500 pixels".
        num_bytes: Memory that reading it takes.
        limit_mb: The option `max_decoded_mb`; None: the default.
        of_many: The file holds many samples, not one image.

    Raises:
        DataError: It is larger than the limit.
    """
    default = FILE_MB if of_many else IMAGE_MB
    limit = default if limit_mb is None else limit_mb
    if num_bytes > limit * _MB:
        repair, megabytes = "Split the file" if of_many else "Scale it down", -(-num_bytes // _MB)
        raise DataError(
            f"{path} holds {found}, which take {megabytes} MB when they are decoded; the limit is {limit} MB "
            f"(max_decoded_mb). {repair}, or set max_decoded_mb of the loader higher."
        )
