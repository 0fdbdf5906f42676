"""Commands to a study, as files in its folder: a search that runs obeys them, another one when it is continued."""

import json
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from utils.errors import SearchError
from utils.files import read_json_object, write_text_atomically

logger = logging.getLogger("espalier")

COMMANDS = "commands"
# The data of each command, and its types.
_DATA: dict[str, tuple[str, tuple[type, ...]]] = {
    "add": ("num_samples", (int,)),
    "enqueue": ("choices", (list,)),
    "pause": ("candidate", (int, NoneType)),
    "resume": ("candidate", (int, NoneType)),
    "stop": ("candidate", (int, NoneType)),
}


_OF_A_SESSION = ("pause", "resume", "stop")  # if they name no candidate


@dataclass(frozen=True)
class Command:
    """A wish of the user.

    Attributes:
        id: Unique name; the commands of a study are obeyed in the order of their names.
        name: "add", "enqueue", "pause", "resume" or "stop".
        data: `candidate` (a number, or None for the study), `num_samples`, `choices`.
    """

    id: str
    name: str
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_of_a_session(self) -> bool:
        """Whether it is for the search that ran when it was sent, and not for the study."""
        return self.name in _OF_A_SESSION and self.data.get("candidate") is None


def new_identity() -> str:
    """Return the id of a new command, which is after all earlier ones."""
    return f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"


def send_command(folder: Path, name: str, identity: str | None = None, **data: Any) -> None:
    """Leave a command in the folder of a study.

    Args:
        folder: Of the study.
        name: Of the command.
        identity: From `new_identity`; a command that is sent again with the same one is obeyed once.
        **data: Of the command.

    Raises:
        SearchError: It cannot be written.
    """
    queue = folder / COMMANDS
    identity = identity or new_identity()
    try:
        queue.mkdir(exist_ok=True)
        write_text_atomically(queue / f"{identity}.json", json.dumps({"name": name, "data": data}) + "\n")
    except OSError as error:
        raise SearchError(
            f"{queue}: a command cannot be written ({error.strerror}). It is left there for the search. Free some "
            "space or correct the permissions."
        ) from error


def is_waiting(folder: Path, identity: str) -> bool:
    """Return whether a command waits in the folder of a study."""
    return (folder / COMMANDS / f"{identity}.json").exists()


def waiting_commands(folder: Path) -> list[Command]:
    """Return the commands that wait in the folder of a study; a file that is no command is set aside."""
    commands = []
    for path in sorted((folder / COMMANDS).glob("*.json")):
        try:
            content = read_json_object(path, SearchError)
            key, types = _DATA[content["name"]]
            value = content["data"][key]
            if type(value) not in types:
                raise ValueError(f"{key} is {value!r}")
            commands.append(Command(path.stem, content["name"], {key: value}))
        except (SearchError, LookupError, TypeError, ValueError) as error:
            logger.warning("%s: is no command (%s). It is set aside.", path, " ".join(str(error).split()))
            path.replace(path.with_suffix(".unreadable"))
    return commands


def remove_command(folder: Path, command: Command) -> None:
    """Remove a command that was obeyed."""
    (folder / COMMANDS / f"{command.id}.json").unlink(missing_ok=True)


def drop_commands_of_the_past(folder: Path) -> None:
    """Remove the commands for a search that ended before it could obey them; to be called when another one begins."""
    for command in waiting_commands(folder):
        if command.is_of_a_session:
            logger.warning(
                "%s: it was sent to a search that has ended since, and does nothing to this one. Send it again if it "
                "is meant for this one.",
                command.name,
            )
            remove_command(folder, command)
