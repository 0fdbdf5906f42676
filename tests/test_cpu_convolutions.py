"""Convolutions that oneDNN trains wrongly or slowly: exact gradients everywhere, whatever memory held before."""

import copy
import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from base.subsampled_convolution import SubsampledConv2d
from build import DataSpec, build_model
from config import load_plugins
from models.convnet import ConvNet
from trainer.runtime.cpu_convolutions import Float32Training, NarrowFloat32, SubsampledCalls, replace_convolutions
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


def kinds(model):
    mixins = (SubsampledConv2d, SubsampledCalls, Float32Training, NarrowFloat32)
    return [next((mixin for mixin in mixins if isinstance(layer, mixin)), nn.Conv2d) for layer in model]


def narrow(kind=nn.Conv2d, channels=4, **options):
    torch.manual_seed(0)
    return kind(channels, 8, 1, stride=2, **options).to(memory_format=torch.channels_last)


def test_the_layers_that_would_be_wrong_or_slow_compute_in_fp32_and_no_others():
    model = replace_convolutions(network(), in_bf16=True)
    plain, fp32 = nn.Conv2d, Float32Training
    assert kinds(model) == [plain, fp32, fp32, plain, fp32, fp32, fp32, fp32, plain]
    assert isinstance(model[7], Padded)
    assert kinds(copy.deepcopy(model)) == kinds(replace_convolutions(model, in_bf16=True)) == kinds(model)
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
    assert kinds(model) == kinds(network())


NARROW = [
    # channels, kernel, stride, padding, height and width
    (3, 3, 2, 1, (4, 1)),
    (64, 3, 2, 1, (1, 1)),
    (20, 3, 2, 1, (6, 1)),
    (16, (1, 3), (1, 2), (0, 1), (4, 1)),
    (16, 5, 3, 2, (9, 2)),
    (16, 2, 4, 1, (4, 3)),
    (16, 4, 4, 0, (4, 4)),  # the result itself is wrong
    (24, (1, 4), 4, 0, (1, 4)),
    (8, 8, 8, 0, (8, 8)),
    (16, 3, 2, 1, (5, 2)),
    (16, 3, 2, 1, (5, 9)),
]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("shape", NARROW)
def test_strided_convolutions_of_narrow_inputs_are_right_in_bf16(shape, groups):
    """Compared with fp64, with NaN in the memory that was free."""
    channels, kernel, stride, padding, size = shape
    if channels % groups:
        pytest.skip("no such groups")
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 16, kernel, stride, padding, groups=groups)
    inputs = torch.randn(3, channels, *size)
    exact_inputs, exact = inputs.double().requires_grad_(), copy.deepcopy(layer).double()
    expected = exact(exact_inputs)
    gradient = torch.randn(expected.shape).bfloat16()
    expected.backward(gradient.double())
    layer = replace_convolutions(layer.to(memory_format=torch.channels_last), in_bf16=True)
    assert isinstance(layer, NarrowFloat32 if layer.groups != layer.in_channels else Float32Training)
    for _ in range(3):
        layer.zero_grad()
        given = inputs.to(memory_format=torch.channels_last).requires_grad_()
        leave_nan_in_free_memory()
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(given)
        assert output.dtype is torch.bfloat16
        leave_nan_in_free_memory()
        output.backward(gradient)
        pairs = [(output, expected), (given.grad, exact_inputs.grad), (layer.weight.grad, exact.weight.grad)]
        for got, wanted in pairs:
            assert (got - wanted).norm() <= 0.02 * wanted.norm() + 1e-9


