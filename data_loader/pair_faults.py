"""What can be wrong with pairs, and how it is said: the first few by name, all of them counted."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from data_loader.labels import Labels
from utils.errors import DataError
from utils.geometry import Size

_SHOWN = 5


class PairFault(DataError):
    """What is wrong with one pair.

    Attributes:
        unknown: Labels that the mask must not hold, where that is the fault.
    """

    unknown: Sequence[int] = ()


def unknown_labels(mask: str, unknown: Sequence[int], labels: Labels) -> PairFault:
    """The fault of a mask with labels that it must not hold."""
    shown = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
    fault = PairFault(f"{mask} holds the labels {shown}: masks must hold {labels.rule()}. {labels.repair(unknown)}")
    fault.unknown = unknown
    return fault


def require_same_size(names: tuple[str, str], picture: Size, mask: Size) -> None:
    """Refuse a mask of another size than its picture.

    Raises:
        PairFault: With both sizes.
    """
    if picture == mask:
        return
    turned = (
        " Height and width are swapped: where EXIF turns the photo, turn the mask, too."
        if picture == mask[::-1]
        else ""
    )
    raise PairFault(
        f"{names[1]} is {mask[0]}x{mask[1]} (height x width) but its picture {names[0]} is "
        f"{picture[0]}x{picture[1]}: both must have the same size.{turned} Resize the mask (nearest neighbour)."
    )


def require_one_size(inputs: Mapping[str, Size], batch_size: int) -> None:
    """Refuse pictures that cannot share a batch.

    Args:
        inputs: Picture -> size of what the network gets of it.
        batch_size: Samples per batch.

    Raises:
        DataError: With two pictures that differ.
    """
    sizes = list(inputs.items())
    other = next((item for item in sizes if item[1] != sizes[0][1]), None)
    if other is not None:
        (first, one), (second, another) = sizes[0], other
        raise DataError(
            f"Pictures of different sizes cannot share a batch: {first} is {one[0]}x{one[1]} (height x width), "
            f"{second} {another[0]}x{another[1]}, and batch_size is {batch_size}. "
            "Set resize to [height, width], or batch_size to 1."
        )


def attempt(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same work with a `DataError` as its result instead of an end to all."""

    def attempted(job: Any) -> Any:
        try:
            return work(job)
        except DataError as error:
            return error

    return attempted


def checked(results: Iterable[Any], labels: Labels) -> list[Any]:
    """The results of `attempt`.

    Raises:
        DataError: One error for all that failed.
    """
    results = list(results)
    faults = [result for result in results if isinstance(result, DataError)]
    if not faults:
        return results
    if len(faults) == 1:
        raise faults[0]
    lines = [str(fault) for fault in faults if not getattr(fault, "unknown", ())]
    parts = [f"{len(faults)} of {len(results)} pairs cannot be used."]
    parts += [f"  {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        parts.append(f"  ... and {len(lines) - _SHOWN} more like these.")
    parts += _label_faults([fault for fault in faults if isinstance(fault, PairFault) and fault.unknown], labels)
    raise DataError("\n".join(parts))


def _label_faults(faults: Sequence[PairFault], labels: Labels) -> list[str]:
    if not faults:
        return []
    values = sorted({value for fault in faults for value in fault.unknown})
    shown = [f"  {str(fault).split(': ', maxsplit=1)[0]}" for fault in faults[:_SHOWN]]
    more = [f"  ... and {len(faults) - _SHOWN} more like these."] if len(faults) > _SHOWN else []
    return [*shown, *more, f"Masks must hold {labels.rule()}. {labels.repair(values)}"]
