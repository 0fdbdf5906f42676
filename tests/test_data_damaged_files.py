"""Files that are damaged, of another kind, or too large: one of our errors with the file's name, before decoding."""

import gzip
import io
import json
import re
import resource
import sqlite3
import zipfile
import zlib
from contextlib import closing
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from base.base_trainer import TrainResult
from data_loader.classification.sources import DatasetImages, read_idx
from data_loader.common.array_files import array_header, read_array, read_arrays
from data_loader.images.arrays import read_channels
from data_loader.images.damage import find_damage
from data_loader.images.files import image_size, read_image, read_mask
from data_loader.images.preprocessing import Preprocessing
from data_loader.segmentation.loader import SegmentationDataLoader
from data_loader.time_series.files import read_series
from logger.test_report.report import record_in_run
from search.study.folders import read_study_config
from search.study.journal import create_journal, read_events
from tests.support.groups import from_flat
from trainer.checkpoints.resume import asked_config
from trainer.checkpoints.saving import RunRecords
from utils.checkpoint_file import read_checkpoint
from utils.errors import CheckpointError, DataError, SearchError

COARSE = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
PHOTO = np.asarray(cv2.resize(COARSE, (480, 400), interpolation=cv2.INTER_CUBIC))
SCREEN = np.full((400, 480, 3), 255, np.uint8)  # a blank page with a box
SCREEN[40:60, 100:300] = 0


def jpeg(pixels=PHOTO, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def replaced(data, start, new):
    return data[:start] + new + data[start + len(new) :]


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_a_jpeg_with_a_hole_is_named_and_whole_ones_are_read(tmp_path, options):
    whole, path = jpeg(quality=90, **options), tmp_path / "a.jpg"
    filled_up = whole[:-2] + bytes(300) + whole[-2:]  # as some cameras do
    contents = (whole, jpeg(SCREEN, **options), jpeg(SCREEN[..., 0], **options), whole + b"after the end", filled_up)
    for content in contents:
        path.write_bytes(content)
        assert read_image(path).shape == (400, 480, 3)
    middle = len(whole) // 3
    for hole in (bytes(4096), bytes(512), b"\xff" * 600 + b"\x11", np.random.default_rng(1).bytes(4096)):
        path.write_bytes(replaced(whole, middle, hole))
        with pytest.raises(DataError, match=r"a\.jpg cannot be read as an image: it is damaged"):
            read_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_said_to_be(tmp_path, suffix, kept):
    content, path = cv2.imencode(suffix, PHOTO)[1].tobytes(), tmp_path / f"a{suffix}"
    path.write_bytes(content[: int(kept * len(content))])
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=rf"a\{suffix} cannot be read as an image: ") as caught:
            read(path)
        words = ("cut off", "truncated", "not an image of a known kind")  # a TIFF without its end has no header
        assert any(word in str(caught.value) for word in words[: 3 if suffix == ".tif" else 2]), caught.value


def test_a_thumbnail_with_an_end_mark_does_not_hide_the_cut():
    inner = jpeg(PHOTO[:64, :64])
    with_thumbnail = jpeg(exif=b"Exif\0\0" + inner)
    assert find_damage(with_thumbnail) is None
    assert find_damage(with_thumbnail[:-200]) == "it is cut off"


def test_a_png_with_a_changed_byte_is_damaged(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PHOTO).save(path)
    content = path.read_bytes()
    path.write_bytes(replaced(content, 5000, bytes([content[5000] ^ 1])))
    with pytest.raises(DataError, match=r"a\.png .* it is damaged at byte \d+ \(the check sum of 'IDAT' is wrong\)"):
        read_mask(path)


def png_header(height, width, bits=8, colour=0):
    chunk = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, colour, 0, 0, 0])
    return (13).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")


