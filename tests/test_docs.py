"""What docs/ lists is compared with the code, and what it shows is tried."""

import argparse
import inspect
import json
import re
import shlex
import shutil

import cv2
import numpy as np
import pytest
from pydantic import BaseModel

import data_loader
import inference
import models
import test as test_command
import train
from build import registry
from config import cli, find_markers, load_config, load_plugins, validate
from config.checking.sections import (
    SEARCH_VALUES,
    Budget,
    CandidateLimits,
    GridOptions,
    MlflowOptions,
    RetrainOptions,
    SearchOptions,
    TopLevel,
    TrainerOptions,
    WandbOptions,
)
from config.checking.signatures import signature_of
from data_loader.segmentation.loader import SegmentationDataLoader
from search.executors.table import is_tabulated
from search.registry import REGISTRY
from search.samplers import SECTIONS as SAMPLERS
from search.space.grid_space import GridSpace
from search.space.space import Space
from search.study.settings import build_study_parts
from search.worker.candidate import canonical
from tests.support.groups import descriptions, from_flat
from tests.support.pages import FILES, PAGES, PLUGINS, ROOT, blocks, workplace  # noqa: F401 (a fixture)
from utils.errors import EspalierError
from utils.registry import import_attribute

MASK_LOADERS = ("ArraySegmentationDataLoader", "CityscapesDataLoader", "TorchvisionSegmentationDataLoader")
PHOTO, MASK = (ROOT / "data/people" / name for name in ("images/test/0005.jpg", "masks/0005.png"))


@pytest.mark.parametrize("page", PAGES)
def test_no_table_is_broken_by_an_empty_line(page):
    rows_after_one = re.findall(r"(?m)^\n(\|.*)\n(?!\|[-: |]+\|$)", PAGES[page])
    assert rows_after_one == []


def test_everything_shown_was_found():
    assert set(PAGES) >= {
        "extending.md",
        "loops.md",
        "losses.md",
        "configuration.md",
        "json.md",
        "data.md",
        "resume.md",
        "search.md",
        "search_space.md",
        "search_samplers.md",
        "search_studies.md",
    }
    assert len(blocks("json")) >= 8


@pytest.mark.parametrize("text", [text for _, text in blocks("json")], ids=lambda text: json.loads(text)["name"])
def test_json_is_a_good_configuration(text, workplace):  # noqa: F811
    (workplace / "shown.json").write_text(text)
    load_plugins([f"{name}.py" for name in PLUGINS if f"{name}." in text])
    config = load_config("shown.json")
    if find_markers(config) or "study" in config.get("search", {}) or is_tabulated(config):
        space = build_study_parts(config, canonical).space
        searches = space.searches.values() if isinstance(space, GridSpace) else ()
        for each in (space, *(Space(search) for search in searches)):
            assert each.find_faults(train.check_config) == []
    else:
        validate(config, registry())


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_short_and_their_links_lead_somewhere(page):
    assert PAGES[page].count("\n") < 200
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[page]):
        assert link.startswith("https://") or (ROOT / "docs" / link).exists(), link


def table(page, heading):
    """Key -> default of the table under a heading."""
    section = re.search(rf"^##+ {heading}$(.*?)(?=^##|\Z)", PAGES[page], re.M | re.S).group(1)
    return dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", section, re.M))


def shown(default):
    if isinstance(default, BaseModel):
        default = default.model_dump(exclude_defaults=True)
    return "required" if default is inspect.Parameter.empty else f"`{json.dumps(default)}`"


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        *(("configuration.md", name) for name in ("UNet", "DeepLabV3Plus", "SegmentationDataLoader")),
        *(
            ("models.md", name)
            for name in ("UNetPlus", "PSPNet", "BiSeNet", "ICNet", "EncDec", "AutoDeepLab", "AutoDeepLabSupernet")
        ),
        *(("classification.md", name) for name in ("ConvNet", "MnistModel", "ImageClassificationDataLoader")),
        *(("series.md", name) for name in ("FCN", "ResNet1d", "InceptionTime", "LSTMFCN", "TimeSeriesDataLoader")),
        *(("popnas_networks.md", name) for name in ("CellNet", "CellNetSegmenter")),
    ],
)
def test_every_argument_is_listed_with_its_default(page, heading):
    reference = {**models.SECTIONS["arch"].entries, **data_loader.SECTIONS["data_loader"].entries}[heading]
    parameters = signature_of(import_attribute(reference)).parameters
    assert table(page, heading) == {name: shown(each.default) for name, each in parameters.items()}


