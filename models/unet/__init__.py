"""U-Net (arXiv:1505.04597)."""

from models.unet.model import UNet as UNet
