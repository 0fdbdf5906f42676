"""A residual classifier for small images."""

from models.convnet.model import ConvNet as ConvNet
