"""Convolutions that bf16 on a processor does not suit: gradients as in fp32, whatever memory held before."""

import copy

import pytest
import torch
from torch import nn

from trainer.cpu_convolutions import Float32Conv2d, compute_in_float32
from trainer.distributed import ALONE
from trainer.precision import Arithmetic
from trainer.setup import equip

OPTIONS = {"sync_batch_norm": False, "checkpoint_activations": [], "compile": False}


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 24, 3), nn.Conv2d(24, 24, 3, dilation=2, padding=2), nn.Conv2d(24, 32, 3, dilation=3)]
    depthwise = [nn.Conv2d(32, 32, 3, stride=step, groups=32) for step in (1, 2)]
    layers += [*depthwise, nn.Conv2d(32, 2, 3, dilation=2)]
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
    assert [isinstance(layer, Float32Conv2d) for layer in model] == [False, True, True, False, True, False]
    assert isinstance(copy.deepcopy(model)[1], Float32Conv2d)
    assert model.state_dict().keys() == network().state_dict().keys()


def test_gradients_are_finite_and_those_of_fp32_but_for_rounding():
    model = equip(network(), OPTIONS, ALONE, Arithmetic(torch.device("cpu"), torch.bfloat16, torch.channels_last))
    for got, exact in zip(gradients(model, torch.bfloat16), gradients(network(), torch.float32), strict=True):
        assert (got - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_arithmetic_is_left_alone(dtype):
    model = equip(network(), OPTIONS, ALONE, Arithmetic(torch.device("cpu"), dtype))
    assert not any(isinstance(layer, Float32Conv2d) for layer in model)
