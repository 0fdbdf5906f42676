"""Reading: strict JSON, `$extends`, `$defs` and overrides end in one plain dict."""

import json

import pytest

from config import load_config
from utils.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    """Write files, JSON or text, and return the path of the last."""

    def write_files(**files):
        for name, content in files.items():
            path = tmp_path / f"{name}.json"
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_files


def test_a_plain_file_is_returned_as_it_is(write):
    content = {"name": "x", "seed": 3, "arch": {"type": "UNet", "args": {"channels": [1, 2], "dropout": 0.5}}}
    assert load_config(write(x=content)) == content


def test_the_name_is_the_files_where_none_is_given(write):
    assert load_config(write(my_net={"seed": 1})) == {"name": "my_net", "seed": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": 2,\n "a": 3}', r'duplicate key "a", 1 and 3\. Keep one'),
        ('{"a": {"b": 1}, "c": [{"b": 1}, {"b": 2, "b": 3}]}', r'duplicate key "b", 2 and 3'),
        ('{"a": "b", "b": "a", "\\u0061": 1}', r'duplicate key "a", "b" and 1'),
        ('{"lr":\n NaN}', "NaN is not a finite number"),
        ('{"lr": [1, -Infinity]}', "-Infinity is not a finite number"),
        ('{"lr": 1e999}', ": 1e999 is not a finite number"),
        ('{\n  // rate\n  "lr": 1}', "line 2 column 3: JSON has no comments"),
        ('{"lr": 1 # rate\n}', "line 1 column 10: JSON has no comments"),
        ('{"lr": 1,\n}', r"line 2 column 1: a comma before }"),
        ('{"lr": [1, 2,]}', r"a comma before \]"),
        ("{'lr': 1}", "line 1 column 2: single quotes"),
        ('{"a": {"b": 1}', "line 1 column 15: the file ends too early"),
        ('{"a": 1}}', r"line 1 column 9: Extra data"),
        ('{"a": tru}', "line 1 column 7"),
        ("", "the file is empty"),
        ("[1]", "line 1 column 1: .* is not an object"),
        ("[" * 100_000, "nested deeper than 64"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "nested deeper than 64"),
        ('{"a": -1e999}', "-1e999 is not a finite number"),
        ('{"a": ' + "1" * 400 + "}", "a number of 400 digits is not a finite number"),
        ('{"a": ' + "1" * 5000 + "}", "a number of 5000 digits; at most 1000 are read"),
        ('{"a": "\\u0000"}', "a character that no file can hold"),
        ('{"a": "\\ud800"}', "a character that no file can hold"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_its_place(write, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(bad=text))
    assert "bad.json" in str(caught.value)


def test_every_key_that_is_there_twice_and_every_number_that_is_none_is_named_at_once(write):
    text = '{"a": 1, "a": NaN, "b": [1e999, {"c": 1, "c": 2, "c": 3}], "d": "\\ud800"}'
    with pytest.raises(ConfigError, match=r"^6 faults in the configuration:") as caught:
        load_config(write(bad=text))
    for said in ('key "a", 1 and NaN', "json: NaN is", "1e999 is", '"c", 1 and 2', '"c", 2 and 3', "no file can hold"):
        assert sum(said in str(part) for part in caught.value.parts) == 1


def test_strings_that_look_like_syntax_are_only_strings(write):
    content = {"name": "x", "text": 'a // b "c": {NaN}, 1e999 \\', "a": {"text": 1}, "b": [-1.5e-3, 0.1]}
    assert load_config(write(x=content)) == content


def test_a_missing_file_is_named_with_its_neighbour(write, tmp_path):
    write(people_unet={})
    with pytest.raises(ConfigError, match=r"people_unt\.json: no such file. Did you mean .*people_unet\.json"):
        load_config(tmp_path / "people_unt.json")


def test_a_folder_and_a_binary_file_are_no_configurations(tmp_path):
    with pytest.raises(ConfigError, match=r"is a folder"):
        load_config(tmp_path)
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_config(tmp_path / "x.json")


def test_a_byte_order_mark_is_read_over(tmp_path):
    (tmp_path / "x.json").write_text('{"seed": 2}', encoding="utf-8-sig")
    assert load_config(tmp_path / "x.json")["seed"] == 2


def test_extends_merges_deeply_and_is_relative_to_the_file(write, tmp_path):
    (tmp_path / "deep").mkdir()
    write(base={"seed": 1, "optimizer": {"type": "SGD", "args": {"lr": 0.1, "momentum": 0.9}}})
    child = tmp_path / "deep" / "child.json"
    child.write_text(json.dumps({"$extends": "../base.json", "optimizer": {"args": {"lr": 0.2}}}))
    assert load_config(child) == {
        "name": "child",
        "seed": 1,
        "optimizer": {"type": "SGD", "args": {"lr": 0.2, "momentum": 0.9}},
    }


def test_several_parents_are_laid_over_one_another_in_order(write):
    path = write(a={"seed": 1, "n_gpu": 1}, b={"seed": 2}, c={"$extends": ["a.json", "b.json"], "name": "c"})
    assert load_config(path) == {"seed": 2, "n_gpu": 1, "name": "c"}


def test_another_class_does_not_inherit_arguments(write):
    parent = {"lr_scheduler": {"type": "StepLR", "args": {"step_size": 9}, "interval": "epoch"}}
    child = {"$extends": "a.json", "lr_scheduler": {"type": "ExponentialLR", "args": {"gamma": 0.9}}}
    loaded = load_config(write(a=parent, b=child))
    assert loaded["lr_scheduler"] == {"type": "ExponentialLR", "args": {"gamma": 0.9}, "interval": "epoch"}


def test_the_same_class_said_again_keeps_arguments(write):
    child = {"$extends": "a.json", "arch": {"type": "UNet", "args": {"b": 2}}}
    loaded = load_config(write(a={"arch": {"type": "UNet", "args": {"a": 1}}}, b=child))
    assert loaded["arch"]["args"] == {"a": 1, "b": 2}


def test_arguments_may_be_laid_over_a_class_named_by_a_string(write):
    loaded = load_config(write(a={"arch": "UNet"}, b={"$extends": "a.json", "arch": {"args": {"a": 1}}}))
    assert loaded["arch"] == {"type": "UNet", "args": {"a": 1}}


def test_null_replaces_and_takes_a_section_or_its_arguments_back(write):
    parent = {"lr_scheduler": {"type": "StepLR"}, "arch": {"type": "UNet", "args": {"a": 1}}, "metrics": ["miou"]}
    child = {"$extends": "a.json", "lr_scheduler": None, "arch": {"args": None}, "metrics": None}
    assert load_config(write(a=parent, b=child)) == {"name": "b", "arch": {"type": "UNet"}}


def test_lists_replace(write):
    loaded = load_config(write(a={"metrics": ["miou", "dice"]}, b={"$extends": "a.json", "metrics": ["f1"]}))
    assert loaded["metrics"] == ["f1"]


def test_a_marker_replaces_what_it_is_laid_over_and_is_replaced(write):
    marker = {"$choice": [{"type": "SGD", "args": {"lr": 0.1}}, "Adam"]}
    spec = {"type": "AdamW", "args": {"lr": 0.2}}
    parts = {"a": {"optimizer": spec, "seed": marker}, "b": {"$extends": "a.json", "optimizer": marker, "seed": 5}}
    loaded = load_config(write(**parts))
    assert (loaded["optimizer"], loaded["seed"]) == (marker, 5)
    path = write(a={"optimizer": marker}, b={"$extends": "a.json", "optimizer": spec})
    assert load_config(path)["optimizer"] == spec


def test_a_circle_of_extends_is_named(write):
    path = write(a={"$extends": "b.json"}, b={"$extends": "c.json"}, c={"$extends": "a.json"})
    with pytest.raises(ConfigError, match=r"goes in a circle \(.*c\.json -> .*a\.json -> .*b\.json -> .*c\.json\)"):
        load_config(path)


def test_two_ways_to_one_parent_are_no_circle(write):
    path = write(a={"seed": 1}, b={"$extends": "a.json"}, c={"$extends": ["a.json", "b.json"]})
    assert load_config(path)["seed"] == 1


@pytest.mark.parametrize("value", [5, [1], {"a": 1}])
def test_extends_must_name_files(write, value):
    with pytest.raises(ConfigError, match=r"\$extends: .* must be a file name or a list"):
        load_config(write(a={"$extends": value}))


def test_a_missing_parent_is_named(write):
    with pytest.raises(ConfigError, match=r"nowhere\.json: no such file"):
        load_config(write(a={"$extends": "nowhere.json"}))


def test_references_are_replaced_by_copies(write):
    path = write(
        a={
            "$defs": {"size": [4, 6], "loader": {"type": "L", "args": {"resize": {"$ref": "size"}, "shuffle": True}}},
            "train_loader": {"$ref": "loader"},
            "valid_loader": {"$ref": "loader", "args": {"shuffle": False}},
        }
    )
    loaded = load_config(path, ["train_loader.args.resize.0=5"])
    assert loaded["train_loader"] == {"type": "L", "args": {"resize": [5, 6], "shuffle": True}}
    assert loaded["valid_loader"] == {"type": "L", "args": {"resize": [4, 6], "shuffle": False}}
    assert "$defs" not in loaded


def test_a_child_may_redefine_what_its_parent_refers_to(write):
    parent = {"$defs": {"rate": 0.1}, "optimizer": {"type": "SGD", "args": {"lr": {"$ref": "rate"}}}}
    loaded = load_config(write(a=parent, b={"$extends": "a.json", "$defs": {"rate": 0.2}}))
    assert loaded["optimizer"]["args"]["lr"] == 0.2


def test_an_unknown_reference_is_named_with_its_place(write):
    message = r'optimizer\.args\.lr\.\$ref: unknown definition "rat"\. Did you mean "rate"\?'
    with pytest.raises(ConfigError, match=message):
        load_config(write(a={"$defs": {"rate": 1}, "optimizer": {"args": {"lr": {"$ref": "rat"}}}}))


def test_definitions_that_contain_themselves_are_refused(write):
    definitions = {"a": {"x": {"$ref": "b"}}, "b": [{"$ref": "a"}]}
    with pytest.raises(ConfigError, match=r'"a" contains itself \(a -> b -> a\)'):
        load_config(write(c={"$defs": definitions, "arch": {"$ref": "a"}}))


def test_definitions_must_be_an_object(write):
    with pytest.raises(ConfigError, match=r"\$defs: \[1\] must be an object"):
        load_config(write(c={"$defs": [1]}))


def test_definitions_stay_where_a_search_variable_needs_them(write):
    loaded = load_config(
        write(
            c={
                "$defs": {"width": {"$choice": [8, 16]}, "unused": 1},
                "arch": {"type": "N", "args": {"a": {"$var": "width"}, "b": {"$ref": "width"}}},
            }
        )
    )
    assert loaded["$defs"]["width"] == {"$choice": [8, 16]}
    assert loaded["arch"]["args"] == {"a": {"$var": "width"}, "b": {"$choice": [8, 16]}}


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("optimizer.args.lr=0.01", ("optimizer", "args", "lr"), 0.01),
        ("optimizer.args.lr=1e-3", ("optimizer", "args", "lr"), 1e-3),
        ("trainer.save_dir=out/a=b", ("trainer", "save_dir"), "out/a=b"),
        ("trainer.tensorboard=false", ("trainer", "tensorboard"), False),
        ("trainer.save_dir=", ("trainer", "save_dir"), ""),
        ('name="12"', ("name",), "12"),
        ("arch.args.channels=[1, 2]", ("arch", "args", "channels"), [1, 2]),
        ("arch.args.channels.1=7", ("arch", "args", "channels"), [4, 7]),
        ("loss.1.weight=2", ("loss", 1), {"type": "dice_loss", "weight": 2}),
        ("loss.0.args.smooth=2", ("loss", 0), {"type": "ce_loss", "weight": 1, "args": {"smooth": 2}}),
        ("metrics.0.args.exclude=true", ("metrics", 0), {"type": "miou", "args": {"exclude": True}}),
        ("a.b.c=1", ("a",), {"b": {"c": 1}}),
        ("lr_scheduler.args.gamma=1", ("lr_scheduler",), {"args": {"gamma": 1}}),
    ],
)
def test_an_override_sets_any_value(write, override, place, value):
    path = write(
        c={
            "arch": {"type": "N", "args": {"channels": [4, 8]}},
            "optimizer": {"type": "SGD", "args": {"lr": 1}},
            "loss": [{"type": "ce_loss", "weight": 1}, "dice_loss"],
            "metrics": ["miou"],
            "lr_scheduler": None,
        }
    )
    loaded = load_config(path, [override])
    for part in place:
        loaded = loaded[part]
    assert loaded == value


