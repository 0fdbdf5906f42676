"""A service in this process: with a client of its application, or listening on a free port."""

import socket
import sys
import threading
from contextlib import contextmanager

import uvicorn
from fastapi.testclient import TestClient

from search.serve.app import build_app
from search.serve.connections import ImpatientProtocol
from search.serve.jobs.allowed import STUDY, TRAINING
from search.serve.security import Session, read_or_make_token
from search.serve.service import Service
from tests.support.served_job import PROGRAM, make_study, write_configs

PROGRAMS = {STUDY: PROGRAM, TRAINING: PROGRAM}


def make_service(folder, configs, **options):
    """A service of a folder and its session, not opened yet."""
    storage = folder / ".serve"
    session = Session(read_or_make_token(storage))
    return Service(folder, storage, configs=[configs], programs=PROGRAMS, **options), session


@contextmanager
def client_of(folder, configs, **options):
    """A client that has the token; its service is open and starts jobs."""
    service, session = make_service(folder, configs, **options)
    app = build_app(service, session, host="127.0.0.1")
    token = (folder / ".serve/token").read_text().strip()
    with TestClient(app, base_url="http://127.0.0.1", headers={"Authorization": f"Bearer {token}"}) as client:
        client.service = service
        yield client


@contextmanager
def listening(folder, configs, **options):
    """The address of a service that listens."""
    service, session = make_service(folder, configs, **options)
    servers = []
    app = build_app(service, session, host="127.0.0.1", is_closing=lambda: servers[0].should_exit)
    with socket.create_server(("127.0.0.1", 0)) as opened:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", http=ImpatientProtocol, ws="none"))
        servers.append(server)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def prepare(folder):
    """A folder `saved` with a finished study of a table, and a folder of configs next to it."""
    configs = write_configs(folder / "configs")
    make_study(folder / "saved", configs)
    return folder / "saved", configs


def serve_on(folder, configs, num_jobs):
    """Serve until the process is killed; the first line that is printed is the address."""
    with listening(folder, configs, num_jobs=num_jobs) as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        threading.Event().wait()