ROUTED = [
    # layer, size of a sample
    (lambda: nn.Conv1d(16, 8, 3, 2, 1), (16, 1)),
    (lambda: nn.Conv1d(8, 16, 1, 3), (8, 2)),
    (lambda: nn.Conv1d(20, 8, 5, 4, 2), (20, 3)),
    (lambda: nn.Conv1d(16, 16, 7, 4, 3, groups=16), (16, 2)),
    (lambda: nn.Conv1d(24, 24, 3, 3, 1, padding_mode="circular"), (24, 1)),
    (lambda: nn.ConvTranspose1d(15, 16, 3, 4, 1), (15, 1)),
    (lambda: nn.ConvTranspose1d(20, 32, 4, 3, 1), (20, 1)),
    (lambda: nn.ConvTranspose2d(16, 16, 3, 2, 1), (16, 4, 1)),
    (lambda: nn.ConvTranspose2d(1, 12, 7, 4, 3), (1, 4, 1)),
    (lambda: nn.ConvTranspose2d(32, 32, 5, 2, 2, groups=32), (32, 4, 1)),
    (lambda: nn.Conv2d(16, 16, 1, (1, 2), (0, 1), dilation=2), (16, 3, 1)),  # ends the process
    (lambda: nn.Conv2d(20, 16, 1, (1, 2), (0, 1), dilation=2), (20, 3, 1)),
    (lambda: nn.ConvTranspose2d(16, 16, 1, (1, 2), (0, 1), dilation=2), (16, 1, 2)),
    (lambda: nn.Conv2d(16, 16, 4, 4), (16, 8, 4)),  # the result itself
    (lambda: nn.Conv2d(24, 16, (1, 8), (1, 8)), (24, 2, 8)),
    (lambda: nn.Conv2d(17, 16, 3, padding=2, dilation=2), (17, 12, 64)),
    (lambda: nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=4), (32, 12, 64)),
    (lambda: nn.Conv2d(24, 24, 3, padding=4, dilation=4), (24, 48, 32)),  # ends the process
    (lambda: nn.ConvTranspose2d(24, 24, 3, padding=2, dilation=2), (24, 12, 64)),
    (lambda: nn.ConvTranspose2d(16, 16, 3, padding=2, dilation=2, groups=16), (16, 12, 64)),
]


@pytest.fixture
def memory_holds_nan():
    """Let the C library fill new memory with bytes of 255, where it can; those are NaN in every precision."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        pytest.skip("needs glibc")
    perturb = -6
    library.mallopt(perturb, 256)
    yield
    library.mallopt(perturb, 0)


def results(layer, inputs, gradient, dtype):
    inputs = inputs.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        output = layer.train()(inputs)
        with torch.inference_mode():
            evaluated = layer.eval()(inputs)
    layer.zero_grad()
    output.backward(gradient.to(output.dtype))
    return [output.detach(), evaluated, inputs.grad, layer.weight.grad, layer.bias.grad]


@pytest.mark.usefixtures("memory_holds_nan")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("number", range(len(ROUTED)))
def test_every_replaced_kind_is_right_and_repeats_itself(number, dtype):
    make, size = ROUTED[number]
    torch.manual_seed(0)
    layer, inputs = make(), torch.randn(3, *size)
    inputs = inputs.movedim(1, -1).contiguous().movedim(-1, 1)  # channels-last
    layer, inputs = layer.bfloat16().float(), inputs.bfloat16().float()  # the same numbers in every precision
    exact = copy.deepcopy(layer).double()
    gradient = torch.randn(exact(inputs.double()).shape).bfloat16()
    wanted = results(exact, inputs.detach().double(), gradient, torch.float64)
    memory_format = torch.channels_last if len(size) == 3 else torch.contiguous_format
    layer = replace_convolutions(layer.to(memory_format=memory_format), in_bf16=dtype is torch.bfloat16)
    assert isinstance(layer, NarrowFloat32) == (dtype is torch.bfloat16)
    first, second = (results(layer, inputs.detach(), gradient, dtype) for _ in range(2))
    tolerance = 0.01 if dtype is torch.bfloat16 else 1e-6
    for got, again, expected in zip(first, second, wanted, strict=True):
        assert torch.equal(got, again)
        assert (got - expected).norm() <= tolerance * expected.norm()
    assert first[0].dtype is (torch.float32 if isinstance(layer, Float32Training) else dtype)


PLUGIN = """
from torch import nn

