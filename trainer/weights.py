"""Weights of an earlier run to begin with."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from trainer.distributed import unwrap
from utils.errors import CheckpointError
from utils.saved_runs import judged_weights


def weights_of(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The weights in a checkpoint of this project, of one with the same key, or in a bare state dict.

    Of a run with an average of its weights, the average: it is what validation has judged.

    Raises:
        CheckpointError: There are none.
    """
    state = judged_weights(content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"A checkpoint with the keys {', '.join(map(str, list(content)[:5]))} holds no weights. They are expected "
            'under "state_dict", or as the whole file. Name another file.'
        )
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_matching_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Load the weights whose name and shape fit, for fine-tuning; what did not fit, a line each.

    Raises:
        CheckpointError: Nothing fits.
    """
    model = unwrap(model)
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in state_dict.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise CheckpointError(
            f"None of the checkpoint's {len(state_dict)} weights has the name and shape of one of the model's "
            f"{len(own)}. Fine-tuning needs the same arch section. Compare it with the checkpoint's config.json."
        )
    model.load_state_dict(fitting, strict=False)
    left_out = [f"{name}: not in the checkpoint, keeps its first values" for name in own if name not in state_dict]
    for name, tensor in state_dict.items():
        if name not in own:
            left_out.append(f"{name}: not in the model, not loaded")
        elif name not in fitting:
            left_out.append(
                f"{name}: {tuple(tensor.shape)} does not fit the model's {tuple(own[name].shape)}, not loaded"
            )
    return left_out
