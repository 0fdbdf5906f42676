"""A network that is out of reach while something is fetched."""

import http.client
import socket
import ssl
import urllib.error

import pytest
import torch
import torchvision

from build import registry
from config import instantiate
from data_loader.segmentation.torchvision_loader import open_dataset
from utils.environment import is_network_error, resource_errors
from utils.errors import ConfigError, DataError, TrainingError


class OfAPackage(Exception):
    """An error of a package for requests that has no base class of Python's."""

    __module__ = "httpx._exceptions"


ERRORS = [
    urllib.error.URLError(socket.gaierror(-2, "Name or service not known")),
    http.client.RemoteDisconnected("Remote end closed connection"),
    http.client.IncompleteRead(b""),
    TimeoutError("timed out"),
    ssl.SSLError(1, "wrong version number"),
    ConnectionRefusedError(111, "Connection refused"),
    OfAPackage("[Errno -2] Name or service not known"),
]


def raising(error):
    def fetch(*_, **__):
        raise error

    return fetch


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_weights_of_a_library_that_cannot_be_fetched_are_an_error_with_the_repair(monkeypatch, error):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", raising(error))
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", raising(error))
    config = {"arch": {"type": "torchvision.models.squeezenet1_1", "args": {"weights": "DEFAULT"}}}
    message = (
        rf"^arch: torchvision\.models\.squeezenet1_1 cannot fetch .*\({type(error).__name__}: .* out of reach\. .*"
    )
    with pytest.raises(ConfigError, match=message + r"TORCH_HOME, HF_HOME.*\(null\)\.$"):
        instantiate(config, "arch", registry(), runtime={})


def test_a_data_set_that_cannot_be_fetched_is_no_wrong_root(monkeypatch, tmp_path):
    monkeypatch.setattr("torchvision.datasets.voc.download_and_extract_archive", raising(ERRORS[0]))
    with pytest.raises(DataError, match=r"VOCSegmentation cannot fetch .* out of reach") as caught:
        open_dataset("torchvision.datasets.VOCSegmentation", {"root": str(tmp_path), "download": True})
    assert "root" not in str(caught.value)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_the_network_in_a_run_is_no_traceback(error):
    with pytest.raises(TrainingError, match="This run cannot fetch what it needs"), resource_errors():
        raise error


def test_other_errors_and_those_with_another_cause_stay_apart():
    assert not any(map(is_network_error, (OSError(2, "No such file"), RuntimeError("connection"), ValueError("http"))))
    wrapped = RuntimeError("wrapped by a package")
    wrapped.__cause__ = ERRORS[0]
    assert is_network_error(wrapped)
