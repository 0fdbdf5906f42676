"""Other sizes of a network's input than the one it was trained with."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from config.build import callable_args
from config.sections import LOADER_SECTIONS
from config.signatures import signature_of
from utils.catalogue import Catalogue
from utils.errors import ConfigError

Size = tuple[int, int]


def input_size(config: Mapping[str, Any], section: str, catalogue: Catalogue) -> Size | None:
    """The (height, width) that a loader section brings pictures to; None where each keeps its own."""
    resize = callable_args(config, section, catalogue)[1].get("resize")
    if resize is None:
        return None
    return (resize, resize) if isinstance(resize, int) else (resize[0], resize[1])


def with_input_size(
    config: Mapping[str, Any], size: Sequence[int] | None, catalogue: Catalogue, **more: Any
) -> dict[str, Any]:
    """The config with pictures at another size.

    Args:
        config: A config.
        size: (height, width) of the input; None lets every picture keep its own size.
        catalogue: What each section may name.
        more: Further arguments for the loaders that take them.

    Raises:
        ConfigError: No loader of the config knows of sizes.
    """
    changed = copy.deepcopy(dict(config))
    sections = [section for section in LOADER_SECTIONS if changed.get(section) is not None]
    is_known = False
    for section in sections:
        loader_class, arguments = callable_args(changed, section, catalogue)
        accepted = signature_of(loader_class).parameters
        if "resize" not in accepted:
            continue
        is_known = True
        spec = {"type": changed[section]} if isinstance(changed[section], str) else dict(changed[section])
        new = {"resize": None if size is None else list(size), **more}
        taken = {name: value for name, value in new.items() if name in accepted}
        changed[section] = {**spec, "args": {**arguments, **taken}}
    if not is_known:
        raise ConfigError(
            f"{', '.join(sections) or 'the config'}: no loader has an argument resize. Another size of the input "
            "(--size), or windows over pictures at their own size (--window), need one. Leave that option out."
        )
    return changed


def window_size(config: Mapping[str, Any], section: str, window: Sequence[int], catalogue: Catalogue) -> Size:
    """The (height, width) of sliding windows.

    Args:
        config: A config.
        section: The loader section whose size is the window's where none is named.
        window: Height and width, one number for a square, or none: the size of the network's input.
        catalogue: What each section may name.

    Raises:
        ConfigError: There are more than two numbers, or the size of the input is not known.
    """
    if len(window) > 2:
        raise ConfigError(
            f"--window {' '.join(map(str, window))}: a window has a height and a width. Write --window 512 512."
        )
    size = (window[0], window[-1]) if window else input_size(config, section, catalogue)
    if size is None:
        raise ConfigError(
            f"--window: {section} has no resize, so the size of the network's input is not known. Write the window's "
            "own: --window 512 512."
        )
    return size
