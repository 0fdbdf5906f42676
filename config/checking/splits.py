"""The sections of a configuration that describe its data, and a training on training and validation data together."""

from collections.abc import Iterator, Mapping
from typing import Any

from config.faults import show

Config = Mapping[str, Any]
SPLIT_SECTIONS = {"train": "train_loader", "valid": "valid_loader", "test": "test_loader"}
SPLIT_FOLDERS = {"train": "train", "valid": "val", "test": "test"}  # names of the folders data/{train,val,test}
MERGED = "train+valid"
HOLD_OUT = ("validation_split", "folds")


def loader_section(config: Config, split: str) -> str | None:
    """Return the name of the section that describes the loader of a split, None if the config has none."""
    section = SPLIT_SECTIONS[split]
    if section in config:
        return section
    return "data_loader" if split != "test" and "data_loader" in config else None


def evaluation_section(config: Config) -> str:
    """Return the name of the section whose loader preprocesses images in the way that inference does."""
    return loader_section(config, "valid") or loader_section(config, "train") or "train_loader"


def is_merged(config: Config) -> bool:
    """Return whether a run trains on its validation data, too."""
    trainer = config.get("trainer")
    return isinstance(trainer, Mapping) and trainer.get("train_on") == MERGED


def merging_faults(config: Config) -> Iterator[tuple[str, str]]:
    """Yield JSON path and message of each setting that needs validation data, in a run that trains on it."""
    if not is_merged(config):
        return
    train, valid = (section_of(config, split) for split in ("train", "valid"))
    if not _holds_out(train["args"]) and "valid_loader" not in config:
        yield (
            "trainer.train_on",
            f'{show(MERGED)}: there is no validation data. Add a valid_loader or a validation_split, or write "train".',
        )
    elif "valid_loader" in config and valid["type"] != train["type"]:
        yield (
            "valid_loader.type",
            f"{show(valid['type'])}, and {loader_section(config, 'train')} is {show(train['type'])}: trainer.train_on "
            "reads the samples of both in one way. Name the same class in both.",
        )
    monitor, schedule = config["trainer"].get("monitor", "off"), config.get("lr_scheduler")
    if " val_" in str(monitor):
        yield "trainer.monitor", f'{show(monitor)}: trainer.train_on leaves no validation data for it. Write "off".'
    parts = schedule if isinstance(schedule, list) else [schedule]
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else part
        if str(kind).endswith("ReduceLROnPlateau") and (monitor == "off" or " val_" in str(monitor)):
            yield (
                "lr_scheduler",
                f"{show(kind)} follows results of validation data, and trainer.train_on leaves none. Name one that "
                'follows the epochs, for example {"type": "CosineAnnealingLR"}.',
            )


def section_of(config: Config, split: str) -> dict[str, Any]:
    """Return the section of a split as an object with `type` and `args`; empty ones if it has none."""
    section = config.get(loader_section(config, split) or "")
    spec = dict(section) if isinstance(section, Mapping) else {"type": section}
    args = spec.get("args")
    return {**spec, "type": spec.get("type"), "args": dict(args) if isinstance(args, Mapping) else {}}


def _holds_out(args: Mapping[str, Any]) -> bool:
    return any(args.get(name) for name in HOLD_OUT)
