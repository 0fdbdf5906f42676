"""The devices that a command line asks for."""

import logging

import torch

from utils.errors import ConfigError

logger = logging.getLogger(__name__)


def devices_named(asked: str) -> list[torch.device]:
    """The devices of `-d`; those that are not there are left out with a warning, and without any the best is used.

    Args:
        asked: `"cpu"`, or numbers of GPUs: `"0,1"`.

    Raises:
        ConfigError: Something else.
    """
    if asked == "cpu":
        return [torch.device("cpu")]
    names = [name.strip().removeprefix("cuda:") for name in asked.split(",")]
    wrong = [name for name in names if not name.isdecimal()]
    if wrong:
        raise ConfigError(f'-d {asked}: "{wrong[0]}" is no device. GPUs are counted from 0. Write e.g. 0,1 or cpu.')
    count = torch.cuda.device_count()
    numbers = list(dict.fromkeys(map(int, names)))
    there = [torch.device("cuda", number) for number in numbers if number < count]
    if len(there) == len(numbers):
        return there
    used = there or [torch.device("cuda", 0) if count else torch.device("cpu")]
    logger.warning("-d %s: there are %d GPUs here; %s is used.", asked, count, ", ".join(map(str, used)))
    return used
