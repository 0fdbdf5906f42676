"""BiSeNet (arXiv:1808.00897)."""

from models.bisenet.model import BiSeNet as BiSeNet
