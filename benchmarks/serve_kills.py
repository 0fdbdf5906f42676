"""Start, stop and resume studies and trainings through a service that is killed, and look for what is lost or double.

`python benchmarks/serve_kills.py --requests 200 --kills 10 [--jobs 2] [--seed 0]`: two clients send requests in random
order, again with the same `Idempotency-Key` if the service dies before its answer; it is killed by SIGKILL in between
and started again. The jobs are the stand-ins of the tests: real studies of a table, and trainings that only write
their rows. In the end everything is resumed until it is done. Each request must have made one job, each job that was
started one folder, each journal must have every event once, and each training every epoch.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.study.folders import find_studies
from search.study.journal import JOURNAL, read_events
from tests.support.served import serve_on
from tests.support.served_job import write_configs

Json = dict[str, Any]
SECONDS = 0.05  # for each event of a study, and epoch of a training
EPOCHS = 60


class Server:
    """The service as a process.

    Args:
        folder: Of the studies.
        configs: That may be started.
        jobs: At once.
    """

    def __init__(self, folder: Path, configs: Path, jobs: int) -> None:
        self.words = [sys.executable, __file__, "--serve", str(folder), str(configs), str(jobs)]
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "it did not start"

    def kill(self) -> None:
        """Kill it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, path: str, body: Json | None = None, key: str | None = None) -> tuple[int, Json]:
        """Send a request until it is answered; return status and answer."""
        token = (self.folder / ".serve/token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        headers |= {} if key is None else {"Idempotency-Key": key}
        data = None if body is None else json.dumps(body).encode()
        while True:
            request = urllib.request.Request(self.url + path, data, headers)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)
            except (OSError, ValueError):
                time.sleep(0.1)  # it was killed


def use(server: Server, chance: random.Random, count: int, made: list[tuple[str, str]], told: Counter[str]) -> None:
    """Send requests in random order, as a client.

    Args:
        server: The service.
        chance: Source of the order.
        count: Number of requests.
        made: Gets key and id of each job that was ordered.
        told: Counts the requests by kind and status.
    """
    while count:
        found = server.ask("/api/overview")[1]
        busy = [job for job in found["jobs"] if job["state"] in ("waiting", "running")]
        running = [job for job in busy if job["state"] == "running"]
        idle = [each for each in found["studies"] + found["runs"] if each["state"] == "unfinished"]
        action = chance.choice(["start", "stop", "resume"])
        key = uuid.uuid4().hex
        if action == "start":
            kind, config = chance.choice([("studies", "sweep"), ("runs", "plain")])
            status, answer = server.ask(f"/api/{kind}", {"config": f"configs/{config}.json"}, key)
        elif action == "stop" and (running or (busy and chance.random() < 0.1)):
            status, answer = server.ask(f"/api/jobs/{chance.choice(running or busy)['id']}/stop", {})
        elif action == "resume" and idle:
            each = chance.choice(idle)
            kind = "studies" if "num_samples" in each else "runs"
            status, answer = server.ask(f"/api/{kind}/{each['id']}/resume", {}, key)
        else:
            time.sleep(0.05)
            continue
        told[f"{action} {status}"] += 1
        # A study that began to run meanwhile gets a command; every start is answered with a job.
        if status == 202 and (action == "start" or (action == "resume" and "job" in answer)):
            made.append((key, answer["job"]["id"]))
        count -= 1
        time.sleep(chance.random() * 0.3)


def use_all(server: Server, seed: int, count: int, made: list[tuple[str, str]], told: Counter[str]) -> list[str]:
    """Send requests as two clients at once, and return their faults when both have ended.

    Args:
        server: The service.
        seed: Of the order.
        count: Number of requests of each.
        made: See `use`.
        told: See `use`.
    """
    with ThreadPoolExecutor(2) as pool:
        chances = [random.Random(f"{seed} {number}") for number in range(2)]
        clients = [pool.submit(use, server, chance, count, made, told) for chance in chances]
        faults = [f"a client ended by {client.exception()!r}" for client in clients if client.exception() is not None]
    if sum(told.values()) != 2 * count:
        faults.append(f"{sum(told.values())} requests were answered, not {2 * count}")
    faults += [f"{number} x {each}" for each, number in told.items() if each.split()[1] not in ("202", "409")]
    return faults


