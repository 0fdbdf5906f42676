"""A config that comes from a checkpoint or an exported file: whoever made the file wrote it, so that less is allowed.

Nothing in it may run code, fetch anything, or choose a place to write to. What a file of the user says, given with `-c`
or as an override, is not held to these rules.
"""

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from config.checking.sections import LOADER_SECTIONS, trainer_options
from config.faults import Faults, join_path, show
from utils.errors import ConfigError

DATA_SETS = "torchvision.datasets."
# Data sets of torchvision that decode images, lists and arrays. Not those that unpickle (LSUN, CIFAR).
SAFE_DATA_SETS = frozenset(
    {
        *("ImageFolder", "FakeData", "CocoCaptions", "CocoDetection", "EMNIST", "FashionMNIST", "QMNIST", "MNIST"),
        *("KMNIST", "StanfordCars", "STL10", "SUN397", "SVHN", "SEMEION", "Omniglot", "Flowers102", "VOCSegmentation"),
        *("VOCDetection", "Cityscapes", "Caltech101", "Caltech256", "CelebA", "SBDataset", "USPS", "Places365"),
        *("INaturalist", "LFWPeople", "Food101", "DTD", "FER2013", "GTSRB", "CLEVRClassification", "OxfordIIITPet"),
        *("PCAM", "Country211", "FGVCAircraft", "EuroSAT", "RenderedSST2", "Imagenette"),
    }
)
_FETCHED = re.compile(r"(hf|local)[-_](hub|dir)\s*:|\btorch\.hub\b|://", re.IGNORECASE)
# Builders that take the name of a network and fetch its weights. `get_model` fetches none unless it is asked to.
_NAMING_BUILDERS = re.compile(r"^torchvision\..*\b(resnet_fpn_backbone|mobilenet_backbone)$")
# Arguments by which a library reads weights with a reader that unpickles, or that name an address or a place to write.
_REFUSED_ARGUMENTS = (
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
    "hub_dir",
    "model_dir",
)
TRACKING_URI = "visualization.mlflow.tracking_uri"
"""JSON path of the place that MLflow writes to."""
_OWN_CONFIG = "If you trust the file, give the config yourself, with -c FILE of test.py or train.py"


def narrowed(
    config: Mapping[str, Any],
    *,
    opens_data: bool = True,
    asked: Mapping[str, Any] | None = None,
    whose: str = "of the checkpoint's config",
) -> dict[str, Any]:
    """Return the config of a checkpoint or an exported file with nothing in it that downloads.

    Args:
        config: From the file; it is not changed.
        opens_data: Whether the data that it names is opened.
        asked: The user's config, if there is one: what it says as well is allowed.
        whose: For messages, where the config comes from.

    Raises:
        ConfigError: It names a data set that unpickles, a model of a hub, or an address.
    """
    faults, changed = Faults(), copy.deepcopy(dict(config))
    for key, section in changed.items():
        own = (asked or {}).get(key)
        allowed = {(path, value) for path, _, value in _texts(own, key)}
        is_loader = key in (*LOADER_SECTIONS, "$defs")  # a definition may be used in any section
        for path, name, value in _texts(section, key):
            if (path, value) in allowed:
                continue
            if is_loader and opens_data and value.startswith(DATA_SETS):
                if value.removeprefix(DATA_SETS) not in SAFE_DATA_SETS:
                    faults.add(
                        path,
                        f"{show(value)} {whose} runs code from its files (pickle), or is not known "
                        f"to decode images only. {_OWN_CONFIG}.",
                    )
            elif key in ("arch", "$defs") and _NAMING_BUILDERS.search(value):
                faults.add(
                    path,
                    f"{show(value)} {whose} builds a network by its name, and may fetch weights for it. Only builders "
                    f"of one network are taken from a file, as torchvision.models.resnet18. {_OWN_CONFIG}.",
                )
            elif (_FETCHED.search(value) and (is_loader or key == "arch")) or name in _REFUSED_ARGUMENTS:
                faults.add(
                    path,
                    f"{show(value)} {whose} is fetched or read from elsewhere. Only networks that "
                    f"are built here are taken from a file. {_OWN_CONFIG}.",
                )
        if is_loader:
            _forbid_downloads(section, own)
    if faults:
        raise faults.error()
    return changed


def is_refused(config: Mapping[str, Any]) -> bool:
    """Return whether a command takes this config from the user only, and not from a checkpoint."""
    try:
        narrowed(config)
    except ConfigError:
        return True
    return False


def require_own_place(config: Mapping[str, Any], checkpoint: Path) -> None:
    """Raise if a new run of a checkpoint's config would write elsewhere than into folders of the user.

    These are the working folder, and the folder in which the run of the checkpoint lies itself.

    Args:
        config: From the checkpoint.
        checkpoint: The file or its folder, as the user named it.

    Raises:
        ConfigError: It names another place.
    """
    faults, working = Faults(), Path.cwd()
    save_dir = Path(os.path.realpath(trainer_options(config)["save_dir"]))
    place = Path(os.path.realpath(save_dir / str(config.get("name", ""))))
    run = Path(os.path.realpath(checkpoint if checkpoint.is_dir() else checkpoint.parent))
    is_own = run.parent == place and place.parent == save_dir
    if not (place.is_relative_to(working) or is_own):
        faults.add(
            "trainer.save_dir",
            f"{save_dir} of the checkpoint's config is outside of the working folder, and the checkpoint is not in it. "
            "Name a folder of yours: trainer.save_dir=FOLDER.",
        )
    if faults:
        raise faults.error()


def tracking_uri(config: Mapping[str, Any]) -> Any:
    """Return the place that a config lets MLflow write to; None for the folder of each run."""
    services = config.get("visualization")
    mlflow = services.get("mlflow") if isinstance(services, Mapping) else None
    return mlflow.get("tracking_uri") if isinstance(mlflow, Mapping) else None


def require_named_tracking(config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise if a checkpoint's config sends results to a server, a database or a folder that the user has not named.

    Args:
        config: From the checkpoint.
        overrides: Of the user, as `visualization.mlflow.tracking_uri=http://server`.

    Raises:
        ConfigError: It does.
    """
    uri = tracking_uri(config)
    if uri is not None and not any(each.partition("=")[0].strip() == TRACKING_URI for each in overrides):
        raise ConfigError(
            f"{TRACKING_URI}: {show(uri)} of the checkpoint's config is a place that you have not named. If it is "
            f"yours, name it: {TRACKING_URI}={show(uri)}; null uses the run's folder. Or give the config yourself, "
            "with -c FILE."
        )


def _texts(value: Any, path: str, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield JSON path, key and text of every string; also of another value of a refused argument, as JSON."""
    if isinstance(value, str):
        yield path, name, value
    elif name in _REFUSED_ARGUMENTS and value:
        yield path, name, show(value)
    elif isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else ((name, item) for item in value)
        for index, (key, item) in enumerate(items):
            yield from _texts(item, join_path(path, key if isinstance(value, Mapping) else index), key)


def _forbid_downloads(value: Any, own: Any) -> None:
    """Set every `download` in a loader's section to false, in place, but for those that the user's own section has."""
    if isinstance(value, dict):
        known = own if isinstance(own, Mapping) else {}
        for key, item in value.items():
            if key == "download" and item and known.get(key) != item:
                value[key] = False
            else:
                _forbid_downloads(item, known.get(key))
    elif isinstance(value, list):
        known_items = own if isinstance(own, list) and len(own) == len(value) else [None] * len(value)
        for item, known_item in zip(value, known_items, strict=True):
            _forbid_downloads(item, known_item)
