"""Checkpoint files: tensors and plain data, complete or refused.

A checkpoint is a file of `torch.save` with the SHA-256 of everything before it in the archive's comment field, so
that any reader of zip archives (and `torch.load(weights_only=True)`) still opens it and no second file can get lost.
"""

import errno
import hashlib
import logging
import os
import pickle
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from utils.environment import DISK_FULL
from utils.errors import CheckpointError
from utils.files import copy_atomically, sync_folder, temporary_path
from utils.writing.hashed_file import HashedFile

FORMAT_VERSION = 1
LAST, BEST = "checkpoint-last.pth", "model_best.pth"
_NUMBERED = re.compile(r"checkpoint-epoch\d+\.pth")
logger = logging.getLogger(__name__)
_MAGIC = b"espalier-sha256:"
_COMMENT_SIZE = len(_MAGIC) + 64
# The end-of-central-directory record of a zip archive: signature, 16 bytes, and the length of the comment behind it.
_END_SIGNATURE = b"PK\x05\x06"
_END_SIZE = 22
_CHUNK = 1 << 20
# Words in the errors of torch's archive writer after the disk accepted fewer bytes than it was given.
_WRITER_WORDS = ("PytorchStreamWriter", "inline_container")


def write_checkpoint(content: dict[str, Any], paths: Sequence[Path]) -> None:
    """Write a checkpoint to each path in turn; a file is in place only when it is complete on the disk.

    Args:
        content: Tensors and plain data, which must not change meanwhile.
        paths: The first gets its file as soon as possible. Each of the others gets a copy, so that neither one bad
            sector nor a program that changes a file destroys two checkpoints.

    Raises:
        CheckpointError: The disk is full or cannot be written; this file and the later ones are unchanged.
    """
    first, *others = paths
    staged = temporary_path(first)
    lasting = {storage.data_ptr(): storage.nbytes() for storage in map(Tensor.untyped_storage, tensors_in(content))}
    try:
        with _disk_errors(first):
            with HashedFile(staged, lasting) as file:
                torch.save(content, cast(IO[bytes], file))  # it calls nothing but `write` and `flush`
                file.finish(_with_room_for_comment, lambda digest: _MAGIC + digest.encode())
            os.replace(staged, first)
            sync_folder(first.parent)
    finally:
        staged.unlink(missing_ok=True)
    for path in others:
        with _disk_errors(path):
            copy_atomically(first, path)


