"""Objects whose arguments come in option groups, made of flat arguments as a JSON has them."""

from config.checking.signatures import group_arguments, signature_of


def from_flat(target, *positional, **flat):
    """Return a loader or another object: `from_flat(SegmentationDataLoader, "pairs.txt", resize=64)`."""
    names = list(signature_of(target).parameters)
    return target(**group_arguments(target, {**dict(zip(names, positional, strict=False)), **flat}))
