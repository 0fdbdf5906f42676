"""The owner of a run folder: the number of the latest task that was given it, in a file of the folder."""

from pathlib import Path

from utils.files import write_text_atomically

OWNER = "owner"


def owner_of(folder: Path) -> int:
    """Return the number of the latest task of a run folder; 0 if there is none, or the file is damaged."""
    # The file is opened anew each time: that is when a network file system asks its server for changes.
    try:
        return int((folder / OWNER).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def set_owner(folder: Path, token: int) -> None:
    """Give a run folder to a task."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / OWNER, f"{token}\n")


def take_over(folder: Path) -> int:
    """Give a run folder to a new task, whose worker may be another one while the last still runs somewhere.

    Returns:
        The number of the task, for its payload as `token`.
    """
    token = owner_of(folder) + 1
    set_owner(folder, token)
    return token
