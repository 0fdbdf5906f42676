"""Objects whose arguments come in option groups, made of flat arguments as a JSON has them."""

from config.checking.signatures import group_arguments


def from_flat(target, *positional, **flat):
    """Return a loader or another object: `from_flat(SegmentationDataLoader, "pairs.txt", resize=64)`."""
    return target(*positional, **group_arguments(target, flat))
