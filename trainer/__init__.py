"""Trainers, optimizers and schedules: the registry of the classes that drive the loop; it loads nothing heavy."""

from utils.registry import Section

SECTIONS: dict[str, Section] = {
    "trainer": Section(
        expects="base.base_trainer:BaseTrainer",
        entries={
            "Trainer": "trainer.trainer:Trainer",
            "BilevelTrainer": "trainer.bilevel.bilevel_trainer:BilevelTrainer",
        },
    ),
    "optimizer": Section(
        expects="torch.optim:Optimizer",
        entries={"SGDW": "trainer.optim.optimizers:SGDW"},
        roots=("torch.optim",),
        shortcuts=("torch.optim",),
        subclasses={"torch.optim": "trainer.optim.uncompiled:without_compiler"},
    ),
    "lr_scheduler": Section(
        expects="torch.optim.lr_scheduler:LRScheduler",
        entries={"poly": "trainer.optim.schedules:PolyLR"},
        roots=("torch.optim.lr_scheduler",),
        shortcuts=("torch.optim.lr_scheduler",),
    ),
}
