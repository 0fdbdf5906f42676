"""The operators of a block: the meanings of their names. The one place in which their spelling is written down."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from utils.errors import ConfigError

_NUMBER = r"[1-9]\d{0,2}"
_TWO_OR_MORE = r"(?:[2-9]|[1-9]\d{1,2})"
_KERNELS = {1: f"(?P<kernel>{_NUMBER})", 2: f"(?P<kernel>{_NUMBER}x{_NUMBER})"}
_SECOND = {dims: each.replace("kernel", "second_kernel") for dims, each in _KERNELS.items()}


@dataclass(frozen=True)
class _Form:
    """One kind of operator.

    Attributes:
        suffix: Regular expression of the text after the kernel (or of the whole, if there is no kernel).
        kernels: How many kernels it has.
        dims: For which inputs: 1 for series, 2 for images.
        examples: A text that it reads, by the number of dimensions.
    """

    suffix: str
    kernels: int
    dims: tuple[int, ...]
    examples: Mapping[int, str]

    def pattern(self, dims: int) -> str:
        """Return the regular expression of the whole text."""
        kernel = ("", _KERNELS[dims], f"{_KERNELS[dims]}-{_SECOND[dims]}")[self.kernels]
        return f"{kernel}{' ' if kernel else ''}{self.suffix}"


_FORMS = {
    "identity": _Form("identity", 0, (1, 2), {1: "identity", 2: "identity"}),
    "conv": _Form(f"conv(?::(?P<dilation>{_TWO_OR_MORE})dr)?", 1, (1, 2), {1: "3 conv", 2: "3x3 conv"}),
    "dconv": _Form("dconv", 1, (1, 2), {1: "5 dconv", 2: "5x5 dconv"}),
    "conv_pair": _Form("conv", 2, (1, 2), {1: "3-5 conv", 2: "1x5-5x1 conv"}),
    "tconv": _Form("tconv", 1, (1, 2), {1: "3 tconv", 2: "3x3 tconv"}),
    "zconv": _Form(f"zconv:(?P<zoom>{_TWO_OR_MORE})", 1, (1, 2), {1: "3 zconv:2", 2: "3x3 zconv:2"}),
    "maxpool": _Form("maxpool", 1, (1, 2), {1: "2 maxpool", 2: "2x2 maxpool"}),
    "avgpool": _Form("avgpool", 1, (1, 2), {1: "2 avgpool", 2: "2x2 avgpool"}),
    "se": _Form(f"(?P<ratio>{_NUMBER}) SE", 0, (1, 2), {1: "8 SE", 2: "8 SE"}),
    "cvt": _Form(f"(?P<size>{_NUMBER})-(?P<heads>{_NUMBER})-(?P<layers>{_NUMBER}) cvt", 0, (2,), {2: "3-2-1 cvt"}),
    "scvt": _Form(f"(?P<size>{_NUMBER})-(?P<heads>{_NUMBER}) scvt", 0, (2,), {2: "3-2 scvt"}),
    "lstm": _Form("lstm", 0, (1,), {1: "lstm"}),
    "gru": _Form("gru", 0, (1,), {1: "gru"}),
}
OPERATOR_KINDS = tuple(_FORMS)
"""The kinds of operators, as `Operator.kind` names them."""
_MORE_FORMS = {1: ("3 conv:2dr",), 2: ("3x3 conv:2dr",)}


@dataclass(frozen=True)
class Operator:
    """An operator on one input of a block. A number that its kind does not have is 1, a kernel is empty.

    Attributes:
        text: As cells and configs spell it. Different texts are different operators.
        kind: One of `OPERATOR_KINDS`. "conv_pair" is a convolution with `kernel` and then one with `second_kernel`,
            spelled "1x5-5x1 conv".
        dims: 1 for series, 2 for images.
        kernel: Size of the kernel, or of the window of a pooling, in each dimension.
        second_kernel: Of the second convolution of a pair.
        dilation: Of a convolution, "3x3 conv:2dr".
        zoom: By which a zoomed convolution shrinks its input first, "3x3 zconv:2".
        ratio: By which squeeze-and-excitation divides the channels, "8 SE".
        heads: Of the attention of a convolutional transformer, "3-2-1 cvt" (kernel, heads, layers) or "3-2 scvt".
        layers: Of a convolutional transformer.
    """

    text: str
    kind: str
    dims: int
    kernel: tuple[int, ...] = ()
    second_kernel: tuple[int, ...] = ()
    dilation: int = 1
    zoom: int = 1
    ratio: int = 1
    heads: int = 1
    layers: int = 1


def read_operator(text: str, dims: int, where: str = "operator") -> Operator:
    """Return the operator that a text names.

    Args:
        text: Such as "3x3 conv" for images, "3 conv" for series; `operator_forms` lists an example of each kind.
        dims: 1 for series, 2 for images.
        where: Name of the value for messages: its path in the JSON.

    Raises:
        ConfigError: It names none, or one for inputs of other dimensions.
    """
    found = _read(text, dims) if isinstance(text, str) else None
    if found is not None:
        return found
    inputs = "series" if dims == 1 else "images"
    near = _near_miss(text, dims) if isinstance(text, str) else None
    suggestion = f' Did you mean "{near}"?' if near else ""
    shown = json.dumps(text, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    known = ", ".join(operator_forms(dims))
    raise ConfigError(
        f"{where}: {shown} is no operator for {inputs}.{suggestion} Known, with any numbers up to 999: {known}."
    )


@lru_cache(maxsize=4096)
def _read(text: str, dims: int) -> Operator | None:
    for kind, form in _FORMS.items():
        match = re.fullmatch(form.pattern(dims), text, re.ASCII) if dims in form.dims else None
        if match:
            return _operator(text, kind, dims, match.groupdict())
    return None


def operator_forms(dims: int) -> tuple[str, ...]:
    """Return an example of each kind of operator for series (1) or images (2)."""
    examples = [form.examples[dims] for form in _FORMS.values() if dims in form.dims]
    return (*examples, *_MORE_FORMS[dims])


def _operator(text: str, kind: str, dims: int, groups: Mapping[str, str | None]) -> Operator:
    found = {name: value for name, value in groups.items() if value is not None}
    kernels = {name: _sizes(found.pop(name)) for name in ("kernel", "second_kernel") if name in found}
    numbers = {name: int(value) for name, value in found.items()}
    if "size" in numbers:
        kernels["kernel"] = (numbers.pop("size"),) * dims
    return Operator(text, kind, dims, **kernels, **numbers)  # type: ignore[arg-type]


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def _near_miss(text: str, dims: int) -> str | None:
    """Return an operator that a user may have meant: the same for other inputs, or one with a similar name."""
    words = " ".join(text.split())
    repaired = [words, words.lower(), words.lower().replace("se", "SE")]
    repaired += [re.sub(r"(\d+)x\1", r"\1", each) for each in repaired] if dims == 1 else []
    repaired += [re.sub(r"^(\d+) ", r"\1x\1 ", each) for each in repaired] if dims == 2 else []
    repaired += [re.sub(r"^(\S*[a-z]\S*) (\d\S*)$", r"\2 \1", each) for each in repaired]
    repaired += [re.sub(r"^(\S+?)(:\d+(?:dr)?) (z?conv)$", r"\1 \3\2", each) for each in repaired]
    for each in repaired:
        if _read(each, dims):
            return each
    size = re.match(r"\d+(?:x\d+)?", words)
    examples = operator_forms(dims)
    kernels = [re.sub(r"^\d+(?:x\d+)?(?= )", size.group(), each) for each in examples] if size else []
    valid = [each for each in kernels if _read(each, dims)]
    near = difflib.get_close_matches(words[:60], [*valid, *examples], n=1)
    return near[0] if near else None
