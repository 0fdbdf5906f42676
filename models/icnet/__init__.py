"""ICNet (arXiv:1704.08545)."""

from models.icnet.model import ICNet as ICNet
