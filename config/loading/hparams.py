"""A training of a public study of sparse labels (karlobermeyer) on Cityscapes, `hparams--*.yaml`, as a configuration.

Every key acts, or one warning names it with the reason.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from config.checking.sections import Strict, TopLevel, check_section
from config.faults import Faults, show
from utils.errors import ConfigError

logger = logging.getLogger(__name__)

SUFFIXES = (".yaml", ".yml")
TELLING = frozenset({"layers_to_train", "label_density", "dataset_train_name"})
"""Keys that no other dialect has."""

FOLDER = "data/cityscapes"
NUM_HELD_OUT = 500  # of the 2975 training images, for subcityscapes_val
PATIENCE = 3  # epochs without a lower loss of validation, after which a training stops
SMOKE_STEPS = 2  # epochs, and batches of each
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
AUGMENTATION = {"crop_range": [0.9, 1.1], "angle": 10, "flip_hor": 0.5, "brightness": 0.2, "contrast": 0.2}
CLASSES = {  # name -> raw id; every other id is the background, class 0
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
NUM_RAW_IDS = 34

Tree = dict[str, Any]


class Hparams(Strict):
    """The keys of a training, with its defaults."""

    smoke_test: bool = Field(False, description="Two epochs of two batches.")
    model_name: Literal["deeplabv3", "segformer"] = Field("deeplabv3", description="The network.")
    backbone_name: Literal["mobilenet_v3_large", "resnet50", "resnet101"] = Field(
        "resnet101", description="Its backbone."
    )
    scenario_name: str = Field("scenario_name", min_length=1, description="Name of the training.")
    seed: int = Field(13, ge=0, description="Seed of the training.")
    dataset_train_name: Literal[
        "subcityscapes_train", "subcityscapes_trainval", "cityscapes_train", "cityscapes_trainval"
    ] = Field("subcityscapes_train", description="Training data.")
    dataset_val_name: Literal["subcityscapes_val", "cityscapes_val"] | None = Field(
        "subcityscapes_val", description="Validation data."
    )
    len_dataset_train_scale_factor: float = Field(1.0, gt=0, le=1, description="Fraction of the training images.")
    len_dataset_val_scale_factor: float = Field(1.0, gt=0, le=1, description="Fraction of the validation images.")
    label_density: float = Field(1.0, gt=0, le=1, description="Fraction of each image that has labels.")
    ignore_index: int = Field(255, ge=0, description="Label of hidden pixels.")
    input_height: int = Field(320, ge=1, description="Height of the input.")
    input_width: int = Field(640, ge=1, description="Width of the input.")
    mean_for_input_normalization: list[float] = Field(IMAGENET[0], description="Mean of each channel.")
    std_for_input_normalization: list[float] = Field(IMAGENET[1], description="Deviation of each channel.")
    layers_to_train: Literal["all", "head", "final"] = Field("all", description="Layers that learn.")
    minibatch_size: int = Field(32, ge=1, description="Images per batch.")
    learning_rate_final_layer: float = Field(0.001, gt=0, description="Learning rate of the last convolution.")
    learning_rate_nonfinal_layers: float = Field(0.0001, ge=0, description="Learning rate of the other layers.")
    freeze_batchnorm_statistics: bool = Field(False, description="Norm layers in evaluation mode.")
    weight_classes: bool = Field(False, description="Weigh classes by their frequency.")
    class_frequency_max_to_min_ratio_ubnd: float | None = Field(None, gt=1, description="Largest ratio of weights.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Probability spread over all classes.")
    stop_early: bool = Field(True, description="Stop when the loss of validation does not fall.")
    num_epochs_ubnd: int = Field(500, ge=1, description="Most epochs.")


def is_hparams(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a file is a training of that study."""
    return not TELLING.isdisjoint(content)


