"""`mlcheck exec`: run a command in an image."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from mlcheck.cli import common
from mlcheck.engines import binds, limits
from mlcheck.engines.base import Completed, OpenImage, Start
from mlcheck.engines.sandbox import host as sandbox_host
from mlcheck.model.errors import UsageError
from mlcheck.pytest_plugin import options


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `exec`."""
    execute = commands.add_parser(
        "exec",
        help="run a command in an image as the suite does, and show its output",
        description="Run a command in an image exactly as the suite does. The exit code is the "
        "command's own, or 124 if the command exceeded its limit.",
        epilog="examples:\n  mlcheck exec ml-pyroot:alma9-python311 -- root-config --libs\n"
        "  mlcheck exec ./ml-pyroot.sif --limit 10 -- sh -c 'echo $PATH'",
    )
    common.add_image(execute)
    execute.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="DIR:TARGET",
        help="a directory of this machine that the command sees at TARGET, read-only; repeatable",
    )
    execute.add_argument(
        "--on-host",
        metavar="PREFIX",
        help="run it as on a host that has the unpacked image at /image and libraries of its "
        "own in PREFIX: with this machine's programs, read-only, in a sandbox",
    )
    options.add_limits(execute.add_argument)
    execute.add_argument("--limit", type=_seconds, default=600.0, metavar="SECONDS")
    execute.add_argument("argv", nargs="+", metavar="ARG")
    execute.set_defaults(run=_run)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise ValueError(text)
    return seconds


_seconds.__name__ = "number of seconds"  # argparse's message uses it


def _on_host(image: OpenImage, prefix: str, argv: Sequence[str], limit_s: float) -> Completed:
    if image.directory is None:
        raise UsageError(
            f"{image.ref.text} is opened by the engine {image.engine}, and --on-host needs an "
            "unpacked image.",
            "Give a directory, and no --engine.",
        )
    with sandbox_host.opened(image.directory, prefix) as host:
        return host.run(argv, limit_s=limit_s)


def _run(arguments: argparse.Namespace) -> int:
    start = Start(
        binds=binds.parse_all(arguments.bind),
        limits=limits.parse(arguments.limit_memory, arguments.limit_processes),
    )
    with common.opened(arguments, start=start) as image:
        if arguments.on_host is not None:
            done = _on_host(image, arguments.on_host, arguments.argv, arguments.limit)
        else:
            stdin = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
            done = image.run(arguments.argv, limit_s=arguments.limit, stdin=stdin)
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(done.stderr)
    if done.exit_code is None:
        common.progress(
            f"the command was ended by a limit ({done.ended}) after {done.seconds:.0f} s"
        )
        return 124
    return done.exit_code
