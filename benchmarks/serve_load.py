"""The service with many studies: seconds of a page load, memory, and what it costs a search that runs next to it.

`python benchmarks/serve_load.py [--studies 50] [--candidates 200] [--loads 20] [--pairs 0]`: copies of a study of a
table with that many candidates are served by a separate process. A page load is the page with all files that it
names and the overview, each by a new connection. Memory is the largest that the process had, after facts,
figures and candidates of every study were asked for. With `--pairs`, a search of a table runs alternately with the
service, to which a page listens, and without it.
"""

import argparse
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.study.folders import create_study_folder
from tests.support.served_job import run_study, write_configs
from utils.files import write_json


def make_table(path: Path, rows: int, epochs: int) -> None:
    """Write a table of so many configurations, whose results rise with the epochs."""
    names = [f"val_accuracy_{epoch}" for epoch in range(1, epochs + 1)]
    lines = [",".join(["optimizer.args.lr", "arch.args.width", *names, "epoch_seconds"])]
    for row in range(rows):
        best = 0.5 + 0.4 * ((row * 7919) % rows) / rows
        values = [f"{best * (1 - 0.5 / epoch):.6f}" for epoch in range(1, epochs + 1)]
        lines.append(",".join([f"{0.0001 * (1 + row):.6g}", str(8 + row % 13), *values, "1.5"]))
    path.write_text("\n".join(lines) + "\n")


def make_studies(folder: Path, count: int, candidates: int) -> Path:
    """Make so many studies, copies of one, and return the config."""
    configs = write_configs(folder / "configs")
    make_table(configs / "sweep.csv", candidates, 9)
    config = json.loads((configs / "sweep.json").read_text())
    config["trainer"]["epochs"] = 9
    config["search"] |= {"num_samples": candidates, "sampler": "random"}
    write_json(configs / "sweep.json", config)
    first: Path = create_study_folder(str(folder / "saved"), "sweep0", config)
    run_study(first)
    for number in range(1, count):
        shutil.copytree(first, folder / f"saved/sweep{number}" / first.name)
    return Path(configs / "sweep.json")


class Client:
    """A client of the service.

    Args:
        url: Of the service.
        token: Of the service.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> bytes:
        """Return the answer to a request."""
        with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=self.headers)) as answer:
            content: bytes = answer.read()
            return content

    def load_page(self) -> float:
        """Return the seconds of a page load."""
        began = time.perf_counter()
        page = self.get("/").decode()
        for name in re.findall(r'(?:src|href)="(/?static/[^"]+)"', page):
            self.get(f"/{name.lstrip('/')}")
        self.get("/api/overview")
        return time.perf_counter() - began


def memory_mb(process: int) -> tuple[float, float]:
    """Return present and largest memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    present, largest = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "VmHWM"))  # type: ignore[index]
    return present / 1024, largest / 1024


def processor_seconds(process: int) -> float:
    """Return the seconds of the processor that a process has used."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


def search_seconds(config: Path, saved: Path) -> float:
    """Return the seconds of a search of a table."""
    content = json.loads(config.read_text()) | {"name": "timed"}
    study = create_study_folder(str(saved), "timed", content)
    began = time.perf_counter()
    run_study(study)
    return time.perf_counter() - began


def compare(config: Path, saved: Path, process: "subprocess.Popen[str]", pairs: int) -> None:
    """Time a search with the service and without it, alternately."""
    ratios = []
    for _ in range(pairs):
        found = {}
        for is_served in (True, False):
            process.send_signal(signal.SIGCONT if is_served else signal.SIGSTOP)
            found[is_served] = search_seconds(config, saved)
        ratios.append(found[True] / found[False])
    process.send_signal(signal.SIGCONT)
    print(
        f"a search with the service and without it, {pairs} pairs: median of the ratios {statistics.median(ratios):.4f}"
    )


def main() -> int:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--loads", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        saved = Path(place) / "saved"
        config = make_studies(Path(place), options.studies, options.candidates)
        words = [sys.executable, str(Path(__file__).with_name("serve_kills.py")), "--serve"]
        process = subprocess.Popen([*words, str(saved), str(config.parent), "1"], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            client = Client(process.stdout.readline().strip(), (saved / ".serve/token").read_text().strip())
            print(f"first page load, before any study is read: {client.load_page():.3f} s")
            began = time.perf_counter()
            while not all(each["is_current"] for each in json.loads(client.get("/api/studies"))["studies"]):
                time.sleep(0.2)
            print(f"summaries of {options.studies} studies: {time.perf_counter() - began:.1f} s")
            seconds = sorted(client.load_page() for _ in range(options.loads))
            print(f"page load: median {statistics.median(seconds):.3f} s, largest {seconds[-1]:.3f} s")
            for each in json.loads(client.get("/api/studies"))["studies"]:
                for part in ("", "/candidates", "/figures"):
                    client.get(f"/api/studies/{each['id']}{part}")
            present, largest = memory_mb(process.pid)
            print(f"memory after all studies were looked at: {present:.0f} MB, largest {largest:.0f} MB")
            used = processor_seconds(process.pid)
            listener = subprocess.Popen(
                ["curl", "-sN", "-H", f"Authorization: {client.headers['Authorization']}", f"{client.url}/api/events"],
                stdout=subprocess.DEVNULL,
            )
            time.sleep(10)
            share = (processor_seconds(process.pid) - used) / 10
            print(f"a page that listens while nothing changes: {share:.2%} of a processor")
            if options.pairs:
                compare(config, saved, process, options.pairs)
            listener.kill()
            listener.wait()
        finally:
            process.kill()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
