"""A residual classifier for small pictures."""

from models.convnet.model import ConvNet

__all__ = ["ConvNet"]
