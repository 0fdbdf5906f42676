"""Classification networks of torchvision and timm as encoders that return a pyramid of feature maps."""

from models.backbones.backbone import Backbone, Encoder, build_backbone, freeze_stages, index_of_stride
from models.backbones.timm_encoder import TimmEncoder
from models.backbones.torchvision_encoder import TORCHVISION_BACKBONES, TorchvisionEncoder, TorchvisionName

__all__ = [
    "TORCHVISION_BACKBONES",
    "Backbone",
    "Encoder",
    "TimmEncoder",
    "TorchvisionEncoder",
    "TorchvisionName",
    "build_backbone",
    "freeze_stages",
    "index_of_stride",
]
