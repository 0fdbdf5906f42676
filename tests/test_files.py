"""Files that are replaced as a whole."""

import os
import threading

import pytest

from utils.files import write_atomically, write_json


def test_a_pipe_is_written_into_and_remains(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_json(pipe, [1])
    reader.join()
    assert read == [b"[\n  1\n]\n"]
    assert pipe.is_fifo()


def test_the_target_of_a_link_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target.json", tmp_path / "link.json"
    for content in (1, 2):  # without a target, and with one
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        write_json(link, content)
        assert link.is_symlink()
        assert target.read_text() == f"{content}\n"
    assert [path.name for path in target.parent.iterdir()] == ["target.json"]


def test_a_failed_write_leaves_the_former_content(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)

    def fail(file):
        file.write(b"half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, fail)
    assert path.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [path]
