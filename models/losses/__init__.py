"""Losses: (output, target) -> scalar.

Logits are (B, K, H, W) for images, or (B, K, ...) with any number of further dimensions, none for classification; the
target is (B, H, W), or (B, ...), int64. "Pixel" stands for whatever has a label. Common to all:

- They compute in float32, also under autocast, and a batch without valid pixels gives 0 with a gradient of zeros.
- A model that gives a tuple (logits, auxiliary logits, ...) is judged by the first.
- Logits with one channel are those of a binary network (`base.output.class_logits`).
"""

from models.losses.boundary import BoundaryLoss
from models.losses.combined import WeightedLoss
from models.losses.lovasz import LovaszLoss, SigmoidLovaszLoss
from models.losses.pixelwise import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    FocalLoss,
    OhemCrossEntropyLoss,
    SigmoidFocalLoss,
)
from models.losses.regions import (
    DiceLoss,
    JaccardLoss,
    SigmoidDiceLoss,
    SigmoidJaccardLoss,
    SigmoidTverskyLoss,
    TverskyLoss,
)

__all__ = [
    "BinaryCrossEntropyLoss",
    "BoundaryLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "JaccardLoss",
    "LovaszLoss",
    "OhemCrossEntropyLoss",
    "SigmoidDiceLoss",
    "SigmoidFocalLoss",
    "SigmoidJaccardLoss",
    "SigmoidLovaszLoss",
    "SigmoidTverskyLoss",
    "TverskyLoss",
    "WeightedLoss",
]
