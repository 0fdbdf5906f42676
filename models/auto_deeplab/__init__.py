"""Auto-DeepLab (arXiv:1901.02985)."""

from models.auto_deeplab.model import AutoDeepLab as AutoDeepLab
from models.auto_deeplab.supernet import AutoDeepLabSupernet as AutoDeepLabSupernet
