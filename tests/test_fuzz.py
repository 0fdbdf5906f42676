"""Files that nobody wrote: whatever they hold, reading them ends in a result or in an error of ours.

Bounded by the number of examples; `benchmarks/fuzz.py` does the same for as long as wanted, led by what was reached.
"""

import gzip
import json
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checkpoints import write_checkpoint

from build import registry
from config import load_config, validate
from config.loading.load import parse_json, parse_override
from data_loader.classification.sources import list_labelled, read_idx
from data_loader.common.array_files import read_arrays
from data_loader.segmentation.pairs import list_pairs
from data_loader.time_series.files import read_series
from search.space.space import Space
from search.study.journal import JOURNAL, Journal, create_journal, read_events
from utils.checkpoint_file import read_checkpoint
from utils.errors import ConfigError, EspalierError

FEW = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WORDS = ("$choice", "$range", "$repeat", "$var", "$ref", "$uniform", "$logrange", "of", "times", "type", "args", "a")
NAMES = st.sampled_from(WORDS) | st.text(max_size=5)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | NAMES
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=20
)
SECTIONS = ("name", "arch", "train_loader", "optimizer", "loss", "metrics", "trainer", "search", "$defs", "$extends")


def ends_well(read, *arguments):
    """Return whether a read ends in a result or in our error."""
    try:
        read(*arguments)
    except EspalierError:
        return False
    return True


def mutated(content):
    """Files that are near to a good one: cut, with bytes replaced, inserted and repeated."""
    places = st.integers(0, len(content))

    def change(file, edit):
        place, length, new = edit
        return file[:place] + new + file[place + length :]

    def apply(edits):
        file = content
        for edit in edits:
            file = change(file, edit)
        return file

    edit = st.tuples(places, st.sampled_from([0, 1, 4, 50, len(content)]), st.binary(max_size=8))
    return st.lists(edit, min_size=1, max_size=3).map(apply) | st.binary(max_size=64)


@FEW
@given(st.dictionaries(st.sampled_from(SECTIONS) | NAMES, VALUES, max_size=6))
def test_a_config_is_loaded_and_checked_or_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(json.dumps(content))

    def read():
        validate(load_config(tmp_path / "x.json"), registry())

    ends_well(read)


@FEW
@given(st.text(max_size=60) | VALUES.map(json.dumps))
def test_a_text_is_json_or_refused(text):
    ends_well(parse_json, text, "x")
    ends_well(parse_override, text)
    ends_well(parse_override, f"a.b={text}")


MARKED = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=3),
        st.lists(inner, max_size=3).map(lambda branches: {"$choice": branches}),
        st.tuples(inner, st.integers(-1, 5) | inner).map(lambda pair: {"$repeat": {"of": pair[0], "times": pair[1]}}),
        st.lists(st.integers(-9, 10**20), max_size=4).map(lambda ends: {"$range": ends}),
        st.sampled_from("xyz").map(lambda name: {"$var": name}),
    ),
    max_leaves=12,
)


@FEW
@given(st.dictionaries(st.sampled_from("abc"), MARKED, max_size=3), st.dictionaries(st.sampled_from("xyz"), MARKED))
def test_a_space_can_be_drawn_from_or_is_refused(content, definitions):
    try:
        space = Space({**content, "$defs": definitions})
    except ConfigError:
        return
    for number in range(3):
        drawn = space.random(number)
        assert space.read(drawn.as_json()) == drawn
        space.config(drawn)
    assert space.extent.outcomes >= 1


TS = b"@problemName a\n@dimensions 2\n@equalLength true\n@seriesLength 3\n@classLabel true a b\n@data\n1,2,3:4,5,6:a\n"
IDX = b"\0\0\x08\x03" + b"".join(side.to_bytes(4, "big") for side in (2, 3, 4)) + bytes(24)


def arrays():
    import io

    import numpy as np

    file = io.BytesIO()
    np.savez(file, x=np.zeros((3, 2, 4)), y=np.array([0, 1, 1]))
    return file.getvalue()


FILES = {
    "series.ts": (TS, read_series),
    "series.npz": (arrays(), read_series),
    "arrays.npz": (arrays(), read_arrays),
    "images.idx": (IDX, read_idx),
    "images.idx.gz": (gzip.compress(IDX, mtime=0), read_idx),
    "pairs.txt": (b'images/1.jpg, masks/1.png\n# a\n"a,b.jpg"\tb.png\n', lambda path: list_pairs(path).whole()),
    "classes.csv": (b'a.png, cat\n"b,c.png", "dog"\n', lambda path: list_labelled(path).whole()),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_data_is_read_or_refused(name, tmp_path):
    content, read = FILES[name]
    for listed in ("images/1.jpg", "masks/1.png", "a,b.jpg", "b.png", "a.png", "b,c.png"):
        (tmp_path / listed).parent.mkdir(exist_ok=True)
        (tmp_path / listed).touch()
    path = tmp_path / name
    path.write_bytes(content)
    assert ends_well(read, path)

    @FEW
    @given(mutated(content))
    def check(data):
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ends_well(read, path)

    check()


def test_a_checkpoint_and_a_journal_are_read_or_refused(tmp_path):
    import torch

    checkpoint, journal = tmp_path / "c.pth", tmp_path / JOURNAL
    write_checkpoint(checkpoint, {"config": {"name": "a"}, "state_dict": {"a": torch.ones(4)}, "global_step": 1})
    create_journal(journal)
    writer = Journal(journal)
    for number in range(5):
        writer.append("search.lost", number, had_begun=True, text="a" * 50)
    writer.close()
    for path, read in ((checkpoint, read_checkpoint), (journal, lambda path: list(read_events(path)))):
        assert ends_well(read, path)

        @FEW
        @given(mutated(path.read_bytes()))
        def check(data):
            path.write_bytes(data)  # noqa: B023 (called at once)
            ends_well(read, path)  # noqa: B023

        check()
