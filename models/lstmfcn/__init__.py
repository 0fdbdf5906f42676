"""LSTM fully convolutional network for series (arXiv:1709.05206)."""

from models.lstmfcn.model import LSTMFCN as LSTMFCN
