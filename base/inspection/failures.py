"""The errors of a network that cannot take its input, in the words of the config that has to change."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from utils.environment import is_out_of_memory
from utils.errors import ConfigError, EspalierError, OutOfMemory

_COMMON_STRIDE = 32  # most encoders halve five times


@dataclass(frozen=True)
class NetworkFault:
    """Why a network cannot take an input.

    Attributes:
        place: The argument of the config to change: `arch`, `arch.args.in_channels`, or of the loader `batch_size`,
            `resize`.
        message: Value, rule and repair.
    """

    place: str
    message: str


def size_text(shape: Sequence[int]) -> str:
    """Return a shape as text, e.g. 2x3x64x48."""
    return "x".join(map(str, shape)) or "()"


def first_line(error: BaseException) -> str:
    """Return type and first line of an error of another library."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300].rstrip('.!')}" if lines else type(error).__name__


def explain_failure(error: Exception, model: nn.Module, shape: Sequence[int], part: str = "") -> NetworkFault:
    """Return what has to change so that a network can take an input.

    Args:
        error: Raised by the forward pass.
        model: The network.
        shape: (B, C, ...) of the input.
        part: Name of the part that failed, e.g. `encoder.stages.2`; empty if it is not known.
    """
    text, network = str(error), type(model).__name__
    # The part's own input is in the message of torch; its name says where to look.
    where = f" at its part {part} ({type(model.get_submodule(part)).__name__})" if part else ""
    given = f"the network cannot take an input of {size_text(shape)}"
    layer = model.get_submodule(part)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and len(shape) != len(layer.kernel_size) + 2:
        return _other_dimensions(f"{network}{where}", shape)
    for words, explain in _EXPLANATIONS:
        found = re.search(words, text)
        if found is not None:
            return explain(found, f"{network}{where}", shape)
    if isinstance(error, EspalierError):
        return NetworkFault("arch", text)
    if is_out_of_memory(error):
        return NetworkFault(
            "batch_size",
            f"{given}: memory ran out{where}. A step of the training must fit into it. Lower batch_size, resize or the "
            "width of the network.",
        )
    return NetworkFault("arch", f"{given}{where}: {first_line(error)}. Change its arguments or the size of the input.")


def as_error(fault: NetworkFault, cause: BaseException) -> EspalierError:
    """Return a fault as the error that stops a command."""
    kind = OutOfMemory if is_out_of_memory(cause) else ConfigError
    return kind(f"{fault.place}: {fault.message}")


def _one_value_per_channel(found: re.Match[str], network: str, shape: Sequence[int]) -> NetworkFault:
    if shape[0] > 1:
        return _too_small(found, network, shape)
    sizes = f" ({found['sizes'].replace(', ', 'x')})" if found["sizes"] else ""
    return NetworkFault(
        "batch_size",
        f"{shape[0]}: in {network} a batch norm gets one value per channel{sizes}, which has no variance to train "
        "with. Set batch_size to 2 or more; or take a larger resize, or a network with group norm.",
    )


def _too_small(_found: re.Match[str], network: str, shape: Sequence[int]) -> NetworkFault:
    size = size_text(shape[2:])
    if len(shape) != 4:
        return NetworkFault(
            "arch",
            f"{size}: in {network} nothing is left of series of this length, which are shorter than the reach of its "
            "layers. Use longer series, or a network that reduces less.",
        )
    return NetworkFault(
        "resize",
        f"{size}: in {network} nothing is left of an input of this size, which is smaller than the reach of its "
        "layers. Set resize to a larger size, or use a network that reduces less.",
    )


def _other_channels(found: re.Match[str], network: str, shape: Sequence[int]) -> NetworkFault:
    wanted, got = int(found["wanted"]), int(found["got"])
    if len(shape) > 1 and got == shape[1]:
        return NetworkFault(
            "arch.args.in_channels",
            f"{wanted}: {network} takes {wanted} channels, but the loader yields {got}. Both must agree. Set "
            "in_channels of the loader or of the network.",
        )
    return NetworkFault(
        "arch",
        f"{network} takes {wanted} channels, but gets {got} from the part before it. The widths of neighbouring parts "
        "must agree. Change the arguments of the network.",
    )


