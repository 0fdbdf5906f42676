"""The description in an exported file, checked: whoever made the file wrote it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from models.export.tracing import SIDES, Side
from utils.errors import CheckpointError, ConfigError

KEY = "espalier"  # of the metadata of an ONNX file; with .json after it the name of the extra file in a .pt2
FORMAT_VERSION = 1
MOST_CLASSES = 100_000
_REPAIR = "Export the checkpoint again: python export.py --resume FILE --output net.onnx."
_SHOWN = 60  # characters of a wrong value


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Side(_Strict):
    fixed: int | None = Field(None, ge=1)
    least: int = Field(1, ge=1)
    multiple: int = Field(1, ge=1)


class _Loader(_Strict):
    type: Annotated[str, Field(min_length=1)]
    args: dict[str, Any]


class ExportDescription(BaseModel):
    """The part of a description that a network is opened by; other keys are for readers elsewhere.

    Attributes:
        format_version: Version of the description.
        num_classes: K.
        class_names: Names in the order of their ids, or none.
        palette: `#rrggbb` for each class, or none.
        loader: The class whose `make_preprocessing` makes an input, and its arguments for that.
        sides: Lengths that batch, height and width, or batch and length, may have.
    """

    model_config = ConfigDict(strict=True)

    format_version: int = Field(FORMAT_VERSION, ge=1)
    num_classes: int = Field(ge=1, le=MOST_CLASSES)
    class_names: list[str]
    palette: list[str] | None = None
    loader: _Loader
    sides: dict[str, _Side]

    @field_validator("sides")
    @classmethod
    def check_sides(cls, sides: dict[str, _Side]) -> dict[str, _Side]:
        """Refuse sides that are not those of images or of series."""
        known = list(SIDES.values())
        if set(sides) not in map(set, known):
            raise ValueError(f"it must name the sides {' or '.join(', '.join(names) for names in known)}")
        return sides

    def known_sides(self) -> dict[str, Side]:
        """Return the sides as objects."""
        return {name: Side(**side.model_dump()) for name, side in self.sides.items()}


def read_description(text: str | None, name: str) -> tuple[ExportDescription, dict[str, Any]]:
    """Return a description that was checked, and all that it says as plain data.

    Args:
        text: JSON; None if the file holds none.
        name: Of the file, for messages.

    Raises:
        CheckpointError: It is missing, faulty, or of a later version.
    """
    try:
        content = json.loads(text or "null")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not {"loader", "class_names", "num_classes", "sides"} <= set(content):
        raise CheckpointError(
            f'{name}: holds no description of its input. It must be under "{KEY}" in the file\'s metadata, where '
            f"export.py writes it. {_REPAIR}"
        )
    version = content.get("format_version", FORMAT_VERSION)
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{name}: its description has version {version}, later than {FORMAT_VERSION}, which is known here. Use the "
            "version of the code that wrote it, or export the checkpoint again."
        )
    try:
        return ExportDescription.model_validate_json(text or ""), content
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        place = ".".join(map(str, item["loc"])) or "its text"
        value, rule = json.dumps(item["input"], default=str), item["msg"].removeprefix("Value error, ")
        shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
        raise CheckpointError(
            f"{name}: {place} of its description is wrong: {shown}. {rule[0].upper()}{rule[1:]}. {_REPAIR}"
        ) from None


@contextmanager
def description_errors(file: Path) -> Iterator[None]:
    """Turn faults of a block, which uses what a file describes, into those of the file.

    Raises:
        CheckpointError: Instead of a `ConfigError`.
    """
    try:
        yield
    except ConfigError as error:
        raise CheckpointError(f"{file}: its description cannot be used ({error}). {_REPAIR}") from error
