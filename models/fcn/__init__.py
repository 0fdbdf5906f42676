"""Fully convolutional network for series (arXiv:1611.06455)."""

from models.fcn.model import FCN as FCN
