"""Studies as a search leaves them, made by a seeded generator: curves, rungs, refusals, failures, retrained winners."""

import math
import random

from search.results.record import CandidateRecord, RetrainedRecord, RungRecord, Span, StudyRecord

CLASSES = ("background", "person")
SPACE = {
    "name": "people_search",
    "arch": {
        "type": "EncDec",
        "args": {
            "base_channels": {"$choice": [8, 16, 24, 32]},
            "D_blocks": [[[{"$choice": ["H", "V", "C", "O"]}, {"$range": [1, 8]}]]],
        },
    },
    "optimizer": {
        "$choice": [
            {"type": "SGD", "args": {"lr": {"$loguniform": [0.001, 1.0]}, "momentum": {"$uniform": [0.5, 0.99]}}},
            {"type": "AdamW", "args": {"lr": {"$loguniform": [0.001, 1.0]}}},
        ]
    },
    "data_loader": {"type": "SegmentationDataLoader", "args": {"batch_size": 8, "augment": {"$choice": [True, False]}}},
}
REASONS = (
    ("refused", "1,204,866 parameters: max_params is 1,000,000. Draw fewer channels."),
    ("refused", "arch: input 180x240 cannot be halved 5 times. <b>Use 192x256</b>."),
    ("duplicate", "Equals candidate 0."),
    ("out_of_memory", "CUDA out of memory at batch size 64."),
    ("failed", "The loss is not finite in epoch 2, step 41."),
    ("failed", 'RuntimeError: shape "[8, 3]" is invalid </script><script>alert(1)</script>'),
)


def sample_study(num_candidates=60, seed=0, *, objectives=("max val_miou",), rungs=(3, 9, 27), folder="saved/study"):
    """A finished ASHA study of which an eighth was never trained or failed."""
    chance = random.Random(seed)
    study = StudyRecord("people_search", str(folder), SPACE, "ASHA", list(objectives), rungs[-1])
    for index in range(num_candidates):
        study.candidates.append(draw_candidate(index, chance, study.max_epochs))
    climb(study, rungs)
    for candidate in study.candidates:
        finish(candidate, study)
    study.bytes_deleted = 37_000_000
    study.is_done = True
    retrain(study, chance)
    put_on_workers(study, rungs)
    return study


def fixed_study(values=(0.5, 0.6, 0.7)):
    """A file without markers, repeated with other seeds; every candidate has one epoch."""
    study = StudyRecord("fixed", "saved/fixed", {"name": "fixed"}, "RandomSearch", ["max val_miou"], 1, is_done=True)
    for index, value in enumerate(values):
        row = {"epoch": 1, "val_miou": value, "epoch_seconds": 2.0}
        study.candidates.append(
            CandidateRecord(
                index, 100 + index, [], "completed", reports=[row], objectives={"val_miou": value}, best_epoch=1
            )
        )
    return study


