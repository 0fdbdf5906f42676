"""The trained networks that come with Espalier, in this folder: names, files and scores."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from utils.errors import CheckpointError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Card:
    """Facts of a trained network, as they stand in `NAME.json`.

    Attributes:
        name: As `--model` takes it.
        summary: Its purpose.
        input_size: (height, width) that it sees; images of other sizes are fitted into it.
        parameters: Number of its weights.
        milliseconds: Of one image, exported to onnxruntime, two threads; and the machine.
        data: Its training data, with the licences.
        licence: That of the weights.
        config: A config that trains such a network; that of these very weights is in their file.
        scores: Test data, and the results on them.
        limits: Its weaknesses.
    """

    name: str
    summary: str
    input_size: tuple[int, int]
    parameters: int
    milliseconds: str
    data: str
    licence: str
    config: str
    scores: Mapping[str, str]
    limits: str

    @property
    def file(self) -> Path:
        """The checkpoint, half precision."""
        return FOLDER / f"{self.name}.pth"

    def text(self) -> str:
        """Return the card for the terminal."""
        height, width = self.input_size
        facts = [
            ("file", f"{self.file} ({self.file.stat().st_size / 1e6:.1f} MB)"),
            ("network", f"{self.parameters / 1e6:.2f} M parameters, input {height}x{width}, {self.milliseconds}"),
            ("data", self.data),
            ("licence", self.licence),
            ("config", self.config),
            *(("score", f"{on}: {score}") for on, score in self.scores.items()),
            ("limits", self.limits),
        ]
        return f"{self.name}: {self.summary}\n" + "".join(f"  {label:<9} {fact}\n" for label, fact in facts)


def read_card(name: str) -> Card:
    """Return the card of a network in this folder."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    known = {field.name for field in fields(Card)}
    values = {key: value for key, value in content.items() if key in known}
    return Card(name=name, **values | {"input_size": tuple(content["input_size"])})


def cards() -> list[Card]:
    """Return the cards of all networks that come with Espalier, by name."""
    return [read_card(path.stem) for path in sorted(FOLDER.glob("*.pth"))]


def find_network(text: str) -> str:
    """Return the file that `--model` means: an existing path as it is, or the checkpoint of a network of that name.

    Raises:
        CheckpointError: It looks like a name, and there is neither such a file nor such a network.
    """
    path, names = Path(text), [card.name for card in cards()]
    if path.exists() or path.suffix or len(path.parts) != 1:
        return text
    if text not in names:
        raise CheckpointError(
            f"{text}: there is no such file, and no such network comes with Espalier. Name a checkpoint (.pth), a run "
            f"folder, a file of export.py, or one of the networks: {', '.join(names)}."
        )
    return str(FOLDER / f"{text}.pth")