def _with_room_for_comment(end: bytes) -> bytes:
    """Return the end of an archive that announces the checksum as its comment."""
    if end[-_END_SIZE:][:4] != _END_SIGNATURE:
        raise RuntimeError("torch.save did not end its archive as expected")
    return end[:-2] + struct.pack("<H", _COMMENT_SIZE)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn errors of the disk into a `CheckpointError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):  # torch's writer wraps the error of the system
            cause = cause.__cause__ or cause.__context__
        if cause is None and not any(word in str(error) for word in _WRITER_WORDS):
            raise
        if cause is None:  # it does not say so itself
            cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            cause.__cause__ = error
        what = "the disk is full" if cause.errno in DISK_FULL else str(cause)
        raise CheckpointError(
            f"{path}: not written ({what}). A checkpoint needs its whole size free in addition to the old one; every "
            "earlier checkpoint is unchanged. Free some space and run the same command with --resume auto."
        ) from cause


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it can run code.

    Raises:
        CheckpointError: The file is missing, damaged, or holds more than tensors and plain data.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise CheckpointError(
            f"{path}: there is no such file. Name a checkpoint (.pth) or a run folder that holds one."
        )
    try:
        content, has_checksum = _load_checked(path)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds something other than tensors and plain data, or is damaged, and was not opened. Only "
            "files that torch.load(weights_only=True) accepts are read. Use another checkpoint."
        ) from error
    except Exception as error:  # damaged bytes can raise any error in the unpickler
        raise _damaged(path, f"cannot be read ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise _damaged(path, f"holds a {type(content).__name__}, but a checkpoint is a dictionary")
    if not isinstance(content.get("config", {}), dict):
        raise _damaged(path, f"holds a config that is a {type(content['config']).__name__}, not an object")
    if "format_version" in content:
        if not has_checksum:
            raise _damaged(path, "has lost its checksum")
        version = content["format_version"]
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise _damaged(path, f"has the format_version {version!r}, which is no number from 1")
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: has format_version {version}, and this version of Espalier reads up to {FORMAT_VERSION}. A "
                "newer one has written it. Use that version, or another checkpoint."
            )
    return content


def _load_checked(path: Path) -> tuple[Any, bool]:
    """Return the content of a file that matches its checksum, and whether it has one.

    Raises:
        CheckpointError: It does not match, or is too short.
        Exception: Any error of reading a file that matches.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < _COMMENT_SIZE + _END_SIZE:
            raise _damaged(path, f"is {size} bytes long, too short for a checkpoint")
        file.seek(-_COMMENT_SIZE, os.SEEK_END)
        comment = file.read()
        has_checksum = comment.startswith(_MAGIC)
        wanted = comment[len(_MAGIC) :].decode("ascii", "replace")
        # Hashing takes about as long as loading, and both work outside Python's lock.
        with ThreadPoolExecutor(max_workers=1) as thread:
            digest = thread.submit(_digest, file, size - _COMMENT_SIZE) if has_checksum else None
            content, error = None, None
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as found:  # damaged bytes can raise any error in the unpickler
                error = found
            if digest is not None and digest.result() != wanted:
                raise _damaged(path, "does not match its checksum")
    if error is not None:
        raise error
    return content, has_checksum


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {what}. The file is damaged or no checkpoint. Use another one, or --resume auto.")


def _digest(file: BinaryIO, size: int) -> str:
    """Return the SHA-256 of the first `size` bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0:
        chunk = file.read(min(_CHUNK, size))
        if not chunk:
            break
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the files of a folder that have the name of a checkpoint of a run, sorted; others are not ours."""
    return sorted(path for path in folder.glob("*.pth") if path.name in (LAST, BEST) or _NUMBERED.fullmatch(path.name))


def newest_good(folder: Path, first: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Read the newest checkpoint of a run folder that is not damaged; damaged ones are named in warnings.

    Args:
        folder: A run folder.
        first: Try this one before the others; `checkpoint-last.pth` if None.

    Raises:
        CheckpointError: There is none.
    """
    wanted = first or folder / LAST
    try:
        return wanted, read_checkpoint(wanted)
    except CheckpointError as error:
        problem = str(error)
    logger.warning("%s", problem)
    good: list[tuple[int, Path, dict[str, Any]]] = []
    for path in sorted(folder.glob("*.pth")):
        if path == wanted:
            continue
        try:
            content = read_checkpoint(path)
        except CheckpointError as error:
            logger.warning("%s", error)
            continue
        if isinstance(content.get("global_step"), int):
            good.append((content["global_step"], path, content))
        else:
            logger.warning("%s: is no checkpoint of a run, and is passed over.", path)
    if not good:
        raise CheckpointError(f"{problem} No other checkpoint in {folder} is good.")
    _, path, content = max(good, key=lambda item: item[0])
    logger.warning("Continuing from %s, the newest good checkpoint there.", path)
    return path, content


def read_saved(path: Path) -> tuple[Path, dict[str, Any]]:
    """Read a checkpoint; of a run folder the best one, or the newest good one if that is damaged.

    Raises:
        CheckpointError: It is missing or damaged, or the folder holds no good one.
    """
    if not os.path.isdir(path):
        return path, read_checkpoint(path)
    return newest_good(path, path / BEST if (path / BEST).exists() else None)


def evaluated_weights(content: Mapping[str, Any]) -> Any:
    """Return the weights that validation has evaluated: the moving average if the run has one, else the weights.

    A file without the keys of a checkpoint is taken for a bare state dict.
    """
    average = content.get("ema")
    return average["state_dict"] if isinstance(average, Mapping) else content.get("state_dict", content)
