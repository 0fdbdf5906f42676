"""Predictions of a test as files: a mask per image in the ids of its data set, and all of them in a ZIP archive."""

import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Self

import cv2
import numpy as np
from torch import Tensor

from base.samples import NamedMask
from utils.errors import ConfigError, DataError
from utils.files import writing_problem
from utils.writing.outputs import ARCHIVE_MARK, PREDICTED_MASKS, require_output
from utils.writing.text import storable

OPTION = "--export-predictions"
_LARGEST_BYTE = 255
_TIME = (1980, 1, 1, 0, 0, 0)  # of all files in an archive, so that equal predictions are equal archives


@dataclass(eq=False)
class PredictionFiles:
    """Writes the prediction of each sample as an image of ids, `FOLDER/NAME.png`.

    Names are those of the photos, in the folders below the one that all photos have in common.

    Args:
        folder: Of the files; the archive is `FOLDER.zip` next to it.
        names: File of each photo of the data.
        ids: (K,) the id of each class in its data set; None: the numbers of the classes.

    Raises:
        ConfigError: The folder holds other files than those of an earlier export, or the archive is of something else.
    """

    folder: Path
    names: Sequence[str]
    ids: Sequence[int] | None = None
    written: list[Path] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.folder.name in ("", ".."):
            self.folder = self.folder.resolve()  # the archive has its name
        if not self.folder.name:
            raise ConfigError(f"{OPTION} {self.folder}: has no name, which the archive takes. Name another folder.")
        self._files = prediction_names(self.names)
        require_export_folder(self.folder, self.archive)

    @classmethod
    def of_loader(cls, folder: Path, loader: Any, ids: Sequence[int] | None) -> Self:
        """Return the writer for the samples of a loader of masks.

        Raises:
            ConfigError: Its samples are no masks with names of files, or the folder holds other files.
        """
        names = getattr(loader.dataset.dataset, "sample_names", None)
        if loader.task != "segmentation" or names is None:
            raise ConfigError(
                f"{OPTION} {folder}: the data are no images with masks, of which predictions are exported. Leave it "
                "out."
            )
        return cls(folder, [names(index)[0] for index in loader.keys.indices.tolist()], ids)

    @property
    def archive(self) -> Path:
        """The archive."""
        return self.folder.with_name(self.folder.name + ".zip")

    def add(self, sample: NamedMask, logits: Tensor) -> None:
        """Write the prediction of one sample.

        Args:
            sample: Its name.
            logits: (K, h, w) float at the size of the photo.

        Raises:
            ConfigError: The network has another number of classes than there are ids.
            DataError: The file cannot be written.
        """
        classes = logits.argmax(dim=0).cpu().numpy()
        ids = np.arange(logits.shape[0]) if self.ids is None else np.asarray(self.ids)
        if len(ids) != logits.shape[0]:
            raise ConfigError(
                f"{OPTION}: the data has {len(ids)} ids, and the network {logits.shape[0]} classes. "
                "Both must be the same. Test with the data of the network."
            )
        table = ids.astype(np.uint8 if ids.max() <= _LARGEST_BYTE else np.uint16)
        path = self.folder / self._files[sample.name]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", table[classes])[1].tobytes())
        except OSError as error:
            raise self._unwritable(path, error) from error
        self.written.append(path)

    def finish(self) -> Path:
        """Write the archive of all files, and return its path.

        Raises:
            DataError: It cannot be written.
        """
        partial = self.archive.with_name(f".{self.archive.name}.part")
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
                for path in sorted(set(self.written)):  # a photo may be listed twice
                    archive.writestr(zipfile.ZipInfo(_entry(path, self.folder), _TIME), path.read_bytes())
                archive.comment = ARCHIVE_MARK
            os.replace(partial, self.archive)
        except OSError as error:
            raise self._unwritable(self.archive, error) from error
        finally:
            partial.unlink(missing_ok=True)
        return self.archive

    @staticmethod
    def _unwritable(path: Path, error: OSError) -> DataError:
        return DataError(
            f"{path} cannot be written ({error.strerror or error}). Check the rights and the free space there, or name "
            f"another folder after {OPTION}."
        )


def _entry(path: Path, folder: Path) -> str:
    """Return the name of a file in the archive of a folder."""
    return storable(path.relative_to(folder).as_posix())


def prediction_names(names: Sequence[str]) -> dict[str, str]:
    """Return the file of each photo's prediction, relative to their folder and below it; all are different.

    Args:
        names: Files of the photos, relative to the working folder or absolute.
    """
    whole = {name: os.path.abspath(name) for name in names}
    common = os.path.commonpath([os.path.dirname(path) for path in whole.values()]) if whole else ""
    relative = {name: os.path.relpath(path, common) for name, path in whole.items()}
    files = {path: str(PurePath(path).with_suffix(".png")) for path in relative.values()}
    # `1.jpg` and `1.png` become `1.jpg.png` and `1.png.png`, which may be the file of another photo in turn.
    while clashes := {file for file, count in Counter(files.values()).items() if count > 1}:
        files = {path: f"{path}.png" if file in clashes else file for path, file in files.items()}
    return {name: files[path] for name, path in relative.items()}


def require_export_folder(folder: Path, archive: Path) -> None:
    """Raise if predictions must not be written into a folder: it holds files that the archive next to it does not have.

    Raises:
        ConfigError: It does, it is no folder, the archive is not of an earlier export, or neither can be written.
    """
    known: dict[str, int] = {}
    if archive.exists():
        if not PREDICTED_MASKS.is_one(archive):
            raise ConfigError(f"{OPTION} {folder}: {archive} is no archive of predictions. Name another folder.")
        with zipfile.ZipFile(archive) as opened:
            known = {each.filename: each.file_size for each in opened.infolist()}
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{OPTION} {folder}: is a file. Name a folder.")
    require_output(archive, OPTION, PREDICTED_MASKS)
    if problem := writing_problem(folder / "mask.png"):
        raise ConfigError(f"{OPTION} {folder}: cannot be written ({problem}). Name a folder that you may write to.")
    files = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    strange = [path for path in files if path.is_symlink() or known.get(_entry(path, folder)) != path.stat().st_size]
    if strange:
        raise ConfigError(
            f"{OPTION} {folder}: holds {len(strange)} files that are not of an earlier export ({strange[0].name}). "
            "Name another folder, or empty it."
        )
