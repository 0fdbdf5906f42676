"""Objects whose arguments come in option groups, made of flat arguments as a JSON has them."""

import dataclasses
from typing import get_args, get_type_hints

from pydantic.fields import FieldInfo

from config import group_arguments, signature_of


def from_flat(target, *positional, **flat):
    """Return a loader or another object: `from_flat(SegmentationDataLoader, "pairs.txt", resize=64)`."""
    names = list(signature_of(target).parameters)
    return target(**group_arguments(target, {**dict(zip(names, positional, strict=False)), **flat}))


def descriptions(target):
    """Return the description of each argument of a class that has one, without its full stop."""
    holders = [
        target.__init__,
        *(hint for hint in get_type_hints(target.__init__).values() if dataclasses.is_dataclass(hint)),
    ]
    return {
        name: item.description.rstrip(".")
        for holder in holders
        for name, hint in get_type_hints(holder, include_extras=True).items()
        for item in get_args(hint)[1:]
        if isinstance(item, FieldInfo)
    }