@pytest.mark.parametrize("name", sorted(set(data_loader.SECTIONS["data_loader"].entries) & set(MASK_LOADERS)))
def test_what_a_loader_takes_beside_those_is_listed(name):
    entries = data_loader.SECTIONS["data_loader"].entries
    known = signature_of(SegmentationDataLoader).parameters
    parameters = signature_of(import_attribute(entries[name])).parameters
    own = {key: shown(each.default) for key, each in parameters.items() if key not in known}
    section = PAGES["datasets.md"].split(f"`{name}`")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (.+) \|$", section, re.M)
    assert {key: default for key, default, _ in rows} == own
    assert own
    meanings = descriptions(import_attribute(entries[name]))
    assert {key: meaning for key, _, meaning in rows} == {key: meanings[key] for key in own}


def test_the_meaning_of_an_argument_is_written_once():
    section = PAGES["configuration.md"].split("### SegmentationDataLoader")[1].split("\n## ")[0]
    meanings = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| (.+) \|$", section, re.M))
    assert meanings == descriptions(SegmentationDataLoader)


def test_every_key_is_listed_with_its_default():
    fields = TrainerOptions.model_fields
    assert table("configuration.md", "trainer") == {
        name: "required" if field.is_required() else shown(field.default) for name, field in fields.items()
    }
    listed, fields = table("configuration.md", "Sections"), TopLevel.model_fields
    assert set(listed) == set(fields)
    assert listed["n_gpu"] == shown(fields["n_gpu"].default)
    trackers = {"wandb": WandbOptions, "mlflow": MlflowOptions}
    assert set(table("configuration.md", "visualization")) == set(trackers)
    keys = PAGES["configuration.md"].split("### visualization")[1].split("## Networks")[0]
    assert all(f"`{key}`" in keys for model in trackers.values() for key in model.model_fields)


def test_every_key_of_a_search_is_listed_with_its_default():
    parts = {"limits": CandidateLimits, "budget": Budget, "retrain": RetrainOptions}
    for heading, model in {"The search section": SearchOptions, **parts}.items():
        assert table("search.md", heading) == {name: shown(field.default) for name, field in model.model_fields.items()}
    assert table("grid_studies.md", "study") == {
        name: "required" if field.is_required() else shown(field.default)
        for name, field in GridOptions.model_fields.items()
    }


@pytest.mark.parametrize("section", ["scheduler", "executor"])
def test_every_scheduler_and_executor_is_listed_with_its_arguments(section):
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGES["search.md"].split(f"### {section.title()}s")[1], re.M)
    listed = {name: set(re.findall(r"`(\w+)`", arguments)) for name, arguments in rows}
    for name in REGISTRY[section].entries:
        if name == "ray":
            continue
        parameters = set(inspect.signature(import_attribute(REGISTRY[section].entries[name])).parameters)
        assert listed[name] == parameters - {"num_samples", "max_epochs"}


def test_every_sampler_is_listed_with_its_arguments():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGES["search_samplers.md"].split("\n## ")[0], re.M)
    listed = {name: set(re.findall(r"`(\w+)`", arguments)) for name, arguments in rows}
    entries = SAMPLERS["sampler"].entries
    parameters = {name: set(inspect.signature(import_attribute(entries[name])).parameters) for name in entries}
    assert listed == {name: found - set(SEARCH_VALUES["sampler"]) for name, found in parameters.items()}
    defaults = [(name, *pair) for name, arguments in rows for pair in re.findall(r"`(\w+)` \(`?(.*?)`?\)", arguments)]
    assert len(defaults) >= 8
    for name, argument, default in defaults:
        assert json.loads(default) == inspect.signature(import_attribute(entries[name])).parameters[argument].default


def test_every_loss_and_metric_is_listed_with_its_arguments():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.*?) \|", PAGES["losses.md"], re.M)
    listed = {name: set(re.findall(r"`(\w+)`", rest)) for names, rest in rows for name in re.findall(r"\w+", names)}
    entries = {**models.SECTIONS["loss"].entries, **models.SECTIONS["metrics"].entries}
    told = {"ignore_index", "num_classes", "class_names", "class_counts"}
    assert listed == {
        name: set(inspect.signature(import_attribute(reference)).parameters) - told
        for name, reference in entries.items()
    }
    bare_names = PAGES["json.md"].split("## Composition")[0]
    for section in ("arch", "metrics"):
        assert all(f"`{name}`" in bare_names for name in models.SECTIONS[section].entries)


def test_every_flag_and_exit_code_is_listed():
    usage = train.parser().format_help()
    flags = set(re.findall(r"--[\w-]+", usage)) - {"--help", "--config", "--devices", "--device"}
    assert len(flags) >= 10
    assert [flag for flag in flags if flag not in PAGES["json.md"]] == []
    codes = {each.exit_code for each in EspalierError.__subclasses__() if "exit_code" in vars(each)}
    assert codes == {2, 3, 4, 5}
    assert all(f"| {code} |" in PAGES["json.md"] for code in codes)