def _other_features(found: re.Match[str], network: str, shape: Sequence[int]) -> NetworkFault:
    got, wanted = int(found["got"]), int(found["wanted"])
    return NetworkFault(
        "arch",
        f"{network} is a fully connected layer for {wanted} values, but gets {got} for an input of "
        f"{size_text(shape[1:])}. Such a layer fits one size of the input. Change the arguments of the network, or "
        "resize.",
    )


def _other_size(found: re.Match[str], network: str, shape: Sequence[int]) -> NetworkFault:
    fitting = [-(-side // _COMMON_STRIDE) * _COMMON_STRIDE for side in shape[2:]]
    is_fitting = list(shape[2:]) == fitting or len(shape) != 4
    return NetworkFault(
        "arch" if is_fitting else "resize",
        f"{size_text(shape[2:])}: in {network} sizes that have to be equal are {found['one']} and {found['other']}. "
        + (
            "The parts that are joined there must agree. Change the arguments of the network."
            if is_fitting
            else f"Most networks need sides that are divisible by {_COMMON_STRIDE}. Set resize to {fitting}."
        ),
    )


def _other_dimensions(network: str, shape: Sequence[int]) -> NetworkFault:
    kinds = {3: "series (B, V, T)", 4: "images (B, C, H, W)"}
    return NetworkFault(
        "arch.type",
        f"{network} takes inputs with another number of dimensions than {size_text(shape)}, which are "
        f"{kinds.get(len(shape), 'those of the loader')}. Use a network for such data.",
    )


# Words of torch's messages. A message that has changed is shown as it is.
_EXPLANATIONS: tuple[tuple[str, Callable[[re.Match[str], str, Sequence[int]], NetworkFault]], ...] = (
    (
        r"Expected more than 1 value per channel when training"
        r"(?:, got input size (?:torch\.Size)?\(?\[(?P<sizes>[^\]]*)\])?",
        _one_value_per_channel,
    ),
    (r"Expected more than 1 spatial element", _too_small),
    (r"Kernel size can't be greater than actual input size|Output size is too small", _too_small),
    (r"should be less than the corresponding input dimension|non-empty|padding size should be less", _too_small),
    (r"to have (?P<wanted>\d+) channels, but got (?P<got>\d+) channels", _other_channels),
    (r"cannot be multiplied \(\d+x(?P<got>\d+) and (?P<wanted>\d+)x\d+\)", _other_features),
    (r"The size of tensor a \((?P<one>\d+)\) must match the size of tensor b \((?P<other>\d+)\)", _other_size),
    (
        r"Sizes of tensors must match except in dimension \d+\. Expected size (?P<one>\d+) but got size (?P<other>\d+)",
        _other_size,
    ),
    (
        r"Expected \dD \(unbatched\) or \dD \(batched\) input|expected \dD(?: or \dD)? input",
        lambda _found, network, shape: _other_dimensions(network, shape),
    ),
)


@contextmanager
def failing_part(model: nn.Module) -> Iterator[list[str]]:
    """Follow the forward passes of a block by the names of the parts that run.

    Yields:
        The names of the parts that run at the moment, the innermost last: after an error, those in which it occurred.
    """
    running: list[str] = []

    def enter(name: str, _module: nn.Module, _inputs: Any) -> None:
        running.append(name)

    def leave(name: str, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        while running and running.pop() != name:
            pass  # a part whose error the network has caught

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(partial(enter, name)))
        handles.append(module.register_forward_hook(partial(leave, name)))
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


def run_network(model: nn.Module, inputs: Tensor) -> Any:
    """Return the output of a network.

    Raises:
        ConfigError: It cannot take the input; the message names the part and the argument to change.
        OutOfMemory: Memory ran out.
    """
    with failing_part(model) as running:
        try:
            return model.forward(inputs)  # not model(...), which a compiled network would answer
        except Exception as error:
            part = running[-1] if running else ""
            raise as_error(explain_failure(error, model, tuple(inputs.shape), part), error) from error
