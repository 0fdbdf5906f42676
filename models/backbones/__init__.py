"""Classification networks of torchvision and timm as feature pyramids."""

from models.backbones.choice import Backbone, index_of_stride, make_trunk
from models.backbones.freezing import freeze_stages
from models.backbones.timm_encoder import TimmTrunk
from models.backbones.torchvision_encoder import TRUNKS, Trunk, TrunkName

__all__ = ["TRUNKS", "Backbone", "TimmTrunk", "Trunk", "TrunkName", "freeze_stages", "index_of_stride", "make_trunk"]