@pytest.mark.parametrize(
    ("page", "parser"),
    [("testing.md", test_command.parser()), ("inference.md", inference.parser())],
    ids=["test", "inference"],
)
def test_every_flag_has_a_row_in_its_table(page, parser):
    rows = re.findall(r"^\| (`--.*?|`-[a-z]`.*?) \|", PAGES[page], re.M)
    listed = [flag for row in rows for flag in re.findall(r"`(--?[\w-]+)`", row)]
    shown = [
        action for action in parser._actions if argparse.SUPPRESS not in (action.help, action.default)
    ]  # not --help
    flags = [flag for action in shown for flag in action.option_strings]
    assert sorted(listed) == sorted(flags)


def test_the_readme_links_every_page_that_no_other_page_links():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {name for text in (readme, *PAGES.values()) for name in re.findall(r"\]\((?:docs/)?(\w+\.md)", text)}
    assert set(PAGES) - linked == set()
    assert {"testing.md", "inference.md", "new_project.md"} <= set(re.findall(r"\]\(docs/(\w+\.md)", readme))


def write_pairs(folder):
    """A good pair, and files with one fault each."""
    photo, mask = np.full((20, 30, 3), 90, np.uint8), np.zeros((20, 30), np.uint8)
    mask[5:9] = 1
    images = {
        "good.jpg": photo,
        "good.png": mask,
        "white.png": mask * 255,
        "mask.jpg": mask,
        "fractions.tif": mask.astype(np.float32) / 3,
        "seven.png": mask * 7,
        "small.png": mask[1:],
        "colour.png": np.dstack([mask * 200, mask, mask]),
        "wide.jpg": photo[:9],
        "wide.png": mask[:9],
        "data/train/a.jpg": photo,
        "labels/train/a.png": mask,
        "labels/train/b.png": mask,
    }
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / name), image)
    (folder / "cut.jpg").write_bytes((folder / "good.jpg").read_bytes()[:-200])


@pytest.mark.parametrize(
    ("fragment", "lines", "arguments"),
    [
        ("names 1 files that do not exist", "good.jpg, gone.png", {}),
        ("is a JPEG. JPEG changes labels", "good.jpg, mask.jpg", {}),
        ("values; a mask must hold one class id per pixel", "good.jpg, fractions.tif", {}),
        ("but classes are 0 to", "good.jpg, good.png", {"label_map": {"7": 2}}),
        ("is not one image and one mask", "my good.jpg good.png", {}),
        ("holds the labels 255: masks must hold 0 to 1", "good.jpg, white.png", {}),
        ("holds the labels 7: masks must hold 0 to 2", "good.jpg, seven.png", {"num_classes": 3}),
        ("both must have the same size", "good.jpg, small.png", {}),
        ("has colours; a mask must hold one class id per pixel", "good.jpg, colour.png", {}),
        ("cannot be read as an image", "cut.jpg, good.png", {}),
        ("of different sizes cannot share a batch", "good.jpg, good.png\nwide.jpg, wide.png", {"resize": None}),
        ("has no fourth channel", "good.jpg, good.png", {"in_channels": 4}),
        ("masks without an image", "", {"pairs_file": None, "folder": "."}),
        ("num_classes is missing", "good.jpg, good.png", {"num_classes": None}),
    ],
)
def test_the_errors_listed_say_so(fragment, lines, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path)
    (tmp_path / "pairs.txt").write_text(lines)
    assert f"| `{fragment}` |" in PAGES["data.md"].split("## Error messages")[1]
    with pytest.raises(EspalierError, match=re.escape(fragment)):
        next(
            iter(
                from_flat(
                    SegmentationDataLoader, **{"pairs_file": "pairs.txt", "num_classes": 2, "resize": 16, **arguments}
                )
            )
        )


def test_the_folder_layout_shown_is_read(workplace):  # noqa: F811
    pairs = re.findall(r"^(pictures/\S+) +(pictures/\S+)$", PAGES["data.md"], re.M)
    assert len(pairs) == 3
    for name, source in [(name, source) for pair in pairs for name, source in zip(pair, (PHOTO, MASK), strict=True)]:
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, workplace / name)
    text = next(text for page, text in blocks("json") if page == "data.md" and '"mine"' in text)
    (workplace / "mine.json").write_text(text)
    words = shlex.split("-c mine.json --validate-only")
    assert cli.run_command(train.main, train.parser(), words) == 0
