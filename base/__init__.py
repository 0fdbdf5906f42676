"""The contracts that a user subclasses."""

from base.base_data_loader import BaseDataLoader
from base.base_inference import BaseInference
from base.base_loss import BaseLoss
from base.base_metric import Metric
from base.base_model import BaseModel
from base.base_trainer import BaseTrainer
from base.callback import Callback

__all__ = ["BaseDataLoader", "BaseInference", "BaseLoss", "BaseModel", "BaseTrainer", "Callback", "Metric"]
