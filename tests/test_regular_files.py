"""Files of data are regular files: no reader waits for a pipe, or reads a device that never ends."""

import os
import threading
from pathlib import Path

import pytest

from data_loader.classification.sources import list_labelled, read_idx
from data_loader.common.array_files import array_header, read_array, read_arrays
from data_loader.images.files import image_size, read_image, read_mask
from data_loader.segmentation.pairs import list_pairs
from data_loader.time_series.files import read_series
from search.tables.reading import read_table
from utils.architecture.reading import read_genotype
from utils.errors import EspalierError, SearchError
from utils.files import open_regular, read_json_object, read_regular_text

READERS = {
    "pairs.txt": list_pairs,
    "list.csv": list_labelled,
    "x.ts": read_series,
    "x.npz": read_series,
    "a.npy": read_array,
    "b.npy": array_header,
    "b.npz": read_arrays,
    "i.png": read_image,
    "s.png": lambda path: image_size(path, upright=True),
    "m.png": read_mask,
    "images.idx": read_idx,
    "images.gz": read_idx,
    "result.json": lambda path: read_json_object(path, SearchError),
    "genotype.json": lambda path: read_genotype(str(path)),
    "table.csv": read_table,
    "table.npz": read_table,
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_a_device(tmp_path, name):
    path = tmp_path / name
    path.symlink_to(os.devnull)
    with pytest.raises(EspalierError, match="it is a pipe or a device, and a regular file is needed"):
        READERS[name](path)


def test_a_pipe_is_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused = []

    def read():
        try:
            open_regular(pipe)
        except OSError as error:
            refused.append(error.strerror)

    reader = threading.Thread(target=read, daemon=True)  # it would wait for ever
    reader.start()
    reader.join(timeout=30)
    assert refused == ["it is a pipe or a device, and a regular file is needed"]


def test_regular_files_are_read_as_before(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert read_regular_text(path) == "one\ntwo"
    (tmp_path / "link").symlink_to(path)
    with open_regular(tmp_path / "link") as file:
        assert file.read(4) == b"\xef\xbb\xbfo"
    for missing, error in ((tmp_path, IsADirectoryError), (Path(tmp_path, "no"), FileNotFoundError)):
        with pytest.raises(error):
            open_regular(missing)
