"""A loader or a network of one's own is a classification by the shape of its targets or logits, of any input."""

import logging
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from base import BaseDataLoader
from base.base_inference import task_of_outputs
from base.samples import task_of
from data_loader.common.options import ImageOptions
from data_loader.images.preprocessing import Preprocessing
from train import log_beginning

IMAGE = torch.zeros(3, 4, 5)


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (1, "classification"),
        (np.int64(1), "classification"),
        (torch.tensor(1), "classification"),
        (torch.tensor([0.2, 0.8]), "classification"),
        (torch.zeros(4, 5, dtype=torch.int64), "segmentation"),
        (np.zeros((2, 4, 5)), "segmentation"),
    ],
)
def test_the_first_target_decides(target, task):
    loader = BaseDataLoader([(IMAGE, target)] * 2, 2)
    assert task_of(loader) == task
    loader.task = "segmentation"  # what a class says wins
    assert task_of(loader) == "segmentation"


def test_the_logits_of_a_network_decide_without_data():
    preprocess = Preprocessing(ImageOptions(resize=16))
    assert task_of_outputs(nn.Conv2d(3, 2, 1), preprocess) == "segmentation"
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    assert task_of_outputs(pooled, preprocess) == "classification"
    own = partial(preprocess)  # takes attributes
    own.in_channels = None
    assert task_of_outputs(pooled, own) == "classification"


@pytest.mark.parametrize(("size", "shown"), [(8, "3x8"), ((8, 9), "3x8x9"), ([8, 9], "3x8x9"), (None, r"3x\?")])
def test_a_preprocessing_of_ones_own_may_have_any_size(size, shown, tmp_path, caplog):
    loader = BaseDataLoader([(torch.zeros(3, 8, 9), 0)], 1)
    loader.preprocessing = SimpleNamespace(size=size)
    spec = SimpleNamespace(in_channels=3, num_classes=2)
    parts = SimpleNamespace(config={"arch": {"type": "Net"}}, spec=spec, trainer=None, model=nn.Linear(1, 1))
    parts.train_loader, parts.valid_loader = loader, None
    with caplog.at_level(logging.INFO):
        log_beginning(parts, tmp_path)
    assert re.search(rf"inputs {shown}, 2 classes", caplog.text)