def with_size(path, height, width, bits=8):
    """Write a PNG whose header says that size; its data would fill it, so that only a limit refuses it."""
    rows = zlib.compress(bytes(height * (1 + width * bits // 8)), 1)
    body = b"IDAT" + rows
    end = b"\0\0\0\0IEND\xaeB`\x82"
    data = len(rows).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_header(height, width, bits) + data + end)
    return path


def test_one_limit_on_images_for_training_and_inference(tmp_path):
    image, mask = with_size(tmp_path / "i.png", 600, 700), with_size(tmp_path / "m.png", 600, 700)
    (tmp_path / "list.txt").write_text("i.png, m.png")
    message = r"\.png holds 600x700 pixels \(height x width\), which take 2 MB .* the limit is 1 MB \(max_decoded_mb\)"
    args = {"pairs_file": str(tmp_path / "list.txt"), "num_classes": 2, "resize": 32, "batch_size": 1}
    refusing = from_flat(SegmentationDataLoader, **args, max_decoded_mb=1)
    with pytest.raises(DataError, match=message):
        refusing.prepare()
    with pytest.raises(DataError, match=message):
        refusing.preprocessing.read(image)  # as inference.py reads
    with pytest.raises(DataError, match=message):
        read_mask(mask, max_decoded_mb=1)
    from_flat(SegmentationDataLoader, **args, max_decoded_mb=2).prepare()
    deep = with_size(tmp_path / "deep.png", 600, 700, bits=16)
    with pytest.raises(DataError, match="which take 3 MB"):
        read_image(deep, max_decoded_mb=2)


def test_the_default_limit_is_ours_and_not_that_of_pillow(tmp_path):
    page = Image.new("1", (13500, 13500))  # 182 megapixels: 522 MB in colours
    page.save(tmp_path / "page.png")
    for read in (read_image, read_mask, Preprocessing().read, lambda path: image_size(path, upright=True)):
        with pytest.raises(DataError, match=r"page\.png holds 13500x13500 pixels .* 522 MB .* the limit is 512 MB"):
            read(tmp_path / "page.png")
    assert image_size(tmp_path / "page.png", upright=True, max_decoded_mb=600) == (13500, 13500, 1)


def test_masks_whose_conversion_takes_more_memory_are_limited_earlier(tmp_path):
    grey = Image.fromarray(np.zeros((600, 500), np.uint8))
    for suffix, image in ((".png", grey), (".tif", grey), (".bmp", grey)):
        image.save(tmp_path / f"a{suffix}")
        assert read_mask(tmp_path / f"a{suffix}", max_decoded_mb=1).shape == (600, 500)
    for image in (grey.convert("P"), grey.convert("RGB")):
        image.save(tmp_path / "a.png")
        with pytest.raises(DataError, match=r"a\.png holds 600x500 pixels .* take 3 MB .* the limit is 2 MB"):
            read_mask(tmp_path / "a.png", max_decoded_mb=2)
        assert read_mask(tmp_path / "a.png", max_decoded_mb=3).shape == (600, 500)


def test_headers_that_promise_more_pixels_than_the_data_hold(tmp_path):
    content, path = jpeg(quality=90), tmp_path / "a.jpg"
    frame = content.index(b"\xff\xc0")
    path.write_bytes(replaced(content, frame + 5, b"\x30\0\x30\0"))  # 12288x12288
    with pytest.raises(DataError, match=r"a\.jpg .* \d+ bytes cannot hold 150994944 pixels"):
        read_image(path)
    Image.fromarray(PHOTO[:16, :16, 0]).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:8] + png_header(10000, 10000) + content[33:])
    with pytest.raises(DataError, match=r"a\.png .* bytes cannot hold 100000000 pixels"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["missing.png", "a" * 300 + ".png", "nul\0.png"])
def test_names_that_are_no_files(tmp_path, name):
    for read in (read_image, read_mask, read_channels, read_array, read_idx, read_series):
        path = tmp_path / name.replace(".png", ".ts" if read is read_series else ".png")
        with pytest.raises(DataError):
            read(path)
    with pytest.raises(SearchError, match="there is no study in it"):
        next(read_events(tmp_path / name))


def npy(shape, dtype="<f4", data=b""):
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as an array"),
        (b"PK\x03\x04 something", "cannot be read as an array"),
        (npy("(4, 4)", data=bytes(63)), "it is cut off: its header states 64 bytes of values, and 63 follow"),
        (npy("(100000, 100000, 100)"), "it is cut off: its header states 4000000000000 bytes"),
        (npy("(-4, 4)", data=bytes(64)), r"its header states the shape \(-4, 4\)"),
        (npy("(True, 4)", data=bytes(64)), "its header states the shape"),
        (npy("'four'"), "cannot be read as an array"),
        (npy("(4,)", dtype="O", data=bytes(64)), "Object arrays cannot be loaded"),
        (npy("(4,)", dtype="x"), "cannot be read as an array"),
        (npy("(" * 3000), "cannot be read as an array"),
    ],
)
def test_arrays_whose_headers_are_wrong(tmp_path, content, message):
    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        if path.suffix == ".npz":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a.npy", content)
        else:
            path.write_bytes(content)
        for read in (read_array, read_channels, array_header):
            with pytest.raises(DataError, match=rf"a\.np. .*{message}"):
                read(path)


