"""One fresh container for one command: for images without a usable `/bin/sh`."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Literal

from mlcheck.engines.base import Completed, Start
from mlcheck.engines.channel import StreamEnded
from mlcheck.engines.oci_client import Client
from mlcheck.engines.oci_container import MISSING, Attached, CannotStart, Created, new_name
from mlcheck.engines.oci_errors import engine_errors

_STEP_S = 3600.0
_SAID_BY_RUNTIME = re.compile(
    rb"\A(?:exec (?:/proc/self/fd/\d+|\S+): |.*exec user process caused: )"
    rb"(exec format error|no such file or directory|permission denied)\s*\Z"
)


def run_directly(
    client: Client,
    image: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    stdin: bytes,
    limit_s: float,
    output_limit: int,
    start: Start,
    *,
    read_only: bool = True,
    user: str | None = None,
) -> Completed:
    """Run one command as the first process of a container; see `OpenImage.run`.

    What it leaves running ends with it.

    Args:
        read_only: whether the image's files cannot be changed, for this container.
        user: in place of the image's.

    Raises:
        EngineError: the engine failed.
    """
    begun = time.monotonic()
    if any("\0" in text for text in (*argv, *env, *env.values(), cwd)):
        return _not_run(argv, 126, "embedded null byte", begun)
    options = {"stdin_open": bool(stdin), "environment": dict(env), "working_dir": cwd}
    if user is not None:
        options["user"] = user
    if not read_only and not start.network:
        # Without a network, no program finds its own server by the container's name.
        options["hostname"] = "localhost"
    container = Created(client, image, new_name(), argv, start, read_only=read_only, **options)
    output = {1: bytearray(), 2: bytearray()}
    ended: Literal["exited", "timeout", "output-limit"] = "exited"
    code = None
    with ExitStack() as stack:
        stack.callback(container.close)
        try:
            attached = container.attach(stdin=bool(stdin))
            stack.callback(attached.close)
            container.start()
        except CannotStart as error:
            return _not_run(argv, error.exit_code, str(error), begun)
        feeder = threading.Thread(target=_feed, args=(attached, stdin), daemon=True)
        feeder.start()
        stack.callback(feeder.join)
        # What it still sends goes nowhere, and the feeder ends.
        stack.callback(attached.close)
        deadline = time.monotonic() + limit_s
        with contextlib.suppress(StreamEnded):
            while ended == "exited":
                left = deadline - time.monotonic()
                if left <= 0:
                    ended = "timeout"
                    break
                for number, data in attached.receive(min(left, _STEP_S)):
                    kept = output[number]
                    if len(kept) + len(data) > output_limit:
                        ended = "output-limit"
                    kept += data[: output_limit - len(kept)]
        seconds = time.monotonic() - begun
        if ended == "exited":
            with engine_errors(client.dialect, f"tell how {argv[0]!r} ended"):
                code = int(client.wait(container.name)["StatusCode"])
    stderr = bytes(output[2])
    if code in (1, 255) and (said := _SAID_BY_RUNTIME.match(stderr)) and not output[1]:
        code = 127 if said[1].decode() in MISSING else 126
    return Completed(tuple(argv), code, bytes(output[1]), stderr, ended, seconds)


def _feed(attached: Attached, stdin: bytes) -> None:
    if stdin:
        with contextlib.suppress(StreamEnded):
            attached.send(stdin)
        attached.end_input()


def _not_run(argv: Sequence[str], code: int, why: str, begun: float) -> Completed:
    message = f"mlcheck: {argv[0]}: {why}\n".encode("utf-8", "surrogateescape")
    return Completed(tuple(argv), code, b"", message, "exited", time.monotonic() - begun)
