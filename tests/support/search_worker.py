"""A worker's function without a network: curves that follow from the config, kept in a file as a run keeps its own."""

import hashlib
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

WORKER = "tests.support.search_worker:worker"


def value_at(quality, epoch):
    """The curve of a candidate: rises towards its quality."""
    return quality * (1 - 0.5**epoch) + 0.001 * (int(hashlib.md5(f"{quality}/{epoch}".encode()).hexdigest(), 16) % 7)


AT_THE_END = {
    "fails at the end": {"status": "failed", "reason": "no space left on the device"},
    "out of memory at the end": {"status": "out_of_memory", "reason": "no more to be had"},
}


@contextmanager
def worker():
    others = {"measure": lambda task, _report: measured(task), "pool": lambda task, _report: pooled(task)}
    others["retrain"] = retrained
    yield lambda task, report: others.get(task["kind"], run)(task, report)


def retrained(task, report):
    """Train, unless that is done, and export the network."""
    folder = Path(task["folder"])
    if task.get("only_export") and not (folder / "history.pth").exists():
        return {"status": "ended", "is_finished": True, "onnx": {"reason": "the checkpoint is gone"}}
    outcome = {"status": "ended", "is_finished": True} if task.get("only_export") else run(task, report)
    if not (task.get("onnx") and outcome.get("is_finished")):
        return outcome
    (folder / "model.onnx").write_text("a network")
    return outcome | {"onnx": {"agreement": 1.0}}


def measured(task):
    """Measure the latency with nothing running next to it."""
    return {"status": "ended", "facts": {"latency_ms": task["config"].get("quiet_ms", 5.0)}}


def suffer(fate):
    """Die or hang."""
    if fate == "dies":
        os._exit(9)
    if fate == "hangs":
        time.sleep(1000)


def run(task, report):
    """Train `config.trainer.epochs` epochs, reporting each; `fate` of the config says what goes wrong."""
    config, folder = task["config"], Path(task["folder"])
    fate = config.get("fate", "good")
    if task.get("limits") is not None:
        if fate == "refused":
            return {"status": "refused", "reason": "params 9 is more than max_params 8", "facts": {"params": 9}}
        report({"facts": {"params": config["size"], "latency_ms": 9.0 - config["size"] / 20}})
    if fate == "out_of_memory":
        return {"status": "out_of_memory", "reason": "no more to be had", "fresh_worker": True}
    folder.mkdir(parents=True, exist_ok=True)
    history = folder / "history.pth"
    if not history.exists() and task["begins_from"] is not None:
        history.write_text((Path(task["begins_from"]) / history.name).read_text())
    rows = json.loads(history.read_text()) if history.exists() else []
    if not task["reported"]:
        report({"names": ["val_miou"]})
    for row in rows[task["reported"] :]:
        if report({"epoch": row["epoch"], "row": row, "seconds": 1.0}) != "continue":
            return _ended(folder, config, is_finished=False)
    until = task.get("until") or config["trainer"]["epochs"]
    while len(rows) < until:
        epoch = len(rows) + 1
        if fate == "diverges" and epoch == 2:
            return {"status": "failed", "reason": "the loss is not finite"}
        if fate == "ends early" and epoch == 3:
            break
        if epoch == 2:
            suffer(fate)
        quality = config["quality"] + config.get("luck", 0) * config.get("seed", 0)
        value = float("nan") if fate == "undefined" else value_at(quality, epoch)
        rows.append({"epoch": epoch, "val_miou": value})
        decision = report({"epoch": epoch, "row": rows[-1], "seconds": 1.0})
        beside = history.with_suffix(".new")
        beside.write_text(json.dumps(rows))
        beside.replace(history)
        if decision != "continue":
            return AT_THE_END.get(fate) or _ended(folder, config, is_finished=False)
    return AT_THE_END.get(fate) or _ended(folder, config, is_finished=not task.get("until"))


def pooled(task):
    """Give the results of several runs together: here those of the worst of them."""
    rows = [json.loads((Path(folder) / "history.pth").read_text()) for folder in task["folders"]]
    return {"status": "ended", "values": {"val_miou": min(max(row["val_miou"] for row in each) for each in rows)}}


def _ended(folder, config, *, is_finished):
    size = sum(path.stat().st_size for path in folder.glob("*.pth"))
    return {
        "status": "ended",
        "is_finished": is_finished,
        "bytes": size,
        "test": {"test_miou": config.get("test", 0.5)},
    }
