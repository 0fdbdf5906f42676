"""The network of this project: change it freely, any `nn.Module` works."""

from torch import Tensor, nn

from base import BaseModel


class SmallNet(BaseModel):
    """Three convolutions that halve the image, and a mean over the remaining pixels.

    Args:
        num_classes: Classes K; the loader gives it.
        in_channels: Channels C of the image; the loader gives it.
        width: Channels of the first convolution.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, *, width: int = 16) -> None:
        super().__init__()
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        for channels in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(in_channels, channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
            in_channels = channels
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(in_channels, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (B, C, H, W) float -> logits (B, K) float."""
        logits: Tensor = self.head(self.features(inputs).mean(dim=(2, 3)))
        return logits
