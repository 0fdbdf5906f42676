"""Losses: (output, target) -> scalar.

Logits are (B, K, H, W) for images, or (B, K, ...) with any number of further dimensions, none for classification; the
target is (B, H, W), or (B, ...), int64. "Pixel" means any element that has a label. Common to all:

- They compute in float32, also under autocast, and a batch without valid pixels gives 0 with a gradient of zeros.
- A model that returns a tuple (logits, auxiliary logits, ...) is evaluated by its first element.
- Logits with one channel belong to a binary network (`base.base_model.class_logits`).
"""

from models.losses.binary import (
    dice_loss_with_sigmoid,
    focal_loss_with_sigmoid,
    jaccard_loss_with_sigmoid,
    lovasz_loss_with_sigmoid,
    tversky_loss_with_sigmoid,
)
from models.losses.boundary import BoundaryLoss
from models.losses.common import WeightedLoss
from models.losses.lovasz import LovaszLoss
from models.losses.pixelwise import BinaryCrossEntropyLoss, CrossEntropyLoss, FocalLoss, OhemCrossEntropyLoss
from models.losses.regions import DiceLoss, JaccardLoss, TverskyLoss

__all__ = [
    "BinaryCrossEntropyLoss",
    "BoundaryLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "JaccardLoss",
    "LovaszLoss",
    "OhemCrossEntropyLoss",
    "TverskyLoss",
    "WeightedLoss",
    "dice_loss_with_sigmoid",
    "focal_loss_with_sigmoid",
    "jaccard_loss_with_sigmoid",
    "lovasz_loss_with_sigmoid",
    "tversky_loss_with_sigmoid",
]
