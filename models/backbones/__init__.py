"""Classification networks of torchvision and timm as encoders that return a pyramid of feature maps."""

from models.backbones.backbone import Backbone as Backbone
from models.backbones.backbone import Encoder as Encoder
from models.backbones.backbone import build_backbone as build_backbone
from models.backbones.backbone import freeze_stages as freeze_stages
from models.backbones.backbone import index_of_stride as index_of_stride
from models.backbones.plain_transformer import PlainTransformerEncoder as PlainTransformerEncoder
from models.backbones.timm_encoder import TimmEncoder as TimmEncoder
from models.backbones.torchvision_encoder import TORCHVISION_BACKBONES as TORCHVISION_BACKBONES
from models.backbones.torchvision_encoder import TorchvisionEncoder as TorchvisionEncoder
from models.backbones.torchvision_encoder import TorchvisionName as TorchvisionName
