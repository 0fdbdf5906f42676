"""Seeds that follow from their purpose alone, the same on every machine and Python version."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on `parts` alone."""
    return int.from_bytes(_digest(parts), "little") >> 1


def keyed_share(*parts: int | str) -> float:
    """Return a number in [0, 1), uniform over different `parts`, that depends on them alone."""
    return (int.from_bytes(_digest(parts), "little") >> 11) / 2**53


def _digest(parts: tuple[int | str, ...]) -> bytes:
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
