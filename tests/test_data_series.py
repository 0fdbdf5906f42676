"""Series from files to batches: the reader, what is learned from the training part, padding, chance."""

import numpy as np
import pytest
import torch

from base.samples import NamedSample
from data_loader.common.class_labels import list_label_ids
from data_loader.time_series.files import find_series_file, read_series
from data_loader.time_series.loader import SeriesAugmentation, TimeSeriesDataLoader
from data_loader.time_series.preprocessing import SeriesOptions, SeriesPreprocessing, learned_statistics
from tests.support.groups import from_flat
from utils.errors import ConfigError, DataError


def make(path, **args):
    return from_flat(TimeSeriesDataLoader, path, **args)


HEAD = ["# a comment", "@problemName Toy", "@timeStamps false", "@univariate false", "@dimensions 2"]
UNEQUAL = [*HEAD, "@equalLength false", "@classLabel true up down", "@data"]


def write(folder, *lines, name="Toy_TRAIN.ts"):
    file = folder / name
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def toy(tmp_path):
    """Six series of two variables, of 2 to 4 steps."""
    rows = [
        *["1,2,3:10,20,30:up", "3,2:30,10:down", "?,4,6,8:10,10,10,10:up"],
        *["5,1,1:20,20,20:down", "1,1:2,?:up", "9,8,7:1,2,3:down"],
    ]
    return write(tmp_path, *UNEQUAL, *rows)


def test_a_ts_file_is_read(toy):
    found = read_series(toy)
    assert [series.shape for series in found.series] == [(2, 3), (2, 2), (2, 4), (2, 3), (2, 2), (2, 3)]
    assert found.series[1].tolist() == [[3, 2], [30, 10]]
    assert np.isnan(found.series[2][0]).tolist() == [True, False, False, False]
    assert list(found.labels) == ["up", "down"] * 3
    assert found.classes == ("up", "down")
    assert found.place(0).endswith("Toy_TRAIN.ts, line 9")


def test_a_file_without_classes_is_read_but_not_trained_on(tmp_path):
    file = write(
        tmp_path, "@problemName x", "@univariate true", "@equalLength true", "@seriesLength 3", "@data", "1,2,3"
    )
    assert read_series(file).labels is None
    with pytest.raises(DataError, match=r"Toy_TRAIN\.ts has no classes, which training and testing need"):
        make(str(file))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*HEAD, "@colour red", "@data"], r"line 6: '@colour red' is not a line of a header"),
        ([*HEAD], "has no line @data"),
        (["@timeStamps true", "@data"], "@timeStamps true: series with time stamps are not read"),
        (["@targetLabel true", "@data"], "@targetLabel: numbers to predict are not classes"),
        (["@univariate maybe", "@data"], "@univariate 'maybe' must be true or false"),
        (["@dimensions two", "@data"], "@dimensions 'two' must be a whole number"),
        (["@univariate true", "@dimensions 2", "@data"], "@univariate true, but @dimensions 2"),
        ([*UNEQUAL, "1,2:up"], "line 9 has 1 variables, and the header states 2"),
        ([*UNEQUAL, "1,2:1,2:left"], r'line 9: the class "left" is not one that @classLabel lists \(up, down\)'),
        ([*UNEQUAL, "1,2:1,2,3:up"], "line 9 has variables of 2, 3 steps; all of a series must have the same number"),
        ([*UNEQUAL, "1,x:1,2:up"], 'line 9, variable 1: "x" is not a number'),
        ([*UNEQUAL], "holds no series"),
        (
            [*HEAD, "@equalLength true", "@seriesLength 3", "@classLabel true a b", "@data", "1,2:1,2:a"],
            "variables of 2 steps; .* and @seriesLength is 3",
        ),
        (["@classLabel true a b", "@data", "1:a", "1:2:b"], r"its series have \[1, 2\] variables"),
    ],
)
def test_badly_written_files_are_explained(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        read_series(write(tmp_path, *lines))


def test_files_that_cannot_be_had(tmp_path):
    with pytest.raises(DataError, match=r"none\.ts does not exist"):
        read_series(tmp_path / "none.ts")
    with pytest.raises(DataError, match=r"folder does not exist\. Name a \.ts or \.npz file, or a folder"):
        read_series(find_series_file(tmp_path / "folder", "train"))
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"it must end in \.ts or \.npz"):
        read_series(tmp_path / "a.csv")
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"bad\.npz cannot be read"):
        read_series(tmp_path / "bad.npz")
    with pytest.raises(DataError, match=r"must hold one file \*_TEST\.ts or \*_TEST\.npz, and there is: none"):
        find_series_file(tmp_path, "test")