class Columns(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(16, 16, (3, 1), (1, 3), (0, 2), dilation=2))
"""


def test_a_dilation_without_effect_is_dropped_also_for_inference(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.plugins.loaded", {})
    plugin = tmp_path / "columns_network.py"
    plugin.write_text(PLUGIN)
    load_plugins([plugin])
    model = build_model({"arch": {"type": "columns_network.Columns"}}, DataSpec())
    assert model[0].dilation == (2, 1)
    layer, inputs = model.to(memory_format=torch.channels_last)[0], torch.randn(1, 16, 5, 1)
    exact = nn.functional.conv2d(inputs.double(), layer.weight.double(), layer.bias.double(), (1, 3), (0, 2), 2)
    with torch.inference_mode():
        torch.testing.assert_close(model(inputs.to(memory_format=torch.channels_last)), exact.float())


def test_only_inputs_shorter_than_the_stride_are_narrow():
    cases = {
        nn.Conv1d(8, 8, 3, 2, 1): [1],
        nn.Conv1d(8, 8, 1, 3): [1, 2],
        nn.Conv2d(8, 8, 4, 4): [1, 2, 3, 4],
        nn.Conv2d(8, 8, 4, 4, 1): [1, 2, 3],
        nn.Conv2d(8, 8, (5, 2), (3, 2), (1, 0)): [1, 2],
        nn.Conv1d(8, 8, 3, 3, 1, padding_mode="circular"): [1],
        nn.Conv2d(8, 8, 3, 4, padding="valid"): [1, 2, 3],
        nn.Conv1d(8, 8, 3, 4, dilation=2): [],
        nn.Conv2d(16, 8, (3, 1), 2, dilation=2): [1],
        nn.ConvTranspose1d(8, 8, 3, 4, 1): [1],  # to 1; 2 to 5
        nn.ConvTranspose1d(8, 8, 2, 2): [1],  # to 2, as long as kernel and stride
        nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1): [],
    }
    for original, narrow_lengths in cases.items():
        layer = replace_convolutions(original, in_bf16=True)
        assert [length for length in range(1, 12) if layer.is_narrow(length)] == narrow_lengths, layer
    transposed = replace_convolutions(nn.ConvTranspose1d(8, 8, 3, 2, 1), in_bf16=True)
    assert [transposed.is_narrow(1), transposed.is_narrow(1, [2])] == [True, False]
    assert transposed(torch.randn(1, 8, 1), [2]).shape == (1, 8, 2)


UNTOUCHED = [
    nn.Conv1d(20, 20, 3, padding=2, dilation=2),
    nn.Conv1d(16, 16, 9, groups=16),
    nn.Conv2d(3, 24, 3, dilation=2),
    nn.Conv2d(64, 64, 3, dilation=2, groups=2),
    nn.Conv2d(8, 8, 3, (2, 1)),
    nn.ConvTranspose2d(24, 32, 3, dilation=2),
    nn.Conv3d(20, 20, 3, 2),
    nn.Linear(3, 3),
]


@pytest.mark.parametrize("layer", UNTOUCHED)
def test_neighbours_that_are_right_stay_as_they_are(layer):
    assert replace_convolutions(layer, in_bf16=True) is layer


def test_wide_inputs_of_strided_convolutions_stay_in_bf16():
    layer = replace_convolutions(nn.Conv2d(8, 8, 3, 2, 1), in_bf16=True)
    assert kinds([layer, replace_convolutions(nn.Conv2d(8, 8, 3, (2, 1)), in_bf16=True)]) == [NarrowFloat32, nn.Conv2d]
    inputs = torch.randn(1, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(inputs), nn.functional.conv2d(inputs, layer.weight, layer.bias, 2, 1))
    assert layer(inputs[..., :1]).dtype is torch.float32


def test_names_parameters_modes_and_hooks_survive_a_replacement():
    model = nn.Sequential(narrow(), nn.Conv2d(8, 8, 3, 2), narrow(Padded, channels=8)).eval()
    model[0].weight.requires_grad_(False)
    seen, names, before = [], list(model.state_dict()), dict(model.named_parameters())
    for layer in model:
        layer.register_forward_hook(lambda *_: seen.append("hook"))
    assert replace_convolutions(model, in_bf16=True) is model
    assert kinds(model) == [SubsampledConv2d, NarrowFloat32, SubsampledCalls]
    assert list(model.state_dict()) == names
    assert list(dict(model.named_parameters())) == list(before)
    assert all(weight is before[name] for name, weight in model.named_parameters())
    assert not model[0].weight.requires_grad
    assert not any(layer.training for layer in model)
    model(torch.randn(1, 4, 32, 32))
    assert seen == ["hook"] * 3
    copied = copy.deepcopy(model)
    assert kinds(copied) == kinds(model)
    assert copied[2].weight is not model[2].weight


def test_a_layer_with_several_names_keeps_them():
    shared = narrow()
    model = nn.ModuleDict({"first": shared, "part": nn.Sequential(shared, narrow()), "again": shared})
    replace_convolutions(model, in_bf16=False)
    assert isinstance(model["first"], SubsampledConv2d)
    assert model["first"] is model["again"] is model["part"][0]
    assert model["first"] is not model["part"][1]
    assert isinstance(replace_convolutions(shared, in_bf16=False), SubsampledConv2d)


@pytest.mark.parametrize(
    "layer",
    [
        narrow(channels=16),
        narrow(channels=8, groups=2),
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(4, 8, 3, stride=2),
        Padded(4, 8, 1),
    ],
)
def test_layers_that_use_another_kernel_stay_as_they_are(layer):
    assert replace_convolutions(layer, in_bf16=False) is layer


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
@pytest.mark.parametrize("padding", [0, 1, (1, 0)])
@pytest.mark.parametrize("kind", [nn.Conv2d, Padded])
def test_a_replacement_is_the_same_function(kind, padding, padding_mode):
    layer = narrow(kind, padding=padding, padding_mode=padding_mode).double()  # oneDNN does not compute in fp64
    replacement = replace_convolutions(layer, in_bf16=False)
    for size in ((9, 14), (1, 2)):
        inputs = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
        results = [module(inputs) for module in (layer, replacement)]
        torch.testing.assert_close(*results)
        torch.testing.assert_close(
            *(torch.autograd.grad(maps.square().sum(), [inputs, layer.weight]) for maps in results)
        )


def test_a_narrow_convnet_avoids_the_kernel_without_a_trainer():
    shortcuts = [block.shortcut for block in ConvNet(3, channels=[8, 16, 32]).stages]
    assert [type(shortcut) for shortcut in shortcuts] == [type(None), SubsampledConv2d, nn.Conv2d]


EVERY_WIDTH = """
import copy, os, signal, sys
import torch
from torch import nn
from trainer.runtime.cpu_convolutions import Float32Always, replace_convolutions

