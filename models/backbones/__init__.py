"""Torchvision's classification networks as feature pyramids."""

from models.backbones.trunk import TRUNKS, Trunk, TrunkName

__all__ = ["TRUNKS", "Trunk", "TrunkName"]
