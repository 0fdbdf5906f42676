"""Convolutions that bf16 on a processor does not suit: gradients as in fp32, whatever memory held before."""

import copy

import pytest
import torch
from torch import nn

from trainer.runtime.cpu_convolutions import Float32Training, compute_in_float32
from trainer.runtime.devices import ALONE, RunPrecision, prepare_for_training

OPTIONS = {"sync_batch_norm": False, "checkpoint_activations": [], "compile": False}


class Padded(nn.Conv2d):
    """A convolution as libraries write their own."""

    def forward(self, inputs):
        return super().forward(nn.functional.pad(inputs, (0, 1, 0, 1)))


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 24, 3), nn.Conv2d(24, 24, 3, dilation=2, padding=2), nn.Conv2d(24, 32, 3, dilation=3)]
    depthwise = [nn.Conv2d(32, 32, 3, stride=step, groups=32) for step in (1, 2)]
    wide = [nn.Conv2d(32, 32, side, groups=32, padding=2) for side in (5, (1, 5))]
    layers += [*depthwise, *wide, Padded(32, 32, 3, stride=2, groups=32), nn.Conv2d(32, 2, 3, dilation=2)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def leave_nan_in_free_memory():
    for size in (64, 256, 1000, 2500, 5000, 10_000, 20_000, 40_000, 100_000, 400_000, 1_000_000):
        torch.full((size,), float("nan"))


def gradients(model, dtype):
    inputs = torch.randn(8, 3, 48, 32, generator=torch.Generator().manual_seed(1))
    leave_nan_in_free_memory()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        output = model(inputs.to(memory_format=torch.channels_last))
    leave_nan_in_free_memory()
    output.float().square().mean().backward()
    return [weight.grad for weight in model.parameters()]


def test_the_layers_that_would_be_wrong_or_slow_compute_in_fp32_and_no_others():
    model = network()
    compute_in_float32(model)
    changed = [number for number, layer in enumerate(model) if isinstance(layer, Float32Training)]
    assert changed == [1, 2, 4, 5, 6, 7]
    assert all(isinstance(copy.deepcopy(model)[number], Float32Training) for number in (1, 7))
    assert isinstance(model[7], Padded)
    assert model.state_dict().keys() == network().state_dict().keys()


def test_gradients_are_finite_and_those_of_fp32_but_for_rounding():
    model = prepare_for_training(
        network(), OPTIONS, RunPrecision(torch.device("cpu"), torch.bfloat16, torch.channels_last), ALONE
    )
    for got, exact in zip(gradients(model, torch.bfloat16), gradients(network(), torch.float32), strict=True):
        assert (got - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_precision_is_left_alone(dtype):
    model = prepare_for_training(network(), OPTIONS, RunPrecision(torch.device("cpu"), dtype), ALONE)
    assert not any(isinstance(layer, Float32Training) for layer in model)
