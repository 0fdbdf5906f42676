"""DeepLabV3+ (arXiv:1802.02611)."""

from models.deeplabv3plus.model import DeepLabV3Plus as DeepLabV3Plus