def draw_candidate(index, chance, max_epochs):
    drawn = [
        ("arch.args.base_channels", chance.choice([8, 16, 24, 32])),
        ("arch.args.D_blocks.0.0.0", chance.choice("HVCO")),
        ("arch.args.D_blocks.0.0.1", chance.randrange(1, 8)),
        ("optimizer", chance.choice(["SGD", "AdamW"])),
        ("optimizer.args.lr", 10 ** chance.uniform(-3, 0)),
    ]
    if drawn[3][1] == "SGD":
        drawn.append(("optimizer.args.momentum", chance.uniform(0.5, 0.99)))
    drawn.append(("data_loader.args.augment", chance.choice([True, False])))
    candidate = CandidateRecord(index, chance.randrange(2**31), drawn, "completed", folder=f"candidates/{index:05d}")
    values = dict(drawn)
    channels = values["arch.args.base_channels"]
    candidate.facts = {"params": 600.0 * channels**2, "flops": 2.0e5 * channels**2, "memory_mb": 20.0 + 9 * channels}
    if index % 8 == 5:
        candidate.status, candidate.reason = chance.choice(REASONS)
    ceiling = 0.80 - 0.05 * (math.log10(values["optimizer.args.lr"]) + 1.7) ** 2 + 0.002 * channels
    ceiling += {"H": -0.06, "V": -0.05, "C": 0.0, "O": -0.12}[values["arch.args.D_blocks.0.0.0"]]
    ceiling += chance.gauss(0, 0.02) + (0.02 if values["data_loader.args.augment"] else 0)
    speed = chance.uniform(1.5, 5)
    epochs = {"refused": 0, "duplicate": 0, "out_of_memory": 0, "failed": 2}.get(candidate.status, max_epochs)
    for epoch in range(1, epochs + 1):
        miou = max(0.3, ceiling * (1 - math.exp(-epoch / speed - 0.4)) + chance.gauss(0, 0.006))
        candidate.reports.append(
            {
                "epoch": epoch,
                "loss": 1.2 - miou,
                "val_loss": 1.25 - miou,
                "val_miou": miou,
                "val_iou_background": min(1.0, miou + 0.1),
                "val_iou_person": miou - 0.1,
                "epoch_seconds": 0.8 + channels / 20 + chance.uniform(0, 0.1),
            }
        )
    return candidate


def climb(study, rungs):
    """Cut the candidates down: at each rung but the last, the best third goes on."""
    alive = [candidate for candidate in study.candidates if candidate.epochs > rungs[0]]
    for epochs in rungs[:-1]:
        values = {each.index: max(row["val_miou"] for row in each.reports[:epochs]) for each in alive}
        promoted = sorted(values, key=values.__getitem__, reverse=True)[: max(1, len(values) // 3)]
        study.rungs.append(RungRecord(0, epochs, values, sorted(promoted)))
        for candidate in alive:
            if candidate.index not in promoted:
                candidate.status = "stopped"
                del candidate.reports[epochs:]
        alive = [candidate for candidate in alive if candidate.index in promoted]


def put_on_workers(study, rungs, workers=4, begin=1_700_000_000.0):
    """Give each job to the first idle worker, the rungs one after the other, with a pause of the search halfway."""
    jobs = [
        (each, each.reports[start:end])
        for start, end in zip((0, *rungs), rungs, strict=False)
        for each in study.candidates
        if each.reports[start:end] or (start == 0 and each.status in ("out_of_memory", "failed"))
    ]
    jobs += [(run, run.reports) for run in study.retrained]
    free, first = [begin] * workers, begin
    for place, (record, reports) in enumerate(jobs):
        if place == len(jobs) // 2:  # the search is interrupted when all have ended, and continued later
            study.sessions.append((first, max(free)))
            first = max(free) + 1000.0
            free = [first] * workers
        worker = free.index(min(free))
        now = free[worker] + 0.2
        for row in reports:
            now += row["epoch_seconds"]
            row["seconds_at"] = now
        record.spans.append(Span(worker, free[worker], now + 0.3))
        free[worker] = now + 0.3
    study.sessions.append((first, max(free)))


def finish(candidate, study):
    if not candidate.reports:
        return
    best = max(candidate.reports, key=lambda row: row["val_miou"])
    known = best | candidate.facts
    candidate.objectives = {name: known[name] for name in (text.split()[1] for text in study.objectives)}
    candidate.best_epoch = best["epoch"]


def retrain(study, chance):
    best = sorted(
        (each for each in study.candidates if each.status == "completed"),
        key=lambda each: -max(row["val_miou"] for row in each.reports),
    )
    for rank, candidate in enumerate(best[:2], 1):
        for seed in (1, 2, 3):
            reports = [row | {"val_miou": row["val_miou"] + 0.01 + chance.gauss(0, 0.004)} for row in candidate.reports]
            test = {"test_miou": reports[-1]["val_miou"] - 0.02, "test_loss": 0.4}
            folder = f"retrained/{rank}-{seed}"
            study.retrained.append(RetrainedRecord(candidate.index, rank, seed, "completed", reports, test, folder))
