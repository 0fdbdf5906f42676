from itertools import islice
from typing import Any

from base import BaseTrainer
from base.callback import StepReport


class PlainLoop(BaseTrainer):
    """An epoch written out: one device, full precision, no validation."""

    def __init__(
        self, model: Any, optimizer: Any, *, criterion: Any, train_loader: Any, plan: Any, **parts: Any
    ) -> None:
        options = {name: getattr(plan, name) for name in ("epochs", "monitor", "early_stop")}
        super().__init__(model, optimizer, lr_scheduler=parts["lr_scheduler"], **options)
        self.criterion, self.loader, self.plan = criterion, train_loader, plan
        self.total = 0.0

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.len_epoch or len(self.loader)

    def train_epoch(self) -> dict[str, float]:
        self.model.train()
        self.total = self.total if self.batch else 0.0
        while self.batch < self.steps_per_epoch:  # an epoch may be more or less than once through the loader
            self.loader.set_position(*divmod(self.global_step, len(self.loader)))
            for inputs, target, *_ in islice(self.loader, self.steps_per_epoch - self.batch):
                self.take_step(inputs.to(self.plan.arithmetic.device), target.to(self.plan.arithmetic.device))
        return {"loss": self.total / self.batch}

    def take_step(self, inputs: Any, target: Any) -> None:
        loss = self.criterion(self.model(inputs), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.total += loss.item()
        self.finish_step(StepReport(loss.detach(), len(inputs), data_seconds=0.0, step_seconds=0.0))

    def loop_state(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_loop_state(self, state: dict[str, Any]) -> None:
        self.total = state["total"]
