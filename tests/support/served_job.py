"""Stand-ins for the commands of the service's jobs, without torch: `served_job.py -c FILE` or `--resume FOLDER`.

A study is a real one, of a table, that takes a moment for each event. A training writes a row of its `metrics.csv` for
each epoch. Both save their state at a signal, as the commands do.
"""

import json
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from utils.errors import EspalierError, Interrupted, SearchError
from utils.files import folder_lock, make_stamped_folder, write_json

PROGRAM = (sys.executable, str(Path(__file__).resolve()))
TABLE = """optimizer.args.lr,arch.args.width,val_accuracy_1,val_accuracy_2,epoch_seconds
0.1,8,0.61,0.70,3.5
0.1,16,0.66,nan,5
0.01,8,0.55,0.72,3.5
0.01,16,0.60,0.78,5
0.001,8,0.40,0.51,3.5
0.001,16,0.42,0.57,5
"""


def write_configs(folder, *, seconds=0.02, epochs=3):
    """Write `sweep.json`, the config of a study, and `plain.json`, that of a training; `seconds` for each event."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.csv").write_text(TABLE)
    executor = {"type": "table", "args": {"file": str(folder / "sweep.csv"), "workers": 2}}
    search = {"num_samples": 6, "objectives": ["max val_accuracy"], "executor": executor}
    search["scheduler"] = {"type": "ASHA", "args": {"grace_period": 1}}
    trainer = {"epochs": 2}
    pace = {"loss": seconds}  # a key that neither looks at
    write_json(folder / "sweep.json", {"name": "sweep", "trainer": trainer, "search": search} | pace)
    loader = {"type": "SegmentationDataLoader", "args": {"data_dir": "data/people"}}
    plain = {"name": "plain", "arch": {"type": "UNet"}, "train_loader": loader, "trainer": {"epochs": epochs}} | pace
    write_json(folder / "plain.json", plain)
    return folder


def run_study(folder, seconds=0.0):
    """Run a study of a table, or resume it."""
    from search.study.folders import read_study_config  # here, so that a training begins at once
    from search.study.settings import build_study_parts
    from search.study.study import Study

    study = Study(folder, build_study_parts(read_study_config(folder)), worker="", environment={"command": []})
    study.watchers = [lambda _event, _state: time.sleep(seconds)]
    return study.run()


def make_study(saved, configs, name="sweep", **search):
    """Return the folder of a finished study of a table."""
    from search.study.folders import create_study_folder

    config = json.loads((configs / "sweep.json").read_text())
    config["name"] = name
    config["search"] |= search
    config["trainer"]["save_dir"] = str(saved)
    folder = create_study_folder(str(saved), name, config)
    run_study(folder)
    return folder


@contextmanager
def noted_stops():
    """A list that grows with each SIGTERM."""
    stopped = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)


def train(folder, config, seconds):
    """Train on: a row for each epoch, and the result at the end."""
    with noted_stops() as stopped, folder_lock(folder, SearchError):
        path = folder / "metrics.csv"
        if not path.exists():
            path.write_text("epoch,val_miou\n")
        for epoch in range(path.read_text().count("\n"), config["trainer"]["epochs"] + 1):
            time.sleep(seconds)
            with open(path, "a") as file:
                file.write(f"{epoch},0.{epoch}\n")
            with open(folder / "info.log", "a") as file:
                file.write(f"Epoch {epoch}/{config['trainer']['epochs']} done\n")
            if stopped:
                raise Interrupted(stopped[0])
        write_json(folder / "result.json", {"best": {"epoch": 3, "val_miou": 0.3}, "monitor": "max val_miou"})


def main(words):
    """Run the stand-in of `python -m search` or `train.py`, by the config."""
    path = Path(words[1])
    is_new = words[0] == "-c"
    config = json.loads((path if is_new else path / "config.json").read_text())
    seconds = config["loss"]
    try:
        if "search" in config:
            from search.study.folders import create_study_folder

            folder = create_study_folder(config["trainer"]["save_dir"], config["name"], config) if is_new else path
            run_study(folder, seconds)
        else:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # no folder is left without a record
            folder = make_stamped_folder(Path(config["trainer"]["save_dir"]) / config["name"]) if is_new else path
            if is_new:
                write_json(folder / "config.json", config)
            train(folder, config, seconds)
    except EspalierError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