def test_later_overrides_win(write):
    assert load_config(write(c={}), ["seed=1", "seed=2"])["seed"] == 2


def test_a_star_sets_every_key_that_fits(write):
    loaders = {"train_loader": {"type": "L", "args": {"batch_size": 4}}, "valid_loader": "L"}
    loaded = load_config(write(c={**loaders, "arch": "N"}), ["*_loader.args.batch_size=2"])
    assert [loaded[key]["args"]["batch_size"] for key in loaders] == [2, 2]
    assert loaded["arch"] == "N"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr", r'override "lr": must be PATH=VALUE'),
        ("=3", "must be PATH=VALUE"),
        ("a..b=3", "must be PATH=VALUE"),
        ("seed.x=3", "override of seed.x: seed is 1, which has no keys"),
        ("name.x=3", 'override of name.x: name is "c", which has no keys'),
        ("metrics.3=f1", 'metrics is a list, so "3" must be a number from 0 to 0'),
        ("metrics.first=f1", 'metrics is a list, so "first" must be a number from 0 to 0'),
        ("metrics.0.nowhere=f1", 'metrics.0 is "miou", which has no keys'),
        ("seed=NaN", "NaN is not a finite number"),
        ('x={"a": 1, "a": 2}', 'duplicate key "a"'),
        ("x=[1, 2", "the value is not JSON"),
        ("*_loader.args.batch_size=2", r'no key fits "\*_loader"'),
    ],
)
def test_an_override_that_cannot_be_applied_is_refused(write, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(c={"name": "c", "seed": 1, "metrics": ["miou"]}), [override])


def test_the_schema_of_editors_is_not_part_of_the_configuration(write):
    assert load_config(write(c={"$schema": "../schema.json", "name": "c"})) == {"name": "c"}


def test_loading_twice_gives_independent_dicts(write):
    path = write(a={"metrics": ["miou"]}, b={"$extends": "a.json"})
    load_config(path)["metrics"].append("f1")
    assert load_config(path)["metrics"] == ["miou"]