class Standardised(nn.Conv2d):
    def forward(self, inputs):
        return nn.functional.conv2d(inputs, 1.0 * self.weight, None, self.stride)

def check(channels, layer, dtype):
    torch.manual_seed(channels)
    layer = replace_convolutions(layer.to(memory_format=torch.channels_last), in_bf16=dtype is torch.bfloat16)
    inputs = torch.randn(1, channels, 112, 112).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        output = layer(inputs)
    gradient = torch.randn(output.shape).to(memory_format=torch.channels_last)
    output.backward(gradient.to(dtype))
    if layer.groups == 1 and not any(layer.padding):
        exact = torch.einsum("noij,ncij->oc", gradient.double(), inputs[:, :, ::2, ::2].double())[:, :, None, None]
    else:
        reference = nn.Conv2d(channels, 8, 1, 2, layer.padding, groups=layer.groups, bias=False).double()
        reference(inputs.double()).backward(gradient.double())
        exact = reference.weight.grad
    error = float((layer.weight.grad - exact).norm() / exact.norm())
    if not error < (0.02 if dtype is torch.bfloat16 else 1e-4):
        print(layer, dtype, "relative error", error, flush=True)
        os._exit(1)

def check_lstm(lacks_bf16):  # torch refuses it in bf16 without AVX-512
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(3, 5), nn.LSTM(5, 4, 2, batch_first=True))
    assert replace_convolutions(original, in_bf16=False)[1] is original[1]
    model = copy.deepcopy(replace_convolutions(copy.deepcopy(original), in_bf16=True))
    assert list(model.state_dict()) == list(original.state_dict())
    inputs = torch.randn(2, 7, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output, states = model(inputs)
        model[1](model[0](inputs).bfloat16(), [state.bfloat16() for state in states])
    assert isinstance(model[1], Float32Always) or not lacks_bf16
    assert torch.allclose(output.float(), original(inputs)[0], atol=0.01, rtol=0.01)
    output.sum().backward()
    assert model[1].weight_hh_l1.grad.isfinite().all()

for instructions in ("DEFAULT", "AVX2", "AVX512_CORE"):
    for threads in (1, 2):
        child = os.fork()  # a process of its own: it may crash or hang
        if child == 0:
            signal.alarm(40)
            os.environ["ONEDNN_MAX_CPU_ISA"] = instructions
            torch.set_num_threads(threads)
            for dtype in (torch.float32, torch.bfloat16):
                for channels in range(1, 18):
                    for kind in (nn.Conv2d, Standardised):
                        check(channels, kind(channels, 8, 1, 2, bias=False), dtype)
                check(4, nn.Conv2d(4, 8, 1, 2, padding=1, bias=False), dtype)
                check(8, nn.Conv2d(8, 8, 1, 2, groups=2, bias=False), dtype)
            check_lstm(lacks_bf16=instructions == "AVX2")
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            print(instructions, "with", threads, "threads: exit", status, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_narrow_strided_convolutions_and_lstms_are_right_with_every_instruction_set():
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # threads that spin are slow where cores are shared
    ended = subprocess.run(
        [sys.executable, "-c", EVERY_WIDTH],
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stdout + ended.stderr
