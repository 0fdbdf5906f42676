"""A task that trains in milliseconds: points with two classes, a network with dropout, a loader with chance."""

import torch
from torch import nn

from base import BaseDataLoader, BaseModel, Metric
from base.base_trainer import LearningRateSchedule
from trainer.trainer import Trainer, TrainingPlan

CLASSIFIERS = {"ConvNet", "MnistModel", "FCN", "ResNet1d", "InceptionTime", "LSTMFCN", "CellNet"}


class Blobs:
    """Points (3,) of two classes with keyed noise: sample i is the same in each epoch but for its noise."""

    def __init__(self, size=22):
        self.points = torch.linspace(-2, 2, size * 3).reshape(size, 3)

    def __len__(self):
        return len(self.points)

    def sample(self, index, generator):
        noise = torch.from_numpy(generator.standard_normal(3).astype("float32"))
        return self.points[index] + 0.3 * noise, torch.tensor(int(self.points[index].sum() > 0))


class TinyNet(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))

    def forward(self, inputs):
        return self.layers(inputs)


class Accuracy(Metric):
    def __init__(self):
        self.reset()

    def reset(self):
        self.counts = torch.zeros(2, dtype=torch.float64)

    def update(self, logits, target):
        hits = (logits.argmax(1) == target).sum()
        self.counts = self.counts + torch.stack((hits.double(), torch.full((), len(target), dtype=torch.float64)))

    def compute(self):
        return {"accuracy": float(self.counts[0] / self.counts[1])}  # NaN where nothing was counted


def tiny_trainer(callbacks=(), *, schedule=None, n_workers=0, optimizer=None, loss=None, **plan):
    """A trainer of the tiny task; `schedule` makes a scheduler from the optimizer."""
    torch.manual_seed(5)
    model = TinyNet()
    optimizer = (optimizer or (lambda p: torch.optim.AdamW(p, lr=0.05)))(model.parameters())
    torch.manual_seed(6)
    return Trainer(
        model,
        optimizer,
        criterion=loss or nn.CrossEntropyLoss(),
        train_loader=BaseDataLoader(Blobs(), 4, shuffle=True, n_workers=n_workers, seed=3, is_training=True),
        valid_loader=BaseDataLoader(Blobs(10), 4, shuffle=False, seed=4, is_training=False),
        metrics=[Accuracy()],
        plan=TrainingPlan(**{"epochs": 3, "monitor": "max val_accuracy", **plan}),
        lr_scheduler=LearningRateSchedule(**schedule(optimizer)) if schedule else None,
        callbacks=callbacks,
    )
