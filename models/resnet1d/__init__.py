"""Residual network for series (arXiv:1611.06455)."""

from models.resnet1d.model import ResNet1d as ResNet1d
