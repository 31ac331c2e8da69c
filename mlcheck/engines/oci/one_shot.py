"""One fresh container for one command: for images without a usable `/bin/sh`."""

from __future__ import annotations

import contextlib
import functools
import re
import time
from contextlib import ExitStack

from mlcheck.engines.base import Command, Completed, Start
from mlcheck.engines.oci.client import Client
from mlcheck.engines.oci.container import (
    MISSING,
    CannotStart,
    Created,
    despite_no_cgroup,
    new_name,
)
from mlcheck.engines.oci.errors import engine_errors
from mlcheck.engines.one_shot import feeding, printed

_SAID_BY_RUNTIME = re.compile(
    rb"\A(?:exec (?:/proc/self/fd/\d+|\S+): |.*exec user process caused: )"
    rb"(exec format error|no such file or directory|permission denied)\s*\Z"
)


def run_alone(
    client: Client, image: str, command: Command, start: Start, *, read_only: bool = True
) -> Completed:
    """Run one command as the first process of a container; see `OpenImage.run`.

    Processes that it leaves running end with it.

    Args:
        read_only: True if the image's files cannot be changed, for this container.

    Raises:
        EngineError: the engine failed.
    """
    run = functools.partial(_run, client, image, command, read_only)
    return despite_no_cgroup(client, start, run)


def _run(client: Client, image: str, command: Command, read_only: bool, start: Start) -> Completed:
    begun = time.monotonic()
    argv, stdin = command.argv, command.stdin
    options = {
        "stdin_open": bool(stdin),
        "environment": dict(command.env),
        "working_dir": command.cwd,
    }
    if command.user is not None:
        options["user"] = command.user
    if not read_only and not start.network:
        # Without a network, no program can resolve its own host name otherwise.
        options["hostname"] = "localhost"
    try:
        container = Created(client, image, new_name(), argv, start, read_only=read_only, **options)
    except CannotStart as error:
        return command.not_run(error.exit_code, str(error), time.monotonic() - begun)
    code = None
    with ExitStack() as stack:
        stack.callback(container.close)
        try:
            attached = container.attach(stdin=bool(stdin))
            stack.callback(attached.close)
            container.start()
        except CannotStart as error:
            return command.not_run(error.exit_code, str(error), time.monotonic() - begun)
        with feeding(attached, stdin) if stdin else contextlib.nullcontext():
            ended, stdout, stderr = printed(attached, command, time.monotonic())
            seconds = time.monotonic() - begun
            if ended == "exited":
                with engine_errors(client.dialect, f"tell how {argv[0]!r} ended"):
                    code = int(client.wait(container.name)["StatusCode"])
    if code in (1, 255) and (said := _SAID_BY_RUNTIME.match(stderr)) and not stdout:
        code = 127 if said[1].decode() in MISSING else 126
    return Completed(argv, code, stdout, stderr, ended, seconds)
