"""The network of pytorch-template's MNIST example: two convolutions of 5x5 and two linear layers, as in LeNet-5."""

from torch import Tensor, nn
from torch.nn import functional as F

from base.base_model import BaseModel
from models.layers.blocks import Count

SIDE = 28  # of MNIST's images; the first linear layer takes the 4x4 cells that remain of them


class MnistModel(BaseModel):
    """A small network for digits that gives logarithms of probabilities, as `nll_loss` takes them.

    The parameters have the names and shapes of pytorch-template's network. Images of another size than 28x28 are
    resized to it.

    Args:
        num_classes: Classes K.
        in_channels: Channels C of the image.
    """

    def __init__(self, num_classes: Count = 10, in_channels: Count = 1) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv1 = nn.Conv2d(in_channels, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1 = nn.Linear(20 * 4 * 4, 50)
        self.fc2 = nn.Linear(50, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logarithms of probabilities (B, K) float."""
        image = F.interpolate(inputs, (SIDE, SIDE), mode="bilinear")  # changes no image that has this size
        maps = F.relu(F.max_pool2d(self.conv1(image), 2))
        maps = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(maps)), 2))
        features = F.dropout(F.relu(self.fc1(maps.flatten(1))), training=self.training)
        return F.log_softmax(self.fc2(features), dim=1)
