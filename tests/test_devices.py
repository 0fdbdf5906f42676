"""What `-d` means where there are fewer devices than it names."""

import ctypes
import subprocess
import sys

import pytest
import torch

from base.base_inference import choose_device
from trainer.runtime.devices import choose_devices, seed_run
from utils.environment import devices_named
from utils.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    """Let torch count as many GPUs as asked for."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def test_every_command_warns_and_goes_on_without_a_gpu(gpus, caplog):
    gpus(0)
    assert choose_devices(1, "0") == [CPU]
    assert choose_device("0") == CPU
    assert caplog.messages == ["-d 0: there are 0 GPUs here; cpu is used."] * 2


def test_the_devices_that_are_there_are_used(gpus, caplog):
    gpus(2)
    assert devices_named("0,5,1") == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert devices_named("7") == [torch.device("cuda", 0)]
    assert caplog.messages == [
        "-d 0,5,1: there are 2 GPUs here; cuda:0, cuda:1 is used.",
        "-d 7: there are 2 GPUs here; cuda:0 is used.",
    ]
    caplog.clear()
    assert devices_named("cuda:1, 0,1") == [torch.device("cuda", 1), torch.device("cuda", 0)]
    assert devices_named("cpu") == [CPU]
    assert choose_device(None) == torch.device("cuda", 0)
    assert not caplog.messages


@pytest.mark.parametrize("choose", [choose_device, lambda asked: choose_devices(1, asked)])
def test_what_is_no_device_is_refused(choose):
    with pytest.raises(
        ConfigError, match=r'-d 0,gpu: "gpu" is no device. GPUs are counted from 0. Write e.g. 0,1 or cpu'
    ):
        choose("0,gpu")


def test_a_gpu_is_deterministic_unless_the_config_says_otherwise():
    before = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    try:  # the switches are global, and need no GPU to be set
        for wanted in (False, True):
            seed_run(0, torch.device("cuda"), deterministic=wanted)
            assert torch.are_deterministic_algorithms_enabled() == wanted
            assert torch.backends.cudnn.benchmark != wanted
        seed_run(0, CPU, deterministic=False)
        assert torch.are_deterministic_algorithms_enabled()  # a processor has nothing to gain
    finally:
        torch.backends.cudnn.benchmark = before[0]
        torch.use_deterministic_algorithms(before[1])


FAULTS_OF_LATER_ROUNDS = """
import ctypes, resource, sys
from utils.environment import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = libc.memset.argtypes = None
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for number in range(5):
    if number == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(64 * 2**20)))
    libc.memset(block, 1, ctypes.c_size_t(64 * 2**20))
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc")
def test_freed_memory_is_taken_again_without_the_system():
    faults = {}
    for kind in ("kept", "plain"):
        command = [sys.executable, "-c", FAULTS_OF_LATER_ROUNDS, kind]
        faults[kind] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert faults["plain"] >= 4 * 32  # pages of 2 MB; four thousand times 4 of 4 KB
    assert faults["kept"] < 32
