"""ICNet (arXiv:1704.08545)."""

from models.icnet.model import ICNet

__all__ = ["ICNet"]
