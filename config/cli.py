"""The command line: the flags that commands share, and the way a command ends."""

import argparse
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from config.loading.load import SHORT_FLAGS, load_config, refuse_run
from utils.environment import stopped_by_signals
from utils.errors import ConfigError, EspalierError, signal_name
from utils.writing.text import message_of, visible

NOT_READ = 141  # 128 and the number of SIGPIPE


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `-c`, the overrides and their short flags."""
    parser.add_argument(
        "overrides", nargs="*", metavar="path=value", help="change any value, e.g. optimizer.args.lr=0.01"
    )
    parser.add_argument("-c", "--config", metavar="FILE", help="the JSON file")
    for flag, (path, metavar, text) in SHORT_FLAGS.items():
        parser.add_argument(flag, metavar=metavar, help=f"{text} ({path})")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of every command that computes: devices, plug-ins, `--debug`."""
    parser.add_argument("-d", "--devices", "--device", metavar="0,1", help='GPUs to use, or "cpu"')
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE.py", help="a file with your own classes")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the views of an image that test.py and inference.py average: sliding windows, flips and scales."""
    parser.add_argument(
        "--window", nargs="*", type=positive_int, metavar="PIXELS", help="slide a window [HEIGHT WIDTH] over images"
    )
    parser.add_argument("--overlap", type=float, default=0.25, metavar="0..1", help="overlap of neighbouring windows")
    flips = ["horizontal", "vertical", "both"]
    parser.add_argument("--tta-flip", nargs="?", const=flips[0], choices=flips, help="average with the mirrored image")
    parser.add_argument("--tta-scales", nargs="+", type=float, default=[1.0], metavar="S", help="average over scales")


def views_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the flags of `add_view_arguments` as arguments of `Views`, without the window, which needs a config."""
    return {"overlap": arguments.overlap, "flip": arguments.tta_flip, "scales": tuple(arguments.tta_scales)}


def requested_config(
    arguments: argparse.Namespace, may_override: Callable[[str], bool] | None = None
) -> dict[str, Any] | None:
    """Load the configuration that the command line asks for; None if only a checkpoint was named.

    Args:
        arguments: The command line.
        may_override: JSON path -> whether it may be overridden in the configuration of a checkpoint; None: no path may.

    Raises:
        ConfigError: Neither a file nor a checkpoint, overrides without a file, or a run that is a search.
    """
    overrides = overrides_of(arguments)
    if arguments.config is not None:
        refuse_run(arguments.config)
        return load_config(arguments.config, overrides)
    if getattr(arguments, "resume", None) in (None, "auto", "last", "best"):
        raise ConfigError("no configuration is named. Write -c FILE, or --resume CHECKPOINT.")
    refused = [text for text in overrides if may_override is None or not may_override(text.partition("=")[0].strip())]
    if refused:
        raise ConfigError(
            f"{refused[0]}: overrides change a file, and none is named. "
            "To continue a run, write -c FILE --resume last; FILE may be the config.json of its folder."
        )
    return None


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """Return the overrides, and the short flags as overrides, in this order."""
    given = {path: getattr(arguments, flag.lstrip("-").replace("-", "_")) for flag, (path, _, _) in SHORT_FLAGS.items()}
    return [*arguments.overrides, *(f"{path}={value}" for path, value in given.items() if value is not None)]


def run_command(
    main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> int:
    """Parse the command line and run a command.

    An error that the user can repair is printed as one line, and its class gives the exit code.

    Args:
        main: The command.
        parser: Of its arguments; a flag `--debug` shows the traceback.
        argv: Arguments; None: those of the process.

    Returns:
        The exit code, 0 if all went well.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack letters of a class or file
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = parser.parse_intermixed_args(argv)  # overrides may be anywhere between the flags
    try:
        with stopped_by_signals():
            main(arguments)
        sys.stdout.flush()
    except EspalierError as error:
        if arguments.debug:
            sys.stderr.write(visible(traceback.format_exc()))
        sys.stderr.write(f"error: {message_of(error)}\n")
        return error.exit_code
    except KeyboardInterrupt as stop:
        number = getattr(stop, "signal_number", signal.SIGINT)
        sys.stderr.write(f"Interrupted by {signal_name(number)}.\n")
        return 128 + number
    except BrokenPipeError:
        try:
            sys.stdout.write("\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of the output, such as head, has ended
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
            return NOT_READ
        raise
    return 0


def positive_int(text: str) -> int:
    """Return a whole number from 1, the type of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)
