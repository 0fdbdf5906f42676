"""UNetPlus: a U-Net with a wider decoder, and a backbone that may be frozen."""

from models.unetplus.model import UNetPlus as UNetPlus