def test_npz_with_padding_or_lengths(tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    x[0, :, 2:] = np.nan
    np.savez(tmp_path / "a.npz", x=x, y=np.array([10, 9, 10]))
    found = read_series(tmp_path / "a.npz")
    assert [series.shape[1] for series in found.series] == [2, 4, 4]
    assert (found.labels, found.classes) == (["10", "9", "10"], ["9", "10"])
    np.savez(tmp_path / "b.npz", x=x[:, 0], lengths=np.array([1, 2, 3]))
    assert [series.shape for series in read_series(tmp_path / "b.npz").series] == [(1, 1), (1, 2), (1, 3)]
    np.savez(tmp_path / "c.npz", x=x, y=np.zeros(2))
    with pytest.raises(DataError, match=r"y is \(2,\), but x holds 3 series"):
        read_series(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", z=x)
    with pytest.raises(DataError, match=r"holds z \(3, 2, 4\): it must hold x \(N, V, T\) or \(N, T\)"):
        read_series(tmp_path / "d.npz")


def test_statistics_by_hand():
    series = [np.array([[0.0, 2.0], [5.0, 5.0]]), np.array([[4.0, np.nan], [5.0, 5.0]])]
    learned = learned_statistics(series, SeriesOptions(normalize="variable", rescale=False))
    assert learned == {"mean": [2.0, 5.0], "std": [pytest.approx((8 / 3) ** 0.5), 1.0]}
    many = [np.arange(-100, 101, dtype=np.float64)[None]]
    learned = learned_statistics(many, SeriesOptions(normalize="none", rescale=True))
    assert learned == {"scale": [pytest.approx(np.percentile(np.abs(many[0]), 98))]}
    assert learned["scale"] == [98.0]
    assert learned_statistics(series, SeriesOptions(normalize="series", rescale=False)) == {}


def test_an_input_by_hand():
    convert = SeriesPreprocessing(SeriesOptions(rescale=True, scale=[2.0], mean=[1.0], std=[0.5]))
    assert convert(np.array([[2.0, np.nan, 6.0]])).tolist() == [[0.0, 2.0, 4.0]]
    each = SeriesPreprocessing(SeriesOptions(normalize="series"))(np.array([[1.0, 3.0], [7.0, 7.0]]))
    assert each.tolist() == [[-1.0, 1.0], [0.0, 0.0]]
    longer = SeriesPreprocessing(SeriesOptions(normalize="none", length=5))(np.array([[0.0, 4.0, 8.0]]))
    assert longer.tolist() == [[0, 2, 4, 6, 8]]
    assert SeriesPreprocessing(SeriesOptions(normalize="none"))(np.array([[np.nan, np.nan]])).tolist() == [[0, 0]]
    with pytest.raises(DataError, match="The series has 2 variables, but the network was trained on 1"):
        convert(np.zeros((2, 4)))


def test_statistics_are_of_series_divided_by_a_scale_that_is_stated(tmp_path):
    write(tmp_path, "@problemName Toy", "@classLabel true up down", "@data", "10,20:up", "30,40:down")
    loader = make(str(tmp_path), rescale=True, scale=[10.0])
    statistics = {"scale": [10.0], "mean": [2.5], "std": [pytest.approx(1.25**0.5)]}
    assert loader.learned == {"classes": ["up", "down"], **statistics}
    inputs, _ = next(iter(loader))
    assert (inputs.mean().item(), inputs.std(correction=0).item()) == (pytest.approx(0, abs=1e-6), pytest.approx(1))
    with pytest.raises(ConfigError, match="scale lists 2 numbers, but the series have 1 variables: each needs one"):
        make(str(tmp_path), rescale=True, scale=[10.0, 1.0])


def test_what_is_learned_is_of_the_training_part_alone(toy):
    args = {"validation_split": 2, "seed": 3, "rescale": True}
    loader = make(str(toy), **args)
    held_out = set(loader.split_validation().keys.indices.tolist())
    assert len(held_out) == 2
    series = [each for number, each in enumerate(read_series(toy).series) if number not in held_out]
    expected = learned_statistics(series, SeriesOptions(normalize="variable", rescale=True))
    assert loader.learned == {"classes": ["up", "down"], **expected}
    every = make(str(toy), rescale=True).learned
    assert every["mean"] != expected["mean"]
    test = make(str(toy), is_training=False, split="test", rescale=True, **loader.learned)
    assert test.learned == loader.learned


def test_what_is_learned_is_not_of_the_fold_that_is_held_out(toy):
    series, held_out = read_series(toy).series, []
    for fold in range(3):
        loader = make(str(toy), folds={"fold": fold, "of": 3}, rescale=True)
        held_out.append(loader.split_validation().keys.indices.tolist())
        training = [each for number, each in enumerate(series) if number not in held_out[-1]]
        assert loader.num_samples == len(training)
        expected = learned_statistics(training, SeriesOptions(normalize="variable", rescale=True))
        assert loader.learned == {"classes": ["up", "down"], **expected}
    assert sorted(index for each in held_out for index in each) == list(range(len(series)))


def test_nothing_is_learned_from_data_to_judge_by(toy):
    with pytest.raises(ConfigError, match=r"mean is missing: it is computed from the training data"):
        make(str(toy), is_training=False)
    with pytest.raises(ConfigError, match=r"mean, std and scale are of \[1, 2\] variables"):
        make(str(toy), is_training=False, mean=[0.0], std=[1.0, 1.0])
    with pytest.raises(DataError, match=r'line 9 is of the class "up", and 6 of 6 samples .* training data: a, b\.'):
        make(str(toy), is_training=False, normalize="none", classes=["a", "b"])


def test_batches_are_padded_with_nan_and_named_in_evaluation(toy):
    loader = make(str(toy), normalize="none", is_training=False, batch_size=3)
    inputs, target, samples = next(iter(loader))
    assert inputs.shape == (3, 2, 4)
    assert inputs.dtype == torch.float32
    assert inputs[1].isnan().tolist() == [[False, False, True, True]] * 2
    assert inputs[2, 0].tolist() == [4, 4, 6, 8]  # what is missing takes its neighbour's value
    assert target.tolist() == [0, 1, 0]
    assert samples[1] == NamedSample(f"{toy}, line 10", 1, 1)
    assert (loader.num_classes, loader.in_channels, loader.task) == (2, 2, "classification")


def test_samples_come_from_the_classes_in_turn(tmp_path):
    file = write(tmp_path, "@classLabel true a b", "@data", "1:a", "2:a", "3:a", "4:b", "5:b")
    loader = make(str(file), samples=3, normalize="none", is_training=False)
    inputs, target, _ = next(iter(loader))
    assert (inputs.flatten().tolist(), target.tolist()) == ([1, 2, 4], [0, 0, 1])
    with pytest.raises(ConfigError, match="Wrong samples 0: it must be 1 or more"):
        make(str(file), samples=0)


def test_batches_do_not_depend_on_workers_and_differ_between_epochs(toy):
    args = {"batch_size": 4, "jitter": 0.5, "scaling": 0.2, "crop_range": [0.5, 1.0], "seed": 4}
    loaders = [make(str(toy), n_workers=count, **args) for count in (0, 2)]
    epochs = [[list(loader) for _ in range(2)] for loader in loaders]
    for one, other in zip(*epochs, strict=True):
        for left, right in zip(one, other, strict=True):
            for mine, theirs in zip(left, right, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(epochs[0][0][0][0].nan_to_num(), epochs[0][1][0][0].nan_to_num())
    for loader in loaders:
        loader.close()


def test_scaling_and_jitter_by_hand():
    series, plain = (
        np.array([[1.0, 2.0], [10.0, 20.0]], np.float32),
        SeriesPreprocessing(SeriesOptions(normalize="none")),
    )
    changed = SeriesAugmentation(scaling=0.5, jitter=0.1)(series, plain, np.random.default_rng(3))
    generator = np.random.default_rng(3)
    generator.random(2)
    factors, noise = generator.standard_normal((2, 1)), generator.standard_normal((2, 2))
    np.testing.assert_allclose(changed, series * (1 + 0.5 * factors) + 0.1 * noise, rtol=1e-6)


def test_a_window_keeps_its_share():
    cut = SeriesAugmentation(crop_range=[0.5, 0.5])
    series = np.arange(10, dtype=np.float32)[None]
    plain = SeriesPreprocessing(SeriesOptions(normalize="none"))
    starts = set()
    for seed in range(40):
        window = cut(series, plain, np.random.default_rng(seed))[0].tolist()
        starts.add(window[0])
        assert window == [window[0] + step for step in range(5)]
    assert starts == {0, 1, 2, 3, 4, 5}
    with pytest.raises(ConfigError, match=r"Wrong crop_range \[0\.5, 1\.5\]"):
        SeriesAugmentation(crop_range=[0.5, 1.5])
    with pytest.raises(ConfigError, match="Wrong jitter -1"):
        SeriesAugmentation(jitter=-1)


def write_npz(path, **arrays):
    np.savez(path, **{"x": np.arange(12.0).reshape(3, 4), "y": [0, 1, 0]} | arrays)
    return path


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39])
def test_values_that_are_infinite_are_named(tmp_path, value):
    x = np.ones((3, 2, 4))
    x[1, 1, 2] = value
    with pytest.raises(DataError, match=r"a\.npz, series 1: the value of variable 2 at step 3 is infinite"):
        read_series(write_npz(tmp_path / "a.npz", x=x))
    (tmp_path / "a.ts").write_text(f"@classLabel true\n@data\n1,2:3,4:a\n1,2:3,{value}:b\n")
    with pytest.raises(DataError, match=r"a\.ts, line 4: the value of variable 2 at step 2 is infinite"):
        read_series(tmp_path / "a.ts")
    x[1, 1, 2] = 1e38  # still a number of 32 bits
    assert read_series(write_npz(tmp_path / "a.npz", x=x)).series[1][1, 2] == np.float32(1e38)


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        ([0.0, np.nan, np.nan], r" \(and 1 more\)"),
        (["a", "", "b"], ""),
        (["a", " ", "?"], r" \(and 1 more\)"),
        ([b"a", b"", b"nan"], r" \(and 1 more\)"),
        (["a", "NaN", "b"], ""),
    ],
)
def test_series_without_a_class_are_named(tmp_path, labels, more):
    with pytest.raises(DataError, match=rf"a\.npz, series 1{more} has no class. Leave such series out"):
        read_series(write_npz(tmp_path / "a.npz", y=np.array(labels))).labelled().whole()
    if isinstance(labels[0], str):
        lines = "".join(f"1,2:{label}\n" for label in labels)
        (tmp_path / "a.ts").write_text(f"@classLabel true\n@data\n{lines}")
        with pytest.raises(DataError, match=rf"a\.ts, line 4{more} has no class"):
            read_series(tmp_path / "a.ts").labelled().whole()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([1.0, 2.0, 10.0]), ["1", "2", "10"]),
        (np.array([1, 2, 10], np.uint8), ["1", "2", "10"]),
        (np.array([0.5, 1.0, -1.0]), ["-1", "0.5", "1"]),
        (np.array([b"run", b"walk", b"run"]), ["run", "walk"]),
        (np.array([True, False, True]), ["False", "True"]),
    ],
)
def test_classes_have_one_name_whatever_type_holds_them(tmp_path, labels, classes):
    assert read_series(write_npz(tmp_path / "A.NPZ".lower(), y=labels)).classes == classes
    (tmp_path / "a.npz").rename(tmp_path / "A.NPZ")
    assert read_series(tmp_path / "A.NPZ").classes == classes


