"""UNetPlus: a U-Net with a wider decoder, and a trunk that may stay as it is."""

from models.unetplus.model import UNetPlus

__all__ = ["UNetPlus"]
