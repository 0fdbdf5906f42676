"""`python -m search serve`: a service that shows, starts and stops searches and trainings."""

import argparse
import logging
import os
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import config as configuration
from config.cli import positive_int
from search.serve.security import TOKEN, Session, is_loopback, read_or_make_token
from utils.errors import ConfigError, SearchError
from utils.files import folder_lock
from utils.writing.text import write_out

if TYPE_CHECKING:
    from search.serve.service import Service

SERVE = "serve"
STORAGE = ".serve"  # folder of the service in that which it serves
_PACKAGES = ("fastapi", "uvicorn")
_SECONDS_TO_CLOSE = 2

logger = logging.getLogger("espalier")


def serve_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m search serve", description="Serve the studies and runs below a folder, and start new ones."
    )
    parser.add_argument("--folder", type=Path, default=Path("saved"), help="of the studies and runs; default: saved")
    parser.add_argument(
        "--configs", type=Path, action="append", default=[], metavar="FOLDER", help="of configs that may be started"
    )
    parser.add_argument("--jobs", type=positive_int, default=1, metavar="N", help="jobs that run at once; default: 1")
    parser.add_argument("--host", default="127.0.0.1", help="address; by default only this machine reaches it")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a further name of this machine in browsers"
    )
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE.py", help="a file with your own classes")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run_serve(arguments: argparse.Namespace) -> None:
    """Serve until a signal arrives; jobs continue.

    Raises:
        ConfigError: A package is missing, a folder of configs does not exist, or the address cannot be used.
        SearchError: Another service has the folder, or its token cannot be used.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing or os.name != "posix":
        reason = "needs Linux or macOS" if os.name != "posix" else f"needs {' and '.join(missing)}"
        raise ConfigError(f"serve: {reason}. Run pip install fastapi uvicorn.")
    for folder in arguments.configs:
        if not folder.is_dir():
            raise ConfigError(f"--configs {folder}: is no folder. Name one that holds configs.")
    from search.serve.service import Service  # here, so that --help is fast

    configuration.load_plugins(arguments.plugin)
    if arguments.debug:
        logger.setLevel(logging.DEBUG)
    folder = Path(os.path.realpath(arguments.folder))
    storage = folder / STORAGE
    try:
        storage.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SearchError(f"{storage}: cannot be created ({error.strerror}). Name another --folder.") from error

    def in_use(process: str) -> SearchError:
        return SearchError(f"{storage}: process {process} serves this folder. Stop it, or use it.")

    with folder_lock(storage, in_use), _listen(arguments.host, arguments.port) as opened:
        session = Session(read_or_make_token(storage))  # one process makes it
        service = Service(
            folder,
            storage,
            configs=arguments.configs,
            num_jobs=arguments.jobs,
            plugins=_absolute(arguments.plugin),
        )
        port = opened.getsockname()[1]
        shown = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        write_out(f"Service:  http://{shown}:{port}/\nToken:    {arguments.folder / STORAGE / TOKEN}\n")
        if not is_loopback(arguments.host):
            write_out(
                f"Warning:  {arguments.host} is reached from other machines without encryption, so that others in the "
                "network can read the token. Put a server with TLS in front of it, or use a tunnel: "
                f"ssh -L {port}:localhost:{port} HOST\n"
            )
        _run(service, session, opened, arguments)


def _absolute(files: Sequence[str]) -> list[str]:
    return [str(Path(name).resolve()) for name in files]


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigError: The address cannot be used.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--host {host} --port {port}: cannot be used ({error}). Name another port.") from error


def _run(service: "Service", session: Session, opened: socket.socket, arguments: argparse.Namespace) -> None:
    import uvicorn

    from search.serve.app import build_app
    from search.serve.connections import ImpatientProtocol

    servers: list[uvicorn.Server] = []
    app = build_app(
        service,
        session,
        host=arguments.host,
        names=arguments.allow_host,
        is_closing=lambda: any(server.should_exit for server in servers),
    )
    settings = uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        server_header=False,
        http=ImpatientProtocol,
        ws="none",
        lifespan="on",
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_SECONDS_TO_CLOSE,
        limit_concurrency=200,
    )
    servers.append(uvicorn.Server(settings))
    servers[0].run(sockets=[opened])