def read_hparams(file: Path, text: str) -> Tree:
    """Return the object of a YAML file, the one dialect that is not JSON.

    Raises:
        ConfigError: It is no YAML, names a key twice, or is not a training of that study.
    """
    import yaml  # only for such a file

    class Reader(yaml.SafeLoader):  # type: ignore[misc]
        """Plain data, and tuples, which such files hold."""

    def unique(loader: Any, node: Any, deep: bool = False) -> Tree:
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ConfigError(f'{file}: duplicate key "{twice}". Keep one of the two.')
        return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))

    Reader.add_constructor("tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node))
    Reader.add_constructor("tag:yaml.org,2002:map", unique)
    try:
        content = yaml.load(text, Reader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: no YAML ({' '.join(str(error).split())}). Write a configuration as JSON.") from None
    if not isinstance(content, dict) or not is_hparams(content):
        raise ConfigError(
            f"{file}: YAML, and only the hparams of a study of sparse labels are read from that (they have "
            f"{', '.join(sorted(TELLING))}). Write a configuration as JSON."
        )
    return content


def translate_hparams(content: Mapping[str, Any], file: str) -> tuple[Tree, Tree]:
    """Return a training of that study as a configuration, and warn once of the keys that act otherwise.

    The second part is the rest of the content, sections of this project, to be laid over it.

    Args:
        content: The keys of a training, and sections of this project that change its translation.
        file: Named in messages.

    Raises:
        ConfigError: A key is unknown, or a value wrong: all of them.
    """
    our_names = {*TopLevel.model_fields, "$schema", "$defs"} - Hparams.model_fields.keys()
    ours = {key: value for key, value in content.items() if key in our_names}
    theirs = {key: value for key, value in content.items() if key not in ours}
    faults, otherwise = Faults(), dict[str, str]()
    hparams = check_section(Hparams, theirs, "", faults)
    config = {} if hparams is None else _translated(hparams, faults, otherwise)
    if faults:
        raise Faults(f"{file}: {fault}" for fault in faults).error()
    reasons = "".join(f" {key}: {reason}." for key, reason in otherwise.items())
    logger.warning(f"{file}: hparams of a study of sparse labels, see docs/sparse_labels.md.{reasons}")
    return config, ours


def _translated(hparams: Hparams, faults: Faults, otherwise: dict[str, str]) -> Tree:
    if hparams.model_name != "deeplabv3":
        faults.add("model_name", f"{show(hparams.model_name)}: was never finished there. Write deeplabv3.")
    if (hparams.mean_for_input_normalization, hparams.std_for_input_normalization) != IMAGENET:
        faults.add(
            "mean_for_input_normalization", f"only ImageNet's, {IMAGENET[0]} and {IMAGENET[1]}. Remove both keys."
        )
    otherwise["backbone_name"] = (
        "begins with the weights of ImageNet, since those of COCO there have another number of classes"
    )
    if hparams.ignore_index != 255:
        otherwise["ignore_index"] = "is 255"
    if hparams.freeze_batchnorm_statistics:
        otherwise["freeze_batchnorm_statistics"] = "statistics stay in the parts that trainer.freeze names"
    args: Tree = {"num_classes": 1 + len(CLASSES), "aux_loss": False, "weights_backbone": "IMAGENET1K_V1"}
    has_validation = hparams.dataset_val_name is not None
    if hparams.stop_early and not has_validation:
        faults.add("stop_early", "true, and dataset_val_name is null. Stopping early needs validation data. Name some.")
    result = "miou_without_background"
    trainer: Tree = {"epochs": hparams.num_epochs_ubnd, "monitor": f"max val_{result}" if has_validation else "off"}
    if hparams.stop_early:
        trainer |= {"monitor": "min val_loss", "early_stop": PATIENCE}
    if hparams.smoke_test:
        trainer |= {"epochs": SMOKE_STEPS, "len_epoch": SMOKE_STEPS}
    return {
        "name": hparams.scenario_name,
        "seed": hparams.seed,
        "arch": {"type": f"torchvision.models.segmentation.deeplabv3_{hparams.backbone_name}", "args": args},
        **_loaders(hparams, faults, otherwise),
        "loss": {"type": "ce_loss", "args": _loss(hparams)},
        "metrics": [result, "miou", "class_iou", "accuracy", "mean_accuracy"],
        **_layers(hparams, trainer, otherwise),
        "trainer": trainer,
    }


def _layers(hparams: Hparams, trainer: Tree, otherwise: dict[str, str]) -> Tree:
    """Return the optimizer, and set which parts of the network are frozen."""
    optimizer: Tree = {"type": "AdamW", "args": {"lr": hparams.learning_rate_final_layer}}
    if hparams.layers_to_train != "all":
        trainer["freeze"] = ["backbone"]
    if hparams.layers_to_train == "final":
        otherwise["layers_to_train"] = "the whole head is trained, since no weights are known for a part of it"
    elif hparams.learning_rate_nonfinal_layers == 0:
        trainer["freeze"] = ["backbone", "classifier.[0-3]"]
    elif (scale := hparams.learning_rate_nonfinal_layers / hparams.learning_rate_final_layer) != 1:
        slow = ["classifier.[0-3]"] if trainer.get("freeze") else ["backbone", "classifier.[0-3]"]
        optimizer["groups"] = [{"match": pattern, "lr_scale": round(scale, 9)} for pattern in slow]
    return {"optimizer": optimizer}


def _loss(hparams: Hparams) -> Tree:
    args: Tree = {}
    if hparams.weight_classes and hparams.class_frequency_max_to_min_ratio_ubnd is None:
        args["weight"] = "balanced"
    elif hparams.weight_classes:
        args |= {"weight": "bounded", "max_weight_ratio": hparams.class_frequency_max_to_min_ratio_ubnd}
    return args | ({"label_smoothing": hparams.label_smoothing} if hparams.label_smoothing else {})


def _loaders(hparams: Hparams, faults: Faults, otherwise: dict[str, str]) -> Tree:
    """Return the sections of the loaders; the test data are the validation images of Cityscapes."""
    train, valid = hparams.dataset_train_name, hparams.dataset_val_name
    ids = dict.fromkeys(range(NUM_RAW_IDS), 0) | {raw: place for place, raw in enumerate(CLASSES.values(), start=1)}
    data: Tree = {
        "folder": FOLDER,
        "classes": ["background", *CLASSES],
        "label_map": {str(raw): number for raw, number in ids.items()},
        "resize": [hparams.input_height, hparams.input_width],
        "batch_size": hparams.minibatch_size,
    }
    training = {**data, **AUGMENTATION, "sparse": {"density": hparams.label_density, "by": "name"}}
    if hparams.label_density < 1:
        otherwise["label_density"] = "acts on the training data alone, and a hash of a file's name chooses the side"
    if hparams.len_dataset_train_scale_factor < 1:
        training["subset"] = hparams.len_dataset_train_scale_factor
    if hparams.len_dataset_val_scale_factor < 1:
        otherwise["len_dataset_val_scale_factor"] = "all images for validation are taken"
    if (train, valid) == ("subcityscapes_train", "subcityscapes_val"):
        otherwise["dataset_val_name"] = f"{NUM_HELD_OUT} training images, others than there, drawn by split_seed"
        training |= {"validation_split": NUM_HELD_OUT, "split_seed": hparams.seed}
    elif valid == "subcityscapes_val" or train == "subcityscapes_train":
        faults.add(
            "dataset_train_name",
            f"{show(train)} with dataset_val_name {show(valid)}: the two must be parts of one data set. Write "
            "subcityscapes_train and subcityscapes_val, or cityscapes_train and cityscapes_val.",
        )
    if train == "cityscapes_trainval":
        faults.add(
            "dataset_train_name",
            f"{show(train)} trains on the images of the test. Write cityscapes_train.",
        )
    evaluation = {"type": "CityscapesDataLoader", "args": {**data, "split": "val"}}
    sections: Tree = {"train_loader": {"type": "CityscapesDataLoader", "args": {**training, "split": "train"}}}
    return sections | {"valid_loader" if valid == "cityscapes_val" else "test_loader": evaluation}
