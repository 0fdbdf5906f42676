"""Losses: (output, target) -> scalar.

Logits are (B, K, H, W) for images, or (B, K, ...) with any number of further dimensions, none for classification; the
target is (B, H, W), or (B, ...), int64. "Pixel" means any element that has a label. Common to all:

- They compute in float32, also under autocast, and a batch without valid pixels gives 0 with a gradient of zeros.
- A model that returns a tuple (logits, auxiliary logits, ...) is evaluated by its first element.
- Logits with one channel belong to a binary network (`base.base_model.class_logits`).
"""

from models.losses.binary import dice_loss_with_sigmoid as dice_loss_with_sigmoid
from models.losses.binary import focal_loss_with_sigmoid as focal_loss_with_sigmoid
from models.losses.binary import jaccard_loss_with_sigmoid as jaccard_loss_with_sigmoid
from models.losses.binary import lovasz_loss_with_sigmoid as lovasz_loss_with_sigmoid
from models.losses.binary import tversky_loss_with_sigmoid as tversky_loss_with_sigmoid
from models.losses.boundary import BoundaryLoss as BoundaryLoss
from models.losses.common import WeightedLoss as WeightedLoss
from models.losses.lovasz import LovaszLoss as LovaszLoss
from models.losses.pixelwise import BinaryCrossEntropyLoss as BinaryCrossEntropyLoss
from models.losses.pixelwise import CrossEntropyLoss as CrossEntropyLoss
from models.losses.pixelwise import FocalLoss as FocalLoss
from models.losses.pixelwise import NegativeLogLikelihood as NegativeLogLikelihood
from models.losses.pixelwise import OhemCrossEntropyLoss as OhemCrossEntropyLoss
from models.losses.regions import DiceLoss as DiceLoss
from models.losses.regions import JaccardLoss as JaccardLoss
from models.losses.regions import TverskyLoss as TverskyLoss
