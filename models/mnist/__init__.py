"""The network of pytorch-template's MNIST example."""

from models.mnist.model import MnistModel as MnistModel
