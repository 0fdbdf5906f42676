"""Classes whose arguments come in option groups, made of flat arguments as a JSON has them."""

from config.checking.signatures import group_arguments


def make_loader(loader_class, *positional, **flat):
    """Return a loader (or another object) of flat arguments: `make_loader(SegmentationDataLoader, resize=64)`."""
    return loader_class(*positional, **group_arguments(loader_class, flat))
