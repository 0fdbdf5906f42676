"""Size, cost and summary of a model."""

import pytest
import torch
from torch import Tensor, nn

from base.base_model import BaseModel


class Small(BaseModel):
    """A convolution, a norm, dropout, and a fully connected layer: every cost can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs).mean(dim=(2, 3)))


CONVOLUTION_FLOPS = 2 * 10 * 12 * 8 * 3 * 9
LINEAR_FLOPS = 2 * 8 * 5


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseModel()  # type: ignore[abstract]


def test_parameters_are_counted() -> None:
    model = Small()
    model.head.requires_grad_(False)
    assert model.parameter_count() == (3 * 8 * 9 + 8) + 2 * 8 + (8 * 5 + 5)
    assert model.parameter_count(trainable_only=True) == (3 * 8 * 9 + 8) + 2 * 8


def test_text_ends_with_the_trainable_parameters() -> None:
    assert str(Small()).endswith("Trainable parameters: 285")


def test_a_multiply_add_counts_as_two_flops() -> None:
    assert Small().flops((10, 12)) == CONVOLUTION_FLOPS + LINEAR_FLOPS


def test_the_summary_is_a_table_of_the_parts_in_order() -> None:
    lines = Small().summary((10, 12)).splitlines()
    table = [line.split() for line in lines[2:7]]
    assert lines[0].split() == ["Part", "Type", "Output", "Parameters", "FLOPs"]
    assert table == [
        ["body", "Sequential", "8x10x12", "240", f"{CONVOLUTION_FLOPS:,}"],
        ["body.0", "Conv2d", "8x10x12", "224", f"{CONVOLUTION_FLOPS:,}"],
        ["body.1", "BatchNorm2d", "8x10x12", "16", "0"],
        ["body.2", "Dropout", "8x10x12", "0", "0"],
        ["head", "Linear", "5", "45", "80"],
    ]
    assert lines[-2] == "Parameters: 285 (285 trainable)"
    assert lines[-1].startswith("FLOPs for an input of 1x3x10x12: 51,920 (25,960 multiply-adds;")


def test_the_summary_looks_as_deep_as_asked() -> None:
    assert "body.0" not in Small().summary((10, 12), depth=1)


def test_looking_leaves_no_trace() -> None:
    model = Small().train()
    model.body[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    model.summary((10, 12))
    model.flops((10, 12))
    assert model.training
    assert not model.body[2].training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(not part._forward_hooks for part in model.modules())


def test_a_model_states_its_input_channels() -> None:
    class Grey(Small):
        in_channels = 1

        def __init__(self) -> None:
            super().__init__()
            self.body[0] = nn.Conv2d(1, 8, 3, padding=1)

    assert Grey().flops((10, 12)) == CONVOLUTION_FLOPS // 3 + LINEAR_FLOPS


def test_a_buffer_that_the_forward_pass_replaces_is_put_back() -> None:
    class Counting(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, inputs: Tensor) -> Tensor:
            self.count = self.count + 1
            return inputs.mean(dim=(2, 3))

    model = Counting()
    before = model.count
    model.flops((4, 4))
    assert model.count is before
    assert model.count == 0