def test_whole_numbers_with_and_without_a_fraction_are_one_class():
    def label_ids(labels: list[str], classes: list[str]) -> list[int]:
        return [number for _, number in list_label_ids(labels, classes, ["a", "b", "c"].__getitem__).whole()]

    assert label_ids(["1", "0", "1"], ["0.0", "1.0"]) == [1, 0, 1]  # the classes of an earlier checkpoint
    assert label_ids(["1.0", "2.00"], ["1", "2"]) == [0, 1]
    assert label_ids(["1", "1.0"], ["1", "1.0"]) == [0, 1]  # both are names
    for label in ("1.5", "one.0", "1."):
        with pytest.raises(DataError, match="are of a class that is not known"):
            label_ids([label], ["1", "2"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.array([["a", "b"]]), "y": [0]}, "x holds <U1 values of shape"),
        ({"x": np.ones((3, 4), complex)}, "x holds complex128 values"),
        ({"x": np.ones((3, 0))}, "one step or more of each series"),
        ({"x": np.ones((0, 4)), "y": []}, "holds no series"),
        ({"lengths": [1, 2, 5]}, "lengths must be whole numbers from 1 to the 4 steps"),
        ({"lengths": [1, 2, -1]}, "lengths must be whole numbers"),
        ({"lengths": [1.0, 2.0, 3.0]}, "lengths must be whole numbers"),
        ({"y": [[0, 1, 0]]}, r"y is \(1, 3\), but x holds 3 series"),
    ],
)
def test_arrays_of_series_that_cannot_be_used(tmp_path, arrays, message):
    with pytest.raises(DataError, match=rf"a\.npz.*{message}"):
        read_series(write_npz(tmp_path / "a.npz", **arrays))


def test_numbers_of_a_header_that_are_longer_than_any_number(tmp_path):
    (tmp_path / "a.ts").write_text(f"@dimensions {'9' * 5000}\n@classLabel true\n@data\n1:a\n")
    with pytest.raises(DataError, match=r"a\.ts: @dimensions .* must be a whole number"):
        read_series(tmp_path / "a.ts")
    (tmp_path / "a.ts").write_text(f"@classLabel true\n@data\n1:{'9' * 5000}\n2:1\n")
    assert len(read_series(tmp_path / "a.ts").classes) == 2
