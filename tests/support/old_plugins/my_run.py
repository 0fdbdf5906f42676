from base import BaseTrainer, Callback
from config import load_config
from train import train


class StopAt(Callback):
    """Ends the run once it is good enough."""

    def __init__(self, val_miou: float) -> None:
        self.val_miou = val_miou

    def on_epoch_end(self, trainer: BaseTrainer, metrics: dict[str, float]) -> None:
        if metrics["val_miou"] >= self.val_miou:
            trainer.request_stop(f"val_miou reached {self.val_miou}")


if __name__ == "__main__":
    config = load_config("config/people/quickstart.json", ["name=good_enough", "seed=3"])
    result = train(config, callbacks=[StopAt(0.6)])
    print(f"epoch {result.epochs}: val_miou {result.best['val_miou']:.3f}, {result.checkpoint}")