def finish(server: Server) -> list[Json]:
    """Resume what is unfinished until all is done, and return all jobs."""
    while True:
        found = server.ask("/api/overview")[1]
        if not any(job["state"] in ("waiting", "running") for job in found["jobs"]):
            # A study whose numbers are being read may be done already: then its job ends at once.
            idle = [each for each in found["studies"] + found["runs"] if each["state"] != "done"]
            if not idle:
                break
            for each in idle:
                server.ask(f"/api/{'studies' if 'num_samples' in each else 'runs'}/{each['id']}/resume", {})
        time.sleep(0.3)
    jobs = sorted((server.folder / ".serve/jobs").iterdir())
    return [server.ask(f"/api/jobs/{path.name}")[1]["job"] for path in jobs if not path.name.startswith(".")]


def faults_of(folder: Path, jobs: list[Json], made: list[tuple[str, str]]) -> list[str]:
    """Return what was lost or is double."""
    faults = [
        f"job {job['id']} is {job['state']}: {job['reason']}" for job in jobs if job["state"] in ("failed", "lost")
    ]
    known = Counter(json.loads(path.read_text()).get("key") for path in (folder / ".serve/jobs").glob("*/job.json"))
    faults += [f"key {key} made {count} jobs" for key, count in known.items() if key is not None and count > 1]
    ids = {job["id"] for job in jobs}
    faults += [f"job {job} of key {key} is lost" for key, job in made if job not in ids or known[key] != 1]
    for kind, name in (("study", "sweep"), ("training", "plain")):
        starts = [job for job in jobs if (job["kind"], job["action"]) == (kind, "start") and job["started"] is not None]
        folders = {job["study"] or job["run"] for job in starts} - {None}
        places = [path for path in (folder / name).glob("*") if path.is_dir()]
        # A job that was stopped while its process began has no folder.
        if not len(folders) == len(places) <= len(starts):
            faults.append(f"{kind}: {len(starts)} starts, {len(folders)} targets, {len(places)} folders")
    for study in find_studies(folder):
        events = list(read_events(study / JOURNAL))
        reports = Counter((event.candidate, event.data["epoch"]) for event in events if event.kind == "report")
        drawn = [event.candidate for event in events if event.kind == "drawn" and event.candidate is not None]
        if events[-1].name != "study.done" or set(reports.values()) != {1} or sorted(drawn) != list(range(6)):
            faults.append(f"{study}: {len(drawn)} drawn, reports {reports}, last event {events[-1].name}")
    for run in (folder / "plain").glob("*"):
        path = run / "metrics.csv"
        rows = path.read_text().splitlines()[1:] if path.exists() else []
        epochs = [line.partition(",")[0] for line in rows]
        if epochs != [str(number) for number in range(1, EPOCHS + 1)]:
            faults.append(f"{run}: epochs {epochs}")
    return faults


def main() -> int:
    """Run the experiment."""
    if sys.argv[1:2] == ["--serve"]:
        serve_on(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    made: list[tuple[str, str]] = []
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "saved"
        configs = write_configs(Path(place) / "configs", seconds=SECONDS, epochs=EPOCHS)
        server = Server(folder, configs, options.jobs)
        server.start()
        num_kills = 0
        with ThreadPoolExecutor(1) as pool:
            clients = pool.submit(use_all, server, options.seed, options.requests // 2, made, told)
            while not clients.done() or num_kills < options.kills:
                time.sleep(chance.uniform(0.5, 6.0))
                if num_kills < options.kills:
                    server.kill()
                    num_kills += 1
                    server.start()
        jobs = finish(server)
        faults = clients.result() + faults_of(folder, jobs, made)
        with suppress(OSError):
            server.kill()
    print(f"{sum(told.values())} requests, the service killed {num_kills} times, {len(jobs)} jobs: {dict(told)}")
    print(f"states of jobs: {dict(Counter(job['state'] for job in jobs))}")
    print("\n".join(faults) or "nothing is lost, nothing double")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