def test_small_files_that_unpack_to_huge_arrays_are_refused_by_their_headers(tmp_path):
    """Zeros pack to a thousandth: the header of an idx states 5.4 GB."""
    block, before = bytes(1 << 24), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("a.npz", "s.npz"):
        with (
            zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("x.npy", "w", force_zip64=True) as member,
        ):
            member.write(npy("(10, 4194304)", data=block))
            for _ in range(9):
                member.write(block)
    with pytest.raises(DataError, match=r"a\.npz holds an array \(10, 4194304\) of float32, .* take 160 MB"):
        read_array(tmp_path / "a.npz", max_decoded_mb=159)
    with pytest.raises(DataError, match=r"s\.npz holds the arrays x .* take 160 MB .* the limit is 159 MB"):
        read_series(tmp_path / "s.npz", max_decoded_mb=159)
    with gzip.open(tmp_path / "i.gz", "wb", compresslevel=1) as file:
        file.write(b"\0\0\x08\x03" + b"".join(side.to_bytes(4, "big") for side in (60000, 300, 300)))
        file.write(block)
    with pytest.raises(DataError, match=r"i\.gz holds an array \(60000, 300, 300\) of bytes, .* the limit is 1024 MB"):
        read_idx(tmp_path / "i.gz")
    with gzip.open(tmp_path / "more.gz", "wb", compresslevel=1) as file:
        file.write(b"\0\0\x08\x01\0\0\0\x05")
        for _ in range(10):  # more than its header says: not unpacked
            file.write(block)
    with pytest.raises(DataError, match=r"more\.gz holds more than the 5 bytes of its shape \(5,\)"):
        read_idx(tmp_path / "more.gz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # kB


def test_archives_that_cannot_be_opened(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((3, 4)), y=np.arange(3))
    content = path.read_bytes()
    encrypted = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.find(mark) + offset] |= 1
    method = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        method[method.find(mark) + offset] = 77
    faults = ((encrypted, "encrypted"), (method, "compression method"), (content[:-30], "not a zip file"))
    for damaged, reason in faults:
        path.write_bytes(damaged)
        for read in (read_arrays, read_series):
            with pytest.raises(DataError, match=rf"a\.npz cannot be read as an array: .*{reason}"):
                read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"[" * 100000, b'"asked"', b'{"asked": 3}'])
def test_damaged_records_of_runs_and_studies_are_named(tmp_path, content):
    (tmp_path / "environment.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"environment\.json: .*Put back a copy"):
        asked_config(tmp_path)
    if content != b'{"asked": 3}':
        create_journal(tmp_path / "journal.sqlite")
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(SearchError, match=r"config\.json: .*Put back a copy"):
            read_study_config(tmp_path)


def test_a_run_without_records_is_no_damaged_one(tmp_path):
    assert asked_config(tmp_path) == {}


@pytest.mark.parametrize(("content", "kind"), [({"config": 3}, "int"), ({"config": ["a"]}, "list")])
def test_a_checkpoint_whose_config_is_no_object_is_named(tmp_path, content, kind):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"a\.pth: holds a config that is a {kind}, not an object"):
        read_checkpoint(tmp_path / "a.pth")


def test_damaged_files_of_data_sets_of_torchvision_are_named(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/0.png").write_bytes(jpeg()[:2000])
    images = DatasetImages(ImageFolder(str(tmp_path)))
    with pytest.raises(DataError, match=r"ImageFolder, image 0 cannot be read: .*truncated"):
        images.image(0, 3)


def test_a_damaged_result_of_a_run_is_named_and_written_anew(tmp_path, caplog):
    (tmp_path / "result.json").write_text("[1]")
    record_in_run(tmp_path, {"metrics": {}, "checkpoint": "a.pth", "samples": 1})
    assert re.search(r"result\.json: not updated \(.*holds a list, not an object\)", caplog.text)
    records = RunRecords(tmp_path, {}, {})
    trainer = SimpleNamespace(is_main_process=True, monitor=SimpleNamespace(mode="off", name=""), stop_reason=None)
    records.on_fit_end(trainer, TrainResult(best={}, epochs=1, history=[], checkpoint=None))
    assert re.search(r"result\.json: holds a list, not an object\. It is written anew", caplog.text)
    assert json.loads((tmp_path / "result.json").read_text())["epochs"] == 1


@pytest.mark.parametrize("text", [b"\xff\xfe\nbad", b"{", b"[" * 100000, b"[1]"])
def test_a_journal_with_a_damaged_event_is_named_in_one_line(tmp_path, text):
    create_journal(tmp_path / "journal.sqlite")
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection, connection:
        connection.execute("UPDATE events SET data = CAST(? AS TEXT)", (text,))
    with pytest.raises(SearchError, match=r"journal\.sqlite: the journal is damaged \([^\n]*Put back a copy[^\n]*$"):
        list(read_events(tmp_path / "journal.sqlite"))
