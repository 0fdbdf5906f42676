"""PSPNet (arXiv:1612.01105)."""

from models.pspnet.model import PSPNet as PSPNet
